//! Views: the input as another program would read it, with a map back to the raw bytes.
//!
//! A view takes off one layer of writing: escapes, look-alikes, line breaks, base64, compression. The same engines
//! then run over it, and views are made of the view in turn, so each engine works beneath every layer and layers nest
//! in any order. What keeps this cheap:
//!
//! - a view is made of a *region* only, where the masks of [`kernel`](crate::kernel) show that it may change something that a
//!   credential can be made of ([`regions`]); plain text has none;
//! - each region is read once by each decoder that its characters allow;
//! - depth, bytes and inflated bytes are bounded ([`Work`]), and a bound that is reached is a finding.

mod ascii85;
mod carried;
mod decoder;
mod digits;
mod fold;
mod inflate;
mod magics;
mod map;
mod narrow;
mod numbers;
mod quoted_printable;
mod regions;
mod spelled;
mod unescape;
mod uuencode;
mod wrap;

use std::cell::RefCell;
use std::ops::Range;

use crate::finding::{Confidence, RuleId, Severity};
use crate::kernel::{self, BLOCK, Level, Samples, Sweep};
use crate::known::KnownIndex;
use crate::tokens::Runs;
use crate::window::{Engines, Match};
pub(crate) use carried::{Broken, Carried, MAX_HELD};
pub(crate) use fold::ascii_reading;
pub(crate) use magics::{Magic, all as magics};
pub(crate) use map::{Rewriter, View, Writing};
pub(crate) use uuencode::BEGIN;

/// Layers that are taken off.
pub(crate) const MAX_DEPTH: u8 = 6;

/// Bytes of all views of one window, as a multiple of the window's own: base64 is read at four phases, hence three bytes
/// for one, and three times nested not seven.
const MAX_VIEWED: usize = 8;

/// Inflated bytes of one window, as a multiple of its own.
const MAX_INFLATED: usize = 4;

/// Bytes of pieces of tokens that are put together in one window, as a multiple of its own.
const MAX_JOINED: usize = 1;

/// Members with a magic number that are inflated, in one window.
const MAX_MEMBERS: usize = 256;

/// Attempts to inflate what only looks like compressed data, in one window.
const MAX_ATTEMPTS: usize = 160;

/// What any window may have on top, so that small inputs are not judged by their ratio.
const FREE: usize = 64 * 1024;

/// The work that one window may still cause.
#[derive(Debug)]
pub(crate) struct Work {
    level: Level,
    viewed: usize,
    inflated: usize,
    /// The same, of what can be carried if it costs more: it must not use up what others have.
    inflated_first: usize,
    /// Members that may still be inflated.
    members: usize,
    /// Attempts to inflate what has no magic number that may still be made.
    attempts: usize,
    /// Bytes of pieces that may still be put together.
    joined: usize,
    /// Whether what is read was made by a cipher.
    ciphered: bool,
    /// The depth of the texts of which a part stands before what is read.
    continued: Option<u8>,
    /// How what is read was made.
    chain: Chain,
    /// Compressed data that goes on behind the text, or for longer than is read at once.
    pub(crate) broken: Vec<Broken>,
    /// Bytes that engines were run over: what the tests of linear work count.
    pub(crate) steps: usize,
    /// Where a bound was first reached, in the raw text.
    exceeded: bool,
}

impl Work {
    pub(crate) fn new(level: Level, window: usize, first: bool) -> Self {
        Self {
            level,
            viewed: MAX_VIEWED * window + FREE,
            inflated: MAX_INFLATED * window + FREE,
            inflated_first: MAX_INFLATED * window + FREE,
            members: MAX_MEMBERS,
            attempts: MAX_ATTEMPTS,
            joined: MAX_JOINED * window + FREE,
            ciphered: false,
            continued: (!first).then_some(0),
            chain: Chain::Bytes,
            broken: Vec::new(),
            steps: 0,
            exceeded: false,
        }
    }

    /// That which a piece of so many inflated bytes may cause, of what is left.
    fn of_piece(level: Level, piece: usize, left: usize) -> Self {
        let mut work = Self::new(level, piece, true);
        work.viewed = work.viewed.min(left.saturating_sub(piece));
        work.inflated = work.inflated.min(left);
        work.inflated_first = work.inflated_first.min(left);
        work
    }
}

