//! Escapes and look-alikes: the words that have them.

use super::super::map::Rewriter;
use super::super::{fold, quoted_printable, unescape};
use super::{AROUND, Reader, lowest};
use crate::kernel::BLOCK;

/// Bytes between two escapes of one region.
const APART: usize = 64;

/// Digits in a row that an escape before them is looked at for.
const GLUED: usize = 20;

/// Token characters in a row, look-alikes among them, from which on they are folded.
const FOLDED: usize = 16;

impl Reader<'_, '_> {
    /// Where an escape may begin.
    pub(super) fn escapes_in(&self, number: usize) -> u64 {
        self.sweep.gates.escapes[..self.masks.len()]
            .get(number)
            .copied()
            .unwrap_or(0)
    }

    #[inline(never)]
    pub(super) fn escapes(&mut self, number: usize, mut mask: u64) {
        while mask != 0 {
            let at = number * BLOCK + mask.trailing_zeros() as usize;
            mask &= mask - 1;
            if at < self.escapes_done || !self.is_telling(at) {
                continue;
            }
            let (end, kinds) = self.escapes_end(at);
            // With the byte before, which a shape may want to be no letter.
            let start = self
                .word_start(at)
                .max(self.escapes_done.min(at))
                .saturating_sub(1);
            if end >= self.swept {
                self.cut |= self.swept < self.text.len();
            }
            self.escapes_done = end;
            if number * BLOCK + BLOCK <= end {
                mask = 0;
            }
            let region = self.text.get(start..end).unwrap_or_default();
            if kinds.others {
                let mut rewriter = Rewriter::new(region);
                unescape::unescape(&mut rewriter);
                self.view(rewriter.finish(), start);
            }
            if kinds.quoted_printable {
                let mut rewriter = Rewriter::new(region);
                quoted_printable::decode(&mut rewriter);
                self.view(rewriter.finish(), start);
            }
        }
    }

    /// Whether the escape at `at` stands for something that a credential is made of, or for a part of another layer.
    fn is_telling(&self, at: usize) -> bool {
        let Some(rest) = self.text.get(at..) else {
            return false;
        };
        if rest.first() == Some(&b'=') {
            return match rest.get(1..).and_then(unescape::hex_pair) {
                Some(byte) if byte >= 0x80 => rest.get(3) == Some(&b'='),
                Some(byte) => is_visible(byte) || self.is_glued(at + 3),
                None => quoted_printable::is_soft_break(rest),
            };
        }
        let Some((written, length)) = unescape::one(rest) else {
            return false;
        };
        match written.bytes() {
            [] | [0] => true,
            [byte] => is_visible(*byte) || *byte >= 0x80 || self.is_glued(at + length),
            bytes => fold::decode(bytes).is_some_and(|(character, _)| fold::changes(character)),
        }
    }

