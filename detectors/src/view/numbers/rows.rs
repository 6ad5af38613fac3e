//! Rows of numbers of one radix, and which of them stand for text or for something compressed.

use std::ops::Range;

use super::{APART, LEAST, RADICES, Radix, parse, words};
use crate::kernel::{BLOCK, row};
use crate::view::{inflate, is_utf8};

/// Bytes at the beginning of a row that tell whether it is compressed, or text in other than ASCII characters.
const HEAD: usize = 32;

/// The row of numbers of one radix that is being read.
#[derive(Clone, Copy, Default)]
struct Row {
    /// Where its first number begins, and where its last one ends.
    start: usize,
    end: usize,
    /// Its bytes so far.
    length: usize,
    /// Its last bytes that are text.
    text: usize,
    promising: bool,
}

impl Row {
    #[inline(always)]
    fn push_byte(&mut self, byte: u8) {
        self.length += 1;
        let readable = matches!(byte, 0 | b'\t' | b'\n' | b'\r' | b' '..=b'~');
        self.text = if readable { self.text + 1 } else { 0 };
        self.promising |= self.text >= LEAST;
    }

    /// Takes the number at `word` in, which stands for `bytes`; if it is none, or too far away, the row ends before it.
    #[inline(always)]
    fn push(
        &mut self,
        word: &Range<usize>,
        bytes: &[u8],
        text: &[u8],
        radix: Radix,
        found: &mut Vec<Range<usize>>,
    ) {
        if self.length > 0 && (bytes.is_empty() || word.start - self.end > APART) {
            found.extend(self.finish(text, radix));
        }
        if bytes.is_empty() {
            return;
        }
        if self.length == 0 {
            self.start = word.start;
        }
        for byte in bytes {
            self.push_byte(*byte);
        }
        self.end = word.end;
    }

    /// The row, if it is promising; what follows is another one.
    #[inline(always)]
    fn finish(&mut self, text: &[u8], radix: Radix) -> Option<Range<usize>> {
        let row = std::mem::take(self);
        (row.length >= LEAST && (row.promising || row.has_head(text, radix)))
            .then_some(row.start..row.end)
    }

    #[inline(never)]
    fn has_head(&self, text: &[u8], radix: Radix) -> bool {
        let mut head = [0; HEAD];
        let mut length = 0;
        for word in words(&text[self.start..self.end]) {
            let mut bytes = [0; 8];
            let count = parse(&text[self.start..self.end][word], radix, &mut bytes).unwrap_or(0);
            for (to, byte) in head.iter_mut().skip(length).zip(&bytes[..count]) {
                *to = *byte;
            }
            length += count;
            if length >= HEAD {
                break;
            }
        }
        let head = &head[..length.min(HEAD)];
        // What was seen of it may begin in the midst of a character.
        let inside = head
            .iter()
            .take(3)
            .take_while(|byte| (0x80..0xC0).contains(*byte))
            .count();
        is_utf8(&head[inside..]) || inflate::begins_compressed(head, head.len())
    }
}

/// For each radix the rows of numbers in `text[region]` that stand for text or for something compressed.
#[inline(never)]
pub(super) fn promising(
    text: &[u8],
    region: &Range<usize>,
    alnum: impl Fn(usize) -> u64,
) -> [Vec<Range<usize>>; RADICES.len()] {
    let text = &text[..region.end];
    let mut found: [Vec<Range<usize>>; RADICES.len()] = Default::default();
    let mut rows = [Row::default(); RADICES.len()];
    let mut at = region.start;
    while let Some(word) = next_word(&alnum, at, region.end) {
        at = word.end;
        let mut push = |number: usize, bytes: &[u8]| {
            rows[number].push(&word, bytes, text, RADICES[number], &mut found[number]);
        };
        // A few digits are read at once, which most numbers are; of the rest most are none.
        match few(text, &word) {
            Few::Numbers([hex, decimal, octal]) => {
                push(0, hex.as_slice());
                push(1, decimal.as_slice());
                push(2, octal.as_slice());
                push(3, &[]);
            }
            Few::No => (0..RADICES.len()).for_each(|number| push(number, &[])),
            Few::Unknown => {
                for (number, radix) in RADICES.into_iter().enumerate() {
                    let mut bytes = [0; 8];
                    let length = parse(&text[word.clone()], radix, &mut bytes);
                    push(number, &bytes[..length.unwrap_or(0)]);
                }
            }
        }
    }
    for ((found, row), radix) in found.iter_mut().zip(&mut rows).zip(RADICES) {
        found.extend(row.finish(text, radix));
    }
    found
}

