//! Views: the input as another program would read it, with a map back to the raw bytes.
//!
//! A view takes off one layer of writing: NULs between characters, escapes, quoted-printable, Unicode
//! dressing, line breaks. The same engines then run over it, so each of them works beneath every layer.
//! Views are chained ([`CHAINS`]), for layers nest.
//!
//! Four properties keep this cheap and make it independent of where a window begins:
//!
//! - views are made of *dressed* regions only ([`dressed`]), so plain text costs one pass of [`Traits`];
//! - no step makes a text longer, and there are at most `CHAINS.len()` texts a region: work is linear;
//! - a text that an earlier chain made is not scanned again;
//! - each step looks a few bytes around and keeps no state, so it is in step again a few bytes after a cut.
//!
//! Decoders of whole regions (base64, hex, inflate) will be further steps; the chain and the map are theirs
//! too.

mod dressed;
mod fold;
mod map;
mod narrow;
mod quoted_printable;
mod simd;
mod traits;
mod unescape;
mod unwrap;

use std::ops::Range;

use crate::finding::{RuleId, Severity};
use crate::window::{Engines, Match};
use map::Rewriter;
pub(crate) use map::View;
use traits::Traits;

/// One layer that can be taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// NULs of UTF-16 and UTF-32.
    Narrow,
    /// Percent, backslash and HTML escapes.
    Unescape,
    QuotedPrintable,
    /// Unicode look-alikes and invisible characters.
    Fold,
    /// Line breaks inside runs of base64.
    Unwrap,
}

use Step::{Fold, Narrow, QuotedPrintable, Unescape, Unwrap};

/// The orders in which layers are taken off; each chain's beginnings are chains too.
///
/// Not all orders of all steps, which would be 155: steps that rarely get in each other's way stand in one
/// order only, and a text that was already seen (most orders of one set of steps agree) is not followed.
const CHAINS: &[&[Step]] = &[
    &[Narrow],
    &[Unescape],
    &[QuotedPrintable],
    &[Fold],
    &[Unwrap],
    &[Narrow, Unescape],
    &[Narrow, Fold],
    &[Unescape, Unescape],
    &[Unescape, Fold],
    &[Unescape, QuotedPrintable],
    &[Unescape, Narrow],
    &[Unescape, Unwrap],
    &[QuotedPrintable, Unescape],
    &[QuotedPrintable, Fold],
    &[QuotedPrintable, Unwrap],
    &[Fold, Unescape],
    &[Fold, Unwrap],
    &[Unwrap, Unescape],
    &[Narrow, Unescape, Fold],
    &[Unescape, Unescape, Unescape],
    &[Unescape, Unescape, Fold],
    &[Unescape, Unescape, Unwrap],
    &[Unescape, QuotedPrintable, Fold],
    &[QuotedPrintable, Unescape, Fold],
];

impl Step {
    fn applies(self, traits: Traits) -> bool {
        match self {
            Narrow => traits.nul,
            Unescape => traits.escape,
            QuotedPrintable => traits.equals,
            Fold => traits.non_ascii,
            Unwrap => traits.line_break,
        }
    }

    fn apply(self, text: &[u8]) -> Option<View> {
        self.rewrite(text).finish()
    }

    fn changes(self, text: &[u8]) -> bool {
        if self == Unwrap && !unwrap::may_change(text) {
            return false;
        }
        self.rewrite(text).has_changed()
    }

    fn rewrite(self, text: &[u8]) -> Rewriter<'_> {
        let mut rewriter = Rewriter::new(text);
        match self {
            Narrow => narrow::narrow(&mut rewriter),
            Unescape => unescape::unescape(&mut rewriter),
            QuotedPrintable => quoted_printable::decode(&mut rewriter),
            Fold => fold::fold(&mut rewriter),
            Unwrap => unwrap::unwrap(&mut rewriter),
        }
        rewriter
    }
}

/// A view and how it came to be.
struct Node {
    chain: &'static [Step],
    view: View,
    /// Of what it was made, the raw text if none.
    parent: Option<usize>,
}

/// Runs `engines` over every view of `raw`, and adds what they find, in raw offsets.
///
/// `reach` is the length of the longest plain text that an engine must see to match.
pub(crate) fn find(engines: &Engines, raw: &[u8], reach: usize, matches: &mut Vec<Match>) {
    for region in dressed::regions(raw, reach) {
        let known = matches.len();
        find_in(
            engines,
            raw.get(region.clone()).unwrap_or_default(),
            matches,
        );
        for found in matches.iter_mut().skip(known) {
            found.span.start += region.start;
            found.span.end += region.start;
            // The tail goes on where the region, but not the text, ended.
            if let Some(tail) = found.tail.filter(|_| found.span.end == region.end) {
                found.span.end += tail.length(raw.get(region.end..).unwrap_or_default());
            }
        }
    }
}

/// Runs `engines` over every view of a region.
fn find_in(engines: &Engines, raw: &[u8], matches: &mut Vec<Match>) {
    let raw_traits = Traits::of(raw);
    let mut nodes: Vec<Node> = Vec::new();
    for chain in CHAINS {
        let [before @ .., step] = *chain else {
            continue;
        };
        let parent = nodes.iter().position(|node| node.chain == before);
        let (text, traits) = match parent.and_then(|index| nodes.get(index)) {
            Some(node) => (&node.view.text[..], node.view.traits),
            None if before.is_empty() => (raw, raw_traits),
            // The chain's beginning changed nothing, or made what another chain makes.
            None => continue,
        };
        if !step.applies(traits) {
            continue;
        }
        let Some(view) = step.apply(text) else {
            continue;
        };
        if nodes.iter().any(|node| node.view.text == view.text) {
            continue;
        }
        nodes.push(Node {
            chain,
            view,
            parent,
        });
        let mut found = Vec::new();
        let Some(node) = nodes.last() else { continue };
        engines.find(&node.view.text, &mut found);
        found.extend(node.view.flood().map(hidden_text));
        matches.extend(found.into_iter().map(|found| to_raw(found, node, &nodes)));
    }
}

/// `text` with one layer of percent-encoding off, if it has any.
pub(crate) fn percent_decoded(text: &[u8]) -> Option<View> {
    let mut rewriter = Rewriter::new(text);
    unescape::percent_decode(&mut rewriter);
    rewriter.finish()
}

/// A match in `node`'s text as one in the raw text.
fn to_raw(mut found: Match, node: &Node, nodes: &[Node]) -> Match {
    let mut node = Some(node);
    while let Some(Node { view, parent, .. }) = node {
        let mut via = Vec::new();
        found.span = view.to_source(found.span, &mut via);
        via.append(&mut found.via);
        found.via = via;
        node = parent.and_then(|index| nodes.get(index));
    }
    found
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
        tail: None,
        structural: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_beginning_of_a_chain_is_a_chain_before_it() {
        for (index, chain) in CHAINS.iter().enumerate() {
            let before = &chain[..chain.len() - 1];
            assert!(
                before.is_empty() || CHAINS[..index].contains(&before),
                "{chain:?}"
            );
        }
    }
}
