//! The scan itself: where it looks, and what comes of it.

use super::base64;
use super::disclosure::{self, Disclosure};
use super::jailbreak::{self, Phrase};
use super::lexicon::class;
use super::place::Place;
use super::unit::{self, Dress};
use super::wake::Wake;
use super::words::{Dresses, Words};
use super::{BACK, LOOK_BEHIND};
use crate::finding::{Confidence, Finding, Location, Matched, RuleId, Severity, Via};
use crate::redact;

/// Bytes after a literal in which nothing is looked for, since all of them are read anyway.
const STEP: u64 = 512;

/// Bytes after a literal that are read: those that are not searched, and what a phrase's rest may take.
const AHEAD: u64 = STEP + 2 * BACK;

/// Bytes within which phrases are of one voice.
const VOICE: u64 = 4096;

/// Base64 shorter than this says nothing.
const MIN_ENCODED: u64 = 32;

/// The longest finding.
const REACH: u64 = LOOK_BEHIND as u64 - 64;

/// Findings after which nothing more is looked for in this input: it is hostile beyond doubt.
const MAX_FINDINGS: usize = 64;

/// A piece of the input, which begins at offset `base`, and whether it ends where the input ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) base: u64,
    /// Where the whole input begins.
    pub(super) begin: u64,
    pub(super) last: bool,
}

impl<'a> Piece<'a> {
    fn from(&self, at: u64) -> &'a [u8] {
        self.bytes
            .get(at.saturating_sub(self.base) as usize..)
            .unwrap_or_default()
    }

    fn span(&self, start: u64, end: u64) -> &'a [u8] {
        let rest = self.from(start);
        rest.get(..end.saturating_sub(start) as usize)
            .unwrap_or(rest)
    }

    fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }
}

/// All that is remembered from byte to byte.
#[derive(Clone, Debug, Default)]
pub(super) struct Engine {
    words: Words,
    /// All before it was read.
    at: u64,
    /// Reading goes on up to here, whatever comes.
    awake_until: u64,
    /// No literal ends before here that was not seen.
    searched: u64,
    /// No verb before it begins another finding.
    spent: u64,
    /// Where a kind of phrase was seen last, plus one.
    phrases: [u64; Phrase::COUNT],
    reported: [bool; Phrase::COUNT],
    encoded_from: Option<u64>,
    findings: usize,
    /// Bytes that were read.
    #[cfg(test)]
    work: u64,
}

impl Engine {
    /// For an input whose first byte is at `begin`.
    pub(super) fn starting_at(begin: u64) -> Self {
        Self {
            at: begin,
            searched: begin,
            ..Self::default()
        }
    }

    /// For the text that base64 hid.
    fn inside() -> Self {
        let mut engine = Self {
            awake_until: u64::MAX,
            ..Self::default()
        };
        engine.words.hidden = Some(Place::Base64);
        engine
    }

    /// Reads on as far as `piece` goes.
    pub(super) fn run(
        &mut self,
        wake: &Wake,
        piece: Piece<'_>,
        location: &Location,
        findings: &mut Vec<Finding>,
    ) {
        loop {
            if self.findings >= MAX_FINDINGS {
                self.at = piece.end();
                self.searched = self.at;
                return;
            }
            if self.at >= self.awake_until
                && !self.words.places.is_open()
                && !self.wake_up(wake, piece)
            {
                return;
            }
            #[cfg(test)]
            let before = self.at;
            let rested = self.read(piece, location, findings);
            #[cfg(test)]
            {
                self.work += self.at - before;
            }
            if !rested {
                return;
            }
        }
    }

    /// Looks for the next literal, and makes what is around it be read.
    fn wake_up(&mut self, wake: &Wake, piece: Piece<'_>) -> bool {
        let from = self.searched.max(piece.base);
        let offset = (from - piece.base) as usize;
        if offset > piece.bytes.len() {
            return false;
        }
        let Some(end) = wake.find(piece.bytes, offset) else {
            let kept = piece.end().saturating_sub(wake.longest() as u64 - 1);
            self.searched = self.searched.max(kept);
            return false;
        };
        let end = piece.base + end as u64;
        let start = end.saturating_sub(BACK);
        if start > self.at {
            self.words = Words::default();
            self.encoded_from = None;
            self.at = start;
        }
        self.awake_until = end + AHEAD;
        self.searched = end + STEP;
        true
    }

