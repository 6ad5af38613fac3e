//! 64 bytes at a time: AVX-512 with byte permutes (VBMI) and byte compression (VBMI2).

use std::arch::x86_64::*;

use super::columns::{Columns, Masks};
use super::filter::{Filter, GRAM};
use super::gates::Gates;
use super::samples::Samples;
use super::table::{BASE64, BASE85, CLASSES, FLAGS, HIGH_BITS, NO_DIGIT, SYMBOLS, flag, symbol};
use super::{BLOCK, Base85Bits, Luts, POSITIONS, Places, Sweep, has_row};

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
    let blocks = text.len().div_ceil(BLOCK);
    let mut rows = sweep.columns.rows(blocks);
    let squeezed_before = &mut sweep.squeezed_before[..blocks];
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
        rows.set(number, masks);
        squeezed_before[number] = length as u32;
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

/// The bytes of `here` and `next` in a row from number `by` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn ahead(here: __m512i, by: i8, next: __m512i) -> __m512i {
    let places = _mm512_add_epi8(load(&COUNT), _mm512_set1_epi8(by));
    _mm512_permutex2var_epi8(here, places, next)
}

/// The bytes of `before` and `here` in a row that end `by` bytes before the last.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn behind(before: __m512i, by: i8, here: __m512i) -> __m512i {
    ahead(before, 64 - by, here)
}

/// From 0 to 63.
const COUNT: [u8; 64] = {
    let mut count = [0; 64];
    let mut at = 0;
    while at < 64 {
        count[at] = at as u8;
        at += 1;
    }
    count
};

/// See [`samples::fill`](super::samples::fill). All of it in registers, with three blocks on their way at once.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) fn samples(squeezed: &[u8], places: usize, key: u32, samples: &mut Samples) {
    samples.reset(places);
    let key = _mm512_set1_epi32(key as i32);
    let none = _mm512_set1_epi8(-1);
    let blocks = places.div_ceil(BLOCK);
    // Ranks and the least of two and of four places, of the last block; of the one before it the ranks, too.
    let (mut ranks, mut ranks_before, mut ranks_first) = (none, none, none);
    let (mut two, mut four) = (none, none);
    // Behind the picked place: the highest of one, two and four such.
    let zero = _mm512_setzero_si512();
    let (mut eight, mut high_two, mut high_four) = (zero, zero, zero);
    for number in 0..blocks + 3 {
        let next = if number < blocks {
            let begin = number * BLOCK;
            let four = [0, 1, 2, 3].map(|by| {
                let rest = squeezed.get(begin + by..).unwrap_or_default();
                _mm512_mullo_epi32(load_some(rest).0, key)
            });
            let ranks = _mm512_or_si512(
                _mm512_or_si512(
                    _mm512_srli_epi32::<24>(four[0]),
                    _mm512_and_si512(
                        _mm512_srli_epi32::<16>(four[1]),
                        _mm512_set1_epi32(0x0000_FF00),
                    ),
                ),
                _mm512_or_si512(
                    _mm512_and_si512(
                        _mm512_srli_epi32::<8>(four[2]),
                        _mm512_set1_epi32(0x00FF_0000),
                    ),
                    _mm512_and_si512(four[3], _mm512_set1_epi32(0xFF00_0000_u32 as i32)),
                ),
            );
            let valid = match places - begin {
                some @ 0..BLOCK => (1_u64 << some) - 1,
                _ => !0,
            };
            _mm512_mask_blend_epi8(valid, none, ranks)
        } else {
            none
        };
        // Each of these is of the block before that of what it is made of.
        let next_two = _mm512_min_epu8(ranks, ahead(ranks, 1, next));
        let next_four = _mm512_min_epu8(two, ahead(two, 2, next_two));
        let next_eight = _mm512_min_epu8(four, ahead(four, 4, next_four));
        if let Some(number) = number.checked_sub(3) {
            let here = next_eight;
            let next_high_two = _mm512_max_epu8(here, behind(eight, 1, here));
            let next_high_four = _mm512_max_epu8(next_high_two, behind(high_two, 2, next_high_two));
            let high = _mm512_max_epu8(next_high_four, behind(high_four, 4, next_high_four));
            let valid = match places - number * BLOCK {
                some @ 0..BLOCK => (1_u64 << some) - 1,
                _ => !0,
            };
            samples.picked[number] = _mm512_cmpeq_epi8_mask(ranks_first, high) & valid;
            (eight, high_two, high_four) = (here, next_high_two, next_high_four);
        }
        (two, four) = (next_two, next_four);
        (ranks, ranks_before, ranks_first) = (next, ranks, ranks_before);
    }
}

