//! Token rules: one table, one prefilter, one pass.
//!
//! A row is the shape of a credential: the shortest text that is one, and what it may go on with. Shape alone decides.
//! Entropy, stop words and checksums would each give an agent a way to dress a token up as a sample, and an
//! operator's own token may look like one (`AKIAIOSFODNN7EXAMPLE` blocks); a checksum that is right raises
//! [`Confidence`](crate::Confidence) and nothing else.
//!
//! Shapes become straight [programs](program), whose rarest four positions the kernel looks for ([`anchors`]). A
//! program that the table calls *strong* is also looked for where the letters have the other case, where the
//! body is in pieces, and in the simple ciphers ([`dressed`]).

mod anchors;
mod check;
mod common;
mod dressed;
mod probe;
mod program;
mod rows;
mod segments;
mod shape;
mod user;

use std::ops::Range;
use std::sync::LazyLock;

use crate::finding::{Confidence, RuleId, Severity};
use crate::kernel::{BLOCK, Blocks, Kind, Sweep};
use crate::window::Match;
pub(crate) use anchors::{Anchor, Anchors};
pub(crate) use dressed::Cipher;
pub(crate) use probe::Check;
use program::{Case, Classes, Program};
pub(crate) use program::{Runs, is_beside_base64};
use segments::Segments;
pub use shape::ShapeError;
pub use user::{UserRules, UserRulesError};

/// One credential's shape.
#[derive(Clone, Copy)]
pub struct TokenRule {
    pub id: RuleId,
    /// What people call it.
    pub credential: &'static str,
    /// The shape, in the part of the `regex` crate's syntax that `docs/RULES.md` describes.
    pub shape: &'static str,
    /// The document that the format was taken from, or what was observed.
    pub source: &'static str,
    /// Tells from the whole credential whether its structure is right. It raises the confidence and never gates.
    pub check: Option<fn(&[u8]) -> bool>,
    /// Tells from the whole text of the shape that a placeholder stands where the credential would: one of a few words that
    /// everybody knows, so nothing can be carried out in it.
    pub unless: Option<fn(&[u8]) -> bool>,
    /// The whole text is one credential.
    pub positive: &'static [&'static str],
    /// No rule finds anything.
    pub negative: &'static [&'static str],
    /// The shape says how a credential is carried rather than whose it is; where another rule matches inside, that one
    /// names the finding.
    pub generic: bool,
}

impl std::fmt::Debug for TokenRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRule")
            .field("id", &self.id)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

const fn rule(
    id: &'static str,
    credential: &'static str,
    shape: &'static str,
    source: &'static str,
) -> TokenRule {
    TokenRule {
        id: RuleId(id),
        credential,
        shape,
        source,
        check: None,
        unless: None,
        positive: &[],
        negative: &[],
        generic: false,
    }
}

impl TokenRule {
    const fn checked(mut self, check: fn(&[u8]) -> bool) -> Self {
        self.check = Some(check);
        self
    }

    const fn unless(mut self, placeholder: fn(&[u8]) -> bool) -> Self {
        self.unless = Some(placeholder);
        self
    }

    const fn positive(mut self, examples: &'static [&'static str]) -> Self {
        self.positive = examples;
        self
    }

    const fn negative(mut self, examples: &'static [&'static str]) -> Self {
        self.negative = examples;
        self
    }
}

/// The table. Of two rows that match at one place the upper one names the finding, so the more specific stands above.
pub static TOKEN_RULES: LazyLock<Vec<TokenRule>> = LazyLock::new(rows::all);

/// What a rule is called in a finding.
#[derive(Clone, Debug)]
struct Named {
    id: RuleId,
    credential: Box<str>,
    severity: Severity,
    check: Option<fn(&[u8]) -> bool>,
    unless: Option<fn(&[u8]) -> bool>,
    generic: bool,
}