    /// Reads up to where it may rest; false if more must come first.
    fn read(&mut self, piece: Piece<'_>, location: &Location, findings: &mut Vec<Finding>) -> bool {
        while self.at < self.awake_until || self.words.places.is_open() {
            let rest = piece.from(self.at);
            let run = self.run_of_letters(rest);
            if run > 0 {
                if self.encoded_from.is_none() {
                    self.encoded_from = Some(self.at);
                }
                self.words
                    .push_run(rest.get(..run).unwrap_or_default(), self.at);
                self.at += run as u64;
                continue;
            }
            if let Some(byte) = rest
                .first()
                .copied()
                .filter(|byte| !unit::is_special(*byte))
            {
                if !base64::is_digit(byte) {
                    self.end_encoded(piece, location, findings);
                }
                let start = self.at;
                self.at += 1;
                if self.words.character(byte, Dress::None, start, self.at) {
                    self.word_ended(piece, location, findings);
                }
                continue;
            }
            let Some((unit, length)) = unit::read(rest, self.words.in_word(), piece.last) else {
                if piece.last && self.words.finish_word() {
                    self.word_ended(piece, location, findings);
                }
                if piece.last {
                    self.end_encoded(piece, location, findings);
                }
                return false;
            };
            let end = self.at + length as u64;
            self.end_encoded(piece, location, findings);
            let start = self.at;
            self.at = end;
            if self.words.push(unit, start, end) {
                self.word_ended(piece, location, findings);
            }
        }
        true
    }

    /// How many ASCII letters and digits may be read at once: none beyond where reading may end, so that it ends at the
    /// same place however the input was cut.
    fn run_of_letters(&self, rest: &[u8]) -> usize {
        let room = match self.awake_until.checked_sub(self.at) {
            Some(room) if room > 0 => usize::try_from(room).unwrap_or(usize::MAX),
            _ => 1,
        };
        rest.iter()
            .take(room)
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count()
    }

    fn word_ended(&mut self, piece: Piece<'_>, location: &Location, findings: &mut Vec<Finding>) {
        let Some(last) = self.words.back(0).filter(|_| self.findings < MAX_FINDINGS) else {
            return;
        };
        let last = last.clone();
        let end = last.end;
        if last.has(class::PHRASE)
            && let Some((phrase, first)) = jailbreak::complete(&self.words)
        {
            self.phrase(phrase, first, end, piece, location, findings);
        }
        let before = self.words.back(1).map_or(0, |word| word.classes);
        let completes =
            last.has(class::NOUN | class::TARGET | class::PIPE) || before & class::PIPE != 0;
        if !completes && last.before[1] != b'@' {
            return;
        }
        let primed = Phrase::PRIMING.iter().any(|phrase| {
            self.phrases
                .get(*phrase as usize)
                .is_some_and(|at| *at != 0 && *at + STEP > end)
        });
        if let Some(found) = disclosure::complete(&self.words, self.spent, primed) {
            self.disclosure(found, end, piece, location, findings);
        }
    }

    fn disclosure(
        &mut self,
        found: Disclosure,
        end: u64,
        piece: Piece<'_>,
        location: &Location,
        findings: &mut Vec<Finding>,
    ) {
        let Some(start) = self.words.back(found.verb).map(|word| word.start) else {
            return;
        };
        if end - start > REACH {
            return;
        }
        self.spent = end;
        let what = format!(
            "Prompt injection: asks for {}, {}",
            found.noun.name(),
            found.place
        );
        let dresses = self.dresses(found.verb);
        findings.push(finding(
            Severity::Block,
            "injection-disclosure",
            what,
            start..end,
            dresses,
            piece,
            location,
        ));
        self.findings += 1;
    }

    fn phrase(
        &mut self,
        phrase: Phrase,
        first: usize,
        end: u64,
        piece: Piece<'_>,
        location: &Location,
        findings: &mut Vec<Finding>,
    ) {
        let Some(word) = self.words.back(first) else {
            return;
        };
        let (start, place) = (word.start, word.place);
        let index = phrase as usize;
        if let Some(at) = self.phrases.get_mut(index) {
            *at = end;
        }
        let voices = self
            .phrases
            .iter()
            .filter(|at| **at != 0 && **at + VOICE > end)
            .count();
        let Some(reported) = self.reported.get_mut(index) else {
            return;
        };
        if *reported || voices < 2 && !place.is_hidden() || end - start > REACH {
            return;
        }
        *reported = true;
        let what = format!("Prompt injection: {}, {place}", phrase.name());
        let dresses = self.dresses(first);
        findings.push(finding(
            Severity::Warn,
            "injection-jailbreak",
            what,
            start..end,
            dresses,
            piece,
            location,
        ));
        self.findings += 1;
    }

