//! 32 bytes at a time: AVX2, with parallel bit extraction (BMI2) to squeeze.

use std::arch::x86_64::*;

use super::columns::{Columns, Masks};
use super::gates::Gates;
use super::samples::{self, Samples};
use super::table::{BASE64, BASE85, FLAGS, HIGH_BITS, NO_DIGIT, SYMBOLS, flag, symbol};
use super::{BLOCK, Base85Bits, Sweep};

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
    let row = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(15));
    let column = _mm256_and_si256(bytes, _mm256_set1_epi8(15));
    let mut found = _mm256_setzero_si256();
    for (number, register) in (0_i8..).zip(table) {
        let here = _mm256_cmpeq_epi8(row, _mm256_set1_epi8(number));
        found = _mm256_or_si256(
            found,
            _mm256_and_si256(here, _mm256_shuffle_epi8(*register, column)),
        );
    }
    found
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
            let mut bytes = [0; 8];
            bytes[..eight.len()].copy_from_slice(eight);
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
