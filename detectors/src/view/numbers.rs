//! Bytes written as numbers one after the other: hexadecimal pairs, dumps, decimal, octal and binary lists.

use std::ops::Range;

use super::map::{Rewriter, View};
use crate::finding::Via;

/// Numbers in a row that hold the shortest credential.
const LEAST: usize = 12;

/// Bytes between two numbers.
const APART: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Radix {
    Hex,
    Decimal,
    Octal,
    Binary,
}

const RADICES: [Radix; 4] = [Radix::Hex, Radix::Decimal, Radix::Octal, Radix::Binary];

/// The parts of `text` in which enough numbers of a radix stand in a row for text or for something compressed, as what they stand
/// for, and where each part begins: coordinates, measures and dates are numbers, too.
pub(super) fn views(text: &[u8]) -> Vec<(usize, View)> {
    let mut views = Vec::new();
    for (radix, rows) in RADICES.into_iter().zip(promising(text)) {
        let beside = if radix == Radix::Hex {
            BESIDE_HEX
        } else {
            BESIDE
        };
        for range in around(text, rows, beside) {
            let part = &text[range.clone()];
            let mut rewriter = Rewriter::new(part);
            write(part, radix, &mut rewriter);
            views.extend(rewriter.finish().map(|view| (range.start, view)));
            // Each line of a dump is a row of hexadecimal numbers.
            if radix == Radix::Hex {
                let mut rewriter = Rewriter::new(part);
                if dump(part, &mut rewriter) >= LEAST {
                    views.extend(rewriter.finish().map(|view| (range.start, view)));
                }
            }
        }
    }
    views
}

/// Bytes on either side of a row that are read with it, so that a credential's neighbours are seen.
const BESIDE: usize = 64;

/// The same of hexadecimal numbers: lines of a dump hold but a few bytes of a credential each.
const BESIDE_HEX: usize = 512;

/// `rows` with `beside` bytes on either side of them, joined where they touch.
fn around(text: &[u8], rows: Vec<Range<usize>>, beside: usize) -> Vec<Range<usize>> {
    let mut around: Vec<Range<usize>> = Vec::new();
    for row in rows {
        // Not in the midst of a number, nor of any other word.
        let is_word = |at: &usize| {
            text.get(*at)
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        };
        let whole = |at: &usize| *at == 0 || !is_word(&(at - 1)) || !is_word(at);
        let start = (row.start.saturating_sub(beside)..row.start).find(whole);
        let start = start.unwrap_or(row.start);
        let end = (row.end..(row.end + beside).min(text.len()))
            .rev()
            .find(whole);
        let end = match row.end + beside >= text.len() {
            true => text.len(),
            false => end.unwrap_or(row.end),
        };
        match around.last_mut().filter(|last| start <= last.end) {
            Some(last) => last.end = last.end.max(end),
            None => around.push(start..end),
        }
    }
    around
}

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
    #[inline]
    fn push(&mut self, byte: u8) {
        self.length += 1;
        let readable = matches!(byte, 0 | b'\t' | b'\n' | b'\r' | b' '..=b'~');
        self.text = if readable { self.text + 1 } else { 0 };
        self.promising |= self.text >= LEAST;
    }

    /// The row, if it is promising; what follows is another one.
    #[inline]
    fn finish(&mut self, text: &[u8], radix: Radix) -> Option<Range<usize>> {
        let row = std::mem::take(self);
        (row.length >= LEAST && (row.promising || row.has_head(text, radix)))
            .then_some(row.start..row.end)
    }

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
        super::is_utf8(&head[inside..]) || super::inflate::begins_compressed(head)
    }
}