/// The row of letters and digits that begins at `at` or next after it, before `end`.
#[inline(always)]
fn next_word(alnum: &impl Fn(usize) -> u64, mut at: usize, end: usize) -> Option<Range<usize>> {
    loop {
        if at >= end {
            return None;
        }
        let bits = row(alnum, at);
        at += bits.trailing_zeros() as usize;
        if bits != 0 {
            break;
        }
    }
    let start = at;
    while at < end {
        let more = row(alnum, at).trailing_ones() as usize;
        at += more;
        if more < BLOCK {
            break;
        }
    }
    (start < end).then_some(start..at.min(end))
}

/// What is told of a word at once.
enum Few {
    /// What it stands for in hexadecimal, decimal and octal.
    Numbers([Option<u8>; 3]),
    /// It is no number.
    No,
    Unknown,
}

/// Characters of the longest number, with its prefix.
const MOST: usize = 18;

/// Reads one to three digits, or two hexadecimal ones.
#[inline(always)]
fn few(text: &[u8], word: &Range<usize>) -> Few {
    let length = word.len();
    if length > 3 {
        let may_be = matches!(length, 4..=10 | 12..=MOST)
            && text[word.clone()].iter().all(|byte| {
                byte.is_ascii_hexdigit() || matches!(byte, b'x' | b'X' | b'o' | b'O' | b'h' | b'H')
            });
        return if may_be { Few::Unknown } else { Few::No };
    }
    let four = match text.get(word.start..).and_then(|rest| rest.first_chunk()) {
        Some(four) => *four,
        None => {
            let mut four = [0; 4];
            four[..length].copy_from_slice(&text[word.clone()]);
            four
        }
    };
    // The digits' values, the last in the highest byte.
    let shift = 8 * (4 - length as u32);
    let values = (u32::from_le_bytes(four) << shift) ^ (0x3030_3030 << shift);
    if values.wrapping_add(0x0606_0606 << shift) & 0xF0F0_F0F0 != 0 {
        let [_, _, first, second] = (values ^ (0x3030_3030 << shift)).to_le_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        return match (length, digit(first), digit(second)) {
            (2, Some(first), Some(second)) => Few::Numbers([Some(first << 4 | second), None, None]),
            (3, ..) => Few::Unknown,
            _ => Few::No,
        };
    }
    let [_, a, b, c] = values.to_le_bytes().map(u32::from);
    let byte = |number: u32| u8::try_from(number).ok();
    let hex = (length == 2).then_some((b << 4 | c) as u8);
    let octal = length >= 2 && values & 0x0808_0808 == 0;
    Few::Numbers([
        hex,
        byte(a * 100 + b * 10 + c),
        if octal {
            byte(a << 6 | b << 3 | c)
        } else {
            None
        },
    ])
}

/// The mask of letters and digits of one block of `text`.
pub(in crate::view) fn alnum(text: &[u8], number: usize) -> u64 {
    let block = text.get(number * BLOCK..).unwrap_or_default();
    let bit = |(at, byte): (usize, &u8)| u64::from(byte.is_ascii_alphanumeric()) << at;
    block.iter().take(BLOCK).enumerate().map(bit).sum()
}
