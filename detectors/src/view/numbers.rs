//! Bytes written as numbers one after the other: hexadecimal pairs, dumps, decimal, octal and binary lists.

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

/// What `text` is in each radix in which enough of it is numbers.
pub(super) fn views(text: &[u8]) -> Vec<View> {
    let mut views = Vec::new();
    if !has_row(text) {
        return views;
    }
    for radix in [Radix::Hex, Radix::Decimal, Radix::Octal, Radix::Binary] {
        // Counted first: most numbers are no bytes.
        if read(text, radix, None) >= LEAST {
            let mut rewriter = Rewriter::new(text);
            read(text, radix, Some(&mut rewriter));
            views.extend(rewriter.finish());
        }
    }
    let mut rewriter = Rewriter::new(text);
    if dump(text, &mut rewriter) >= LEAST {
        views.extend(rewriter.finish());
    }
    views
}

/// Whether there are enough words in a row that may be numbers in some radix.
fn has_row(text: &[u8]) -> bool {
    let (mut row, mut at) = (0, 0);
    while at < text.len() {
        if !text[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let word = text[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        let is_number = word <= 16
            && text[at..at + word]
                .iter()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'x' | b'o' | b'h' | b'H'));
        row = if is_number {
            row + 1 + usize::from(word >= 4) + usize::from(word >= 8) * 2
        } else {
            0
        };
        if row >= LEAST {
            return true;
        }
        at += word;
    }
    false
}

/// Writes each row of numbers as the bytes that they are, if asked to. Returns the longest row's length.
fn read(text: &[u8], radix: Radix, mut rewriter: Option<&mut Rewriter<'_>>) -> usize {
    let via = match radix {
        Radix::Hex => Via::Hex,
        Radix::Decimal => Via::Decimal,
        Radix::Octal => Via::Octal,
        Radix::Binary => Via::Binary,
    };
    let (mut longest, mut row, mut end) = (0, 0, 0);
    let mut at = 0;
    while at < text.len() {
        if !text[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let word = &text[at..at
            + text[at..]
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric())
                .count()];
        let start = at;
        at += word.len();
        let mut bytes = [0; 8];
        let Some(count) = parse(word, radix, &mut bytes) else {
            row = 0;
            continue;
        };
        // Only in a row is what stands between taken out.
        let from = if row > 0 && start - end <= APART {
            end
        } else {
            start
        };
        row = if from == start { count } else { row + count };
        end = at;
        longest = longest.max(row);
        if let Some(rewriter) = &mut rewriter {
            rewriter.replace(from..at, &bytes[..count], via);
        }
    }
    longest
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
        Radix::Hex if matches!(digits.len(), 2 | 4 | 8 | 16) => {
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
        views(text.as_bytes()).iter().any(|view| {
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