    /// Whether the end of the escape before `at`, which stands for nothing that a credential is made of, is taken for the
    /// first digits of what begins there: compressed data is known by its beginning.
    fn is_glued(&self, at: usize) -> bool {
        let last = at.checked_sub(1).and_then(|last| self.text.get(last));
        last.is_some_and(u8::is_ascii_hexdigit)
            && self.text.get(at..at + GLUED).is_some_and(|row| {
                row.iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte))
            })
    }

    /// The end of the region of escapes that begins at `at`, and what kinds are in it.
    fn escapes_end(&self, at: usize) -> (usize, Kinds) {
        let mut kinds = Kinds::default();
        let mut last = at;
        let mut number = at / BLOCK;
        let mut mask = self.escapes_in(number) & !lowest(at % BLOCK);
        loop {
            while mask != 0 {
                let here = number * BLOCK + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                if here > last + APART {
                    return (self.word_end(last), kinds);
                }
                last = here;
                let is_quoted_printable = self.text.get(here) == Some(&b'=');
                kinds.quoted_printable |= is_quoted_printable;
                kinds.others |= !is_quoted_printable;
            }
            number += 1;
            if number >= self.masks.len() || number * BLOCK > last + APART {
                return (self.word_end(last), kinds);
            }
            mask = self.escapes_in(number);
        }
    }

    /// Where the word begins that `at` is in.
    fn word_start(&self, at: usize) -> usize {
        let least = at.saturating_sub(AROUND);
        let mut number = at / BLOCK;
        let mut gaps = self.masks.gap(number) & lowest(at % BLOCK);
        loop {
            if gaps != 0 {
                return (number * BLOCK + 64 - gaps.leading_zeros() as usize).max(least);
            }
            if number == 0 || number * BLOCK <= least {
                return least;
            }
            number -= 1;
            gaps = self.masks.gap(number);
        }
    }

    /// Where the word ends that begins after the escape at `last`.
    fn word_end(&self, last: usize) -> usize {
        let rest = self.text.get(last..).unwrap_or_default();
        let length = match rest.first() {
            Some(b'=') if rest.get(1..).and_then(unescape::hex_pair).is_none() => {
                quoted_printable::soft_break_length(rest)
            }
            Some(b'=') => 3,
            _ => unescape::one(rest).map_or(1, |(_, length)| length),
        };
        self.gap_after(last + length.max(1))
    }

    fn gap_after(&self, at: usize) -> usize {
        let most = (at + AROUND).min(self.text.len());
        let mut number = at / BLOCK;
        let mut gaps = self.masks.gap(number) & !lowest(at % BLOCK);
        loop {
            if gaps != 0 {
                return (number * BLOCK + gaps.trailing_zeros() as usize).min(most);
            }
            number += 1;
            if number >= self.masks.len() || number * BLOCK >= most {
                return most.min(if number >= self.masks.len() {
                    self.swept.max(at.min(self.text.len()))
                } else {
                    most
                });
            }
            gaps = self.masks.gap(number);
        }
    }

    /// Look-alikes and invisible characters, where there are enough of them and of token characters in a row.
    #[inline(never)]
    pub(super) fn folds(&mut self, number: usize, mut mask: u64) {
        while mask != 0 {
            let at = number * BLOCK + mask.trailing_zeros() as usize;
            mask &= mask - 1;
            if at < self.folds_done {
                continue;
            }
            let rest = self.text.get(at..).unwrap_or_default();
            // Nothing in U+4000 to U+9FFF nor in the middle of Hangul looks like ASCII.
            if let Some(0xE4..=0xE9 | 0xEB | 0xEC) = rest.first() {
                self.folds_done = at + 3;
                continue;
            }
            let Some((character, length)) = fold::decode(rest) else {
                continue;
            };
            self.folds_done = at + length;
            if !fold::changes(character) {
                continue;
            }
            self.fold(at);
        }
    }

    /// Folds the word around the look-alike at `at`, if it is long enough to hold a credential.
    #[inline(never)]
    fn fold(&mut self, at: usize) {
        let mut end = at;
        let mut row = 0;
        let limit = (at + 16 * 1024).min(self.text.len());
        // What stands before, up to where the last word ended.
        let start = self.word_start(at);
        let before = self.text.get(start..at).unwrap_or_default();
        row += before
            .iter()
            .rev()
            .take_while(|byte| is_token(**byte))
            .count();
        while end < limit {
            let byte = self.text[end];
            let length = if byte < 0x80 {
                if is_gap(byte) {
                    break;
                }
                if !is_token(byte) {
                    end += 1;
                    continue;
                }
                1
            } else {
                fold::decode(&self.text[end..])
                    .filter(|(character, _)| fold::changes(*character))
                    .map_or(0, |(_, length)| length)
            };
            if length == 0 {
                // Another script: the end, unless there was enough before it.
                if row < FOLDED {
                    break;
                }
                end += 1;
                continue;
            }
            row += 1;
            end += length;
        }
        self.folds_done = end.max(self.folds_done);
        if end >= self.swept {
            self.cut |= self.swept < self.text.len();
        }
        if row < FOLDED {
            return;
        }
        // `Bearer` and a blank may stand before.
        let start = start.saturating_sub(10);
        let mut rewriter = Rewriter::new(&self.text[start..end]);
        fold::fold(&mut rewriter);
        self.view(rewriter.finish(), start);
    }
}

#[derive(Clone, Copy, Default)]
struct Kinds {
    quoted_printable: bool,
    others: bool,
}
fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'/')
}

fn is_gap(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'\'' | b'`')
}
