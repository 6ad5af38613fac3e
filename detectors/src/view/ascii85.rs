//! Base 85 in its three dialects: four bytes as five characters, punctuation among them.

use std::ops::Range;

use super::map::View;
use crate::finding::Via;

/// Characters in a row that hold the shortest credential.
const LEAST: usize = 26;

/// Characters to either side of where one is asked for.
const MOST: usize = 4096;

/// The dialects.
pub(super) static ALPHABETS: [Alphabet; 3] = [
    // Adobe and btoa.
    Alphabet::new(
        b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstu",
    ),
    // RFC 1924, git and Python's `b85encode`.
    Alphabet::new(
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~",
    ),
    // ZeroMQ RFC 32.
    Alphabet::new(
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#",
    ),
];

/// The value of each character, or [`NONE`].
#[derive(Debug)]
pub(super) struct Alphabet([u8; 128]);

const NONE: u8 = 0xFF;

impl Alphabet {
    const fn new(characters: &[u8; 85]) -> Self {
        let mut table = [NONE; 128];
        let mut at = 0;
        while at < 85 {
            table[characters[at] as usize] = at as u8;
            at += 1;
        }
        Self(table)
    }

    fn value(&self, byte: u8) -> u8 {
        self.0.get(usize::from(byte)).copied().unwrap_or(NONE)
    }

    /// The run of the alphabet's characters around `middle`, if it is long enough.
    pub(super) fn region(&self, text: &[u8], middle: usize) -> Option<Range<usize>> {
        let holds = |byte: &&u8| self.value(**byte) != NONE;
        let before = text
            .get(..middle)?
            .iter()
            .rev()
            .take(MOST)
            .take_while(holds)
            .count();
        let after = text
            .get(middle..)?
            .iter()
            .take(MOST)
            .take_while(holds)
            .count();
        (before + after >= LEAST).then_some(middle - before..middle + after)
    }

    pub(super) fn view(&self, run: &[u8], phase: usize) -> View {
        let digits = run.get(phase..).unwrap_or_default();
        let mut text = Vec::with_capacity(digits.len() * 4 / 5 + 4);
        for five in digits.chunks(5) {
            // A group cut short counts as filled up with the highest digit.
            let number = (0..5).fold(0_u64, |number, at| {
                number * 85 + u64::from(five.get(at).map_or(84, |digit| self.value(*digit)))
            });
            text.extend_from_slice(&(number as u32).to_be_bytes()[..five.len().saturating_sub(1)]);
        }
        View::digits(text, phase, 5, 4, Via::Base85)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts_are_read() {
        let read = |alphabet: &Alphabet, text: &str| alphabet.view(text.as_bytes(), 0).text;
        // From Wikipedia's article on Ascii85, and the test vector of ZeroMQ RFC 32.
        assert_eq!(
            read(&ALPHABETS[0], "9jqo^BlbD-BleB1DJ+*+F(f,q"),
            b"Man is distinguished"
        );
        assert_eq!(
            read(&ALPHABETS[2], "HelloWorld"),
            b"\x86\x4F\xD2\x6F\xB5\x59\xF7\x5B"
        );
        assert_eq!(read(&ALPHABETS[1], "NM&qnZ!92JZ*pv8Ap"), b"Hello, World!");
    }
}