/// Writes the places of all bits of `masks` in a row, 64 of each; returns how many. There is room for 64 more.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) fn places(masks: &[u64], places: &mut [u16]) -> usize {
    let all = load(&COUNT);
    let mut count = 0;
    for (number, mask) in masks.iter().enumerate() {
        let some = _mm512_maskz_compress_epi8(*mask, all);
        let base = _mm512_set1_epi16((number * BLOCK) as i16);
        let low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(some));
        let high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64::<1>(some));
        if let Some(room) = places
            .get_mut(count..)
            .and_then(|rest| rest.first_chunk_mut::<64>())
        {
            // SAFETY: the array has the 64 numbers of two bytes that are written, in two halves.
            unsafe {
                _mm512_storeu_si512(room.as_mut_ptr().cast(), _mm512_add_epi16(low, base));
                _mm512_storeu_si512(
                    room.as_mut_ptr().add(32).cast(),
                    _mm512_add_epi16(high, base),
                );
            }
        }
        count += mask.count_ones() as usize;
    }
    count
}

/// See [`portable::sift`](super::portable::sift).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
pub(super) fn sift(squeezed: &[u8], list: &mut Places, count: usize, filter: &Filter) -> usize {
    let Some(last) = squeezed.len().checked_sub(GRAM) else {
        return 0;
    };
    let last = _mm512_set1_epi64(last as i64);
    let multiplier = _mm512_set1_epi64(filter.multiplier as i64);
    let index_shift = _mm_cvtsi64_si128(i64::from(filter.shift()));
    let words = filter.words();
    let bit = _mm512_set1_epi64(63);
    let mut kept = 0;
    for number in (0..count).step_by(8) {
        let Some(eight) = list.get(number..).and_then(|rest| rest.first_chunk::<8>()) else {
            break;
        };
        // SAFETY: the array has the 16 bytes that are read.
        let eight = unsafe { _mm_loadu_si128(eight.as_ptr().cast()) };
        let places = _mm512_cvtepu16_epi64(eight);
        let valid = match count - number {
            some @ 0..8 => (1_u8 << some) - 1,
            _ => !0,
        };
        let valid = _mm512_mask_cmple_epu64_mask(valid, places, last);
        // SAFETY: of each place whose bit is set eight bytes are in the slice, as was just compared; others are not read.
        let grams = unsafe {
            _mm512_mask_i64gather_epi64::<1>(
                _mm512_setzero_si512(),
                valid,
                places,
                squeezed.as_ptr().cast(),
            )
        };
        let hashes = _mm512_mullo_epi64(grams, multiplier);
        let index = _mm512_srl_epi64(hashes, index_shift);
        // SAFETY: the indices are below two to the power of 64 less the shift, which is how many words `words` gives.
        let words = unsafe {
            _mm512_mask_i64gather_epi64::<8>(
                _mm512_setzero_si512(),
                valid,
                index,
                words.as_ptr().cast(),
            )
        };
        let first = _mm512_srlv_epi64(
            words,
            _mm512_and_si512(_mm512_srli_epi64::<32>(hashes), bit),
        );
        let second = _mm512_srlv_epi64(
            words,
            _mm512_and_si512(_mm512_srli_epi64::<26>(hashes), bit),
        );
        let both = _mm512_and_si512(first, second);
        let hits = _mm512_mask_test_epi64_mask(valid, both, _mm512_set1_epi64(1));
        if hits != 0 {
            let some = _mm512_cvtepi64_epi16(_mm512_maskz_compress_epi64(hits, places));
            if let Some(room) = list
                .get_mut(kept..)
                .and_then(|rest| rest.first_chunk_mut::<8>())
            {
                // SAFETY: the array has the 16 bytes that are written.
                unsafe { _mm_storeu_si128(room.as_mut_ptr().cast(), some) }
            }
            kept += hits.count_ones() as usize;
        }
    }
    kept
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
