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
/// So many characters are looked at, at every [`STRIDE`]th place: of any eight in a row some gram begins at one.
const GRAM: usize = 4;
const STRIDE: usize = WINDOW - GRAM + 1;
/// Grams that are asked for at once: one question for all of them, which nearly always is answered with no.
const ROW: usize = 8 * STRIDE;

/// Which characters of which secrets.
pub type Found = BTreeSet<(usize, usize)>;

#[derive(Default)]
pub struct Pieces {
    names: Vec<(String, usize)>,
    windows: HashMap<u64, Vec<(usize, usize)>>,
    /// Which grams stand in a window, by hash; most text is past here after one look.
    grams: Filter,
    /// Which windows there are.
    filter: Filter,
    left: Mutex<Found>,
}

/// A set of hashes of 16 bits.
struct Filter(Box<[u64; 1 << 10]>);

impl Default for Filter {
    fn default() -> Self {
        Self(Box::new([0; 1 << 10]))
    }
}

impl Filter {
    fn insert(&mut self, hash: u16) {
        if let Some(word) = self.0.get_mut(usize::from(hash >> 6)) {
            *word |= 1 << (hash & 63);
        }
    }

    /// 1 where it may hold the hash, else 0.
    fn bit(&self, hash: u16) -> u64 {
        let word = self.0.get(usize::from(hash >> 6)).copied();
        word.unwrap_or_default() >> (hash & 63) & 1
    }

    fn may_hold(&self, hash: u16) -> bool {
        self.bit(hash) != 0
    }
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
            for (at, window) in bytes.windows(WINDOW).enumerate() {
                if !is_distinct(window) {
                    continue;
                }
                let number = number(window);
                pieces.filter.insert(hash(number));
                for gram in window.windows(GRAM) {
                    if let Some(gram) = gram.first_chunk() {
                        pieces.grams.insert(gram_hash(*gram));
                    }
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
        let (rows, rest) = text.as_chunks::<ROW>();
        for (at, row) in rows.iter().enumerate() {
            let (steps, _) = row.as_chunks::<STRIDE>();
            let any = steps.iter().fold(0, |any, [one, two, three, four, _]| {
                any | self.grams.bit(gram_hash([*one, *two, *three, *four]))
            });
            if any != 0 {
                self.look_in(row, text, at * ROW, found);
            }
        }
        self.look_in(rest, text, text.len() - rest.len(), found);
    }

    pub fn any_in(&self, text: &[u8]) -> bool {
        let mut found = Found::new();
        self.find(text, &mut found);
        !found.is_empty()
    }

    /// The grams of a part of the text, one by one.
    fn look_in(&self, part: &[u8], text: &[u8], from: usize, found: &mut Found) {
        for (at, step) in part.chunks(STRIDE).enumerate() {
            if let Some(gram) = step.first_chunk()
                && self.grams.may_hold(gram_hash(*gram))
            {
                self.look(text, from + at * STRIDE, found);
            }
        }
    }

    /// The windows that the gram at `at` may stand in.
    #[cold]
    fn look(&self, text: &[u8], at: usize, found: &mut Found) {
        for start in at.saturating_sub(WINDOW - GRAM)..=at {
            let Some(window) = text.get(start..start + WINDOW) else {
                break;
            };
            let number = number(window);
            if !self.filter.may_hold(hash(number)) {
                continue;
            }
            for (secret, start) in self.windows.get(&number).into_iter().flatten() {
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

    /// All but the field with this name.
    pub fn find_in_head(
        &self,
        head: &RequestHead,
        but: Option<&[u8]>,
        values: &[&[u8]],
        found: &mut Found,
    ) {
        if self.windows.is_empty() {
            return;
        }
        self.find_beside(&head.target, values, found);
        let fields = head.headers.iter();
        for (name, value) in
            fields.filter(|(name, _)| but.is_none_or(|but| !but.eq_ignore_ascii_case(name)))
        {
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

fn hash(number: u64) -> u16 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
}

fn gram_hash(gram: [u8; GRAM]) -> u16 {
    (u32::from_le_bytes(gram).wrapping_mul(0x9e37_79b1) >> 16) as u16
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

    /// At whatever place, by itself or with anything around it.
    #[test]
    fn eight_characters_are_found_wherever_they_stand() {
        let secret = "9f3cA7e1b2D4c6080aE5f7b9d3c1e2a4"; // gitleaks:allow
        let pieces = pieces(secret);
        for start in 0..=secret.len() - WINDOW {
            let piece = secret.get(start..start + WINDOW).unwrap();
            for before in (0..13).chain(30..50) {
                for after in 0..6 {
                    let text = format!("{:.<before$}{piece}{:.<after$}", "", "");
                    let mut found = Found::new();
                    pieces.find(text.as_bytes(), &mut found);
                    let expected: Found = (start..start + WINDOW).map(|at| (0, at)).collect();
                    assert_eq!(found, expected, "{text}");
                }
            }
        }
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
