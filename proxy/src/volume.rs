//! How much has left by each route: a bound on what no scanner can read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::policy::Route;
use crate::verdict::Cause;

/// Bytes by route. A route that a reload leaves as it was keeps its count; there are as many as policies named.
#[derive(Debug, Default)]
pub struct Volumes(Mutex<HashMap<Arc<str>, u64>>);

impl Volumes {
    /// Takes the bytes off what is left, or says that there is not so much left; then nothing is taken.
    pub fn charge(&self, route: &Route, bytes: usize) -> Result<(), Cause> {
        let Some(limit) = route.max_total_bytes else {
            return Ok(());
        };
        let mut volumes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = volumes.entry(Arc::clone(&route.key)).or_default();
        let after = used.saturating_add(bytes as u64);
        if after > limit {
            return Err(Cause::Volume { limit });
        }
        *used = after;
        Ok(())
    }
}
