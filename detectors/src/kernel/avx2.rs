//! 32 bytes at a time: AVX2, with parallel bit extraction (BMI2) to squeeze.

use std::arch::x86_64::*;

use super::columns::{Columns, Masks};
use super::gates::Gates;
use super::samples::{self, Samples};
use super::table::{BASE64, BASE85, FLAGS, HIGH_BITS, NO_DIGIT, SYMBOLS, flag, symbol};
use super::{BLOCK, Base85Bits, Luts, POSITIONS, Sweep, eight_of};

/// Bytes of a vector.
const WIDTH: usize = 32;

/// A table of 128 bytes, 16 to a register, each twice.
type Table = [__m256i; 8];

#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn load(bytes: &[u8; WIDTH]) -> __m256i {
    // SAFETY: the array has the 32 bytes that are read.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn load_some(bytes: &[u8]) -> __m256i {
    if let Some(all) = bytes.first_chunk::<WIDTH>() {
        return load(all);
    }
    let mut some = [0; WIDTH];
    some[..bytes.len()].copy_from_slice(bytes);
    load(&some)
}

#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn store(vector: __m256i, to: &mut [u8]) {
    if let Some(all) = to.first_chunk_mut::<WIDTH>() {
        // SAFETY: the array has the 32 bytes that are written.
        unsafe { _mm256_storeu_si256(all.as_mut_ptr().cast(), vector) }
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn table(bytes: &[u8; 128]) -> Table {
    let mut table = [_mm256_setzero_si256(); 8];
    for (register, row) in table.iter_mut().zip(bytes.chunks(16)) {
        let mut twice = [0; WIDTH];
        twice[..16].copy_from_slice(row);
        twice[16..].copy_from_slice(row);
        *register = load(&twice);
    }
    table
}

/// `table[byte]` for each byte, and zero for those above 0x7F.
#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn look_up(table: &Table, bytes: __m256i) -> __m256i {
    // What has its high bit set gives zero; else the four low bits choose.
    let [a, b, c, d, e, f, g, h] = table.map(|register| _mm256_shuffle_epi8(register, bytes));
    // Bits 4 to 6, each where a blend looks for its choice.
    let [first, second, third] = [
        _mm256_slli_epi16::<3>(bytes),
        _mm256_slli_epi16::<2>(bytes),
        _mm256_slli_epi16::<1>(bytes),
    ];
    let low = _mm256_blendv_epi8(
        _mm256_blendv_epi8(a, b, first),
        _mm256_blendv_epi8(c, d, first),
        second,
    );
    let high = _mm256_blendv_epi8(
        _mm256_blendv_epi8(e, f, first),
        _mm256_blendv_epi8(g, h, first),
        second,
    );
    _mm256_blendv_epi8(low, high, third)
}

