//! Windows: the fixed pieces in which every input is scanned, however it arrives.
//!
//! Window `k` *owns* the findings that begin in bytes `k * BLOCK .. (k + 1) * BLOCK`, and sees [`LOOK_BACK`]
//! bytes before them and `look_ahead` bytes after. Since the offsets depend on the input alone, a cut
//! between chunks cannot change a verdict: that holds by construction, not by case analysis in each engine.

use std::ops::Range;

use crate::entropy;
use crate::finding::{Finding, Location, Matched, RuleId, Severity, Via};
use crate::known::KnownIndex;
use crate::redact;
use crate::tokens::{MIN_SHAPE, Tail, TokenEngine};
use crate::view;

/// Bytes that one window owns.
pub(crate) const BLOCK: usize = 64 * 1024;

/// Bytes after the owned ones that a window sees. A finding must lie wholly inside its window, so this
/// bounds how far a credential can be stretched by padding: 32 invisible characters of 4 bytes after each
/// of the 93 characters of the longest minimal shape are 12 KiB; and a match's tail is cut at
/// [`MAX_TAIL`](crate::tokens::MAX_TAIL).
pub(crate) const LOOK_AHEAD: usize = 16 * 1024;

/// Bytes before the owned ones that a window sees: a decoder that starts in the middle of an escape is in
/// step again after a few bytes, and a finding's context needs 40 characters.
pub(crate) const LOOK_BACK: usize = 512;

/// Findings of one input before the rest is given up, with a structural finding that says so. A request
/// that holds this many will not be let through by looking for more.
const MAX_FINDINGS: usize = 1024;

/// A piece of the input as the engines see it.
#[derive(Clone, Debug)]
pub(crate) struct Window<'a> {
    pub(crate) bytes: &'a [u8],
    /// The input offset of the first of `bytes`.
    pub(crate) base: u64,
    /// The part of `bytes` in which this window's own findings begin.
    pub(crate) own: Range<usize>,
}

/// All windows of a whole input.
pub(crate) fn windows(input: &[u8], look_ahead: usize) -> impl Iterator<Item = Window<'_>> {
    (0..input.len()).step_by(BLOCK).map(move |own_start| {
        let start = own_start.saturating_sub(LOOK_BACK);
        let own_end = (own_start + BLOCK).min(input.len());
        let end = (own_start + BLOCK + look_ahead).min(input.len());
        Window {
            bytes: input.get(start..end).unwrap_or_default(),
            base: start as u64,
            own: own_start - start..own_end - start,
        }
    })
}

/// What one window must know of those before it.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Findings so far that reach past the last owned byte, so that they are not reported a second time.
    recent: Vec<(RuleId, Box<str>, Range<u64>)>,
    reported: usize,
    entropy: entropy::History,
}

/// A match in the bytes of one window.
#[derive(Clone, Debug)]
pub(crate) struct Match {
    pub(crate) rule: RuleId,
    pub(crate) severity: Severity,
    pub(crate) credential: Box<str>,
    pub(crate) span: Range<usize>,
    pub(crate) via: Vec<Via>,
    /// By what the match went on after its minimal shape, if by anything.
    pub(crate) tail: Option<Tail>,
    pub(crate) structural: bool,
}

/// The detectors of a scanner.
#[derive(Debug)]
pub(crate) struct Engines {
    pub(crate) tokens: Option<TokenEngine>,
    pub(crate) known: Option<KnownIndex>,
    pub(crate) entropy: bool,
    pub(crate) look_ahead: usize,
}

