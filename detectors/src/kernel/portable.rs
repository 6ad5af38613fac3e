//! What the kernels do, a byte at a time: the definition, and the way where there are no vectors.

use super::columns::Masks;
use super::filter::{Filter, GRAM};
use super::table::{BASE64, BASE85, CLASSES, FLAGS, HIGH_BITS, NO_DIGIT, SYMBOLS, flag, symbol};
use super::{BLOCK, Base85Bits, Luts, POSITIONS, Places, Sweep, has_row};

pub(super) fn classify(text: &[u8], sweep: &mut Sweep) -> usize {
    let blocks = text.len().div_ceil(BLOCK);
    let mut rows = sweep.columns.rows(blocks);
    let squeezed_before = &mut sweep.squeezed_before[..blocks];
    let mut length = 0;
    for (number, block) in text.chunks(BLOCK).enumerate() {
        let mut masks = Masks::default();
        squeezed_before[number] = length as u32;
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
            let value = BASE64[usize::from(*byte)];
            let low = |bit: u8| u64::from(value & (bit | NO_DIGIT) == 0) << at;
            masks.base64_first |= low(HIGH_BITS[0]);
            masks.base64_second |= low(HIGH_BITS[1]);
            masks.base64_third |= low(HIGH_BITS[2]);
            masks.underscore |= u64::from(*byte == b'_') << at;
            masks.control |= u64::from(*byte < 0x20 && flags & flag::GAP == 0) << at;
            if flags & flag::ALNUM != 0 {
                sweep.squeezed[length] = byte | 0x20;
                length += 1;
            }
        }
        rows.set(number, masks);
    }
    length
}

/// Writes the places of all bits of `masks` in a row; returns how many. There is room for 64 more.
pub(super) fn places(masks: &[u64], places: &mut [u16]) -> usize {
    let mut count = 0;
    for (number, mask) in masks.iter().enumerate() {
        let mut mask = *mask;
        let more = mask.count_ones() as usize;
        let base = (number * BLOCK) as u16;
        let mut written = 0;
        // Eight at a time, whether there are as many or not: how often is then mostly the same, and foretold.
        while written < more {
            if let Some(eight) = places[count + written..].first_chunk_mut::<8>() {
                for place in eight {
                    *place = base + (mask.trailing_zeros() & 63) as u16;
                    mask &= mask.wrapping_sub(1);
                }
            }
            written += 8;
        }
        count += more;
    }
    count
}

/// Those of the first `count` places of `list` at which eight characters begin that `filter` may hold: their number; they stand at
/// the list's beginning.
pub(super) fn sift(squeezed: &[u8], list: &mut Places, count: usize, filter: &Filter) -> usize {
    let mut kept = 0;
    for first in (0..count).step_by(8) {
        let Some(eight) = list.get(first..).and_then(|rest| rest.first_chunk::<8>()) else {
            break;
        };
        let eight = *eight;
        // All of them first: what a branch on each would cost is more than looking them up.
        let mut hits = 0_u32;
        for (number, place) in eight.iter().enumerate() {
            let at = usize::from(*place);
            let gram = squeezed.get(at..at + GRAM).unwrap_or_default();
            let hit = gram
                .first_chunk()
                .is_some_and(|gram| filter.may_hold(u64::from_le_bytes(*gram)));
            hits |= u32::from(hit) << number;
        }
        if count - first < 8 {
            hits &= (1 << (count - first)) - 1;
        }
        while hits != 0 {
            list[kept] = eight[hits.trailing_zeros() as usize & 7];
            hits &= hits - 1;
            kept += 1;
        }
    }
    kept
}

pub(super) fn candidates(
    symbols: &[u8],
    [begins, rows, edges]: [&[u64]; 3],
    luts: &Luts,
    masks: &mut [u64],
) {
    for (number, mask) in masks.iter_mut().enumerate() {
        let symbols = symbols.get(number * BLOCK..).unwrap_or_default();
        let places = [
            !0,
            begins[number],
            rows[number],
            rows[number] & begins[number],
            edges[number],
        ];
        *mask = luts
            .words
            .iter()
            .zip(places)
            .fold(0, |mask, (words, places)| {
                mask | fits(symbols, words) & places
            });
    }
}

pub(super) fn candidates_in(symbols: &[u8], luts: &Luts) -> u64 {
    luts.words
        .iter()
        .fold(0, |mask, words| mask | fits(symbols, words))
}

fn fits(symbols: &[u8], words: &[[u64; 64]]) -> u64 {
    let [first, second, third, fourth] = words else {
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

pub(super) fn base85_bits(block: &[u8]) -> Base85Bits {
    let mut bits = Base85Bits::default();
    for (at, digit) in block.iter().take(BLOCK).enumerate() {
        let flags = BASE85.get(usize::from(*digit)).copied().unwrap_or(0);
        for (dialect, (digits, leads)) in bits.iter_mut().enumerate() {
            *digits |= u64::from(flags >> dialect & 1) << at;
            *leads |= u64::from(flags >> (3 + dialect) & 1) << at;
        }
    }
    bits
}

pub(super) fn base64_some(digits: &[u8], output: &mut [u8]) -> usize {
    let mut length = 0;
    for (four, to) in digits.chunks_exact(4).zip(output.chunks_exact_mut(3)) {
        let number = four.iter().fold(0_u32, |number, digit| {
            let value = BASE64.get(usize::from(*digit)).copied().unwrap_or(0);
            number << 6 | u32::from(value & 0x3F)
        });
        to.copy_from_slice(&number.to_be_bytes()[1..]);
        length += 3;
    }
    length
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
