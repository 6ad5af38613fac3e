//! Looks for variants too short for the [grams](super::grams), as they stand: each has an [anchor](Anchor) among those of the
//! token rules, and is compared where that stands.

use std::fmt;

use super::variants::Variant;
use crate::finding::RuleId;
use crate::tokens::Anchor;
use crate::window::Match;

/// The variants of all known secrets.
pub(crate) struct ExactIndex {
    names: Vec<(RuleId, Box<str>)>,
    variants: Vec<(u32, Variant)>,
    anchors: Vec<Anchor>,
    /// Where in each variant its anchor stands.
    offsets: Vec<usize>,
}

impl fmt::Debug for ExactIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactIndex")
            .field("names", &self.names)
            .field("variants", &self.variants.len())
            .finish_non_exhaustive()
    }
}

impl ExactIndex {
    /// `variants` with the number of their secret; `names` by that number.
    pub(super) fn new(names: Vec<(RuleId, Box<str>)>, variants: Vec<(u32, Variant)>) -> Self {
        let (anchors, offsets) = variants
            .iter()
            .map(|(_, variant)| Anchor::of_literal(&variant.bytes))
            .unzip();
        Self {
            names,
            variants,
            anchors,
            offsets,
        }
    }

    /// The anchor of each variant.
    pub(crate) fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }

    /// Adds variant `number`, whose anchor stands at `at`, if it does. `matches` are of such variants alone.
    #[inline(never)]
    pub(crate) fn candidate(&self, number: u32, text: &[u8], at: usize, matches: &mut Vec<Match>) {
        let number = number as usize;
        let (Some((secret, variant)), Some(offset)) =
            (self.variants.get(number), self.offsets.get(number))
        else {
            return;
        };
        let Some(start) = at.checked_sub(*offset) else {
            return;
        };
        let span = start..start + variant.bytes.len();
        if !text
            .get(span.clone())
            .is_some_and(|bytes| bytes.eq_ignore_ascii_case(&variant.bytes))
        {
            return;
        }
        let Some((rule, name)) = self.names.get(*secret as usize) else {
            return;
        };
        // A value of one repeated letter matches at every position of a run of it.
        let earlier = matches
            .iter_mut()
            .rev()
            .find(|found| found.rule == *rule && found.credential == *name);
        match earlier {
            Some(earlier) if earlier.span.start <= span.start && span.start < earlier.span.end => {
                earlier.span.end = earlier.span.end.max(span.end);
            }
            _ => matches.push(super::found(*rule, name.clone(), span, variant.via.clone())),
        }
    }
}