impl Engines {
    pub(crate) fn scan_window(
        &self,
        location: &Location,
        window: Window<'_>,
        history: &mut History,
        findings: &mut Vec<Finding>,
    ) {
        if history.reported > MAX_FINDINGS {
            return;
        }
        let mut matches = Vec::new();
        // Only what can begin a finding of this window, and with it the end of the longest minimal shape: the
        // look-ahead is for what is stretched, and clean plain text is read about once.
        let reach = MIN_SHAPE.max(self.known.as_ref().map_or(0, KnownIndex::longest));
        let near = window.own.start..(window.own.end + reach).min(window.bytes.len());
        self.find(window.bytes.get(near).unwrap_or_default(), &mut matches);
        if !matches.is_empty() {
            // Now with what stands around, for tails and for the context.
            matches.clear();
            self.find(window.bytes, &mut matches);
        }
        view::find(self, window.bytes, reach, &mut matches);
        if self.entropy {
            entropy::find(&window, &mut history.entropy, &mut matches);
        }
        if matches.is_empty() {
            history.recent.clear();
            return;
        }
        let hidden: Vec<Range<usize>> = matches
            .iter()
            .map(|found| found.span.clone())
            .chain(history.recent.iter().map(|(_, _, span)| {
                let local =
                    |at: u64| usize::try_from(at.saturating_sub(window.base)).unwrap_or(usize::MAX);
                local(span.start)..local(span.end).min(window.bytes.len())
            }))
            .collect();
        let hidden = redact::union(&hidden);
        // Those of other windows go before merging: a chain of overlapping ones that begins in the look-back
        // must not take this window's into a finding that was reported with a shorter span.
        matches.retain(|found| window.own.contains(&found.span.start));
        for found in merge(matches) {
            let span = window.base + found.span.start as u64..window.base + found.span.end as u64;
            let seen = history.recent.iter().any(|(rule, credential, earlier)| {
                *rule == found.rule
                    && *credential == found.credential
                    && earlier.start <= span.start
                    && span.end <= earlier.end
            });
            if seen {
                continue;
            }
            history.reported += 1;
            if history.reported > MAX_FINDINGS {
                findings.push(give_up(location, span));
                return;
            }
            history
                .recent
                .push((found.rule, found.credential.clone(), span.clone()));
            findings.push(Finding {
                severity: found.severity,
                rule: found.rule,
                credential: found.credential,
                location: location.clone(),
                span,
                context: redact::context(window.bytes, &found.span, &hidden),
                matched: Matched::new(window.bytes.get(found.span).unwrap_or_default()),
                via: found.via,
                structural: found.structural,
            });
        }
        let own_end = window.base + window.own.end as u64;
        history
            .recent
            .retain(|(_, _, span)| span.end + LOOK_BACK as u64 > own_end);
    }

    /// Runs tokens and known secrets over `text`, raw or decoded.
    pub(crate) fn find(&self, text: &[u8], matches: &mut Vec<Match>) {
        if let Some(tokens) = &self.tokens {
            tokens.find(text, matches);
        }
        if let Some(known) = &self.known {
            known.find(text, matches);
        }
    }
}

/// One finding for each credential in each place, though several views show it: the shortest decoding
/// names it, and the span covers what any of them saw.
fn merge(mut matches: Vec<Match>) -> Vec<Match> {
    matches.sort_by(|a, b| {
        (a.rule, &a.credential, a.span.start, a.via.len(), &a.via).cmp(&(
            b.rule,
            &b.credential,
            b.span.start,
            b.via.len(),
            &b.via,
        ))
    });
    matches.dedup_by(|next, kept| {
        let same = next.rule == kept.rule
            && next.credential == kept.credential
            && next.span.start < kept.span.end;
        if same {
            kept.span.end = kept.span.end.max(next.span.end);
        }
        same
    });
    matches.sort_by_key(|found| (found.span.start, found.span.end));
    matches
}

fn give_up(location: &Location, span: Range<u64>) -> Finding {
    Finding {
        severity: Severity::Block,
        rule: RuleId("finding-limit"),
        credential: format!("more than {MAX_FINDINGS} credentials").into(),
        location: location.clone(),
        span,
        context: "".into(),
        matched: Matched::new(b""),
        via: Vec::new(),
        structural: true,
    }
}