/// Whether what a text was made of can be read on behind its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chain {
    /// Bytes as they are, or base64 of such.
    Bytes,
    /// Those with escapes and line breaks in them.
    Rewritten,
    Lost,
    /// The same, and what ends with it need not have an end.
    Cut,
}

impl Chain {
    fn through(self, view: &View) -> Self {
        match (self, view.writing()) {
            (Self::Cut, _) => Self::Cut,
            (Self::Lost, _) | (_, Writing::Other) => Self::Lost,
            (_, Writing::Base64) => Self::Bytes,
            (_, Writing::Rewritten) => Self::Rewritten,
        }
    }
}

/// What is needed to read one text; kept for the next.
#[derive(Debug, Default)]
struct Scratch {
    sweep: Sweep,
    samples: Samples,
    runs: Runs,
    marks: regions::Marks,
}

thread_local! {
    /// As many as texts are nested.
    static SCRATCH: RefCell<Vec<Scratch>> = const { RefCell::new(Vec::new()) };
}

/// Runs `engines` over `text` and all views of it, and adds what they find. No match that is looked for begins at or after
/// `swept`. Says whether a region was cut off there, so that it must be asked again with more.
pub(crate) fn examine(
    engines: &Engines,
    text: &[u8],
    swept: usize,
    depth: u8,
    work: &mut Work,
    matches: &mut Vec<Match>,
) -> bool {
    let mut scratch = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    let Scratch {
        sweep,
        samples,
        runs,
        marks,
    } = &mut scratch;
    work.steps += swept;
    let near = text.get(..swept).unwrap_or(text);
    let squeezed = kernel::sweep(work.level, near, &engines.anchors.luts, sweep);
    marks.ciphered.clear();
    marks.begins.clear();
    marks.magics.clear();
    anchored(
        engines,
        text,
        near.len(),
        sweep,
        (&mut *runs, &mut *marks),
        work,
        matches,
    );
    if let Some(known) = &engines.known {
        let samples = (work.level, samples);
        known.find(text, near.len(), sweep, squeezed, samples, matches);
    }
    let mut cut = false;
    // At the greatest depth no view is read any more, and one that would be is a bound that was reached. Beneath a cipher
    // only the tokens themselves are looked for.
    if !work.ciphered {
        cut = regions::Reader::new(
            engines,
            text,
            near.len(),
            (sweep, marks),
            depth,
            work,
            matches,
        )
        .read();
    }
    SCRATCH.with_borrow_mut(|pool| pool.push(scratch));
    cut
}

/// Adds the tokens and the short variants of known secrets whose anchors stand in `text[..swept]`.
fn anchored(
    engines: &Engines,
    text: &[u8],
    swept: usize,
    sweep: &Sweep,
    (runs, marks): (&mut Runs, &mut regions::Marks),
    work: &mut Work,
    matches: &mut Vec<Match>,
) {
    let tokens = engines.tokens.as_ref();
    let exact = engines.known.as_ref().and_then(KnownIndex::exact);
    let (left, from) = (work.joined, matches.len());
    let mut state = tokens.map(|tokens| tokens.begin(runs, work.ciphered));
    let programs = tokens.map_or(0, |tokens| tokens.anchors().len()) as u32;
    let variants = exact.map_or(0, |exact| exact.anchors().len()) as u32;
    let mut known = Vec::new();
    let blocks = swept.div_ceil(BLOCK);
    let masks = sweep.candidates.get(..blocks).unwrap_or_default();
    // The last one does not tell what follows in the text.
    let classes = sweep.blocks(swept).first(swept / BLOCK);
    engines.anchors.find(
        work.level,
        (text, classes),
        sweep,
        masks,
        |at, number| match (number.checked_sub(programs), tokens, &mut state, exact) {
            (None, Some(tokens), Some(state), _) => {
                tokens.candidate(number, text, at, runs, state, &mut work.joined, matches);
            }
            (None, ..) => {}
            (Some(number), ..) if number >= variants => {
                let ciphered = tokens.map_or(&[][..], |tokens| tokens.ciphered());
                match ciphered.get((number - variants) as usize) {
                    Some((_, cipher)) if !work.ciphered => marks.ciphered.push((at, *cipher)),
                    Some(_) => {}
                    None => match (number - variants) as usize - ciphered.len() {
                        0 => marks.begins.extend(at.checked_sub(engines.begin_offset)),
                        magic => marks.magics.push((at, magic - 1)),
                    },
                }
            }
            (Some(variant), _, _, Some(exact)) => exact.candidate(variant, text, at, &mut known),
            _ => {}
        },
    );
    if let (Some(tokens), Some(state)) = (tokens, &mut state) {
        tokens.segments(text, swept, (sweep, classes), |at, number| {
            tokens.candidate(number, text, at, runs, state, &mut work.joined, matches);
        });
        tokens.resolve(matches, from);
    }
    matches.append(&mut known);
    if left > 0 && work.joined == 0 && !std::mem::replace(&mut work.exceeded, true) {
        matches.push(undecodable(0..1));
    }
}

