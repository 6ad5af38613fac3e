//! 64 bytes at a time: AVX-512 with byte permutes (VBMI) and byte compression (VBMI2).

use std::arch::x86_64::*;

use super::table::{BASE64, CLASSES, FLAGS, SYMBOLS, flag, symbol};
use super::{BLOCK, Luts, MAX_SETS, Masks, POSITIONS, Sweep, has_row};

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
        // Bit 5 tells small letters from capitals, and bit 6 letters from digits.
        let low = _mm512_testn_epi8_mask(bytes, _mm512_set1_epi8(0x40));
        sweep.masks[number] = Masks {
            alnum,
            upper: alnum & _mm512_testn_epi8_mask(bytes, _mm512_set1_epi8(0x20)),
            wide: test(flag::ALNUM | flag::SIGN),
            hex: test(flag::HEX),
            lead: test(flag::LEAD),
            backslash: test(flag::BACKSLASH),
            escaped: test(flag::ESCAPED),
            ampersand: test(flag::AMPERSAND),
            gap: test(flag::GAP),
            high,
            continued: high & low,
            digit: alnum & low,
            zero: _mm512_testn_epi8_mask(bytes, bytes) & valid,
        };
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

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) fn candidates(length: usize, luts: &Luts, sweep: &mut Sweep) {
    match luts.sets.len() {
        0 => sweep.candidates[..length.div_ceil(BLOCK)].fill(0),
        1 => candidates_of::<1>(length, luts, sweep),
        2 => candidates_of::<2>(length, luts, sweep),
        3 => candidates_of::<3>(length, luts, sweep),
        4 => candidates_of::<4>(length, luts, sweep),
        5 => candidates_of::<5>(length, luts, sweep),
        _ => candidates_of::<MAX_SETS>(length, luts, sweep),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn candidates_of<const SETS: usize>(length: usize, luts: &Luts, sweep: &mut Sweep) {
    let registers = registers::<SETS>(luts);
    for number in 0..length.div_ceil(BLOCK) {
        sweep.candidates[number] = fits(&sweep.symbols[number * BLOCK..], &registers);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn registers<const SETS: usize>(luts: &Luts) -> [[__m512i; POSITIONS]; SETS] {
    let mut registers = [[_mm512_setzero_si512(); POSITIONS]; SETS];
    for (registers, luts) in registers.iter_mut().zip(&luts.sets) {
        for (register, lut) in registers.iter_mut().zip(luts) {
            *register = load(lut);
        }
    }
    registers
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn fits<const SETS: usize>(symbols: &[u8], registers: &[[__m512i; POSITIONS]; SETS]) -> u64 {
    let at = |position: usize| load_some(symbols.get(position..).unwrap_or_default()).0;
    let (first, second, third, fourth) = (at(0), at(1), at(2), at(3));
    let mut any = _mm512_setzero_si512();
    for luts in registers {
        let one = _mm512_and_si512(
            _mm512_permutexvar_epi8(first, luts[0]),
            _mm512_permutexvar_epi8(second, luts[1]),
        );
        let two = _mm512_and_si512(
            _mm512_permutexvar_epi8(third, luts[2]),
            _mm512_permutexvar_epi8(fourth, luts[3]),
        );
        // any | one & two.
        any = _mm512_ternarylogic_epi64::<0b1111_1000>(any, one, two);
    }
    _mm512_test_epi8_mask(any, any)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) fn candidates_in(symbols: &[u8], luts: &Luts) -> u64 {
    match luts.sets.len() {
        0 => 0,
        1 => fits(symbols, &registers::<1>(luts)),
        2 => fits(symbols, &registers::<2>(luts)),
        3 => fits(symbols, &registers::<3>(luts)),
        4 => fits(symbols, &registers::<4>(luts)),
        5 => fits(symbols, &registers::<5>(luts)),
        _ => fits(symbols, &registers::<MAX_SETS>(luts)),
    }
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
    let fold = |vector: __m512i, or: bool| {
        let mut bytes = [0_u8; 64];
        store(vector, &mut bytes);
        bytes.iter().fold(if or { 0 } else { 0xFF }, |sum, byte| {
            if or { sum | byte } else { sum & byte }
        })
    };
    (fold(any, true), fold(all, false))
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
