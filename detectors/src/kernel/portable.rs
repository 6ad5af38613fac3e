//! What the kernels do, a byte at a time: the definition, and the way where there are no vectors.

use super::table::{BASE64, CLASSES, FLAGS, NO_DIGIT, SYMBOLS, flag, symbol};
use super::{BLOCK, Luts, Masks, POSITIONS, Sweep, has_row};

pub(super) fn classify(text: &[u8], sweep: &mut Sweep) -> usize {
    let mut length = 0;
    for (number, block) in text.chunks(BLOCK).enumerate() {
        let mut masks = Masks::default();
        sweep.squeezed_before[number] = length as u32;
        for (at, byte) in block.iter().enumerate() {
            let flags = FLAGS.get(usize::from(*byte)).copied();
            sweep.symbols[number * BLOCK + at] =
                flags.map_or(symbol::HIGH, |_| SYMBOLS[usize::from(*byte)]);
            let Some(flags) = flags else {
                masks.high |= 1 << at;
                masks.continued |= u64::from(byte & 0x40 == 0) << at;
                continue;
            };
            let bit = |wanted: u8| u64::from(flags & wanted != 0) << at;
            masks.alnum |= bit(flag::ALNUM);
            masks.upper |= u64::from(byte.is_ascii_uppercase()) << at;
            masks.digit |= u64::from(byte.is_ascii_digit()) << at;
            masks.wide |= bit(flag::ALNUM | flag::SIGN);
            masks.hex |= bit(flag::HEX);
            masks.lead |= bit(flag::LEAD);
            masks.backslash |= bit(flag::BACKSLASH);
            masks.escaped |= bit(flag::ESCAPED);
            masks.ampersand |= bit(flag::AMPERSAND);
            masks.gap |= bit(flag::GAP);
            masks.zero |= u64::from(*byte == 0) << at;
            if flags & flag::ALNUM != 0 {
                sweep.squeezed[length] = byte | 0x20;
                length += 1;
            }
        }
        sweep.masks[number] = masks;
    }
    length
}

pub(super) fn candidates(length: usize, luts: &Luts, sweep: &mut Sweep) {
    for number in 0..length.div_ceil(BLOCK) {
        sweep.candidates[number] = candidates_in(&sweep.symbols[number * BLOCK..], luts);
    }
}

pub(super) fn candidates_in(symbols: &[u8], luts: &Luts) -> u64 {
    let [first, second, third, fourth] = &luts.words[..] else {
        return 0;
    };
    let mut mask = 0;
    for (at, four) in symbols.windows(POSITIONS).take(BLOCK).enumerate() {
        let word = |lut: &[u64; 64], position: usize| lut[usize::from(four[position] & 63)];
        let fits = word(first, 0) & word(second, 1) & word(third, 2) & word(fourth, 3);
        mask |= u64::from(fits != 0) << at;
    }
    mask
}

pub(super) fn summary(text: &[u8]) -> (u8, u8) {
    text.iter().fold((0, 0xFF), |(any, all), byte| {
        let classes = CLASSES.get(usize::from(*byte)).copied().unwrap_or(0);
        (any | classes, all & classes)
    })
}

pub(super) fn base64(digits: &[u8], output: &mut Vec<u8>) {
    let value = |digit: &u8| {
        let value = BASE64.get(usize::from(*digit)).copied().unwrap_or(NO_DIGIT);
        u32::from(if value == NO_DIGIT { 0 } else { value })
    };
    for four in digits.chunks(4) {
        let number = four
            .iter()
            .fold(0, |number, digit| number << 6 | value(digit))
            << (6 * (4 - four.len()));
        let [_, first, second, third] = number.to_be_bytes();
        output.extend_from_slice(&[first, second, third][..(four.len() * 6) / 8]);
    }
}

pub(super) fn is_readable(bytes: &[u8]) -> bool {
    let mut before = 0;
    bytes.chunks(BLOCK).any(|block| {
        let readable = |byte: &u8| matches!(byte, 0 | b'\t' | b'\n' | b'\r' | b' '..=b'~');
        let mask = block
            .iter()
            .enumerate()
            .fold(0, |mask, (at, byte)| mask | u64::from(readable(byte)) << at);
        has_row(std::mem::replace(&mut before, mask), mask)
    })
}
