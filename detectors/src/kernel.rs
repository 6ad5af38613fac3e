//! The loops that touch every byte, in vector instructions where the machine has them.
//!
//! There is one behaviour and four ways to it: AVX-512 (with VBMI and VBMI2), AVX2 (with BMI2), NEON, and portable code. The
//! portable functions are the definition; the tests hold the others equal to them. Which one runs is chosen once,
//! at run time. This directory has the only `unsafe` of the crate: calls of functions that need a CPU
//! feature, each after that feature was detected, and vector loads and stores, each inside a slice whose length
//! was checked just before.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod columns;
mod filter;
mod gates;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod samples;
mod table;

use std::cell::Cell;
use std::sync::LazyLock;

use columns::Columns;
pub(crate) use columns::{Blocks, row};
pub(crate) use filter::{Filter, GRAM, gram_at};
use gates::Gates;
pub(crate) use gates::{gate, is_numbers};
pub(crate) use samples::{Samples, WIDTH};
pub(crate) use table::{BASE64, BASE85_ALPHABETS, NO_DIGIT, SYMBOLS, class, symbol};

/// Bytes that the masks of one [`Masks`] are about.
pub(crate) const BLOCK: usize = 64;

/// Positions in a row that an [anchor](Luts) tells.
pub(crate) const POSITIONS: usize = 4;

/// What one pass over a text tells of it; kept from text to text, so that nothing is allocated for the next.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    columns: Columns,
    pub(crate) gates: Gates,
    /// The letters and digits alone, letters in lower case.
    pub(crate) squeezed: Vec<u8>,
    /// For each block, how many letters and digits stand before it.
    pub(crate) squeezed_before: Vec<u32>,
    /// One [`symbol`] a byte, and [`POSITIONS`] more at least, that are no byte's.
    pub(crate) symbols: Vec<u8>,
    /// For each block, where an anchor may begin.
    pub(crate) candidates: Vec<u64>,
}

impl Sweep {
    fn find_candidates(&mut self, level: Level, luts: &Luts, blocks: usize) {
        let covers = [
            &self.gates.begins[..blocks],
            &self.gates.covers[..blocks],
            &self.gates.edges[..blocks],
        ];
        let masks = &mut self.candidates[..blocks];
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                // SAFETY: `levels` gives this level only where the features are there.
                unsafe { avx2::candidates(&self.symbols, covers, luts, masks) }
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                // SAFETY: `levels` gives this level only where the features are there.
                unsafe { avx512::candidates(&self.symbols, covers, luts, masks) }
            }
            #[cfg(target_arch = "aarch64")]
            Level::Neon => {
                // SAFETY: `levels` gives this level only where the feature is there.
                unsafe { neon::candidates(&self.symbols, covers, luts, masks) }
            }
            _ => portable::candidates(&self.symbols, covers, luts, masks),
        }
    }

    /// The masks of the text that was swept, of `length` bytes.
    pub(crate) fn blocks(&self, length: usize) -> Blocks<'_> {
        Blocks::new(&self.columns, length.div_ceil(BLOCK))
    }
}

/// A vector's width of room behind what a loop writes.
const SLACK: usize = 64;

impl Sweep {
    fn reset(&mut self, length: usize) {
        let blocks = length.div_ceil(BLOCK);
        // Grown and never shrunk: what lies behind the lengths given is not read.
        self.columns.reserve(blocks);
        if self.squeezed_before.len() < blocks {
            self.squeezed_before.resize(blocks, 0);
            self.candidates.resize(blocks, 0);
            self.symbols.resize(blocks * BLOCK + SLACK, symbol::OTHER);
            self.squeezed.resize(blocks * BLOCK + SLACK, 0);
        }
    }
}

/// For each of [`POSITIONS`] and each set of eight buckets: which buckets a symbol fits.
///
/// `luts[set][position][symbol]`. A position of the text is a candidate if some bucket fits all four symbols that
/// begin there, and the place is one for the bucket's [kind](Kind).
#[derive(Clone, Debug, Default)]
pub(crate) struct Luts {
    kinds: [Vec<[[u8; 64]; POSITIONS]>; Kind::ALL.len()],
    /// The same, all sets of a kind and a symbol as one word.
    words: [Vec<[u64; 64]>; Kind::ALL.len()],
}

/// Where an anchor may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Anywhere,
    /// No letter, digit or `_` stands before it.
    AtBegin,
    /// Its last symbol is in a row of 16 base64 characters.
    InRow,
    /// Both.
    InRowAtBegin,
    /// In such a row, and not far from where it begins or ends.
    AtEdge,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Anywhere,
        Self::AtBegin,
        Self::InRow,
        Self::InRowAtBegin,
        Self::AtEdge,
    ];
}

