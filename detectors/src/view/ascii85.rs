//! Base 85 in its three dialects: four bytes as five characters, punctuation among them.

use std::ops::Range;

use super::inflate;
use super::map::View;
use crate::finding::Via;
use crate::kernel::BASE85_ALPHABETS;

/// Characters in a row that hold the shortest credential.
const LEAST: usize = 25;

/// Characters to either side of where one is asked for.
const MOST: usize = 4096;

/// Characters of four groups, which are enough to tell text.
const SAMPLE: usize = 20;

/// The dialects.
pub(super) static ALPHABETS: [Alphabet; 3] = [
    Alphabet::new(BASE85_ALPHABETS[0]),
    Alphabet::new(BASE85_ALPHABETS[1]),
    Alphabet::new(BASE85_ALPHABETS[2]),
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

    /// Whether the groups from `at` on are text.
    pub(super) fn is_text(&self, text: &[u8], at: usize) -> bool {
        let groups = text.get(at..at + SAMPLE).unwrap_or_default();
        !groups.is_empty()
            && groups.chunks(5).all(|five| {
                let readable = |byte: &u8| matches!(byte, 0 | b'\t' | b'\n' | b'\r' | b' '..=b'~');
                self.number(five).to_be_bytes().iter().all(readable)
            })
    }

    /// Whether the groups from `at` on begin compressed data.
    pub(super) fn is_compressed(&self, text: &[u8], at: usize) -> bool {
        let groups = text.get(at..at + LEAST).unwrap_or_default();
        let mut bytes = [0; LEAST];
        let mut length = 0;
        for (to, five) in bytes.chunks_exact_mut(4).zip(groups.chunks_exact(5)) {
            to.copy_from_slice(&self.number(five).to_be_bytes());
            length += 4;
        }
        inflate::begins_compressed(&bytes[..length], length)
    }

    /// A group cut short counts as filled up with the highest digit.
    fn number(&self, five: &[u8]) -> u32 {
        (0..5).fold(0_u64, |number, at| {
            number * 85 + u64::from(five.get(at).map_or(84, |digit| self.value(*digit)))
        }) as u32
    }

    pub(super) fn view(&self, run: &[u8], phase: usize) -> View {
        let digits = run.get(phase..).unwrap_or_default();
        let mut text = Vec::with_capacity(digits.len() * 4 / 5 + 4);
        for five in digits.chunks(5) {
            text.extend_from_slice(
                &self.number(five).to_be_bytes()[..five.len().saturating_sub(1)],
            );
        }
        View::digits(text, phase, 5, 4, Via::Base85)
    }
}

/// Of one dialect, where in a block, which `next` follows, four groups begin that may be text, and where a run of digits does
/// that is as long; `before` says whether a digit stands before the block.
pub(super) fn starts(here: &(u64, u64), next: &(u64, u64), before: bool) -> (u64, u64) {
    let digits = u128::from(here.0) | u128::from(next.0) << 64;
    let two = digits & digits >> 1;
    let four = two & two >> 2;
    let eight = four & four >> 4;
    let row = eight & eight >> 8 & four >> 16;
    let leads = u128::from(here.1) | u128::from(next.1) << 64;
    let leads = leads & leads >> 5;
    let texts = leads & leads >> 10 & row;
    let begins = row as u64 & !(here.0 << 1 | u64::from(before));
    (texts as u64, begins)
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
