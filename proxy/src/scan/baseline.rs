//! A baseline: the findings of an earlier report, which are known and not reported again.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;

use super::ScanError;
use super::entry::Entry;

#[derive(Debug, Default)]
pub(super) struct Baseline(HashSet<String>);

/// What is read of an entry; the rest is for people.
#[derive(Debug, Deserialize)]
struct Listed {
    fingerprint: String,
}

impl Baseline {
    pub(super) fn read(path: &Path) -> Result<Self, ScanError> {
        let wrong = |reason: String| ScanError::Baseline {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        // serde's message may repeat the text, which is anybody's.
        let listed: Vec<Listed> = serde_json::from_slice(&text)
            .map_err(|error| wrong(super::escape::text(&error.to_string())))?;
        Ok(Self(
            listed.into_iter().map(|entry| entry.fingerprint).collect(),
        ))
    }

    /// Returns how many it removed. A structural finding says that there is more than is listed, so it stays.
    pub(super) fn remove_from(&self, entries: &mut Vec<Entry>) -> u64 {
        let before = entries.len();
        entries.retain(|entry| entry.structural || !self.0.contains(&entry.fingerprint));
        (before - entries.len()) as u64
    }
}
