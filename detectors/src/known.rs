//! Known secrets: values that must not leave, in whatever encoding.
//!
//! The encodings of a value are computed forward, once, at start ([`variants`]). Those that are long enough are found
//! whole or in part and whatever stands between their characters ([`grams`]), the others as they stand ([`exact`]).

mod encode;
mod exact;
mod grams;
mod variants;

use std::fmt;
use std::ops::Range;

use zeroize::Zeroizing;

use crate::finding::{Confidence, RuleId, Severity, Via};
use crate::kernel::{BLOCK, Level, Samples, Sweep};
use crate::window::Match;
pub(crate) use exact::ExactIndex;
use grams::{ENOUGH, GramIndex, Hit, squeeze};

/// Below this many bytes chance matches would block clean traffic.
const MIN_VALUE: usize = 8;

/// Above this many bytes a value is a file; its encodings would make the look-behind too long.
const MAX_VALUE: usize = 8 * 1024;

/// A value that must not leave. It is wiped on drop and never shown.
#[derive(Clone)]
pub struct KnownSecret {
    name: Box<str>,
    value: Zeroizing<Vec<u8>>,
    canary: bool,
}

impl KnownSecret {
    /// A secret, found by rule `known-secret`; `name` is its variable's and stands in the reason.
    pub fn new(name: &str, value: &[u8]) -> Result<Self, KnownSecretError> {
        Self::parse(name, value, false)
    }

    /// A value planted to be stolen, found by rule `canary`.
    pub fn canary(name: &str, value: &[u8]) -> Result<Self, KnownSecretError> {
        Self::parse(name, value, true)
    }

    fn parse(name: &str, value: &[u8], canary: bool) -> Result<Self, KnownSecretError> {
        let name = name.into();
        let length = value.len();
        if length < MIN_VALUE {
            return Err(KnownSecretError::TooShort { name, length });
        }
        if length > MAX_VALUE {
            return Err(KnownSecretError::TooLong { name, length });
        }
        Ok(Self {
            name,
            value: Zeroizing::new(value.to_vec()),
            canary,
        })
    }
}

impl fmt::Debug for KnownSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownSecret")
            .field("name", &self.name)
            .field("canary", &self.canary)
            .finish_non_exhaustive()
    }
}

/// Why a value cannot be looked for. It is refused and never skipped, so that nobody believes it guarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KnownSecretError {
    #[error(
        "the value of {name} has {length} bytes, and fewer than {MIN_VALUE} would match by chance: use a longer secret"
    )]
    TooShort { name: Box<str>, length: usize },
    #[error(
        "the value of {name} has {length} bytes, more than {MAX_VALUE}: guard the secret inside it, not the whole file"
    )]
    TooLong { name: Box<str>, length: usize },
}

/// All known secrets, ready to be looked for.
#[derive(Debug)]
pub(crate) struct KnownIndex {
    names: Vec<(RuleId, Box<str>)>,
    grams: Option<GramIndex>,
    exact: Option<ExactIndex>,
    longest: usize,
}

impl KnownIndex {
    pub(crate) fn new(secrets: &[KnownSecret]) -> Self {
        let names: Vec<(RuleId, Box<str>)> = secrets
            .iter()
            .map(|secret| {
                (
                    RuleId(if secret.canary {
                        "canary"
                    } else {
                        "known-secret"
                    }),
                    secret.name.clone(),
                )
            })
            .collect();
        let (mut long, mut short) = (Vec::new(), Vec::new());
        let mut longest = 0;
        let lengths: Vec<usize> = secrets.iter().map(|secret| secret.value.len()).collect();
        for (number, secret) in (0_u32..).zip(secrets) {
            for variant in variants::of(&secret.value) {
                longest = longest.max(variant.bytes.len());
                let enough = squeeze(&variant.bytes).len() >= ENOUGH;
                if enough { &mut long } else { &mut short }.push((number, variant));
            }
        }
        Self {
            grams: GramIndex::new(long, &lengths),
            exact: (!short.is_empty()).then(|| ExactIndex::new(names.clone(), short)),
            names,
            longest,
        }
    }

