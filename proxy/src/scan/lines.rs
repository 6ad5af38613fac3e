//! Offsets turned into lines and columns, of an input of which only a piece is kept.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};

/// How far a line is looked at on either side of a finding: for its text and for a mark in it. A minified file of one
/// line must not be allowed as a whole by one mark, nor fill the memory.
pub(super) const REACH: u64 = 4 * 1024;

/// Bytes that may be kept for longer than needed, so that they need not be moved each time.
const SLACK: usize = 256 * 1024;

/// A place in a text; both count from 1, columns in characters. Bytes that continue a UTF-8 sequence are no characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl Position {
    fn after(self, bytes: &[u8]) -> Self {
        let breaks = memchr_iter(b'\n', bytes).count() as u64;
        match memrchr(b'\n', bytes) {
            Some(at) => Self {
                line: self.line + breaks,
                column: 1 + characters(bytes.get(at + 1..).unwrap_or_default()),
            },
            None => Self {
                line: self.line,
                column: self.column + characters(bytes),
            },
        }
    }
}

fn characters(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count() as u64
}

/// The part of an input that findings can still be in, and the place where it begins.
#[derive(Debug)]
pub(super) struct Lines {
    kept: Vec<u8>,
    /// The offset of the first kept byte.
    start: u64,
    /// An offset, and its position; it only moves forwards.
    cursor: u64,
    position: Position,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            start: 0,
            cursor: 0,
            position: Position { line: 1, column: 1 },
        }
    }
}

impl Lines {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.kept.extend_from_slice(chunk);
    }

    /// Moves on to `offset`, from which on places are asked for.
    pub(super) fn advance(&mut self, offset: u64) -> Position {
        let offset = offset.clamp(self.cursor, self.end());
        self.position = self.position(offset);
        self.cursor = offset;
        self.position
    }

    /// The place of an offset that has not been passed.
    pub(super) fn position(&self, offset: u64) -> Position {
        self.position.after(self.bytes(self.cursor..offset))
    }

    /// The offsets of the line in which `span` begins, as far as [`REACH`] goes from it.
    ///
    /// Where it ends does not count: the detectors also read on over line breaks, so that the end of a finding may be
    /// the first word of the next line, which has nothing to do with it.
    pub(super) fn around(&self, span: &Range<u64>) -> Range<u64> {
        let near = span.start.saturating_sub(REACH).max(self.start);
        let start = match memrchr(b'\n', self.bytes(near..span.start)) {
            Some(at) => near + at as u64 + 1,
            None => near,
        };
        let far = span.end.saturating_add(REACH).min(self.end());
        let end = match memchr(b'\n', self.bytes(span.start..far)) {
            Some(at) => span.start + at as u64,
            None => far,
        };
        start..end
    }

    /// What is kept of a range.
    pub(super) fn bytes(&self, range: Range<u64>) -> &[u8] {
        let local = |at: u64| {
            usize::try_from(at.saturating_sub(self.start))
                .unwrap_or(usize::MAX)
                .min(self.kept.len())
        };
        self.kept
            .get(local(range.start)..local(range.end))
            .unwrap_or_default()
    }

    /// Nothing before [`REACH`] before `offset` will be asked for any more, nor before the cursor.
    pub(super) fn forget(&mut self, offset: u64) {
        let keep_from = offset.min(self.cursor).saturating_sub(REACH);
        let spare = usize::try_from(keep_from.saturating_sub(self.start))
            .unwrap_or(usize::MAX)
            .min(self.kept.len());
        if spare > SLACK {
            self.kept.drain(..spare);
            self.start += spare as u64;
        }
    }

    fn end(&self) -> u64 {
        self.start + self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_that_an_editor_shows() {
        let text = "grün\r\nab\n\n\u{1f511}x".as_bytes();
        let mut lines = Lines::default();
        for byte in text {
            lines.push(&[*byte]);
        }
        let expected = [
            (0, 1, 1),
            (4, 1, 4),
            (7, 2, 1),
            (9, 2, 3),
            (10, 3, 1),
            (15, 4, 2),
        ];
        for (offset, line, column) in expected {
            assert_eq!(lines.advance(offset), Position { line, column }, "{offset}");
        }
        assert_eq!(lines.position(16).column, 3);
    }

    #[test]
    fn forgetting_changes_no_place() {
        let text = "0123456789abcde\n".repeat(100_000);
        let mut lines = Lines::default();
        for (at, chunk) in text.as_bytes().chunks(10_000).enumerate() {
            lines.push(chunk);
            let offset = at as u64 * 10_000;
            let expected = Position {
                line: offset / 16 + 1,
                column: offset % 16 + 1,
            };
            assert_eq!(lines.advance(offset), expected);
            lines.forget(offset);
            assert!(lines.kept.len() < SLACK + 40_000, "{}", lines.kept.len());
        }
    }

    #[test]
    fn the_line_of_a_span() {
        let mut lines = Lines::default();
        lines.push(b"one\ntwo\nthree\nfour");
        let around = |span: Range<u64>| lines.bytes(lines.around(&span));
        assert_eq!(around(5..6), b"two");
        assert_eq!(around(5..9), b"two", "not the line that it ends in");
        assert_eq!(around(7..9), b"two", "it begins with the line break");
        assert_eq!(around(15..18), b"four");
        assert_eq!(around(0..0), b"one");
    }

    #[test]
    fn a_long_line_is_cut() {
        let mut lines = Lines::default();
        lines.push(&[b'x'; 100_000]);
        assert_eq!(
            lines.around(&(50_000..50_010)),
            50_000 - REACH..50_010 + REACH
        );
    }
}
