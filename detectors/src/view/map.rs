//! Offsets of a view's text back to what it was made from.

use std::ops::Range;

use crate::finding::Via;

/// Bytes that a view may take out in one place. More is not how anybody writes.
const FLOOD: u32 = 128;

/// A text and where its bytes came from.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) text: Vec<u8>,
    map: Map,
}

#[derive(Debug)]
enum Map {
    /// The places where the text differs from its source; all between them is verbatim, so that text that is
    /// hardly changed costs hardly any map.
    Units(Vec<Unit>),
    /// `from` digits of the source, from `start` on, became `to` bytes of the text, and so on.
    Digits {
        start: usize,
        from: usize,
        to: usize,
        via: Via,
    },
    /// A byte for a byte, from `start` on, or backwards from before `start`.
    Same {
        start: usize,
        backwards: bool,
        via: Via,
    },
    /// Every byte of the text comes from all of the source.
    Whole { source: Range<usize>, via: Via },
}

/// What a view takes off, as far as it matters to who reads on behind its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// Digits, four to three bytes.
    Base64,
    /// Signs here and there: line breaks and escapes.
    Rewritten,
    Other,
}

/// `source_len` bytes of the source that became `text_len` bytes of the text, evenly if there are several. 32 bits are
/// enough: a window is far below 4 GiB.
#[derive(Clone, Copy, Debug)]
struct Unit {
    text: u32,
    text_len: u32,
    source: u32,
    source_len: u32,
    via: Via,
}

impl View {
    /// A view of digits in groups, each of which is a part of a byte.
    pub(crate) fn digits(text: Vec<u8>, start: usize, from: usize, to: usize, via: Via) -> Self {
        Self {
            text,
            map: Map::Digits {
                start,
                from,
                to,
                via,
            },
        }
    }

    /// A view that changes each byte where it stands.
    pub(crate) fn same(text: Vec<u8>, start: usize, via: Via) -> Self {
        Self {
            text,
            map: Map::Same {
                start,
                backwards: false,
                via,
            },
        }
    }

    /// A view of what ends at `end`, read backwards.
    pub(crate) fn backwards(text: Vec<u8>, end: usize, via: Via) -> Self {
        Self {
            text,
            map: Map::Same {
                start: end,
                backwards: true,
                via,
            },
        }
    }

    /// A view of which no part can be told from another.
    pub(crate) fn whole(text: Vec<u8>, source: Range<usize>, via: Via) -> Self {
        Self {
            text,
            map: Map::Whole { source, via },
        }
    }

    /// How far what is read through it can be read on when the source goes on.
    pub(crate) fn writing(&self) -> Writing {
        match &self.map {
            Map::Digits {
                via: Via::Base64, ..
            } => Writing::Base64,
            Map::Units(_) => Writing::Rewritten,
            _ => Writing::Other,
        }
    }

    /// Where in the source the group of base64 digits begins that holds the byte at `at`, and how many bytes before it.
    pub(crate) fn group(&self, at: usize) -> (usize, usize) {
        match &self.map {
            Map::Digits {
                start, from, to, ..
            } => (start + at / to * from, at % to),
            _ => (at, 0),
        }
    }

    /// The source bytes behind `span`, which is not empty. Adds to `via` the kinds of writing in it.
    pub(crate) fn to_source(&self, span: Range<usize>, via: &mut Vec<Via>) -> Range<usize> {
        match &self.map {
            Map::Units(units) => units_to_source(units, span, via),
            Map::Digits {
                start,
                from,
                to,
                via: kind,
            } => {
                via.push(*kind);
                // Digits that hold bits of a neighbour are the neighbour's.
                let first = (span.start * from).div_ceil(*to);
                let last = span.end * from / to;
                start + first..start + last.max(first + 1)
            }
            Map::Same {
                start,
                backwards,
                via: kind,
            } => {
                via.push(*kind);
                if *backwards {
                    start - span.end..start - span.start
                } else {
                    start + span.start..start + span.end
                }
            }
            Map::Whole { source, via: kind } => {
                via.push(*kind);
                source.clone()
            }
        }
    }

    /// The first place where what no reader sees was taken out by the hundred bytes.
    pub(crate) fn flood(&self) -> Option<Range<usize>> {
        let Map::Units(units) = &self.map else {
            return None;
        };
        let flooded = |unit: &&Unit| {
            // Zero bytes stand in long runs in any binary file, and separators are seen; nothing else that is
            // taken out is long in anything.
            let padding = !matches!(
                unit.via,
                Via::Utf16 | Via::Utf32 | Via::Spelled | Via::Joined | Via::LineWrap
            );
            padding && unit.text_len == 0 && unit.source_len > FLOOD
        };
        units.iter().find(flooded).map(|unit| {
            let at = unit.text as usize;
            at.min(self.text.len().saturating_sub(1))..at.saturating_add(1).min(self.text.len())
        })
    }
}

