//! 16 bytes at a time, four times a block: NEON, which every 64-bit ARM has.

use std::arch::aarch64::*;

use super::columns::Masks;
use super::table::{BASE64, BASE85, CLASSES, FLAGS, HIGH_BITS, NO_DIGIT, SYMBOLS, flag, symbol};
use super::{BLOCK, Base85Bits, Luts, POSITIONS, Sweep, eight_of, has_row};

/// Bytes of a vector.
const WIDTH: usize = 16;

/// A block.
type Four = [uint8x16_t; BLOCK / WIDTH];

/// A table of 128 bytes in two halves.
type Table = [uint8x16x4_t; 2];

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; WIDTH]) -> uint8x16_t {
    // SAFETY: the array has the 16 bytes that are read.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_64(bytes: &[u8; 64]) -> uint8x16x4_t {
    // SAFETY: the array has the 64 bytes that are read.
    unsafe { vld1q_u8_x4(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(vector: uint8x16_t, to: &mut [u8]) {
    if let Some(all) = to.first_chunk_mut::<WIDTH>() {
        // SAFETY: the array has the 16 bytes that are written.
        unsafe { vst1q_u8(all.as_mut_ptr(), vector) }
    }
}

/// The first up to 64 of `bytes`, zeros after them, and a bit for each that is there.
#[inline]
#[target_feature(enable = "neon")]
fn load_some(bytes: &[u8]) -> (Four, u64) {
    let mut some = [0; BLOCK];
    let (block, valid) = match bytes.first_chunk::<BLOCK>() {
        Some(all) => (all, !0),
        None => {
            some[..bytes.len()].copy_from_slice(bytes);
            (&some, (1_u64 << bytes.len()) - 1)
        }
    };
    let uint8x16x4_t(a, b, c, d) = load_64(block);
    ([a, b, c, d], valid)
}

#[inline]
#[target_feature(enable = "neon")]
fn table(bytes: &[u8; 128]) -> Table {
    let mut halves = [[0; 64]; 2];
    halves[0].copy_from_slice(&bytes[..64]);
    halves[1].copy_from_slice(&bytes[64..]);
    [load_64(&halves[0]), load_64(&halves[1])]
}

/// `table[byte]` for each byte, and zero for those above 0x7F.
#[inline]
#[target_feature(enable = "neon")]
fn look_up(table: &Table, bytes: uint8x16_t) -> uint8x16_t {
    // What is out of a half's range gives zero.
    let low = vqtbl4q_u8(table[0], bytes);
    let high = vqtbl4q_u8(table[1], vsubq_u8(bytes, vdupq_n_u8(64)));
    vorrq_u8(low, high)
}

/// A bit for each byte, which is zero or 0xFF.
#[inline]
#[target_feature(enable = "neon")]
fn mask(bytes: Four) -> u64 {
    const BITS: [u8; WIDTH] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
    let bits = load(&BITS);
    let [a, b, c, d] = bytes.map(|bytes| vandq_u8(bytes, bits));
    let sum = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
    vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(sum, sum)))
}

/// Where a byte has any of the bits of `wanted`.
#[inline]
#[target_feature(enable = "neon")]
fn test(bytes: Four, wanted: u8) -> u64 {
    mask(bytes.map(|bytes| vtstq_u8(bytes, vdupq_n_u8(wanted))))
}

/// For each set of bits which of eight bytes they are, in a row.
const SQUEEZE: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut bits = 0;
    while bits < 256 {
        let (mut at, mut to) = (0, 0);
        while at < 8 {
            if bits >> at & 1 == 1 {
                table[bits][to] = at as u8;
                to += 1;
            }
            at += 1;
        }
        bits += 1;
    }
    table
};

