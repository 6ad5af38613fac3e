//! What stands across consecutive messages: a credential cut in two messages is in neither.
//!
//! Each message is judged and let go on its own, so of a credential that is cut in pieces the first may have left
//! when the last is recognised; that one stays. What was let go before is kept up to [`limits::ACROSS_BYTES`], and a
//! message is scanned behind it.

use detectors::{Finding, Location, Scanner};

use crate::inspect;
use crate::limits;

/// The ends of what one direction of a connection has let go, per kind of message and over all kinds: a receiver may
/// put together all of them or those of one kind.
#[derive(Default)]
pub struct Across<const KINDS: usize> {
    all: Tail,
    kinds: Kinds<KINDS>,
}

struct Kinds<const N: usize>([Tail; N]);

impl<const N: usize> Default for Kinds<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Tail::default()))
    }
}

#[derive(Default, PartialEq, Eq)]
struct Tail(Vec<u8>);

impl<const KINDS: usize> std::fmt::Debug for Across<KINDS> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It holds what the agent sent.
        f.debug_struct("Across").finish_non_exhaustive()
    }
}

impl<const KINDS: usize> Across<KINDS> {
    /// What blocks in a message only because of those before it. `kind` is `None` for one that belongs to no kind.
    pub fn judge(
        &self,
        scanner: &Scanner,
        location: &Location,
        kind: Option<usize>,
        message: &[u8],
    ) -> Vec<Finding> {
        let own = kind.and_then(|kind| self.kinds.0.get(kind));
        let mut findings = self.all.judge(scanner, location, message);
        if let Some(own) = own
            && findings.is_empty()
            && *own != self.all
        {
            findings = own.judge(scanner, location, message);
        }
        findings
    }

    /// The message was let go.
    pub fn passed(&mut self, kind: Option<usize>, message: &[u8]) {
        self.all.passed(message);
        if let Some(own) = kind.and_then(|kind| self.kinds.0.get_mut(kind)) {
            own.passed(message);
        }
    }
}

impl Tail {
    fn judge(&self, scanner: &Scanner, location: &Location, message: &[u8]) -> Vec<Finding> {
        if self.0.is_empty() || message.is_empty() {
            return Vec::new();
        }
        let cut = self.0.len() as u64;
        let ahead = message.get(..limits::ACROSS_AHEAD).unwrap_or(message);
        let joined = [&self.0[..], ahead].concat();
        let mut findings = scanner.scan(location, &joined);
        // What lies on one side of the cut was judged there. What cannot be decoded was, too: half of it is here.
        findings.retain(|finding| {
            inspect::blocks(finding)
                && finding.rule.0 != "undecodable"
                && finding.span.start < cut
                && cut < finding.span.end
        });
        findings
    }

    fn passed(&mut self, message: &[u8]) {
        let room = limits::ACROSS_BYTES;
        let kept = room.saturating_sub(message.len()).min(self.0.len());
        self.0.drain(..self.0.len() - kept);
        let begins = message.len().saturating_sub(room);
        self.0
            .extend_from_slice(message.get(begins..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"AKIAIOSFODNN7EXAMPLE"; // gitleaks:allow

    fn scanner() -> Scanner {
        Scanner::builder().token_patterns(true).build().unwrap()
    }

    #[test]
    fn a_key_cut_anywhere_is_seen_in_its_last_message() {
        let scanner = scanner();
        for cut in 1..KEY.len() {
            for (before, after) in [("", ""), ("the key is ", " and more"), ("k=", "\n")] {
                let first = [before.as_bytes(), &KEY[..cut]].concat();
                let second = [&KEY[cut..], after.as_bytes()].concat();
                let mut across = Across::<2>::default();
                across.passed(Some(0), &first);
                let found = across.judge(&scanner, &Location::Body, Some(0), &second);
                assert_eq!(found.len(), 1, "cut at {cut}");
                // Between them another kind of message that a receiver would read apart.
                across.passed(Some(1), b"0123 binary 456");
                assert_eq!(
                    across
                        .judge(&scanner, &Location::Body, Some(0), &second)
                        .len(),
                    1
                );
                assert!(
                    across
                        .judge(&scanner, &Location::Body, Some(1), &second)
                        .is_empty()
                );
            }
        }
    }

    #[test]
    fn a_character_a_message() {
        let scanner = scanner();
        let mut across = Across::<1>::default();
        across.passed(Some(0), &[b' '; 3 * limits::ACROSS_BYTES]);
        let mut stopped = 0;
        for byte in KEY {
            if across
                .judge(&scanner, &Location::Body, Some(0), &[*byte])
                .is_empty()
            {
                across.passed(Some(0), &[*byte]);
            } else {
                stopped += 1;
            }
        }
        assert_eq!(stopped, 1);
        assert_eq!(across.all.0.len(), limits::ACROSS_BYTES);
    }

    #[test]
    fn what_lies_on_one_side_is_not_told_again() {
        let scanner = scanner();
        let mut across = Across::<1>::default();
        let key = [b"as approved: ", KEY, b" "].concat();
        across.passed(Some(0), &key);
        assert!(
            across
                .judge(&scanner, &Location::Body, Some(0), b"next")
                .is_empty()
        );
        assert!(
            across
                .judge(&scanner, &Location::Body, Some(0), &key)
                .is_empty()
        );
    }
}