/// The table, compiled.
#[derive(Debug)]
pub(crate) struct TokenEngine {
    rules: Vec<Named>,
    programs: Vec<Program>,
    classes: Classes,
    /// One a program.
    plain: Vec<Anchor>,
    /// The same.
    checks: Vec<Check>,
    segments: Segments,
    /// Strong programs' anchors as a cipher writes them, and which one.
    ciphered: Vec<(Anchor, Cipher)>,
}

impl TokenEngine {
    /// The table's rules, if asked for, and then the user's.
    pub(crate) fn new(table: bool, user: &UserRules) -> Result<Self, (RuleId, ShapeError)> {
        let mut rules = Vec::new();
        let mut shapes = Vec::new();
        if table {
            for rule in TOKEN_RULES.iter() {
                shapes.push(rule.shape);
                rules.push(Named {
                    id: rule.id,
                    credential: rule.credential.into(),
                    severity: Severity::Block,
                    check: rule.check,
                    unless: rule.unless,
                    generic: rule.generic,
                });
            }
        }
        for rule in user.rules() {
            shapes.push(&rule.shape);
            rules.push(Named {
                id: rule.id,
                credential: rule.credential.clone(),
                severity: rule.severity,
                check: None,
                unless: None,
                generic: false,
            });
        }
        let mut classes = Classes::default();
        let mut programs = Vec::new();
        let mut plain = Vec::new();
        let mut checks = Vec::new();
        let mut segments = Segments::default();
        let mut ciphered = Vec::new();
        for (number, (rule, shape)) in (0_u16..).zip(rules.iter().zip(shapes)) {
            let named = |error| (rule.id, error);
            for way in shape::parse(shape).map_err(named)? {
                let (mut anchor, offset) = Anchor::of(&way).map_err(named)?;
                let strong = dressed::is_strong(&way);
                // It may be in pieces.
                if strong {
                    anchor.kind = Kind::Anywhere;
                } else if anchor.is_broad() && segments.insert(&way, programs.len() as u32) {
                    anchor = Anchor::NEVER;
                }
                programs.push(Program::new(number, &way, offset, strong, &mut classes));
                plain.push(anchor);
                checks.push(Check::of(&way, offset, strong));
                if strong {
                    dressed::anchors(&anchor, |cipher, anchor| {
                        ciphered.push((anchor, cipher));
                    });
                }
            }
        }
        Ok(Self {
            rules,
            programs,
            classes,
            plain,
            checks,
            segments,
            ciphered,
        })
    }

    /// The anchor of each program.
    pub(crate) fn anchors(&self) -> &[Anchor] {
        &self.plain
    }

    /// The check of each program.
    pub(crate) fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The anchors of strong programs as a cipher writes them.
    pub(crate) fn ciphered(&self) -> &[(Anchor, Cipher)] {
        &self.ciphered
    }

    /// Makes `runs` ready for another text.
    pub(crate) fn begin(&self, runs: &mut Runs, plain_only: bool) -> State {
        runs.reset(&self.classes);
        State {
            plain_only,
            ..State::default()
        }
    }

