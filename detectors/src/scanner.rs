//! The front door: [`Scanner`] and its builder.

use std::fmt;
use std::sync::Arc;

use crate::finding::{Finding, Location, RuleId, Severity};
use crate::kernel::{self, Level};
use crate::known::{KnownIndex, KnownSecret};
use crate::memory::Memory;
use crate::stream::Stream;
use crate::tokens::{Anchor, Anchors, ShapeError, TokenEngine, UserRules};
use crate::view::{self, MAX_HELD};
use crate::window::{BLOCK, Engines, History, LOOK_AHEAD, Window, windows};

/// A set of detectors, built once and shared by every connection; a clone is a reference count.
///
/// Time is linear in the input. Each byte lies in at most two windows if no known secret is huge; a window is
/// read plain, and those regions of it that are written in some other way are read through views, all of which
/// together are at most eight times as long as the window and 64 KiB more; a window that ends in the midst of such a region
/// is read twice. What comes out of compressed data that is longer than a window is at most 24 times as long as the input, and
/// 1 MiB more, with all its views. Where such a bound ends the decoding, the rule `undecodable` says so.
#[derive(Clone, Debug)]
pub struct Scanner {
    engines: Arc<Engines>,
    memory: Option<Arc<Memory>>,
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
            self.scan_window(location, window, &mut history, &mut findings);
        }
        findings
    }

    /// Whether all of this input is known: a scan would find nothing, without reading it. Never where entropy is asked for, which
    /// is counted over windows.
    pub fn knows(&self, input: &[u8]) -> bool {
        let Some(memory) = self.memory.as_deref().filter(|_| !self.engines.entropy) else {
            return false;
        };
        windows(input, self.engines.look_ahead)
            .all(|window| memory.tag(&window).is_some_and(|tag| memory.knows(&tag)))
    }

    fn scan_window(
        &self,
        location: &Location,
        window: Window<'_>,
        history: &mut History,
        findings: &mut Vec<Finding>,
    ) {
        let memory = self.memory.as_deref();
        self.engines
            .scan_window(location, window, memory, history, findings);
    }

    /// As [`Scanner::scan`], in steps of a window each, between which something else can be done.
    pub fn pass<B: AsRef<[u8]>>(&self, location: Location, input: B) -> Pass<B> {
        Pass {
            scanner: self.clone(),
            location,
            input,
            at: 0,
            history: History::default(),
            findings: Vec::new(),
        }
    }

    /// How many bytes, of the input and of all its views, the engines are run over to scan `input`: a measure of the work
    /// that, other than time, is the same on every machine.
    pub fn steps(&self, input: &[u8]) -> usize {
        let mut history = History::default();
        let mut findings = Vec::new();
        for window in windows(input, self.engines.look_ahead) {
            self.engines
                .scan_window(&Location::Body, window, None, &mut history, &mut findings);
        }
        history.steps()
    }

    /// One with token rules alone, to try them.
    pub(crate) fn of_tokens(tokens: TokenEngine) -> Self {
        Self::with(Some(tokens), None, false, Severity::Block, kernel::level())
    }

    fn with(
        tokens: Option<TokenEngine>,
        known: Option<KnownIndex>,
        entropy: bool,
        undecodable: Severity,
        level: Level,
    ) -> Self {
        let longest = known.as_ref().map_or(0, KnownIndex::longest);
        let mut anchors = Vec::new();
        if let Some(tokens) = &tokens {
            anchors.extend_from_slice(tokens.anchors());
        }
        if let Some(exact) = known.as_ref().and_then(KnownIndex::exact) {
            anchors.extend_from_slice(exact.anchors());
        }
        if let Some(tokens) = &tokens {
            anchors.extend(tokens.ciphered().iter().map(|(anchor, _)| *anchor));
        }
        let (begin, begin_offset) = Anchor::of_literal(view::BEGIN);
        anchors.push(begin);
        let magics = view::magics();
        anchors.extend(magics.iter().map(view::Magic::anchor));
        let checks = tokens.as_ref().map_or(&[][..], TokenEngine::checks);
        let anchors = Anchors::new(&anchors, checks);
        Self {
            engines: Arc::new(Engines {
                tokens,
                known,
                entropy,
                undecodable,
                look_ahead: LOOK_AHEAD.max(longest.saturating_mul(2)),
                level,
                anchors,
                begin_offset,
                magics,
            }),
            memory: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> Option<&Memory> {
        self.memory.as_deref()
    }

    /// A scan of an input that arrives in pieces.
    pub fn stream(&self, location: Location) -> Stream {
        Stream::new(Arc::clone(&self.engines), self.memory.clone(), location)
    }

    /// The most bytes by which [`Stream::released`] can lag behind what was pushed: 80 KiB, more if a known secret's
    /// longest encoding is longer than 8 KiB, and up to 448 KiB while compressed data does not give out what it holds,
    /// which is when a long block of zstd goes on.
    pub fn look_behind(&self) -> usize {
        BLOCK + self.engines.look_ahead.max(MAX_HELD)
    }
}

/// A scan of a whole input that is done in steps; made by [`Scanner::pass`].
pub struct Pass<B> {
    scanner: Scanner,
    location: Location,
    input: B,
    /// The window that is next.
    at: usize,
    history: History,
    findings: Vec<Finding>,
}

impl<B> fmt::Debug for Pass<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The input is the agent's data and may hold a secret.
        f.debug_struct("Pass")
            .field("location", &self.location)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl<B: AsRef<[u8]>> Pass<B> {
    /// Scans a window, of 64 KiB. After the last one: all that was found, once.
    pub fn step(&mut self) -> Option<Vec<Finding>> {
        let look_ahead = self.scanner.engines.look_ahead;
        let mut rest = windows(self.input.as_ref(), look_ahead).skip(self.at);
        if let Some(window) = rest.next() {
            self.at += 1;
            self.scanner.scan_window(
                &self.location,
                window,
                &mut self.history,
                &mut self.findings,
            );
        }
        let more = rest.next().is_some();
        (!more).then(|| std::mem::take(&mut self.findings))
    }

    /// What is scanned.
    pub fn input(&self) -> &B {
        &self.input
    }
}

/// Chooses the detectors of a [`Scanner`].
#[derive(Debug)]
pub struct ScannerBuilder {
    token_patterns: bool,
    user_rules: UserRules,
    known_secrets: Vec<KnownSecret>,
    entropy: bool,
    undecodable: Severity,
    level: Level,
    memory: Option<Memory>,
}

impl Default for ScannerBuilder {
    fn default() -> Self {
        Self {
            token_patterns: false,
            user_rules: UserRules::default(),
            known_secrets: Vec::new(),
            entropy: false,
            undecodable: Severity::Block,
            level: kernel::level(),
            memory: None,
        }
    }
}

impl ScannerBuilder {
    /// The shapes of [`TOKEN_RULES`](crate::TOKEN_RULES).
    pub fn token_patterns(mut self, on: bool) -> Self {
        self.token_patterns = on;
        self
    }

    /// Rules beside those of the table.
    pub fn user_rules(mut self, rules: UserRules) -> Self {
        self.user_rules = rules;
        self
    }

    /// What a finding of rule `undecodable` asks for: compressed data that breaks off, or decoding that would cost more
    /// than its bound. It blocks unless this says otherwise.
    pub fn undecodable(mut self, severity: Severity) -> Self {
        self.undecodable = severity;
        self
    }

    /// Without vector instructions; for tests and measurements, since nothing but the speed changes.
    pub fn portable(mut self) -> Self {
        self.level = Level::Portable;
        self
    }

    /// Values that must not leave, in any encoding.
    pub fn known_secrets(mut self, secrets: Vec<KnownSecret>) -> Self {
        self.known_secrets = secrets;
        self
    }

    /// Remembers up to so many windows (64 KiB of input, or all of a shorter one from 256 bytes on) in which nothing was found:
    /// the same window with the same bytes around it costs a hash when it comes again, and the verdict is the same. `key`
    /// must not be known to whoever chooses the input. Each takes some 40 bytes.
    pub fn remember(mut self, key: [u8; 16], windows: usize) -> Self {
        self.memory = Some(Memory::new(key, windows));
        self
    }

    /// Of the windows to remember, after [`Self::remember`], only those of whose bytes this says that nothing else is to be
    /// found in them either, by a caller who looks for more than the detectors do. What a window sees reaches at least 512
    /// bytes beyond both ends of what it owns, as far as the input does.
    pub fn remember_only_where(
        mut self,
        free: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Self {
        if let Some(memory) = &mut self.memory {
            memory.only_where(Box::new(free));
        }
        self
    }

    /// Warns of any 64 bytes of more than 5.5 bits each. It names no credential, hence never blocks.
    pub fn entropy(mut self, on: bool) -> Self {
        self.entropy = on;
        self
    }

    pub fn build(self) -> Result<Scanner, BuildError> {
        let wanted = self.token_patterns || !self.user_rules.is_empty();
        let tokens = wanted
            .then(|| TokenEngine::new(self.token_patterns, &self.user_rules))
            .transpose()
            .map_err(|(rule, reason)| BuildError { rule, reason })?;
        let known = (!self.known_secrets.is_empty()).then(|| KnownIndex::new(&self.known_secrets));
        let mut scanner = Scanner::with(tokens, known, self.entropy, self.undecodable, self.level);
        scanner.memory = self.memory.map(Arc::new);
        Ok(scanner)
    }
}

/// Why a [`Scanner`] could not be built. None of these can come from input, only from the rule table.
#[derive(Debug, thiserror::Error)]
#[error("the shape of rule {rule}: {reason}")]
pub struct BuildError {
    rule: RuleId,
    reason: ShapeError,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::BLOCK;

    #[test]
    fn in_steps_the_same_is_found() {
        let scanner = Scanner::builder().token_patterns(true).build().unwrap();
        let key = b" AKIAIOSFODNN7EXAMPLE "; // gitleaks:allow
        for length in [
            0,
            1,
            key.len(),
            BLOCK - 1,
            BLOCK,
            BLOCK + 1,
            3 * BLOCK,
            3 * BLOCK + 9,
        ] {
            let mut text: Vec<u8> = b"some words. "
                .iter()
                .copied()
                .cycle()
                .take(length)
                .collect();
            for at in [0, BLOCK - 9, 2 * BLOCK, 3 * BLOCK - 4] {
                if let Some(place) = text.get_mut(at..at + key.len()) {
                    place.copy_from_slice(key);
                }
            }
            let mut pass = scanner.pass(Location::Body, &text);
            let mut steps = 1;
            let found = loop {
                match pass.step() {
                    Some(found) => break found,
                    None => steps += 1,
                }
            };
            let spans = |found: &[Finding]| -> Vec<_> {
                found.iter().map(|finding| finding.span.clone()).collect()
            };
            let whole = scanner.scan(&Location::Body, &text);
            assert_eq!(spans(&found), spans(&whole), "{length} bytes");
            assert_eq!(steps, length.div_ceil(BLOCK).max(1), "{length} bytes");
        }
    }
}
