//! Windows: the fixed pieces in which every input is scanned, however it arrives.
//!
//! Window `k` *owns* the findings that begin in bytes `k * BLOCK .. (k + 1) * BLOCK`, and sees [`LOOK_BACK`]
//! bytes before them and `look_ahead` bytes after. Since the offsets depend on the input alone, a cut
//! between chunks cannot change a verdict: that holds by construction, not by case analysis in each engine.

use std::ops::Range;

use crate::entropy;
use crate::finding::{Confidence, Finding, Location, Matched, RuleId, Severity, Via};
use crate::kernel::Level;
use crate::known::KnownIndex;
use crate::memory::Memory;
use crate::redact;
use crate::tokens::{Anchors, TokenEngine};
use crate::view::{self, Broken, Carried, Magic, Work};

/// Bytes that one window owns.
pub(crate) const BLOCK: usize = 64 * 1024;

/// Bytes after the owned ones that a window sees. A finding must lie wholly inside its window, so this
/// bounds how far a credential can be stretched by padding: 32 invisible characters of 4 bytes after each
/// of 93 characters are 12 KiB, and an open repetition ends after 4 KiB.
pub(crate) const LOOK_AHEAD: usize = 16 * 1024;

/// Bytes before the owned ones that a window sees: a decoder that starts in the middle of an escape is in
/// step again after a few bytes, and a finding's context needs 40 characters.
pub(crate) const LOOK_BACK: usize = 512;

/// Bytes after the owned ones in which a match that begins in those is told, unless it is stretched; then it is looked for
/// again in all of the window.
const NEAR: usize = 2048;

/// Letters and digits after the owned bytes that a known secret needs to be told.
const NEAR_SQUEEZED: usize = 64;

/// Characters of base64 in a row, before that end, from which on more are likely.
const LONG_DIGITS: usize = 64;

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

impl Window<'_> {
    /// What of a span of the input lies in the window.
    fn local(&self, span: &Range<u64>) -> Range<usize> {
        let local = |at: u64| usize::try_from(at.saturating_sub(self.base)).unwrap_or(usize::MAX);
        local(span.start)..local(span.end).min(self.bytes.len())
    }
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
    /// Whether it was reported that not everything was decoded.
    undecodable: bool,
    /// Bytes that engines were run over.
    steps: usize,
    /// Whether a window was none that is known.
    read: bool,
    /// Compressed data that has begun and not ended.
    carried: Carried,
}

impl History {
    /// Up to where the input may leave, after the window that owns it up to `own_end`.
    pub(crate) fn released(&self, own_end: u64) -> u64 {
        if self.reported > MAX_FINDINGS {
            return own_end;
        }
        self.carried.released().min(own_end)
    }

    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// What comes next is another input.
    pub(crate) fn restart(&mut self) {
        *self = Self {
            read: self.read,
            ..Self::default()
        };
    }

    /// Whether a window had to be read since this was asked last.
    pub(crate) fn has_read(&mut self) -> bool {
        std::mem::take(&mut self.read)
    }
}

/// A match in the bytes of one window.
#[derive(Clone, Debug)]
pub(crate) struct Match {
    pub(crate) rule: RuleId,
    pub(crate) severity: Severity,
    pub(crate) credential: Box<str>,
    pub(crate) span: Range<usize>,
    pub(crate) via: Vec<Via>,
    /// Of two token rules that match at one place the one with the lower rank names it.
    pub(crate) rank: u32,
    pub(crate) structural: bool,
    pub(crate) confidence: Confidence,
    /// Another match in it names it; this one says only what must not be shown beside that.
    pub(crate) shadow: bool,
}

/// The detectors of a scanner.
#[derive(Debug)]
pub(crate) struct Engines {
    pub(crate) tokens: Option<TokenEngine>,
    pub(crate) known: Option<KnownIndex>,
    pub(crate) entropy: bool,
    pub(crate) undecodable: Severity,
    pub(crate) look_ahead: usize,
    pub(crate) level: Level,
    /// Those of the token rules' programs, after them those of short variants of known secrets, those of strong
    /// programs in ciphers, that of a uuencoded file's beginning, and those of magic numbers in base64.
    pub(crate) anchors: Anchors,
    pub(crate) magics: Vec<Magic>,
    /// How far after such a beginning its anchor stands.
    pub(crate) begin_offset: usize,
}

