//! Offsets of a view's text back to what it was made from.

use std::ops::Range;

use super::traits::Traits;
use crate::finding::Via;

/// Bytes that a view may take out in one place. More is not how anybody writes.
const FLOOD: u32 = 128;

/// A text and where its bytes came from.
pub(crate) struct View {
    pub(crate) text: Vec<u8>,
    pub(super) traits: Traits,
    map: OffsetMap,
}

impl View {
    /// The source bytes behind `span`, which is not empty. Adds to `via` the kinds of writing in it.
    pub(crate) fn to_source(&self, span: Range<usize>, via: &mut Vec<Via>) -> Range<usize> {
        self.map.to_source(span, via)
    }

    /// The first place where what no reader sees was taken out by the hundred bytes.
    pub(super) fn flood(&self) -> Option<Range<usize>> {
        let flooded = |unit: &&Unit| {
            // Zero bytes stand in long runs in any binary file; nothing else that is taken out does in anything.
            let padding = !matches!(unit.via, Via::Utf16 | Via::Utf32);
            padding && unit.text_len == 0 && unit.source_len > FLOOD
        };
        self.map.units.iter().find(flooded).map(|unit| {
            let at = unit.text as usize;
            at.min(self.text.len().saturating_sub(1))..at.saturating_add(1).min(self.text.len())
        })
    }
}

/// The places where a text differs from its source; all between them is verbatim, so that text that is
/// hardly changed costs hardly any map.
struct OffsetMap {
    units: Vec<Unit>,
}

/// `source_len` bytes of the source that became `text_len` bytes of the text. 32 bits are enough: a window
/// is far below 4 GiB.
#[derive(Clone, Copy, Debug)]
struct Unit {
    text: u32,
    text_len: u32,
    source: u32,
    source_len: u32,
    via: Via,
}

impl OffsetMap {
    fn to_source(&self, span: Range<usize>, via: &mut Vec<Via>) -> Range<usize> {
        let after = |at: usize| self.units.partition_point(|unit| unit.text as usize <= at);
        let last = span.end.saturating_sub(1);
        let (first_unit, end_unit) = (after(span.start), after(last));
        let locate = |at: usize, end_unit: usize| -> Range<usize> {
            let Some(unit) = end_unit
                .checked_sub(1)
                .and_then(|index| self.units.get(index))
            else {
                return at..at + 1;
            };
            let inside = at - unit.text as usize;
            let source_end = (unit.source + unit.source_len) as usize;
            match inside.checked_sub(unit.text_len as usize) {
                Some(beyond) => source_end + beyond..source_end + beyond + 1,
                None => unit.source as usize..source_end,
            }
        };
        let start = locate(span.start, first_unit);
        let touched = self
            .units
            .get(first_unit.saturating_sub(1)..end_unit)
            .unwrap_or_default();
        for unit in touched {
            // The unit before the span's first byte belongs to it only if that byte is in it.
            if unit.source as usize >= start.start && !via.contains(&unit.via) {
                via.push(unit.via);
            }
        }
        start.start..locate(last, end_unit).end
    }
}

/// Makes a [`View`] from left to right. Nothing is allocated before the first change.
pub(super) struct Rewriter<'a> {
    source: &'a [u8],
    /// All before it is in `text`.
    copied: usize,
    text: Vec<u8>,
    units: Vec<Unit>,
}

impl<'a> Rewriter<'a> {
    pub(super) fn new(source: &'a [u8]) -> Self {
        Self {
            source,
            copied: 0,
            text: Vec::new(),
            units: Vec::new(),
        }
    }

    pub(super) fn source(&self) -> &'a [u8] {
        self.source
    }

    /// Writes `bytes` in place of `range`, which lies behind all earlier ones.
    pub(super) fn replace(&mut self, range: Range<usize>, bytes: &[u8], via: Via) {
        if self.units.is_empty() {
            self.text.reserve(self.source.len());
        }
        self.text.extend_from_slice(
            self.source
                .get(self.copied..range.start)
                .unwrap_or_default(),
        );
        let adjoining = self.copied == range.start;
        self.copied = range.end;
        let source_len = range.len() as u32;
        if let Some(last) = self.units.last_mut()
            && adjoining
            && last.text_len == 0
            && bytes.is_empty()
            && last.via == via
        {
            last.source_len += source_len;
            return;
        }
        self.units.push(Unit {
            text: self.text.len() as u32,
            text_len: bytes.len() as u32,
            source: range.start as u32,
            source_len,
            via,
        });
        self.text.extend_from_slice(bytes);
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.units.is_empty()
    }

    /// The view, or none if nothing was replaced.
    pub(super) fn finish(mut self) -> Option<View> {
        if self.units.is_empty() {
            return None;
        }
        self.text
            .extend_from_slice(self.source.get(self.copied..).unwrap_or_default());
        Some(View {
            traits: Traits::of(&self.text),
            text: self.text,
            map: OffsetMap { units: self.units },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_map_back_over_replaced_erased_and_verbatim_bytes() {
        //                  0123456789
        let source = b"ab%41c--d";
        let mut rewriter = Rewriter::new(source);
        rewriter.replace(2..5, b"A", Via::Percent);
        rewriter.replace(6..8, b"", Via::Unicode);
        let view = rewriter.finish().unwrap();
        assert_eq!(view.text, b"abAcd");
        let back = |span| {
            let mut via = Vec::new();
            (view.to_source(span, &mut via), via)
        };
        assert_eq!(back(0..2), (0..2, vec![]));
        assert_eq!(back(2..3), (2..5, vec![Via::Percent]));
        assert_eq!(back(3..4), (5..6, vec![]));
        assert_eq!(back(3..5), (5..9, vec![Via::Unicode]));
        assert_eq!(back(4..5), (8..9, vec![]));
        assert_eq!(back(0..5), (0..9, vec![Via::Percent, Via::Unicode]));
    }
}