#[target_feature(enable = "neon")]
pub(super) fn classify(text: &[u8], sweep: &mut Sweep) -> usize {
    let blocks = text.len().div_ceil(BLOCK);
    let mut rows = sweep.columns.rows(blocks);
    let squeezed_before = &mut sweep.squeezed_before[..blocks];
    let flag_table = table(&FLAGS);
    let symbol_table = table(&SYMBOLS);
    let digit_table = table(&BASE64);
    let mut length = 0;
    for (number, block) in text.chunks(BLOCK).enumerate() {
        let (bytes, valid) = load_some(block);
        let is_high = bytes.map(|bytes| vcltzq_s8(vreinterpretq_s8_u8(bytes)));
        let flags = bytes.map(|bytes| look_up(&flag_table, bytes));
        for (part, (bytes, high)) in bytes.into_iter().zip(is_high).enumerate() {
            let symbols = look_up(&symbol_table, bytes);
            let symbols = vbslq_u8(high, vdupq_n_u8(symbol::HIGH), symbols);
            store(symbols, &mut sweep.symbols[number * BLOCK + part * WIDTH..]);
        }
        let values = bytes.map(|bytes| {
            // Bytes above 0x7F have the high bit of what is no digit.
            vorrq_u8(
                look_up(&digit_table, bytes),
                vandq_u8(bytes, vdupq_n_u8(NO_DIGIT)),
            )
        });
        let [base64_first, base64_second, base64_third] =
            HIGH_BITS.map(|bit| !test(values, bit | NO_DIGIT));
        let alnum = test(flags, flag::ALNUM);
        let gap = test(flags, flag::GAP);
        let high = mask(is_high);
        // Bit 5 tells small letters from capitals, and bit 6 letters from digits.
        let low = !test(bytes, 0x40);
        let masks = Masks {
            base64_first,
            base64_second,
            base64_third,
            alnum,
            upper: alnum & !test(bytes, 0x20),
            wide: test(flags, flag::ALNUM | flag::SIGN),
            hex: test(flags, flag::HEX),
            lead: test(flags, flag::LEAD),
            backslash: test(flags, flag::BACKSLASH),
            escaped: test(flags, flag::ESCAPED),
            ampersand: test(flags, flag::AMPERSAND),
            gap,
            high,
            continued: high & low,
            digit: alnum & low,
            underscore: mask(bytes.map(|bytes| vceqq_u8(bytes, vdupq_n_u8(b'_')))),
            zero: mask(bytes.map(|bytes| vceqzq_u8(bytes))) & valid,
            control: !test(bytes, 0xE0) & valid & !gap,
        };
        rows.set(number, masks);
        squeezed_before[number] = length as u32;
        for (eighth, eight) in block.chunks(8).enumerate() {
            let bytes = eight_of(eight);
            let alnum = (alnum >> (8 * eighth) & 0xFF) as usize;
            // SAFETY: each array has the 8 bytes that are read.
            let (bytes, places) =
                unsafe { (vld1_u8(bytes.as_ptr()), vld1_u8(SQUEEZE[alnum].as_ptr())) };
            let squeezed = vtbl1_u8(vorr_u8(bytes, vdup_n_u8(0x20)), places);
            if let Some(to) = sweep.squeezed[length..].first_chunk_mut::<8>() {
                // SAFETY: the array has the 8 bytes that are written.
                unsafe { vst1_u8(to.as_mut_ptr(), squeezed) }
            }
            length += alnum.count_ones() as usize;
        }
    }
    length
}

#[target_feature(enable = "neon")]
pub(super) fn candidates(
    symbols: &[u8],
    [begins, rows, edges]: [&[u64]; 3],
    luts: &Luts,
    masks: &mut [u64],
) {
    let [anywhere, at_begin, in_row, in_row_at_begin, at_edge] = &luts.kinds;
    for (number, mask) in masks.iter_mut().enumerate() {
        let symbols = at_positions(symbols.get(number * BLOCK..).unwrap_or_default());
        let (begins, rows, edges) = (begins[number], rows[number], edges[number]);
        let mut found = fits(&symbols, anywhere);
        if begins != 0 {
            found |= fits(&symbols, at_begin) & begins;
        }
        // Most blocks of text have no long row.
        if rows != 0 {
            found |= fits(&symbols, in_row) & rows;
            if rows & begins != 0 {
                found |= fits(&symbols, in_row_at_begin) & rows & begins;
            }
            if edges != 0 {
                found |= fits(&symbols, at_edge) & edges;
            }
        }
        *mask = found;
    }
}

#[target_feature(enable = "neon")]
pub(super) fn candidates_in(symbols: &[u8], luts: &Luts) -> u64 {
    let symbols = at_positions(symbols);
    luts.kinds
        .iter()
        .fold(0, |mask, sets| mask | fits(&symbols, sets))
}

/// The first 64 symbols, and those that follow each of them.
#[inline]
#[target_feature(enable = "neon")]
fn at_positions(symbols: &[u8]) -> [Four; POSITIONS] {
    [0, 1, 2, 3].map(|position| load_some(symbols.get(position..).unwrap_or_default()).0)
}