impl Engines {
    pub(crate) fn scan_window(
        &self,
        location: &Location,
        window: Window<'_>,
        memory: Option<&Memory>,
        history: &mut History,
        findings: &mut Vec<Finding>,
    ) {
        if history.reported > MAX_FINDINGS {
            history.read = true;
            return;
        }
        let first = findings.len();
        let mut matches = Vec::new();
        let broken = self.examine_once(&window, memory, history, &mut matches);
        let (mut inside, steps) = history.carried.read(self, &window, broken);
        history.steps += steps;
        let undecodable = &mut history.undecodable;
        let mut is_news = |found: &mut Match| {
            if found.rule != view::UNDECODABLE {
                return true;
            }
            found.severity = self.undecodable;
            !std::mem::replace(undecodable, true)
        };
        matches.retain_mut(|found| {
            if found.rule != view::UNDECODABLE {
                return true;
            }
            // It is about all of the window, wherever in it the bound was reached. Once an input is enough: a second one
            // would say the same.
            let last = window.own.end.saturating_sub(1);
            found.span.start = found.span.start.clamp(window.own.start, last);
            found.span.end = found.span.end.max(found.span.start + 1);
            is_news(found)
        });
        inside.retain_mut(|(found, _)| is_news(found));
        if self.entropy {
            entropy::find(&window, &mut history.entropy, &mut matches);
        }
        if matches.is_empty() && inside.is_empty() {
            history.recent.clear();
            return;
        }
        let hidden: Vec<Range<usize>> = matches
            .iter()
            .map(|found| found.span.clone())
            .chain(inside.iter().map(|(_, span)| window.local(span)))
            .chain(history.recent.iter().map(|(_, _, span)| window.local(span)))
            .collect();
        let hidden = redact::union(&hidden);
        // Those of other windows go before merging: a chain of overlapping ones that begins in the look-back
        // must not take this window's into a finding that was reported with a shorter span.
        matches.retain(|found| !found.shadow && window.own.contains(&found.span.start));
        let mut report = Report {
            location,
            window: &window,
            hidden: &hidden,
            history,
            findings,
        };
        for found in merge(window.bytes, matches) {
            let span = window.base + found.span.start as u64..window.base + found.span.end as u64;
            report.add(found, span);
        }
        // What is inside of compressed data has that for its place: one of a kind is enough.
        inside.sort_by(|(a, here), (b, there)| {
            (here.start, a.rule, &a.credential, a.via.len(), &a.via).cmp(&(
                there.start,
                b.rule,
                &b.credential,
                b.via.len(),
                &b.via,
            ))
        });
        inside.dedup_by(|(next, there), (kept, here)| {
            next.rule == kept.rule
                && next.credential == kept.credential
                && there.start == here.start
        });
        for (found, span) in inside {
            report.add(found, span);
        }
        if let Some(new) = findings.get_mut(first..) {
            new.sort_by_key(|found| (found.rule == FINDING_LIMIT, found.span.start));
        }
        let own_end = window.base + window.own.end as u64;
        history
            .recent
            .retain(|(_, _, span)| span.end + LOOK_BACK as u64 > own_end);
    }

    /// As [`Engines::examine`], unless this very window was clean before. What it says depends on nothing but the window.
    fn examine_once(
        &self,
        window: &Window<'_>,
        memory: Option<&Memory>,
        history: &mut History,
        matches: &mut Vec<Match>,
    ) -> Vec<Broken> {
        let known = memory.and_then(|memory| Some((memory, memory.tag(window)?)));
        if known.is_some_and(|(memory, tag)| memory.knows(&tag)) {
            return Vec::new();
        }
        history.read = true;
        let (steps, broken) = self.examine(window, matches);
        history.steps += steps;
        if let Some((memory, tag)) = known
            && matches.is_empty()
            && broken.is_empty()
        {
            memory.keep(tag, window);
        }
        broken
    }

    /// Runs all engines over the window and its views. Returns how many bytes they were run over, and what goes on behind it.
    fn examine(&self, window: &Window<'_>, matches: &mut Vec<Match>) -> (usize, Vec<Broken>) {
        let text = window.bytes;
        // Only what can begin a finding of this window, and a little more: the look-ahead is for what is stretched, and
        // clean plain text is read about once.
        let mut near = (window.own.end + NEAR).min(text.len());
        let after = text.get(window.own.end..near).unwrap_or_default();
        if after
            .iter()
            .filter(|byte| byte.is_ascii_alphanumeric())
            .take(NEAR_SQUEEZED)
            .count()
            < NEAR_SQUEEZED
        {
            near = text.len();
        }
        // Long digits are read to the end of the window at once.
        let last = text
            .get(near.saturating_sub(LONG_DIGITS)..near)
            .unwrap_or_default();
        if last
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_'))
        {
            near = text.len();
        }
        let mut work = Work::new(self.level, text.len(), window.base == 0);
        let cut = view::examine(self, text, near, 0, &mut work, matches);
        let mut steps = work.steps;
        // What ends so near to the end of what was read may go on behind it.
        let at_end = |found: &Match| found.span.end + 64 >= near;
        if near < text.len() && (cut || matches.iter().any(at_end)) {
            matches.clear();
            work = Work::new(self.level, text.len(), window.base == 0);
            view::examine(self, text, text.len(), 0, &mut work, matches);
            steps += work.steps;
        }
        (steps, work.broken)
    }
}