fn units_to_source(units: &[Unit], span: Range<usize>, via: &mut Vec<Via>) -> Range<usize> {
    let after = |at: usize| units.partition_point(|unit| unit.text as usize <= at);
    let last = span.end.saturating_sub(1);
    let (first_unit, end_unit) = (after(span.start), after(last));
    let locate = |at: usize, end_unit: usize| -> Range<usize> {
        let Some(unit) = end_unit.checked_sub(1).and_then(|index| units.get(index)) else {
            return at..at + 1;
        };
        let inside = at - unit.text as usize;
        let (source, text_len, source_len) = (
            unit.source as usize,
            unit.text_len as usize,
            unit.source_len as usize,
        );
        match inside.checked_sub(text_len) {
            Some(beyond) => source + source_len + beyond..source + source_len + beyond + 1,
            None if source_len < text_len => source..source + source_len,
            // Evenly only as far as it divides: what became two bytes is behind both.
            None => {
                source + inside * source_len / text_len
                    ..source + ((inside + 1) * source_len).div_ceil(text_len)
            }
        }
    };
    let start = locate(span.start, first_unit);
    let touched = units
        .get(first_unit.saturating_sub(1)..end_unit)
        .unwrap_or_default();
    for unit in touched {
        // The unit before the span's first byte belongs to it only if that byte is in it.
        if (unit.source + unit.source_len) as usize > start.start && !via.contains(&unit.via) {
            via.push(unit.via);
        }
    }
    start.start..locate(last, end_unit).end
}

/// Makes a [`View`] from left to right. Nothing is allocated before the first change.
pub(crate) struct Rewriter<'a> {
    source: &'a [u8],
    /// All before it is in `text`.
    copied: usize,
    text: Vec<u8>,
    units: Vec<Unit>,
}

impl<'a> Rewriter<'a> {
    pub(crate) fn new(source: &'a [u8]) -> Self {
        Self {
            source,
            copied: 0,
            text: Vec::new(),
            units: Vec::new(),
        }
    }

    pub(crate) fn source(&self) -> &'a [u8] {
        self.source
    }

    /// Writes `bytes` in place of `range`, which lies behind all earlier ones.
    #[inline]
    pub(crate) fn replace(&mut self, range: Range<usize>, bytes: &[u8], via: Via) {
        if self.units.is_empty() {
            self.text.reserve(self.source.len());
        }
        let adjoining = self.copied == range.start;
        if !adjoining {
            self.text.extend_from_slice(
                self.source
                    .get(self.copied..range.start)
                    .unwrap_or_default(),
            );
        }
        self.copied = range.end;
        let source_len = range.len() as u32;
        // Neighbours of one kind are one unit: a run of `%XX`, or of what is taken out.
        if let Some(last) = self.units.last_mut()
            && adjoining
            && last.via == via
            && last.source_len as usize * bytes.len()
                == source_len as usize * last.text_len as usize
            && (bytes.len() == 1 || bytes.is_empty() && last.text_len == 0)
        {
            last.source_len += source_len;
            last.text_len += bytes.len() as u32;
            self.text.extend_from_slice(bytes);
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

    /// The view, or none if nothing was replaced.
    pub(crate) fn finish(mut self) -> Option<View> {
        if self.units.is_empty() {
            return None;
        }
        self.text
            .extend_from_slice(self.source.get(self.copied..).unwrap_or_default());
        Some(View {
            text: self.text,
            map: Map::Units(self.units),
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

    #[test]
    fn a_run_of_one_kind_is_one_unit_and_still_exact() {
        let mut rewriter = Rewriter::new(b"x%41%42%43\\u0044y");
        for at in 0..3 {
            rewriter.replace(1 + 3 * at..4 + 3 * at, &[b'A' + at as u8], Via::Percent);
        }
        rewriter.replace(10..16, b"D", Via::JsonEscape);
        let view = rewriter.finish().unwrap();
        assert!(matches!(&view.map, Map::Units(units) if units.len() == 2));
        for (at, source) in [
            (0, 0..1),
            (1, 1..4),
            (2, 4..7),
            (3, 7..10),
            (4, 10..16),
            (5, 16..17),
        ] {
            assert_eq!(view.to_source(at..at + 1, &mut Vec::new()), source);
        }
        let mut via = Vec::new();
        assert_eq!(
            (view.to_source(2..5, &mut via), via),
            (4..16, vec![Via::Percent, Via::JsonEscape])
        );
    }

    #[test]
    fn digits_of_neighbours_stay_outside() {
        let view = View::digits(b"#secret".to_vec(), 10, 4, 3, Via::Base64);
        assert_eq!(view.to_source(1..7, &mut Vec::new()), 12..19);
        assert_eq!(view.to_source(0..3, &mut Vec::new()), 10..14);
    }
}
