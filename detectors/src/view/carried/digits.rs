//! Base64 that arrives in pieces, wrapped and escaped as strings and forms have it.

use crate::kernel::{BASE64, NO_DIGIT};

use super::super::wrap::line_break;

/// Bytes that tell any sign between digits: a line break behind seven backslashes with all its blanks.
const SIGN: usize = 64;

/// Bytes that digits stand for, as long as there are digits.
#[derive(Debug)]
pub(super) struct Digits {
    /// Bytes at the beginning that are not wanted: the group began before them.
    skip: usize,
    bits: u32,
    count: u32,
    /// The beginning of what may be a sign.
    pending: Vec<u8>,
    ended: bool,
}

/// What stands where no digit does.
enum Sign {
    Digit(u8, usize),
    /// Of so many bytes, which say nothing.
    Nothing(usize),
    Other,
}

impl Digits {
    pub(super) fn new(skip: usize) -> Self {
        Self {
            skip,
            bits: 0,
            count: 0,
            pending: Vec::new(),
            ended: false,
        }
    }

    /// Whether something that is no digit stood there.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn push(&mut self, input: &[u8], output: &mut Vec<u8>) {
        if self.pending.is_empty() {
            self.read(input, output);
        } else {
            let mut all = std::mem::take(&mut self.pending);
            all.extend_from_slice(input);
            self.read(&all, output);
        }
    }

    fn read(&mut self, mut rest: &[u8], output: &mut Vec<u8>) {
        while !self.ended {
            let mut read = 0;
            for byte in rest {
                let value = value(*byte);
                if value == NO_DIGIT {
                    break;
                }
                self.digit(value, output);
                read += 1;
            }
            rest = rest.get(read..).unwrap_or_default();
            let Some(first) = rest.first() else {
                return;
            };
            let may_be_sign = matches!(first, b'\\' | b'%' | b'\r' | b'\n');
            if may_be_sign && rest.len() < SIGN {
                self.pending = rest.to_vec();
                return;
            }
            match sign(rest) {
                Sign::Digit(value, length) => {
                    self.digit(value, output);
                    rest = rest.get(length..).unwrap_or_default();
                }
                Sign::Nothing(length) => rest = rest.get(length..).unwrap_or_default(),
                Sign::Other => self.ended = true,
            }
        }
    }

    /// The input is over: what may be a sign is one or is not.
    pub(super) fn finish(&mut self, output: &mut Vec<u8>) {
        let mut rest = std::mem::take(&mut self.pending);
        // Longer than any sign, so that nothing is put off.
        rest.resize(rest.len() + SIGN, b'"');
        self.read(&rest, output);
        self.ended = true;
    }

    fn digit(&mut self, value: u8, output: &mut Vec<u8>) {
        self.bits = self.bits << 6 | u32::from(value);
        self.count += 6;
        if self.count < 8 {
            return;
        }
        self.count -= 8;
        if self.skip > 0 {
            self.skip -= 1;
        } else {
            output.push((self.bits >> self.count) as u8);
        }
    }
}

fn value(digit: u8) -> u8 {
    BASE64.get(usize::from(digit)).copied().unwrap_or(NO_DIGIT)
}

fn sign(rest: &[u8]) -> Sign {
    let gap = line_break(rest);
    if gap > 0 {
        return Sign::Nothing(gap);
    }
    let escaped = |length: usize| {
        let two = rest.get(length - 2..length).unwrap_or_default();
        let written = match two.to_ascii_uppercase().as_slice() {
            b"2B" => b'+',
            b"2F" => b'/',
            b"2D" => b'-',
            b"5F" => b'_',
            b"0A" | b"0D" => return Sign::Nothing(length),
            _ => return Sign::Other,
        };
        Sign::Digit(value(written), length)
    };
    let backslashes = rest
        .iter()
        .take(7)
        .take_while(|byte| **byte == b'\\')
        .count();
    match (backslashes, rest.get(backslashes..).unwrap_or_default()) {
        (0, [b'%', ..]) => escaped(3),
        (1.., [b'/', ..]) => Sign::Digit(value(b'/'), backslashes + 1),
        (1.., [b'u', b'0', b'0', ..]) => escaped(backslashes + 5),
        _ => Sign::Other,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

    use super::*;

    fn read(text: &[u8], piece: usize, skip: usize) -> (Vec<u8>, bool) {
        let mut digits = Digits::new(skip);
        let mut output = Vec::new();
        for piece in text.chunks(piece) {
            digits.push(piece, &mut output);
        }
        let ended = digits.has_ended();
        digits.finish(&mut output);
        (output, ended)
    }

    #[test]
    fn any_writing_in_any_pieces_is_read() {
        let bytes: Vec<u8> = (0..2_000_u32)
            .map(|number| (number.wrapping_mul(0x9E37_79B1) >> 24) as u8)
            .collect();
        let digits = BASE64_STANDARD.encode(&bytes);
        let lines = |ending: &str| {
            let lines: Vec<&str> = digits
                .as_bytes()
                .chunks(76)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            lines.join(ending)
        };
        for text in [
            digits.clone(),
            BASE64_URL_SAFE_NO_PAD.encode(&bytes),
            digits.replace('/', "\\/"),
            digits.replace('/', "\\\\/"),
            digits.replace('+', "%2B").replace('/', "%2f"),
            digits.replace('+', "\\u002b").replace('/', "\\u002F"),
            lines("\n"),
            lines("\r\n"),
            lines("\r\n        "),
            lines("\\n"),
            lines("\\r\\n"),
            lines("\\\\n"),
            lines("%0D%0A"),
        ] {
            for piece in [1, 2, 3, 7, 61, 64, 65, 500, 5_000] {
                for skip in 0..3 {
                    let (output, _) = read(text.as_bytes(), piece, skip);
                    assert_eq!(output, bytes[skip..], "{piece}, {text}");
                }
            }
            assert!(
                read(
                    format!("{text}\"{}", " and more".repeat(SIGN)).as_bytes(),
                    10,
                    0
                )
                .1
            );
        }
    }

    #[test]
    fn what_is_no_digit_ends_it() {
        for (text, expected) in [
            ("QUJD!QUJD", "ABC"),
            ("QUJD QUJD", "ABC"),
            ("QUI=QUJD", "AB"),
            ("QUJD\"", "ABC"),
            ("QUJD\\q", "ABC"),
            ("QUJD%41", "ABC"),
            ("QUJD\\n!", "ABC"),
        ] {
            assert_eq!(read(text.as_bytes(), 3, 0).0, expected.as_bytes(), "{text}");
        }
    }
}