/// Sets of eight buckets of one kind, at most: as many as fit a word.
pub(crate) const MAX_SETS: usize = 8;

impl Luts {
    /// The sets of each [`Kind`].
    pub(crate) fn new(kinds: [Vec<[[u8; 64]; POSITIONS]>; Kind::ALL.len()]) -> Self {
        assert!(
            kinds.iter().all(|sets| sets.len() <= MAX_SETS),
            "the anchors are put into few sets"
        );
        let words = kinds.each_ref().map(|sets| {
            let mut words = vec![[0_u64; 64]; POSITIONS];
            for (set, luts) in sets.iter().enumerate() {
                for (word, lut) in words.iter_mut().zip(luts) {
                    for (to, from) in word.iter_mut().zip(lut) {
                        *to |= u64::from(*from) << (8 * set);
                    }
                }
            }
            words
        });
        Self { kinds, words }
    }
}

/// The instructions that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// The best that this machine has.
static LEVEL: LazyLock<Level> =
    LazyLock::new(|| levels().last().copied().unwrap_or(Level::Portable));

/// All that this machine has, the best last.
pub(crate) fn levels() -> Vec<Level> {
    let mut levels = vec![Level::Portable];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt")
        {
            levels.push(Level::Avx2);
        }
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("avx512vpopcntdq")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt")
        {
            levels.push(Level::Avx512);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        levels.push(Level::Neon);
    }
    levels
}

pub(crate) fn level() -> Level {
    *LEVEL
}

/// Classifies `text`, squeezes it, and finds its candidates. Returns how long the squeezed text is.
pub(crate) fn sweep(level: Level, text: &[u8], luts: &Luts, sweep: &mut Sweep) -> usize {
    sweep.reset(text.len());
    let blocks = text.len().div_ceil(BLOCK);
    sweep.columns.end(blocks);
    match level {
        Level::Portable => {
            let length = portable::classify(text, sweep);
            pad(text.len(), sweep);
            gates::fill(&sweep.columns, blocks, &mut sweep.gates);
            sweep.find_candidates(level, luts, blocks);
            length
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: `levels` gives this level only where the features are there.
            let length = unsafe { avx2::classify(text, sweep) };
            pad(text.len(), sweep);
            // SAFETY: as above.
            unsafe { avx2::gates(&sweep.columns, blocks, &mut sweep.gates) };
            sweep.find_candidates(level, luts, blocks);
            length
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: `levels` gives this level only where the features are there.
            let length = unsafe { avx512::classify(text, sweep) };
            pad(text.len(), sweep);
            // SAFETY: as above.
            unsafe { avx512::gates(&sweep.columns, blocks, &mut sweep.gates) };
            sweep.find_candidates(level, luts, blocks);
            length
        }
        #[cfg(target_arch = "aarch64")]
        Level::Neon => {
            // SAFETY: `levels` gives this level only where the feature is there.
            let length = unsafe { neon::classify(text, sweep) };
            pad(text.len(), sweep);
            // Their vectors are a compiler's: of this level without being asked.
            gates::fill(&sweep.columns, blocks, &mut sweep.gates);
            sweep.find_candidates(level, luts, blocks);
            length
        }
    }
}

/// Picks of the first `places` of a squeezed text, of which three characters more are readable, those that are looked up.
pub(crate) fn samples(
    level: Level,
    squeezed: &[u8],
    places: usize,
    key: u32,
    samples: &mut Samples,
) {
    match level {
        Level::Portable => samples::fill(squeezed, places, key, samples),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => samples::fill(squeezed, places, key, samples),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx2::samples(squeezed, places, key, samples) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx512::samples(squeezed, places, key, samples) }
        }
    }
}

/// Blocks of which places are listed at once: the places stay in the fastest cache.
pub(crate) const AT_ONCE: usize = 32;

/// Where places are listed, with room for those that are always written.
pub(crate) type Places = [u16; AT_ONCE * BLOCK + BLOCK];

thread_local! {
    /// Kept from one text to the next.
    static PLACES: Cell<Option<Box<Places>>> = const { Cell::new(None) };
}

/// Lends `with` a list of places; what is done there may ask for another.
pub(crate) fn with_places<T>(with: impl FnOnce(&mut Places) -> T) -> T {
    let mut list = PLACES
        .take()
        .unwrap_or_else(|| Box::new([0; AT_ONCE * BLOCK + BLOCK]));
    let result = with(&mut list);
    PLACES.set(Some(list));
    result
}

/// Writes the places of all bits of `masks`, of [`AT_ONCE`] blocks at most, in a row to the beginning of `list`; returns how many.
pub(crate) fn places(level: Level, masks: &[u64], list: &mut Places) -> usize {
    let masks = masks.get(..AT_ONCE).unwrap_or(masks);
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx512::places(masks, list) }
        }
        _ => portable::places(masks, list),
    }
}

