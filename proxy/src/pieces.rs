//! A memory of known secrets that leave in pieces too short for the detectors, over any number of requests to any host.
//!
//! The detectors find fifteen characters of a secret in a row. Here eight count, and add up: once half of a secret has
//! left, or would with this request, nothing with a piece of it leaves any more. Eight characters that stand in
//! ordinary text by chance (a word, a number) do not count. What is encoded, or cut finer, is not seen.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use crate::message::RequestHead;
use crate::secrets::Secrets;
use crate::verdict::Cause;

const WINDOW: usize = 8;
/// A shorter secret's half would be found by chance; the detectors find any fifteen of it.
const SHORTEST: usize = 16;
const FILTER: usize = 1 << 16;

/// Which characters of which secrets.
pub type Found = BTreeSet<(usize, usize)>;

#[derive(Default)]
pub struct Pieces {
    names: Vec<(String, usize)>,
    windows: HashMap<u64, Vec<(usize, usize)>>,
    /// Whether any window has this hash; most text is past here after one look.
    filter: Vec<bool>,
    left: Mutex<Found>,
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces")
            .field("secrets", &self.names.len())
            .finish_non_exhaustive()
    }
}

impl Pieces {
    pub fn new(secrets: &Secrets) -> Self {
        let mut pieces = Self::default();
        for (name, value) in secrets.sensitive() {
            let bytes = value.expose().as_bytes();
            if bytes.len() < SHORTEST {
                continue;
            }
            let secret = pieces.names.len();
            pieces.names.push((name.to_owned(), bytes.len()));
            pieces.filter.resize(FILTER, false);
            for (at, window) in bytes.windows(WINDOW).enumerate() {
                if !is_distinct(window) {
                    continue;
                }
                let number = number(window);
                if let Some(slot) = pieces.filter.get_mut(slot(number)) {
                    *slot = true;
                }
                pieces.windows.entry(number).or_default().push((secret, at));
            }
        }
        pieces
    }

    /// There is no secret that could leave in pieces.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Adds the pieces in a text.
    pub fn find(&self, text: &[u8], found: &mut Found) {
        if self.windows.is_empty() {
            return;
        }
        let mut last = 0u64;
        for (at, byte) in text.iter().enumerate() {
            last = last << 8 | u64::from(*byte);
            if at + 1 < WINDOW || !self.filter.get(slot(last)).copied().unwrap_or(true) {
                continue;
            }
            for (secret, start) in self.windows.get(&last).into_iter().flatten() {
                found.extend((*start..start + WINDOW).map(|character| (*secret, character)));
            }
        }
    }

    /// As `find`, in what is left of a text without these values.
    pub fn find_beside(&self, text: &[u8], values: &[&[u8]], found: &mut Found) {
        let Some((value, others)) = values.split_first() else {
            return self.find(text, found);
        };
        let mut rest = text;
        while let Some(at) = memchr::memmem::find(rest, value) {
            let (before, after) = rest.split_at(at);
            self.find_beside(before, others, found);
            rest = after.get(value.len()..).unwrap_or_default();
        }
        self.find_beside(rest, others, found);
    }

    pub fn find_in_head(&self, head: &RequestHead, values: &[&[u8]], found: &mut Found) {
        if self.windows.is_empty() {
            return;
        }
        self.find_beside(&head.target, values, found);
        for (name, value) in head.headers.iter() {
            self.find(name, found);
            self.find_beside(value, values, found);
        }
    }

    /// Remembers what is about to leave, unless it would be too much.
    pub fn release(&self, found: &Found) -> Result<(), Cause> {
        if found.is_empty() {
            return Ok(());
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let secrets: BTreeSet<usize> = found.iter().map(|(secret, _)| *secret).collect();
        for secret in secrets {
            let Some((name, length)) = self.names.get(secret) else {
                continue;
            };
            let of = |set: &Found| set.range((secret, 0)..(secret + 1, 0)).copied().collect();
            let before: Found = of(&left);
            let after = before.union(&of(found)).count();
            if after >= (length / 2).max(SHORTEST) {
                return Err(Cause::Pieces(name.clone()));
            }
        }
        left.extend(found.iter().copied());
        Ok(())
    }
}

fn number(window: &[u8]) -> u64 {
    window
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn slot(number: u64) -> usize {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize
}

/// Neither a word nor a number nor a date: three kinds of characters, or letters and digits well mixed.
fn is_distinct(window: &[u8]) -> bool {
    let count = |of: fn(&u8) -> bool| window.iter().filter(|byte| of(byte)).count();
    let (lower, upper, digits) = (
        count(u8::is_ascii_lowercase),
        count(u8::is_ascii_uppercase),
        count(u8::is_ascii_digit),
    );
    let other = window.len() - lower - upper - digits;
    let kinds = [lower, upper, digits, other]
        .iter()
        .filter(|count| **count > 0)
        .count();
    kinds >= 3 || (digits >= 2 && lower + upper >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(value: &str) -> Pieces {
        let variables = [("EGRESS_TOKEN_A".to_owned(), value.to_owned())];
        Pieces::new(&Secrets::from_environment(variables))
    }

    fn send(pieces: &Pieces, text: &str) -> bool {
        let mut found = Found::new();
        pieces.find(text.as_bytes(), &mut found);
        pieces.release(&found).is_ok()
    }

    #[test]
    fn pieces_add_up() {
        let secret = "9f3cA7e1b2D4c6080aE5f7b9d3c1e2a4"; // gitleaks:allow
        let pieces = pieces(secret);
        let part = |from: usize, to: usize| secret.get(from..to).unwrap();
        assert!(send(&pieces, &format!("a={}&b=1", part(0, 9))));
        // The same again is no more of it.
        for _ in 0..100 {
            assert!(send(&pieces, &format!("x {}", part(0, 9))));
        }
        assert!(!send(&pieces, part(20, 30)));
        // What was refused has not left.
        assert!(!send(&pieces, part(20, 30)));
        assert!(send(&pieces, "nothing of it"));
        assert!(send(&pieces, part(0, 8)));
    }

    #[test]
    fn ordinary_text_is_no_piece() {
        let pieces = pieces("correct-horse-battery-staple-2026");
        for word in [
            "correct-horse",
            "-battery-",
            "-staple-",
            "correct",
            "horse-battery",
        ] {
            assert!(send(&pieces, word), "{word}");
        }
        assert!(!format!("{pieces:?}").contains("horse"));
    }
}