/// Whether what was decoded from digits is worth another look: random bytes, which most such runs stand for, are not.
/// Only where the digits surely begin compressed data without a magic number is told.
fn is_promising(level: Level, decoded: &[u8], whole: bool) -> bool {
    kernel::is_readable(level, decoded)
        || is_utf8(decoded)
        || inflate::is_compressed(decoded, whole)
}

/// Whether the beginning is text in other than ASCII characters.
fn is_utf8(decoded: &[u8]) -> bool {
    const LOOKED_AT: usize = 28;
    let beginning = decoded.get(..LOOKED_AT).unwrap_or(decoded);
    beginning.len() >= kernel::READABLE
        && match std::str::from_utf8(beginning) {
            Ok(text) => !text.chars().any(|c| c.is_control() && !c.is_whitespace()),
            Err(error) => error.valid_up_to() + 4 > LOOKED_AT,
        }
}

/// Runs `engines` over a view of `source`, which begins at `start` of the text that `matches` are of.
fn examine_view(
    engines: &Engines,
    view: &View,
    start: usize,
    depth: u8,
    work: &mut Work,
    matches: &mut Vec<Match>,
) {
    if view.text.is_empty() {
        return;
    }
    let left = work.viewed.checked_sub(view.text.len());
    let Some(left) = left.filter(|_| depth < MAX_DEPTH) else {
        exceed(view, start, work, matches);
        return;
    };
    work.viewed = left;
    let mut found = Vec::new();
    let (chain, known) = (work.chain, work.broken.len());
    work.chain = chain.through(view);
    examine(
        engines,
        &view.text,
        view.text.len(),
        depth + 1,
        work,
        &mut found,
    );
    work.chain = chain;
    for broken in work.broken.iter_mut().skip(known) {
        broken.outside(view, start);
    }
    found.extend(view.flood().map(hidden_text));
    for mut found in found {
        let mut via = Vec::new();
        found.span = view.to_source(found.span, &mut via);
        found.span.start += start;
        found.span.end += start;
        via.append(&mut found.via);
        found.via = via;
        matches.push(found);
    }
}

/// Reports, once a window, that not everything was decoded.
fn exceed(view: &View, start: usize, work: &mut Work, matches: &mut Vec<Match>) {
    if std::mem::replace(&mut work.exceeded, true) {
        return;
    }
    let span = view.to_source(0..1, &mut Vec::new());
    matches.push(undecodable(start + span.start..start + span.end));
}

/// The rule of what could not be decoded to its end.
pub(crate) const UNDECODABLE: RuleId = RuleId("undecodable");

/// What could not be decoded to its end.
pub(crate) fn undecodable(span: Range<usize>) -> Match {
    Match {
        rule: UNDECODABLE,
        severity: Severity::Block,
        credential: "Data that cannot be decoded within bounds".into(),
        span,
        via: Vec::new(),
        rank: 0,
        structural: false,
        confidence: Confidence::Shape,
        shadow: false,
    }
}

/// `text` with one layer of percent-encoding off, if it has any.
pub(crate) fn percent_decoded(text: &[u8]) -> Option<View> {
    let mut rewriter = Rewriter::new(text);
    unescape::percent_decode(&mut rewriter);
    rewriter.finish()
}

/// A stretch of text that no reader sees, longer than any writing has: it can only be there to push the
/// characters of a credential so far apart that no window holds it.
fn hidden_text(span: Range<usize>) -> Match {
    Match {
        rule: RuleId("hidden-text"),
        severity: Severity::Block,
        credential: "A flood of invisible characters".into(),
        span,
        via: Vec::new(),
        rank: 0,
        structural: false,
        confidence: Confidence::Structure,
        shadow: false,
    }
}