#[target_feature(enable = "avx2,bmi2,popcnt")]
pub(super) fn classify(text: &[u8], sweep: &mut Sweep) -> usize {
    let blocks = text.len().div_ceil(BLOCK);
    let mut rows = sweep.columns.rows(blocks);
    let squeezed_before = &mut sweep.squeezed_before[..blocks];
    let flag_table = table(&FLAGS);
    let symbol_table = table(&SYMBOLS);
    let digit_table = table(&BASE64);
    let mut length = 0;
    for (number, block) in text.chunks(BLOCK).enumerate() {
        let mut masks = Masks::default();
        for half in 0..BLOCK / WIDTH {
            let here = block.get(half * WIDTH..).unwrap_or_default();
            let bytes = load_some(here);
            let valid = if here.len() >= WIDTH {
                !0
            } else {
                (1_u32 << here.len()) - 1
            };
            let high = _mm256_movemask_epi8(bytes) as u32;
            let flags = look_up(&flag_table, bytes);
            let symbols = _mm256_blendv_epi8(
                look_up(&symbol_table, bytes),
                _mm256_set1_epi8(symbol::HIGH as i8),
                bytes,
            );
            store(symbols, &mut sweep.symbols[number * BLOCK + half * WIDTH..]);
            let shift = half * WIDTH;
            let put = |bits: u32| u64::from(bits) << shift;
            let test = |wanted: u8| {
                let none = _mm256_cmpeq_epi8(
                    _mm256_and_si256(flags, _mm256_set1_epi8(wanted as i8)),
                    _mm256_setzero_si256(),
                );
                put(!(_mm256_movemask_epi8(none) as u32))
            };
            masks.alnum |= test(flag::ALNUM);
            // Bit 5 is clear in capitals alone, of letters and digits.
            masks.upper |=
                put(!(_mm256_movemask_epi8(_mm256_slli_epi16::<2>(bytes)) as u32)) & masks.alnum;
            masks.wide |= test(flag::ALNUM | flag::SIGN);
            masks.hex |= test(flag::HEX);
            masks.lead |= test(flag::LEAD);
            masks.backslash |= test(flag::BACKSLASH);
            masks.escaped |= test(flag::ESCAPED);
            masks.ampersand |= test(flag::AMPERSAND);
            masks.gap |= test(flag::GAP);
            let low = !(_mm256_movemask_epi8(_mm256_slli_epi16::<1>(bytes)) as u32);
            masks.high |= put(high);
            masks.continued |= put(high & low);
            masks.digit |= put(low) & masks.alnum;
            let zero =
                _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())) as u32;
            masks.zero |= put(zero & valid);
            // Bytes above 0x7F have the high bit of what is no digit.
            let none = _mm256_set1_epi8(NO_DIGIT as i8);
            let values =
                _mm256_or_si256(look_up(&digit_table, bytes), _mm256_and_si256(bytes, none));
            for (mask, high) in [
                &mut masks.base64_first,
                &mut masks.base64_second,
                &mut masks.base64_third,
            ]
            .into_iter()
            .zip(HIGH_BITS)
            {
                let low = _mm256_cmpeq_epi8(
                    _mm256_and_si256(values, _mm256_set1_epi8((high | NO_DIGIT) as i8)),
                    _mm256_setzero_si256(),
                );
                *mask |= put(_mm256_movemask_epi8(low) as u32);
            }
            let underscore = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'_' as i8));
            masks.underscore |= put(_mm256_movemask_epi8(underscore) as u32);
            let control = _mm256_cmpeq_epi8(
                _mm256_and_si256(bytes, _mm256_set1_epi8(0xE0_u8 as i8)),
                _mm256_setzero_si256(),
            );
            masks.control |= put(_mm256_movemask_epi8(control) as u32 & valid) & !masks.gap;
        }
        rows.set(number, masks);
        squeezed_before[number] = length as u32;
        for (eighth, eight) in block.chunks(8).enumerate() {
            let bytes = eight_of(eight);
            let alnum = masks.alnum >> (8 * eighth) & 0xFF;
            let kept = _pdep_u64(alnum, 0x0101_0101_0101_0101) * 0xFF;
            let squeezed = _pext_u64(u64::from_le_bytes(bytes) | 0x2020_2020_2020_2020, kept);
            if let Some(to) = sweep.squeezed[length..].first_chunk_mut::<8>() {
                *to = squeezed.to_le_bytes();
            }
            length += alnum.count_ones() as usize;
        }
    }
    length
}

#[target_feature(enable = "avx2,bmi2,popcnt")]
pub(super) fn samples(squeezed: &[u8], places: usize, key: u32, samples: &mut Samples) {
    samples::fill(squeezed, places, key, samples);
}

#[target_feature(enable = "avx2,bmi2,popcnt")]
pub(super) fn gates(columns: &Columns, blocks: usize, gates: &mut Gates) {
    super::gates::fill(columns, blocks, gates);
}

