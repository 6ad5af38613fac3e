//! 64 bytes at a time: AVX-512 with byte permutes (VBMI) and byte compression (VBMI2).

use std::arch::x86_64::*;

use super::columns::{Columns, Masks};
use super::gates::Gates;
use super::table::{BASE64, BASE85, CLASSES, FLAGS, HIGH_BITS, NO_DIGIT, SYMBOLS, flag, symbol};
use super::{BLOCK, Base85Bits, Luts, POSITIONS, Sweep, has_row};

/// A table of 128 bytes as two registers.
#[derive(Clone, Copy)]
struct Table(__m512i, __m512i);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the array has the 64 bytes that are read.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The first up to 64 of `bytes`, zeros after them, and a bit for each that is there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn load_some(bytes: &[u8]) -> (__m512i, u64) {
    if let Some(all) = bytes.first_chunk::<64>() {
        return (load(all), !0);
    }
    let valid = (1_u64 << bytes.len()) - 1;
    // SAFETY: a masked load touches only the bytes of its mask, all of which are in the slice.
    (
        unsafe { _mm512_maskz_loadu_epi8(valid, bytes.as_ptr().cast()) },
        valid,
    )
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn store(vector: __m512i, to: &mut [u8]) {
    if let Some(all) = to.first_chunk_mut::<64>() {
        // SAFETY: the array has the 64 bytes that are written.
        unsafe { _mm512_storeu_si512(all.as_mut_ptr().cast(), vector) }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn table(bytes: &[u8; 128]) -> Table {
    let mut halves = [[0; 64]; 2];
    halves[0].copy_from_slice(&bytes[..64]);
    halves[1].copy_from_slice(&bytes[64..]);
    Table(load(&halves[0]), load(&halves[1]))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) fn classify(text: &[u8], sweep: &mut Sweep) -> usize {
    let flags = table(&FLAGS);
    let symbols = table(&SYMBOLS);
    let digits = table(&BASE64);
    let mut length = 0;
    for (number, block) in text.chunks(BLOCK).enumerate() {
        let (bytes, valid) = load_some(block);
        let high = _mm512_movepi8_mask(bytes);
        let flags = _mm512_maskz_permutex2var_epi8(!high, flags.0, bytes, flags.1);
        let symbols = _mm512_permutex2var_epi8(symbols.0, bytes, symbols.1);
        let symbols = _mm512_mask_blend_epi8(high, symbols, _mm512_set1_epi8(symbol::HIGH as i8));
        store(symbols, &mut sweep.symbols[number * BLOCK..]);
        let test = |wanted: u8| _mm512_test_epi8_mask(flags, _mm512_set1_epi8(wanted as i8));
        let alnum = test(flag::ALNUM);
        let gap = test(flag::GAP);
        // Bit 5 tells small letters from capitals, and bit 6 letters from digits.
        let low = _mm512_testn_epi8_mask(bytes, _mm512_set1_epi8(0x40));
        let values = _mm512_permutex2var_epi8(digits.0, bytes, digits.1);
        let values = _mm512_mask_blend_epi8(high, values, _mm512_set1_epi8(NO_DIGIT as i8));
        let [base64_first, base64_second, base64_third] = HIGH_BITS
            .map(|bit| _mm512_testn_epi8_mask(values, _mm512_set1_epi8((bit | NO_DIGIT) as i8)));
        let masks = Masks {
            base64_first,
            base64_second,
            base64_third,
            alnum,
            upper: alnum & _mm512_testn_epi8_mask(bytes, _mm512_set1_epi8(0x20)),
            wide: test(flag::ALNUM | flag::SIGN),
            hex: test(flag::HEX),
            lead: test(flag::LEAD),
            backslash: test(flag::BACKSLASH),
            escaped: test(flag::ESCAPED),
            ampersand: test(flag::AMPERSAND),
            gap,
            high,
            continued: high & low,
            digit: alnum & low,
            underscore: _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(b'_' as i8)),
            zero: _mm512_testn_epi8_mask(bytes, bytes) & valid,
            control: _mm512_testn_epi8_mask(bytes, _mm512_set1_epi8(0xE0_u8 as i8)) & valid & !gap,
        };
        sweep.columns.set(number, masks);
        sweep.squeezed_before[number] = length as u32;
        let lower = _mm512_or_si512(bytes, _mm512_set1_epi8(0x20));
        store(
            _mm512_maskz_compress_epi8(alnum, lower),
            &mut sweep.squeezed[length..],
        );
        length += alnum.count_ones() as usize;
    }
    length
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt,avx512vpopcntdq")]
pub(super) fn gates(columns: &Columns, blocks: usize, gates: &mut Gates) {
    super::gates::fill(columns, blocks, gates);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
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
        let mut found = fits(symbols, anywhere) | fits(symbols, at_begin) & begins;
        // Most blocks of text have no long row.
        if rows != 0 {
            found |= fits(symbols, in_row) & rows;
            if rows & begins != 0 {
                found |= fits(symbols, in_row_at_begin) & rows & begins;
            }
            if edges != 0 {
                found |= fits(symbols, at_edge) & edges;
            }
        }
        *mask = found;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) fn candidates_in(symbols: &[u8], luts: &Luts) -> u64 {
    let symbols = at_positions(symbols);
    luts.kinds
        .iter()
        .fold(0, |mask, sets| mask | fits(symbols, sets))
}

/// The first 64 symbols, and those that follow each of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn at_positions(symbols: &[u8]) -> [__m512i; POSITIONS] {
    [0, 1, 2, 3].map(|position| load_some(symbols.get(position..).unwrap_or_default()).0)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn fits(symbols: [__m512i; POSITIONS], sets: &[[[u8; 64]; POSITIONS]]) -> u64 {
    let mut any = _mm512_setzero_si512();
    for luts in sets {
        let one = _mm512_and_si512(
            _mm512_permutexvar_epi8(symbols[0], load(&luts[0])),
            _mm512_permutexvar_epi8(symbols[1], load(&luts[1])),
        );
        let two = _mm512_and_si512(
            _mm512_permutexvar_epi8(symbols[2], load(&luts[2])),
            _mm512_permutexvar_epi8(symbols[3], load(&luts[3])),
        );
        // any | one & two.
        any = _mm512_ternarylogic_epi64::<0b1111_1000>(any, one, two);
    }
    _mm512_test_epi8_mask(any, any)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) fn summary(text: &[u8]) -> (u8, u8) {
    let classes = table(&CLASSES);
    let mut any = _mm512_setzero_si512();
    let mut all = _mm512_set1_epi8(-1);
    for block in text.chunks(BLOCK) {
        let (bytes, valid) = load_some(block);
        let high = _mm512_movepi8_mask(bytes);
        let found = _mm512_maskz_permutex2var_epi8(!high & valid, classes.0, bytes, classes.1);
        any = _mm512_or_si512(any, found);
        all = _mm512_mask_and_epi64(
            all,
            0xFF,
            all,
            _mm512_mask_blend_epi8(valid, _mm512_set1_epi8(-1), found),
        );
    }
    // Eight bytes at a time, and then those eight.
    let fold = |vector: __m512i, or: bool| {
        let mut bytes = [0_u8; 64];
        store(vector, &mut bytes);
        let (words, _) = bytes.as_chunks::<8>();
        let join = |a: u64, b: u64| if or { a | b } else { a & b };
        let word = words
            .iter()
            .map(|word| u64::from_le_bytes(*word))
            .fold(if or { 0 } else { !0 }, join);
        let half = join(word, word >> 32);
        let quarter = join(half, half >> 16);
        join(quarter, quarter >> 8) as u8
    };
    (fold(any, true), fold(all, false))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) fn base85_bits(block: &[u8]) -> Base85Bits {
    let flags = table(&BASE85);
    let (bytes, _) = load_some(block);
    let high = _mm512_movepi8_mask(bytes);
    let flags = _mm512_maskz_permutex2var_epi8(!high, flags.0, bytes, flags.1);
    let test = |bit: u8| _mm512_test_epi8_mask(flags, _mm512_set1_epi8(bit as i8));
    [(test(1), test(8)), (test(2), test(16)), (test(4), test(32))]
}

/// Where the three bytes of each group of four digits stand after the multiplications, high byte first.
const PACK: [u8; 64] = {
    let mut table = [0; 64];
    let mut group = 0;
    while group < 16 {
        table[group * 3] = (group * 4 + 2) as u8;
        table[group * 3 + 1] = (group * 4 + 1) as u8;
        table[group * 3 + 2] = (group * 4) as u8;
        group += 1;
    }
    table
};

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) fn base64(digits: &[u8], output: &mut Vec<u8>) {
    let values = table(&BASE64);
    let pack = load(&PACK);
    let start = output.len();
    output.resize(start + digits.len().div_ceil(BLOCK) * 48 + 16, 0);
    for (number, block) in digits.chunks(BLOCK).enumerate() {
        let (bytes, valid) = load_some(block);
        let valid = valid & !_mm512_movepi8_mask(bytes);
        let values = _mm512_maskz_permutex2var_epi8(valid, values.0, bytes, values.1);
        // What is no digit has its high bit set, and counts as zero.
        let values = _mm512_maskz_mov_epi8(!_mm512_movepi8_mask(values), values);
        let pairs = _mm512_maddubs_epi16(values, _mm512_set1_epi32(0x0140_0140));
        let fours = _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x0001_1000));
        store(
            _mm512_permutexvar_epi8(pack, fours),
            &mut output[start + number * 48..],
        );
    }
    output.truncate(start + digits.len() / 4 * 3 + digits.len() % 4 * 6 / 8);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) fn is_readable(bytes: &[u8]) -> bool {
    let mut before = 0;
    bytes.chunks(BLOCK).any(|block| {
        let (bytes, valid) = load_some(block);
        let printed = _mm512_cmplt_epu8_mask(
            _mm512_sub_epi8(bytes, _mm512_set1_epi8(0x20)),
            _mm512_set1_epi8(0x5F),
        );
        // Tab, line feed and carriage return, and zero.
        let blank = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(9))
            | _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(10))
            | _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(13))
            | _mm512_testn_epi8_mask(bytes, bytes);
        let mask = (printed | blank) & valid;
        has_row(std::mem::replace(&mut before, mask), mask)
    })
}
