//! A scanner with a memory for short texts in which it found nothing: an agent names the same host, methods, paths and
//! fields in every request, most often its whole head is the same, and a verdict on a text does not change.

use std::ops::Deref;
use std::sync::Arc;

use detectors::{Finding, Location, Scanner};
use quick_cache::sync::Cache;

use crate::limits;
use crate::pieces::Pieces;

/// A clone is a reference count.
#[derive(Clone, Debug)]
pub struct Judge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    scanner: Scanner,
    clean: Cache<Box<[u8]>, Clean>,
    /// Heads in which nothing at all was found, nor any short piece of a secret.
    heads: Cache<Box<[u8]>, ()>,
    pieces: Arc<Pieces>,
}

/// How a text was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Clean {
    AsItIs,
    InEitherCase,
}

impl Judge {
    pub fn new(scanner: Scanner, pieces: Arc<Pieces>) -> Self {
        Self(Arc::new(Inner {
            scanner,
            clean: Cache::new(limits::CLEAN_TEXTS),
            heads: Cache::new(limits::CLEAN_HEADS),
            pieces,
        }))
    }

    /// Whether nothing was found in this head when it came before, not even a short piece of a secret. A text that stands for another head is another text.
    pub fn knows_head(&self, head: &[u8]) -> bool {
        head.len() <= limits::CLEAN_HEAD_BYTES && self.0.heads.get(head).is_some()
    }

    pub fn remember_head(&self, head: &[u8]) {
        if head.len() <= limits::CLEAN_HEAD_BYTES && !self.0.pieces.any_in(head) {
            self.0.heads.insert(head.into(), ());
        }
    }

    pub fn is_clean(&self, raw: &[u8]) -> bool {
        self.remembered(raw, Clean::AsItIs, |scanner| {
            scanner.scan(&Location::Body, raw).is_empty()
        })
    }

    /// As [`caseless`] sees it.
    pub fn is_clean_in_either_case(&self, raw: &[u8]) -> bool {
        self.remembered(raw, Clean::InEitherCase, |scanner| {
            caseless(scanner, &Location::Host, raw).is_empty()
        })
    }

    fn remembered(&self, raw: &[u8], look: Clean, is_clean: impl Fn(&Scanner) -> bool) -> bool {
        if raw.is_empty() || self.0.clean.get(raw).is_some_and(|seen| seen >= look) {
            return true;
        }
        let clean = is_clean(&self.0.scanner);
        if clean && raw.len() <= limits::CLEAN_BYTES {
            self.0.clean.insert(raw.into(), look);
        }
        clean
    }
}

impl Deref for Judge {
    type Target = Scanner;

    fn deref(&self) -> &Scanner {
        &self.0.scanner
    }
}

/// Scans what means the same in either case, host and header names: HTTP/2 and DNS write them in lower case, and a
/// token of capitals and digits survives that. (Known secrets are found in either case anywhere.)
pub fn caseless(scanner: &Scanner, location: &Location, raw: &[u8]) -> Vec<Finding> {
    let mut findings = scanner.scan(location, raw);
    if findings.is_empty() && raw.iter().any(u8::is_ascii_lowercase) {
        findings = scanner.scan(location, &raw.to_ascii_uppercase());
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_clean_the_second_time_as_it_was_the_first() {
        let scanner = Scanner::builder().token_patterns(true).build().unwrap();
        let judge = Judge::new(scanner, Arc::default());
        let key = b"akiaiosfodnn7example"; // gitleaks:allow
        for _ in 0..3 {
            assert!(judge.is_clean(b"/v1/messages"));
            assert!(judge.is_clean_in_either_case(b"api.example.com"));
            // Looked at as it is, it is clean; that says nothing of the other case.
            assert!(judge.is_clean(key));
            assert!(!judge.is_clean_in_either_case(key));
            assert!(!judge.is_clean(&key.to_ascii_uppercase()));
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let judge = Judge::new(Scanner::builder().build().unwrap(), Arc::default());
        for number in 0..limits::CLEAN_TEXTS * 4 {
            assert!(judge.is_clean(format!("/{number}").as_bytes()));
        }
        assert!(judge.0.clean.len() <= limits::CLEAN_TEXTS);
        for number in 0..limits::CLEAN_HEADS * 4 {
            judge.remember_head(format!("h\nGET\n/{number}\n").as_bytes());
        }
        assert!(judge.0.heads.len() <= limits::CLEAN_HEADS);
        judge.remember_head(&vec![b'a'; limits::CLEAN_HEAD_BYTES + 1]);
        assert!(!judge.knows_head(&vec![b'a'; limits::CLEAN_HEAD_BYTES + 1]));
        assert!(judge.is_clean(&vec![b'a'; limits::CLEAN_BYTES + 1]));
        assert!(
            judge
                .0
                .clean
                .get(&*vec![b'a'; limits::CLEAN_BYTES + 1])
                .is_none()
        );
    }
}