    /// Bytes of the longest variant.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// Adds what stands in `text[..swept]`, of which `sweep` is, and `squeezed` the length of its squeezed text.
    pub(crate) fn find(
        &self,
        text: &[u8],
        swept: usize,
        sweep: &Sweep,
        squeezed: usize,
        (level, samples): (Level, &mut Samples),
        matches: &mut Vec<Match>,
    ) {
        if let Some(grams) = &self.grams {
            let squeezed = sweep.squeezed.get(..squeezed).unwrap_or_default();
            grams.find(level, squeezed, samples, |hit| {
                let span = unsqueezed(text, swept, sweep, &hit);
                if let Some((rule, name)) = self.names.get(hit.secret as usize) {
                    matches.push(found(*rule, name.clone(), span, hit.variant.via.clone()));
                }
            });
        }
    }

    /// The variants that are looked for as they stand.
    pub(crate) fn exact(&self) -> Option<&ExactIndex> {
        self.exact.as_ref()
    }
}

fn found(rule: RuleId, credential: Box<str>, span: Range<usize>, via: Vec<Via>) -> Match {
    Match {
        rule,
        severity: Severity::Block,
        credential,
        span,
        via,
        rank: 0,
        structural: false,
        confidence: Confidence::Structure,
        shadow: false,
    }
}

/// The bytes of the text behind a hit. Signs at either end of the variant belong to it if they stand there.
fn unsqueezed(text: &[u8], swept: usize, sweep: &Sweep, hit: &Hit<'_>) -> Range<usize> {
    let place = |squeezed: usize| {
        let before = sweep
            .squeezed_before
            .get(..swept.div_ceil(BLOCK))
            .unwrap_or_default();
        let block = before
            .partition_point(|count| *count as usize <= squeezed)
            .saturating_sub(1);
        let mut mask = sweep.blocks(swept).alnum(block);
        for _ in 0..squeezed.saturating_sub(before.get(block).copied().unwrap_or(0) as usize) {
            mask &= mask.wrapping_sub(1);
        }
        block * BLOCK + mask.trailing_zeros() as usize
    };
    let mut span =
        place(hit.span.start)..(place(hit.span.end.saturating_sub(1)) + 1).min(text.len());
    let variant = &hit.variant.bytes;
    let signs = variant
        .iter()
        .take_while(|byte| !byte.is_ascii_alphanumeric())
        .count();
    if hit.begins
        && text
            .get(..span.start)
            .unwrap_or_default()
            .ends_with(&variant[..signs])
    {
        span.start -= signs;
    }
    let signs = variant
        .iter()
        .rev()
        .take_while(|byte| !byte.is_ascii_alphanumeric())
        .count();
    if hit.ends
        && text
            .get(span.end..)
            .unwrap_or_default()
            .starts_with(&variant[variant.len() - signs..])
    {
        span.end += signs;
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_values_are_refused_with_their_name() {
        let error = KnownSecret::new("EGRESS_TOKEN_X", b"1234567").unwrap_err();
        assert_eq!(
            error,
            KnownSecretError::TooShort {
                name: "EGRESS_TOKEN_X".into(),
                length: 7
            }
        );
        assert!(error.to_string().contains("EGRESS_TOKEN_X"));
        assert!(KnownSecret::new("X", &[b'a'; MAX_VALUE + 1]).is_err());
        assert!(KnownSecret::new("X", b"12345678").is_ok());
    }

    #[test]
    fn debug_never_shows_the_value() {
        let secret = KnownSecret::new("X", b"hunter2hunter2").unwrap();
        let index = KnownIndex::new(std::slice::from_ref(&secret));
        assert!(!format!("{secret:?} {index:?}").contains("hunter2"));
    }
}
