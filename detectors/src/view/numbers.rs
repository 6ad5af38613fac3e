//! Bytes written as numbers one after the other: hexadecimal pairs, dumps, decimal, octal and binary lists.

mod rows;

use std::ops::Range;

pub(super) use rows::alnum;

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

/// The parts of `text[region]` in which enough numbers of a radix stand in a row for text or for something compressed, as what
/// they stand for, and where each part begins: coordinates, measures and dates are numbers, too. `alnum` are the masks of letters
/// and digits of the text's blocks.
pub(super) fn views(
    text: &[u8],
    region: &Range<usize>,
    alnum: impl Fn(usize) -> u64,
) -> Vec<(usize, View)> {
    let mut views = Vec::new();
    let found = rows::promising(text, region, alnum);
    let text = &text[..region.end];
    for (radix, rows) in RADICES.into_iter().zip(found) {
        let beside = if radix == Radix::Hex {
            BESIDE_HEX
        } else {
            BESIDE
        };
        for range in around(text, region.start, rows, beside) {
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

/// `rows` with `beside` bytes on either side of them, as far as `first` and the text's end, joined where they touch.
fn around(text: &[u8], first: usize, rows: Vec<Range<usize>>, beside: usize) -> Vec<Range<usize>> {
    let mut around: Vec<Range<usize>> = Vec::new();
    for row in rows {
        // Not in the midst of a number, nor of any other word.
        let is_word = |at: &usize| {
            text.get(*at)
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        };
        let whole = |at: &usize| *at == first || !is_word(&(at - 1)) || !is_word(at);
        let start = (row.start.saturating_sub(beside).max(first)..row.start).find(whole);
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
        let text = text.as_bytes();
        let alnum = |number: usize| alnum(text, number);
        views(text, &(0..text.len()), alnum)
            .iter()
            .any(|(_, view)| {
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
