//! How many lines requests may write to the log. The audit drops nothing; the log may, and says how much.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits;

/// A bucket of [`limits::LOG_LINES`] a second, which holds four seconds' worth.
#[derive(Debug)]
pub struct Limiter(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    lines: f64,
    at: Instant,
    suppressed: u64,
    total: u64,
}

const FULL: f64 = limits::LOG_LINES as f64 * 4.0;

impl Default for Limiter {
    fn default() -> Self {
        Self(Mutex::new(Bucket {
            lines: FULL,
            at: Instant::now(),
            suppressed: 0,
            total: 0,
        }))
    }
}

impl Limiter {
    /// Whether a line may be written, and how many were not since the last one that was.
    pub fn admit(&self) -> Option<u64> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.duration_since(bucket.at).as_secs_f64() * f64::from(limits::LOG_LINES);
        bucket.at = now;
        bucket.lines = (bucket.lines + gained).min(FULL);
        if bucket.lines < 1.0 {
            bucket.suppressed += 1;
            bucket.total += 1;
            return None;
        }
        bucket.lines -= 1.0;
        Some(std::mem::take(&mut bucket.suppressed))
    }

    pub fn left_out(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted() {
        let limiter = Limiter::default();
        let written = (0..10_000).filter(|_| limiter.admit().is_some()).count();
        assert!((200..1000).contains(&written), "{written}");
        assert_eq!(limiter.left_out(), 10_000 - written as u64);
    }
}
