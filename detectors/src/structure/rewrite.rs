//! Writes a document anew without what lies in some spans.

use std::ops::Range;

use crate::redact::MASK;

/// Copies a document, leaf by leaf in the order of its bytes, and replaces what lies in `spans`. What is in no leaf is copied.
pub(super) struct Rewriter<'a> {
    pub(super) input: &'a [u8],
    spans: &'a [Range<usize>],
    /// Spans that end before the leaf that is next.
    passed: usize,
    /// Input up to here is written, or replaced.
    done: usize,
    /// Whether what was written last stands for what ends at `done`.
    masked: bool,
    output: Vec<u8>,
}

impl<'a> Rewriter<'a> {
    /// `spans` are sorted and do not overlap.
    pub(super) fn new(input: &'a [u8], spans: &'a [Range<usize>]) -> Self {
        Self {
            input,
            spans,
            passed: 0,
            done: 0,
            masked: false,
            output: Vec::with_capacity(input.len()),
        }
    }

    /// Whether a span touches this leaf, which begins at or after the end of the last one.
    pub(super) fn touches(&mut self, leaf: &Range<usize>) -> bool {
        while self
            .spans
            .get(self.passed)
            .is_some_and(|span| span.end <= leaf.start)
        {
            self.passed += 1;
        }
        self.spans
            .get(self.passed)
            .is_some_and(|span| span.start < leaf.end && !leaf.is_empty())
    }

    /// Replaces a leaf as a whole if it is touched at all.
    pub(super) fn whole(&mut self, leaf: Range<usize>, by: &[u8]) {
        if self.touches(&leaf) {
            self.replace(leaf, by);
        }
    }

    /// Replaces what is touched of a leaf. `unit` is the length of what begins at an offset and must not be cut. Says
    /// whether anything was replaced.
    pub(super) fn parts(
        &mut self,
        leaf: Range<usize>,
        unit: impl Fn(&[u8], usize) -> usize,
        by: &[u8],
    ) -> bool {
        if !self.touches(&leaf) {
            return false;
        }
        let mut at = leaf.start;
        let mut next = self.passed;
        while at < leaf.end
            && let Some(span) = self.spans.get(next)
            && span.start < leaf.end
        {
            let end = (at + unit(self.input, at).max(1)).min(leaf.end);
            if span.end <= at {
                next += 1;
                continue;
            }
            if span.start < end {
                self.replace(at..end, by);
            }
            at = end;
        }
        true
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let rest = self.input.get(self.done..).unwrap_or_default();
        self.output.extend_from_slice(rest);
        self.output
    }

    fn replace(&mut self, range: Range<usize>, by: &[u8]) {
        let before = self.input.get(self.done..range.start).unwrap_or_default();
        self.output.extend_from_slice(before);
        // Units side by side become one.
        if !before.is_empty() || !self.masked {
            self.output.extend_from_slice(by);
        }
        self.masked = true;
        self.done = range.end;
    }
}

/// The length of the UTF-8 character that begins at an offset; 1 for what is none.
pub(super) fn character(input: &[u8], at: usize) -> usize {
    let continues = |byte: &&u8| **byte & 0xC0 == 0x80;
    match input.get(at) {
        Some(0xC0..) => {
            1 + input
                .get(at + 1..)
                .unwrap_or_default()
                .iter()
                .take(3)
                .take_while(continues)
                .count()
        }
        _ => 1,
    }
}

/// What stands where the `number`th name was: no two are the same, so that no field hides another.
pub(super) fn name_mask(number: usize) -> String {
    if number == 0 {
        MASK.to_owned()
    } else {
        format!("{MASK}-{}", number + 1)
    }
}