#[target_feature(enable = "avx2,bmi2,popcnt")]
pub(super) fn candidates(
    symbols: &[u8],
    [begins, rows, edges]: [&[u64]; 3],
    luts: &Luts,
    masks: &mut [u64],
) {
    let [anywhere, at_begin, in_row, in_row_at_begin, at_edge] = &luts.kinds;
    for (number, mask) in masks.iter_mut().enumerate() {
        let symbols = symbols.get(number * BLOCK..).unwrap_or_default();
        let symbols = [at_positions(symbols, 0), at_positions(symbols, 1)];
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

#[target_feature(enable = "avx2,bmi2,popcnt")]
pub(super) fn candidates_in(symbols: &[u8], luts: &Luts) -> u64 {
    let symbols = [at_positions(symbols, 0), at_positions(symbols, 1)];
    luts.kinds
        .iter()
        .fold(0, |mask, sets| mask | fits(&symbols, sets))
}

/// 32 symbols of a half of the first 64, and those that follow each of them.
#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn at_positions(symbols: &[u8], half: usize) -> [__m256i; POSITIONS] {
    [0, 1, 2, 3]
        .map(|position| load_some(symbols.get(half * WIDTH + position..).unwrap_or_default()))
}

#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn fits(symbols: &[[__m256i; POSITIONS]; 2], sets: &[[[u8; 64]; POSITIONS]]) -> u64 {
    let mut any = [_mm256_setzero_si256(); 2];
    for luts in sets {
        let mut all = [_mm256_set1_epi8(-1); 2];
        for (position, lut) in luts.iter().enumerate() {
            let quarters = quarters(lut);
            for (all, symbols) in all.iter_mut().zip(symbols) {
                let found = look_up_64(quarters, symbols[position]);
                *all = _mm256_and_si256(*all, found);
            }
        }
        for (any, all) in any.iter_mut().zip(all) {
            *any = _mm256_or_si256(*any, all);
        }
    }
    let [low, high] = any.map(|any| {
        let none = _mm256_cmpeq_epi8(any, _mm256_setzero_si256());
        !(_mm256_movemask_epi8(none) as u32)
    });
    u64::from(low) | u64::from(high) << WIDTH
}

/// A table of 64 bytes, 16 to a register, each twice.
#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn quarters(lut: &[u8; 64]) -> [__m256i; 4] {
    [0, 1, 2, 3].map(|quarter| {
        let mut row = [0; 16];
        row.copy_from_slice(&lut[quarter * 16..quarter * 16 + 16]);
        // SAFETY: the array has the 16 bytes that are read.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(row.as_ptr().cast()) })
    })
}

/// The entry of each symbol, which is below 64.
#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn look_up_64(quarters: [__m256i; 4], symbols: __m256i) -> __m256i {
    let [a, b, c, d] = quarters.map(|quarter| _mm256_shuffle_epi8(quarter, symbols));
    // Bit 4, and bit 5, where a blend looks for its choice.
    let odd = _mm256_slli_epi16::<3>(symbols);
    let upper = _mm256_slli_epi16::<2>(symbols);
    _mm256_blendv_epi8(
        _mm256_blendv_epi8(a, b, odd),
        _mm256_blendv_epi8(c, d, odd),
        upper,
    )
}

#[target_feature(enable = "avx2,bmi2,popcnt")]
pub(super) fn base85_bits(block: &[u8]) -> Base85Bits {
    let table = table(&BASE85);
    let mut bits = Base85Bits::default();
    for (half, block) in block.chunks(WIDTH).take(BLOCK / WIDTH).enumerate() {
        let flags = look_up(&table, load_some(block));
        let test = |bit: u8| {
            let wanted = _mm256_set1_epi8(bit as i8);
            let has = _mm256_cmpeq_epi8(_mm256_and_si256(flags, wanted), wanted);
            u64::from(_mm256_movemask_epi8(has) as u32) << (half * WIDTH)
        };
        for (dialect, (digits, leads)) in bits.iter_mut().enumerate() {
            *digits |= test(1 << dialect);
            *leads |= test(8 << dialect);
        }
    }
    bits
}

#[target_feature(enable = "avx2,bmi2,popcnt")]
pub(super) fn base64(digits: &[u8], output: &mut Vec<u8>) {
    let values = table(&BASE64);
    let start = output.len();
    output.resize(start + digits.len().div_ceil(WIDTH) * 24 + WIDTH, 0);
    // Of each half the three bytes of four groups, high byte first; then the halves side by side.
    let pack = _mm256_setr_epi8(
        2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1, 2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13,
        12, -1, -1, -1, -1,
    );
    let join = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7);
    for (number, block) in digits.chunks(WIDTH).enumerate() {
        let bytes = load_some(block);
        let values = look_up(&values, bytes);
        // What is no digit has its high bit set, and counts as zero.
        let values = _mm256_andnot_si256(_mm256_cmpgt_epi8(_mm256_setzero_si256(), values), values);
        let pairs = _mm256_maddubs_epi16(values, _mm256_set1_epi32(0x0140_0140));
        let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x0001_1000));
        let packed = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(fours, pack), join);
        store(packed, &mut output[start + number * 24..]);
    }
    output.truncate(start + digits.len() / 4 * 3 + digits.len() % 4 * 6 / 8);
}