/// Those of the first `count` places of `list` at which eight characters begin that `filter` may hold: their number; they stand at
/// the list's beginning.
pub(crate) fn sift(
    level: Level,
    squeezed: &[u8],
    list: &mut Places,
    count: usize,
    filter: &Filter,
) -> usize {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx512::sift(squeezed, list, count, filter) }
        }
        _ => portable::sift(squeezed, list, count, filter),
    }
}

/// Where in the block of 64 symbols that `symbols` begins with an anchor may begin, in a row or not.
pub(crate) fn candidates_in(level: Level, symbols: &[u8], luts: &Luts) -> u64 {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx2::candidates_in(symbols, luts) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx512::candidates_in(symbols, luts) }
        }
        #[cfg(target_arch = "aarch64")]
        Level::Neon => {
            // SAFETY: `levels` gives this level only where the feature is there.
            unsafe { neon::candidates_in(symbols, luts) }
        }
        _ => portable::candidates_in(symbols, luts),
    }
}

/// Eight bytes, the last of them zero where there are fewer.
#[inline(always)]
fn eight_of(bytes: &[u8]) -> [u8; 8] {
    match bytes.first_chunk() {
        Some(eight) => *eight,
        None => {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            eight
        }
    }
}

/// The symbols after the last byte's are no byte's, whatever an earlier text left there.
fn pad(length: usize, sweep: &mut Sweep) {
    let blocks = length.div_ceil(BLOCK);
    if let Some(rest) = sweep.symbols.get_mut(length..blocks * BLOCK + SLACK) {
        rest.fill(symbol::OTHER);
    }
}

/// The classes of the bytes of `text`, joined: those that some byte has, and those that every byte has.
pub(crate) fn summary(level: Level, text: &[u8]) -> (u8, u8) {
    match level {
        Level::Portable => portable::summary(text),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => portable::summary(text),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx512::summary(text) }
        }
        #[cfg(target_arch = "aarch64")]
        Level::Neon => {
            // SAFETY: `levels` gives this level only where the feature is there.
            unsafe { neon::summary(text) }
        }
    }
}

/// Bytes of text in a row that random bytes hardly ever have.
pub(crate) const READABLE: usize = 14;

/// Whether [`READABLE`] bytes in a row are printable ASCII, white space or zero: whether a credential may stand there.
pub(crate) fn is_readable(level: Level, bytes: &[u8]) -> bool {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx512::is_readable(bytes) }
        }
        #[cfg(target_arch = "aarch64")]
        Level::Neon => {
            // SAFETY: `levels` gives this level only where the feature is there.
            unsafe { neon::is_readable(bytes) }
        }
        _ => portable::is_readable(bytes),
    }
}

/// Whether 14 bits in a row are set in `mask`, which follows `before`.
fn has_row(before: u64, mask: u64) -> bool {
    let bits = u128::from(mask) << 64 | u128::from(before);
    let two = bits & bits >> 1;
    let four = two & two >> 2;
    let eight = four & four >> 4;
    const { assert!(READABLE == 14) };
    eight & eight >> 6 != 0
}

/// For each dialect of base 85 where in a block its digits stand, and where those that text may begin a group with.
pub(crate) type Base85Bits = [(u64, u64); 3];

pub(crate) fn base85_bits(level: Level, block: &[u8]) -> Base85Bits {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx512::base85_bits(block) }
        }
        #[cfg(target_arch = "aarch64")]
        Level::Neon => {
            // SAFETY: `levels` gives this level only where the feature is there.
            unsafe { neon::base85_bits(block) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx2::base85_bits(block) }
        }
        Level::Portable => portable::base85_bits(block),
    }
}

/// What a few base64 digits stand for; returns how many bytes those are.
pub(crate) fn base64_some(digits: &[u8], output: &mut [u8]) -> usize {
    portable::base64_some(digits, output)
}

/// Appends what `digits`, base64 of either alphabet and of nothing else, stand for. Digits after the last whole byte are
/// dropped; what is no digit counts as `A`.
pub(crate) fn base64(level: Level, digits: &[u8], output: &mut Vec<u8>) {
    match level {
        Level::Portable => portable::base64(digits, output),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx2::base64(digits, output) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: `levels` gives this level only where the features are there.
            unsafe { avx512::base64(digits, output) }
        }
        #[cfg(target_arch = "aarch64")]
        Level::Neon => {
            // SAFETY: `levels` gives this level only where the feature is there.
            unsafe { neon::base64(digits, output) }
        }
    }
}

#[cfg(test)]
mod tests;