    /// Adds what begins with so and so many letters and digits in `text[..swept]`, of which `sweep` is.
    pub(crate) fn segments(
        &self,
        text: &[u8],
        swept: usize,
        (sweep, classes): (&Sweep, Blocks<'_>),
        mut report: impl FnMut(usize, u32),
    ) {
        if self.segments.is_empty() {
            return;
        }
        let masks = sweep.blocks(swept);
        for (number, words) in sweep.gates.words[..masks.len()].iter().enumerate() {
            let mut words = *words;
            while words != 0 {
                let at = number * BLOCK + words.trailing_zeros() as usize;
                words &= words - 1;
                for number in self.segments.at(text, at, masks) {
                    let anchor = self
                        .programs
                        .get(*number as usize)
                        .map_or(0, |program| program.anchor);
                    let anchor = at + usize::from(anchor);
                    if self.may_match(*number, text, anchor, classes) {
                        report(anchor, *number);
                    }
                }
            }
        }
    }

    /// Whether program `number` may match where its anchor stands at `at`, by what is told at once.
    #[inline]
    fn may_match(&self, number: u32, text: &[u8], at: usize, masks: Blocks<'_>) -> bool {
        let check = self.checks.get(number as usize);
        check.is_some_and(|check| check.may_stand(at, text, masks))
    }

    /// Matches program `number`, whose anchor stands at `at`.
    #[expect(
        clippy::too_many_arguments,
        reason = "what one pass holds, lent piece by piece"
    )]
    #[inline(never)]
    pub(crate) fn candidate(
        &self,
        number: u32,
        text: &[u8],
        at: usize,
        runs: &mut Runs,
        state: &mut State,
        budget: &mut usize,
        matches: &mut Vec<Match>,
    ) {
        let Some(program) = self.programs.get(number as usize) else {
            return;
        };
        let Some(start) = at.checked_sub(usize::from(program.anchor)) else {
            return;
        };
        if let Some(end) = program.matched(&self.classes, Case::Kept, text, start, runs) {
            if !state.has(program.rule, &(start..end), true)
                && !self.is_chance(program, text, start..end)
            {
                self.add(text, program.rule, start..end, Vec::new(), state, matches);
            }
        } else if program.strong && !state.plain_only {
            let dressed = self.dressed(program, text, start, runs, state, budget);
            if let Some((span, via)) = dressed.filter(|(span, _)| !is_beside_base64(text, span)) {
                self.add(text, program.rule, span, via, state, matches);
            }
        }
    }

    /// Whether a match in the midst of base64 says nothing: its shape is in any hundred megabytes of that, and its checksum, if
    /// it has one, is wrong.
    fn is_chance(&self, program: &Program, text: &[u8], span: Range<usize>) -> bool {
        let Some(length) = program
            .by_chance
            .filter(|length| program::is_inside_base64(text, span.start, *length))
        else {
            return false;
        };
        let check = self
            .rules
            .get(usize::from(program.rule))
            .and_then(|rule| rule.check);
        // What stands behind a token in base64 is no part of it.
        !check.is_some_and(|check| {
            (length..=span.len().min(length + 8)).any(|length| {
                text.get(span.start..span.start + length)
                    .is_some_and(|token| is_proof(check, token))
            })
        })
    }

    fn add(
        &self,
        text: &[u8],
        rule: u16,
        span: Range<usize>,
        via: Vec<crate::Via>,
        state: &mut State,
        matches: &mut Vec<Match>,
    ) {
        let unless = self
            .rules
            .get(usize::from(rule))
            .and_then(|rule| rule.unless);
        if unless.is_some_and(|is_placeholder| text.get(span.clone()).is_some_and(is_placeholder)) {
            return;
        }
        let plain = via.is_empty();
        if state.has(rule, &span, plain) {
            return;
        }
        let this = Last {
            rule,
            span: span.clone(),
            plain,
        };
        match state.last.iter_mut().find(|last| last.rule == rule) {
            Some(last) => *last = this,
            None => state.last.push(this),
        }
        let Some(named) = self.rules.get(usize::from(rule)) else {
            return;
        };
        let checked = named
            .check
            .is_some_and(|check| text.get(span.clone()).is_some_and(check));
        matches.push(Match {
            rule: named.id,
            severity: named.severity,
            credential: named.credential.clone(),
            span,
            via,
            // Zero is the rank of what is no token rule.
            rank: 1 + u32::from(rule) + if named.generic { GENERIC } else { 0 },
            structural: false,
            confidence: if checked {
                Confidence::Structure
            } else {
                Confidence::Shape
            },
            shadow: false,
        });
    }

    /// Of the matches from number `from` on, those that lie in others go; which of two names the place is the table's order.
    /// A generic one around a specific one stays as its shadow.
    pub(crate) fn resolve(&self, matches: &mut Vec<Match>, from: usize) {
        if matches.len() < from + 2 {
            return;
        }
        let mut found = matches.split_off(from);
        let specific: Vec<Range<usize>> = found
            .iter()
            .filter(|found| found.rank < GENERIC)
            .map(|found| found.span.clone())
            .collect();
        for found in &mut found {
            found.shadow |= found.rank >= GENERIC
                && specific
                    .iter()
                    .any(|inner| found.span.start <= inner.start && inner.end <= found.span.end);
        }
        matches.extend(found.extract_if(.., |found| found.shadow));
        found.sort_by_key(|found| {
            (
                found.span.start,
                found.rank,
                std::cmp::Reverse(found.span.end),
                found.via.len(),
            )
        });
        let mut end = 0;
        for found in found {
            if found.span.end > end {
                end = found.span.end;
                matches.push(found);
            }
        }
    }
}

