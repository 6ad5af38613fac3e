//! Which places of a squeezed text are looked up: of any eight places in a row the one of the least *rank*, and whatever ranks
//! as low.
//!
//! A place's rank is told by the characters that begin there, so a text and a part of it agree on which places those are.

use super::{BLOCK, SLACK};

/// Places in a row of which one is picked at least.
pub(crate) const WIDTH: usize = 8;

/// Characters that tell the rank of a place: the highest byte of their product with a key.
pub(crate) const RANKED: usize = 4;

/// Ranks, and what is picked by them; kept from text to text.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(super) ranks: Vec<u8>,
    pub(super) least: Vec<u8>,
    /// A bit for each place that is picked, 64 places a word.
    pub(crate) picked: Vec<u64>,
}

impl Samples {
    /// Makes room for so many places.
    pub(super) fn reset(&mut self, places: usize) {
        let blocks = places.div_ceil(BLOCK);
        if self.picked.len() < blocks {
            self.picked.resize(blocks, 0);
            self.ranks.resize(blocks * BLOCK + SLACK, 0);
            self.least.resize(blocks * BLOCK + SLACK, 0);
        }
    }
}

/// Fills `samples` for the first `places` of `squeezed`, of which three characters more at least are readable.
///
/// There is no branch in the loops over bytes, so that a compiler makes vector instructions of them.
#[inline(always)]
pub(super) fn fill(squeezed: &[u8], places: usize, key: u32, samples: &mut Samples) {
    if places == 0 {
        return;
    }
    samples.reset(places);
    let Samples {
        ranks,
        least,
        picked,
    } = samples;
    let blocks = places.div_ceil(BLOCK);
    for (number, ranks) in ranks.chunks_exact_mut(BLOCK).take(blocks).enumerate() {
        let mut some = [0; BLOCK + RANKED - 1];
        let rest = squeezed.get(number * BLOCK..).unwrap_or_default();
        let chars = match rest.first_chunk() {
            Some(chars) => chars,
            None => {
                some[..rest.len()].copy_from_slice(rest);
                &some
            }
        };
        rank_block(chars, key, ranks);
    }
    // What follows the last place is never the least.
    ranks[places..places + WIDTH].fill(u8::MAX);
    // `least[i + WIDTH - 1]` is that of the places from `i` on; none are before the first.
    least[..WIDTH - 1].fill(0);
    for number in 0..blocks {
        let begin = number * BLOCK;
        let mut lowest = [u8::MAX; BLOCK];
        for by in 0..WIDTH {
            for (lowest, rank) in lowest
                .iter_mut()
                .zip(&ranks[begin + by..begin + by + BLOCK])
            {
                *lowest = (*lowest).min(*rank);
            }
        }
        let begin = begin + WIDTH - 1;
        least[begin..begin + BLOCK].copy_from_slice(&lowest);
    }
    for (number, picked) in picked.iter_mut().take(blocks).enumerate() {
        let begin = number * BLOCK;
        let mut highest = [0; BLOCK];
        for by in 0..WIDTH {
            for (highest, least) in highest
                .iter_mut()
                .zip(&least[begin + by..begin + by + BLOCK])
            {
                *highest = (*highest).max(*least);
            }
        }
        let mut equal = [0; BLOCK];
        for ((equal, rank), highest) in equal.iter_mut().zip(&ranks[begin..]).zip(&highest) {
            *equal = u8::from(rank == highest);
        }
        let valid = match places - begin {
            some @ 0..BLOCK => (1 << some) - 1,
            _ => !0,
        };
        *picked = bits(&equal) & valid;
    }
}

#[inline(always)]
fn rank_block(chars: &[u8; BLOCK + RANKED - 1], key: u32, ranks: &mut [u8]) {
    let mut words = [0_u32; BLOCK / 4];
    for by in 0..4 {
        let (fours, _) = chars[by..].as_chunks::<4>();
        for (word, four) in words.iter_mut().zip(fours) {
            *word |= (u32::from_le_bytes(*four).wrapping_mul(key) >> 24) << (8 * by);
        }
    }
    for (four, word) in ranks.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *four = word.to_le_bytes();
    }
}

/// A bit for each byte, which is zero or one.
#[inline(always)]
fn bits(bytes: &[u8; BLOCK]) -> u64 {
    let (eights, _) = bytes.as_chunks::<8>();
    eights.iter().zip(0_u32..).fold(0, |mask, (eight, number)| {
        // Each byte's bit is moved to its own place in the highest byte.
        let eight = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask | eight << (8 * number)
    })
}
