//! The rate that an agent's body must keep up, so that one byte a second is no way to hold a connection for ever.

use std::time::Duration;

use crate::limits;

/// How long may still be waited for a body. Each byte earns a little; what is waited is taken away. The time in which
/// the sidecar or the origin is what holds things up costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    credit: Duration,
}

impl Pace {
    pub fn new() -> Self {
        Self {
            credit: limits::BODY_GRACE,
        }
    }

    /// For the next bytes.
    pub fn patience(&self) -> Duration {
        self.credit.min(limits::BODY_IDLE)
    }

    pub fn came(&mut self, waited: Duration, bytes: usize) {
        let earned = Duration::from_secs(1)
            .saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX))
            / limits::BODY_RATE;
        self.credit = self
            .credit
            .saturating_sub(waited)
            .saturating_add(earned)
            .min(limits::BODY_IDLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds until a body that sends `bytes` each `every` is given up, or `None` within ten minutes.
    fn given_up(bytes: usize, every: Duration) -> Option<u64> {
        let mut pace = Pace::new();
        let mut time = Duration::ZERO;
        while time < Duration::from_secs(600) {
            if pace.patience() < every {
                return Some((time + pace.patience()).as_secs());
            }
            time += every;
            pace.came(every, bytes);
        }
        None
    }

    #[test]
    fn slow_bodies_end_and_steady_ones_do_not() {
        let second = Duration::from_secs(1);
        let grace = limits::BODY_GRACE.as_secs();
        for bytes in [1, 10, 100] {
            let after = given_up(bytes, second).unwrap();
            assert!((grace - 1..grace + 5).contains(&after), "{bytes}: {after}");
        }
        assert_eq!(given_up(1024, second), None);
        assert_eq!(given_up(100 * 1024, Duration::from_secs(25)), None);
        // A quick beginning earns no more than one idle time.
        let mut pace = Pace::new();
        pace.came(second, 1 << 30);
        assert_eq!(pace.patience(), limits::BODY_IDLE);
    }
}