/// Where the findings of one window go.
struct Report<'a> {
    location: &'a Location,
    window: &'a Window<'a>,
    /// What must not be shown beside another finding.
    hidden: &'a [Range<usize>],
    history: &'a mut History,
    findings: &'a mut Vec<Finding>,
}

impl Report<'_> {
    /// Adds a finding that has not been reported yet.
    fn add(&mut self, found: Match, span: Range<u64>) {
        let history = &mut *self.history;
        let seen = history.recent.iter().any(|(rule, credential, earlier)| {
            *rule == found.rule
                && *credential == found.credential
                && earlier.start <= span.start
                && span.end <= earlier.end
        });
        if seen || history.reported > MAX_FINDINGS {
            return;
        }
        history.reported += 1;
        if history.reported > MAX_FINDINGS {
            self.findings.push(give_up(self.location, span));
            return;
        }
        history
            .recent
            .push((found.rule, found.credential.clone(), span.clone()));
        let local = self.window.local(&span);
        self.findings.push(Finding {
            severity: found.severity,
            rule: found.rule,
            credential: found.credential,
            location: self.location.clone(),
            span,
            context: redact::context(self.window.bytes, &local, self.hidden),
            matched: Matched::new(self.window.bytes.get(local).unwrap_or_default()),
            confidence: found.confidence,
            via: found.via,
            structural: found.structural,
        });
    }
}

/// One finding for each credential in each place, though several views show it: the shortest decoding
/// names it, and the span covers what any of them saw.
pub(crate) fn merge(text: &[u8], mut matches: Vec<Match>) -> Vec<Match> {
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
        if same && is_same_in_plain(kept, next) {
            // In plain it is what it seems, where a view read too much into what stands before.
            kept.via.clear();
            kept.span = next.span.clone();
        } else if same {
            // What stands there in plain goes on in a view, unless behind a line break.
            let more = text.get(kept.span.end..next.span.end).unwrap_or_default();
            if kept.rank == 0 || !kept.via.is_empty() || !more.iter().any(u8::is_ascii_whitespace) {
                kept.span.end = kept.span.end.max(next.span.end);
            }
        }
        same
    });
    matches.sort_by_key(|found| (found.span.start, found.span.end));
    // Another rule that sees, in a decoding of a token or of what follows it, the same token again.
    let plain: Vec<(RuleId, Range<usize>)> = matches
        .iter()
        .filter(|found| found.via.is_empty() && found.rank > 0)
        .map(|found| (found.rule, found.span.clone()))
        .collect();
    matches.retain(|found| {
        found.rank == 0
            || !plain.iter().any(|(rule, span)| {
                let inside = span.start <= found.span.start && found.span.end <= span.end;
                *rule != found.rule
                    && if found.via.is_empty() {
                        inside && *span != found.span
                    } else {
                        span.contains(&found.span.start)
                    }
            })
    });
    matches
}

/// Whether a view read a little of what stands before a token into it, and the token stands in plain.
fn is_same_in_plain(kept: &Match, next: &Match) -> bool {
    const LITTLE: usize = 4;
    kept.rank > 0
        && next.via.is_empty()
        && !kept.via.is_empty()
        && next.span.start - kept.span.start <= LITTLE
        && next.span.end >= kept.span.end
}

/// The rule of what is not looked for any more.
const FINDING_LIMIT: RuleId = RuleId("finding-limit");

fn give_up(location: &Location, span: Range<u64>) -> Finding {
    Finding {
        severity: Severity::Block,
        rule: FINDING_LIMIT,
        credential: format!("more than {MAX_FINDINGS} credentials").into(),
        location: location.clone(),
        span,
        context: "".into(),
        matched: Matched::new(b""),
        confidence: Confidence::Structure,
        via: Vec::new(),
        structural: true,
    }
}