/// For each radix the rows of numbers that stand for text or for something compressed.
fn promising(text: &[u8]) -> [Vec<Range<usize>>; RADICES.len()] {
    let mut found: [Vec<Range<usize>>; RADICES.len()] = Default::default();
    let mut rows = [Row::default(); RADICES.len()];
    for word in words(text) {
        let written = &text[word.clone()];
        let mut push = |number: usize, bytes: &[u8]| {
            let row = &mut rows[number];
            if row.length > 0 && (bytes.is_empty() || word.start - row.end > APART) {
                found[number].extend(row.finish(text, RADICES[number]));
            }
            if bytes.is_empty() {
                return;
            }
            if row.length == 0 {
                row.start = word.start;
            }
            bytes.iter().for_each(|byte| row.push(*byte));
            row.end = word.end;
        };
        // A few digits are read at once, which most numbers are; of the rest most are none.
        if let Some([hex, decimal, octal]) = few(written) {
            push(0, hex.as_slice());
            push(1, decimal.as_slice());
            push(2, octal.as_slice());
            push(3, &[]);
        } else {
            let may_be = may_be_number(written);
            for (number, radix) in RADICES.into_iter().enumerate() {
                let mut bytes = [0; 8];
                let length = may_be.then(|| parse(written, radix, &mut bytes)).flatten();
                push(number, &bytes[..length.unwrap_or(0)]);
            }
        }
    }
    for ((found, row), radix) in found.iter_mut().zip(&mut rows).zip(RADICES) {
        found.extend(row.finish(text, radix));
    }
    found
}

/// What one to three digits stand for, in hexadecimal, decimal and octal.
#[inline]
fn few(word: &[u8]) -> Option<[Option<u8>; 3]> {
    let digits = match *word {
        [c] => [b'0', b'0', c],
        [b, c] => [b'0', b, c],
        [a, b, c] => [a, b, c],
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let [a, b, c] = digits.map(|digit| u32::from(digit & 15));
    let byte = |number: u32| u8::try_from(number).ok();
    let octal = word.len() >= 2 && a | b | c < 8;
    Some([
        if word.len() == 2 {
            byte(b << 4 | c)
        } else {
            None
        },
        byte(a * 100 + b * 10 + c),
        if octal {
            byte(a << 6 | b << 3 | c)
        } else {
            None
        },
    ])
}

/// Characters of the longest number, with its prefix.
const MOST: usize = 18;

fn may_be_number(word: &[u8]) -> bool {
    let is_hex = |byte: &u8| {
        byte.is_ascii_hexdigit() || matches!(byte, b'x' | b'X' | b'o' | b'O' | b'h' | b'H')
    };
    matches!(word.len(), 2..=10 | 12..=MOST) && word.iter().all(is_hex)
}

/// The rows of letters and digits in `text`.
fn words(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..)?;
        let start = at + rest.iter().position(u8::is_ascii_alphanumeric)?;
        let length = text[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        at = start + length;
        Some(start..at)
    })
}

/// Writes each row of numbers as the bytes that they are.
fn write(text: &[u8], radix: Radix, rewriter: &mut Rewriter<'_>) {
    let via = match radix {
        Radix::Hex => Via::Hex,
        Radix::Decimal => Via::Decimal,
        Radix::Octal => Via::Octal,
        Radix::Binary => Via::Binary,
    };
    let mut end = None;
    for word in words(text) {
        let mut bytes = [0; 8];
        let Some(count) = parse(&text[word.clone()], radix, &mut bytes) else {
            end = None;
            continue;
        };
        // Only in a row is what stands between taken out.
        let from = end
            .filter(|end| word.start - end <= APART)
            .unwrap_or(word.start);
        end = Some(word.end);
        rewriter.replace(from..word.end, &bytes[..count], via);
    }
}

/// The bytes that `word` stands for, and how many.
fn parse(word: &[u8], radix: Radix, bytes: &mut [u8; 8]) -> Option<usize> {
    let digits = match (radix, word) {
        (Radix::Hex, [b'0', b'x' | b'X', digits @ ..] | [b'x', digits @ ..]) => digits,
        (Radix::Octal, [b'0', b'o' | b'O', digits @ ..]) => digits,
        (Radix::Binary, [b'0', b'b' | b'B', digits @ ..]) => digits,
        (_, digits) => digits,
    };
    // `67h`.
    let digits = match (radix, digits) {
        (Radix::Hex, [digits @ .., b'h' | b'H']) if digits.len() == 2 => digits,
        (_, digits) => digits,
    };
    let number = |digits: &[u8], radix: u32| {
        digits.iter().try_fold(0_u32, |number, digit| {
            let value = char::from(*digit).to_digit(radix)?;
            number.checked_mul(radix)?.checked_add(value)
        })
    };
    match radix {
        Radix::Hex if matches!(digits.len(), 2 | 4 | 6 | 8 | 12 | 16) => {
            for (to, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
                *to = number(pair, 16)? as u8;
            }
            Some(digits.len() / 2)
        }
        Radix::Decimal if (1..=3).contains(&digits.len()) => one(number(digits, 10)?, bytes),
        Radix::Octal if (2..=4).contains(&digits.len()) => one(number(digits, 8)?, bytes),
        Radix::Binary if matches!(digits.len(), 7 | 8) => one(number(digits, 2)?, bytes),
        _ => None,
    }
}

