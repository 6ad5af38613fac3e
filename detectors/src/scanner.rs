//! The front door: [`Scanner`] and its builder.

use std::sync::Arc;

use crate::finding::{Finding, Location};
use crate::known::{KnownIndex, KnownSecret};
use crate::stream::Stream;
use crate::tokens::TokenEngine;
use crate::window::{BLOCK, Engines, History, LOOK_AHEAD, windows};

/// A set of detectors, built once and shared by every connection; a clone is a reference count.
///
/// Time is linear in the input. Each byte lies in at most two windows if no known secret is huge; a window is
/// read plain, and those regions of it that are escaped, dressed or wrapped are read through at most 24 decoded
/// views, none of which is longer than the region.
#[derive(Clone, Debug)]
pub struct Scanner {
    engines: Arc<Engines>,
}

impl Scanner {
    /// Everything off; turn on what a route asks for.
    pub fn builder() -> ScannerBuilder {
        ScannerBuilder::default()
    }

    /// Scans a whole input: a [`Stream`] with one chunk, without the copy.
    ///
    /// Clean input without non-ASCII bytes or escapes is scanned in place and allocates nothing.
    pub fn scan(&self, location: &Location, input: &[u8]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut history = History::default();
        for window in windows(input, self.engines.look_ahead) {
            self.engines
                .scan_window(location, window, &mut history, &mut findings);
        }
        findings
    }

    /// A scan of an input that arrives in pieces.
    pub fn stream(&self, location: Location) -> Stream {
        Stream::new(Arc::clone(&self.engines), location)
    }

    /// The most bytes by which [`Stream::released`] can lag behind what was pushed: 80 KiB, and more
    /// only when a known secret's longest encoding is longer than 8 KiB.
    pub fn look_behind(&self) -> usize {
        BLOCK + self.engines.look_ahead
    }
}

/// Chooses the detectors of a [`Scanner`].
#[derive(Debug, Default)]
pub struct ScannerBuilder {
    token_patterns: bool,
    known_secrets: Vec<KnownSecret>,
    entropy: bool,
}

impl ScannerBuilder {
    /// The shapes of [`TOKEN_RULES`](crate::TOKEN_RULES).
    pub fn token_patterns(mut self, on: bool) -> Self {
        self.token_patterns = on;
        self
    }

    /// Values that must not leave, in any encoding.
    pub fn known_secrets(mut self, secrets: Vec<KnownSecret>) -> Self {
        self.known_secrets = secrets;
        self
    }

    /// Warns of any 64 bytes of more than 5.5 bits each. It names no credential, hence never blocks.
    pub fn entropy(mut self, on: bool) -> Self {
        self.entropy = on;
        self
    }

    pub fn build(self) -> Result<Scanner, BuildError> {
        let tokens = if self.token_patterns {
            Some(TokenEngine::new()?)
        } else {
            None
        };
        let known = if self.known_secrets.is_empty() {
            None
        } else {
            Some(KnownIndex::new(&self.known_secrets))
        };
        let longest = known.as_ref().map_or(0, KnownIndex::longest);
        Ok(Scanner {
            engines: Arc::new(Engines {
                tokens,
                known,
                entropy: self.entropy,
                look_ahead: LOOK_AHEAD.max(longest.saturating_mul(2)),
            }),
        })
    }
}

/// Why a [`Scanner`] could not be built. None of these can come from input, only from the rule table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    #[error("token rules do not compile")]
    Tokens(#[from] Box<regex_automata::meta::BuildError>),
}