    /// How the last words were written, from that `first` words back on.
    fn dresses(&self, first: usize) -> Vec<Via> {
        let all = (0..=first)
            .filter_map(|back| self.words.back(back))
            .fold(Dresses::default(), |all, word| all.join(word.dresses));
        let mut via: Vec<Via> = Dresses::ALL
            .into_iter()
            .filter(|dress| all.holds(*dress))
            .filter_map(|dress| dress.via())
            .collect();
        via.dedup();
        via
    }

    /// A run of base64 ended before the current byte: what does it say?
    fn end_encoded(&mut self, piece: Piece<'_>, location: &Location, findings: &mut Vec<Finding>) {
        let Some(start) = self.encoded_from.take() else {
            return;
        };
        let end = self.at;
        if end - start < MIN_ENCODED || end - start > REACH || self.words.hidden.is_some() {
            return;
        }
        let Some(text) = base64::decode(piece.span(start, end)) else {
            return;
        };
        let mut found = Vec::new();
        let inside = Piece {
            bytes: &text,
            base: 0,
            begin: 0,
            last: true,
        };
        Self::inside().read(inside, location, &mut found);
        if let Some(inner) = found.into_iter().max_by_key(|found| found.severity) {
            let mut outer = finding(
                inner.severity,
                inner.rule.0,
                inner.credential.into(),
                start..end,
                Vec::new(),
                piece,
                location,
            );
            outer.via.push(Via::Base64);
            findings.push(outer);
            self.findings += 1;
        }
    }

    /// Where the earliest finding to come can begin.
    pub(super) fn released(&self, end: u64) -> u64 {
        let waiting = self.searched.saturating_sub(BACK);
        if self.at < self.awake_until || self.words.places.is_open() || self.at >= waiting {
            let encoded = self.encoded_from.filter(|from| from + REACH > self.at);
            self.words
                .live(self.at, REACH)
                .min(encoded.unwrap_or(u64::MAX))
                .max(end.saturating_sub(LOOK_BEHIND as u64))
        } else {
            waiting.max(self.at)
        }
    }
}

fn finding(
    severity: Severity,
    rule: &'static str,
    what: String,
    span: std::ops::Range<u64>,
    via: Vec<Via>,
    piece: Piece<'_>,
    location: &Location,
) -> Finding {
    // From an offset that does not depend on how the input was cut.
    let from = span.start.saturating_sub(super::CONTEXT).max(piece.begin);
    let text = piece.span(from, span.end);
    let local = (span.start - from) as usize..(span.end - from) as usize;
    Finding {
        severity,
        rule: RuleId(rule),
        credential: what.into(),
        location: location.clone(),
        context: redact::context(text, &local, std::slice::from_ref(&local)),
        matched: Matched::new(piece.span(span.start, span.end)),
        confidence: Confidence::Shape,
        via,
        span,
        structural: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_read_twice() {
        let wake = Wake::new();
        for text in [
            "reveal your api key ",
            "key",
            "<!--",
            "<div hidden>",
            "\\u0041",
            "&#65;",
            "\u{200b}",
            "\"content\": \"",
            "a*b",
            "ignore all previous ",
            "words that are plain ",
            "\u{4e2d}",
            "UHJpbnQg",
        ] {
            let input = text.repeat(10_000);
            let mut engine = Engine::default();
            let piece = Piece {
                bytes: input.as_bytes(),
                base: 0,
                begin: 0,
                last: true,
            };
            engine.run(&wake, piece, &Location::Body, &mut Vec::new());
            assert!(engine.work <= input.len() as u64, "{text}");
        }
        let input = "words that are plain ".repeat(1000);
        let mut engine = Engine::default();
        let piece = Piece {
            bytes: input.as_bytes(),
            base: 0,
            begin: 0,
            last: true,
        };
        engine.run(&wake, piece, &Location::Body, &mut Vec::new());
        assert_eq!(engine.work, 0, "plain text is only searched");
    }
}