#[inline]
#[target_feature(enable = "neon")]
fn fits(symbols: &[Four; POSITIONS], sets: &[[[u8; 64]; POSITIONS]]) -> u64 {
    let mut any = [vdupq_n_u8(0); BLOCK / WIDTH];
    for luts in sets {
        let tables = [0, 1, 2, 3].map(|position: usize| load_64(&luts[position]));
        for (part, any) in any.iter_mut().enumerate() {
            let word = |position: usize| vqtbl4q_u8(tables[position], symbols[position][part]);
            let all = vandq_u8(vandq_u8(word(0), word(1)), vandq_u8(word(2), word(3)));
            *any = vorrq_u8(*any, all);
        }
    }
    test(any, 0xFF)
}

#[target_feature(enable = "neon")]
pub(super) fn summary(text: &[u8]) -> (u8, u8) {
    let classes = table(&CLASSES);
    let (mut any, mut all) = (vdupq_n_u8(0), vdupq_n_u8(0xFF));
    let (parts, rest) = text.as_chunks::<WIDTH>();
    for part in parts {
        let found = look_up(&classes, load(part));
        any = vorrq_u8(any, found);
        all = vandq_u8(all, found);
    }
    let mut bytes = [[0; WIDTH]; 2];
    store(any, &mut bytes[0]);
    store(all, &mut bytes[1]);
    let [any, all] = bytes;
    let rest = super::portable::summary(rest);
    (
        any.iter().fold(rest.0, |any, classes| any | classes),
        all.iter().fold(rest.1, |all, classes| all & classes),
    )
}

#[target_feature(enable = "neon")]
pub(super) fn base85_bits(block: &[u8]) -> Base85Bits {
    let table = table(&BASE85);
    let flags = load_some(block).0.map(|bytes| look_up(&table, bytes));
    [1, 2, 4].map(|bit| (test(flags, bit), test(flags, 8 * bit)))
}

#[target_feature(enable = "neon")]
pub(super) fn base64(digits: &[u8], output: &mut Vec<u8>) {
    let table = table(&BASE64);
    let start = output.len();
    output.resize(start + digits.len().div_ceil(BLOCK) * 48, 0);
    let blocks = output[start..].as_chunks_mut::<48>().0;
    for (to, block) in blocks.iter_mut().zip(digits.chunks(BLOCK)) {
        let mut some = [0; BLOCK];
        let block = match block.first_chunk::<BLOCK>() {
            Some(all) => all,
            None => {
                some[..block.len()].copy_from_slice(block);
                &some
            }
        };
        // SAFETY: the array has the 64 bytes that are read: the first digits of 16 groups, then the second ones, and so on.
        let uint8x16x4_t(a, b, c, d) = unsafe { vld4q_u8(block.as_ptr()) };
        let [a, b, c, d] = [a, b, c, d].map(|bytes| {
            let none = vorrq_u8(
                look_up(&table, bytes),
                vandq_u8(bytes, vdupq_n_u8(NO_DIGIT)),
            );
            // What is no digit has its high bit set, and counts as zero.
            vbicq_u8(none, vcltzq_s8(vreinterpretq_s8_u8(none)))
        });
        let first = vorrq_u8(vshlq_n_u8::<2>(a), vshrq_n_u8::<4>(b));
        let second = vorrq_u8(vshlq_n_u8::<4>(b), vshrq_n_u8::<2>(c));
        let third = vorrq_u8(vshlq_n_u8::<6>(c), d);
        // SAFETY: the array has the 48 bytes that are written.
        unsafe { vst3q_u8(to.as_mut_ptr(), uint8x16x3_t(first, second, third)) }
    }
    output.truncate(start + digits.len() / 4 * 3 + digits.len() % 4 * 6 / 8);
}

#[target_feature(enable = "neon")]
pub(super) fn is_readable(bytes: &[u8]) -> bool {
    let mut before = 0;
    bytes.chunks(BLOCK).any(|block| {
        let (bytes, valid) = load_some(block);
        let readable = bytes.map(|bytes| {
            let printed = vcltq_u8(vsubq_u8(bytes, vdupq_n_u8(0x20)), vdupq_n_u8(0x5F));
            // Tab, line feed and carriage return, and zero.
            let blank = [9, 10, 13, 0]
                .map(|blank| vceqq_u8(bytes, vdupq_n_u8(blank)))
                .into_iter()
                .fold(printed, |any, blank| vorrq_u8(any, blank));
            blank
        });
        let mask = mask(readable) & valid;
        has_row(std::mem::replace(&mut before, mask), mask)
    })
}