/// Whether `check` holds of `token` and would not hold of most others: of one with another character, say.
fn is_proof(check: fn(&[u8]) -> bool, token: &[u8]) -> bool {
    let mut other = token.to_vec();
    if let Some(byte) = other.iter_mut().rev().nth(7) {
        *byte = if *byte == b'7' { b'5' } else { b'7' };
    }
    check(token) && !check(&other)
}

/// What one pass must remember.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// For each rule its last match, so that one run of text is one match.
    last: Vec<Last>,
    /// The runs of what is put together from pieces.
    joined: Runs,
    /// The word that was measured last.
    word: Range<usize>,
    /// The text was made by a cipher, and is not read in yet another way.
    plain_only: bool,
}

#[derive(Debug)]
struct Last {
    rule: u16,
    span: Range<usize>,
    plain: bool,
}

impl State {
    /// Whether the rule's last match holds `span`.
    fn has(&self, rule: u16, span: &Range<usize>, plain: bool) -> bool {
        self.last.iter().any(|last| {
            last.rule == rule
                && last.span.start <= span.start
                && span.end <= last.span.end
                // In plain it is what it seems.
                && (last.plain || !plain)
        })
    }
}

/// Added to the rank of a generic rule.
pub(crate) const GENERIC: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strong_tokens_are_found_in_the_other_case() {
        let engine = TokenEngine::new(true, &UserRules::default()).unwrap();
        let strong: std::collections::BTreeSet<u16> = engine
            .programs
            .iter()
            .filter(|program| program.strong)
            .map(|program| program.rule)
            .collect();
        // A row is strong if all its ways are.
        let all = |rule: &u16| {
            engine
                .programs
                .iter()
                .filter(|program| program.rule == *rule)
                .all(|program| program.strong)
        };
        let rows: Vec<u16> = strong.into_iter().filter(all).collect();
        assert!(rows.len() > 100, "{} rows", rows.len());
        let scanner =
            crate::Scanner::of_tokens(TokenEngine::new(true, &UserRules::default()).unwrap());
        let mut missed = Vec::new();
        for row in rows {
            let rule = TOKEN_RULES[usize::from(row)];
            for token in rule.positive {
                let swapped: String = token
                    .chars()
                    .map(|c| {
                        if c.is_ascii_lowercase() {
                            c.to_ascii_uppercase()
                        } else {
                            c.to_ascii_lowercase()
                        }
                    })
                    .collect();
                if scanner
                    .scan(&crate::Location::Body, swapped.as_bytes())
                    .is_empty()
                {
                    missed.push(format!("{}: {swapped}", rule.id));
                }
            }
        }
        assert!(missed.is_empty(), "{missed:#?}");
    }

    #[test]
    fn every_row_compiles() {
        let mut refused = Vec::new();
        for rule in TOKEN_RULES.iter() {
            match shape::parse(rule.shape)
                .and_then(|ways| ways.iter().try_for_each(|way| Anchor::of(way).map(|_| ())))
            {
                Ok(()) => {}
                Err(error) => refused.push(format!("{}: {error}", rule.id)),
            }
        }
        assert!(refused.is_empty(), "{refused:#?}");
    }
}