fn one(number: u32, bytes: &mut [u8; 8]) -> Option<usize> {
    bytes[0] = u8::try_from(number).ok()?;
    Some(1)
}

/// Lines of `xxd` and `hexdump -C`: an offset, up to sixteen bytes, and what they are as text. Returns how many bytes were
/// read.
fn dump(text: &[u8], rewriter: &mut Rewriter<'_>) -> usize {
    let mut count = 0;
    let mut end = None;
    let mut start = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let mut words = Words { line, at: 0 };
        let begin = start;
        start += line.len();
        let Some((offset, _)) = words
            .next()
            .filter(|(word, _)| word.len() >= 4 && word.iter().all(u8::is_ascii_hexdigit))
        else {
            end = None;
            continue;
        };
        let _ = offset;
        let mut read = 0;
        while read < 16 {
            let Some((word, after)) = words.next() else {
                break;
            };
            let mut bytes = [0; 8];
            let Some(more) = parse(word, Radix::Hex, &mut bytes).filter(|_| !word.contains(&b'x'))
            else {
                break;
            };
            rewriter.replace(
                end.unwrap_or(begin + after - word.len())..begin + after,
                &bytes[..more],
                Via::Hex,
            );
            end = Some(begin + after);
            read += more;
        }
        count += read;
    }
    count
}

/// The words of a line, and where each ends.
struct Words<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = (&'a [u8], usize);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.line.get(self.at..)?;
        let gap = rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b':' | b'\t'))
            .count();
        let word = rest.get(gap..)?;
        let length = word
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        if length == 0 {
            return None;
        }
        self.at += gap + length;
        Some((&word[..length], self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str) -> bool {
        views(text.as_bytes()).iter().any(|(_, view)| {
            view.text
                .windows(16)
                .any(|window| window == b"ghp_0123456789ab")
        })
    }

    fn each(separator: &str, format: impl Fn(u8) -> String) -> String {
        b"ghp_0123456789abcdef"
            .iter()
            .map(|byte| format(*byte))
            .collect::<Vec<_>>()
            .join(separator)
    }

    #[test]
    fn lists_are_read() {
        for separator in [",", ", ", " ", "\n", "; ", ":", "-", "\\x"] {
            assert!(
                holds(&each(separator, |byte| format!("{byte:02x}"))),
                "hex {separator:?}"
            );
        }
        for separator in [",", ", ", " ", "\n    "] {
            assert!(
                holds(&each(separator, |byte| format!("{byte}"))),
                "decimal {separator:?}"
            );
            assert!(
                holds(&each(separator, |byte| format!("0x{byte:02X}"))),
                "0x {separator:?}"
            );
            assert!(
                holds(&each(separator, |byte| format!("{byte:03o}"))),
                "octal {separator:?}"
            );
            assert!(
                holds(&each(separator, |byte| format!("{byte:08b}"))),
                "binary {separator:?}"
            );
        }
        assert!(holds(
            "key = [ 103, 104, 112, 95, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 97, 98 ];"
        ));
    }

    #[test]
    fn dumps_are_read() {
        assert!(holds(
            "00000000: 6768 705f 3031 3233 3435 3637 3839 6162  ghp_0123456789ab\n00000010: 6364 6566                                cdef\n"
        ));
        assert!(holds(
            "00000000  00 67 68 70 5f 30 31 32  33 34 35 36 37 38 39 61  |.ghp_0123456789a|\n00000010  62 63 64 65 66                                    |bcdef|\n"
        ));
    }
}
