//! Which places of a squeezed text are looked up: of any eight places in a row the one of the least *rank*, and whatever ranks
//! as low.
//!
//! A place's rank is told by the characters that begin there, so a text and a part of it agree on which places those are.

use super::{BLOCK, SLACK};

/// Places in a row of which one is picked at least.
pub(crate) const WIDTH: usize = 8;

/// Characters that tell the rank of a place.
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

/// The rank of four characters; `key` is odd.
#[inline(always)]
fn rank(four: u32, key: u32) -> u32 {
    four.wrapping_mul(key) >> 24
}

/// Fills `samples` for the first `places` of `squeezed`, of which three characters more at least are readable.
#[inline(always)]
pub(super) fn fill(squeezed: &[u8], places: usize, key: u32, samples: &mut Samples) {
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
        for (lane, four) in ranks.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let at = lane * 4;
            let rank = |by: usize| {
                let chars = [
                    chars[at + by],
                    chars[at + by + 1],
                    chars[at + by + 2],
                    chars[at + by + 3],
                ];
                rank(u32::from_le_bytes(chars), key)
            };
            *four = [rank(0), rank(1), rank(2), rank(3)].map(|rank| rank as u8);
        }
    }
    // What follows the last place is never the least.
    ranks[places..places + WIDTH].fill(u8::MAX);
    // `least[i + WIDTH - 1]` is that of the places from `i` on; none are before the first.
    least[..WIDTH - 1].fill(0);
    for at in 0..places {
        let mut lowest = u8::MAX;
        for rank in &ranks[at..at + WIDTH] {
            lowest = lowest.min(*rank);
        }
        least[at + WIDTH - 1] = lowest;
    }
    for (number, picked) in picked.iter_mut().take(blocks).enumerate() {
        *picked = 0;
        let begin = number * BLOCK;
        for at in begin..places.min(begin + BLOCK) {
            let mut highest = 0;
            for least in &least[at..at + WIDTH] {
                highest = highest.max(*least);
            }
            *picked |= u64::from(ranks[at] == highest) << (at - begin);
        }
    }
}
