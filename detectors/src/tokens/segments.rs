//! Programs that begin with letters and digits alone, so many of them, and then a sign: `01234567-89ab-...`.
//!
//! Such a shape has no four positions that are rare, but where a word begins and how long it is are told from the masks: of one
//! length before one sign there are few programs.

use super::anchors::positions;
use super::shape::Way;
use crate::kernel::{Blocks, SYMBOLS, row};

/// Letters and digits in a row from which on the kernel tells where they begin.
const LEAST: usize = 8;
const MOST: usize = 64;

/// The programs of each length and sign.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// For each length and sign the number of a list, plus one; empty if there are none at all.
    table: Vec<u16>,
    lists: Vec<Vec<u32>>,
    /// A bit for each length that there is.
    lengths: u128,
}

impl Segments {
    /// Takes program `number` in, if `way` begins like that.
    pub(super) fn insert(&mut self, way: &Way, number: u32) -> bool {
        let alnum: u64 = (b'0'..=b'z')
            .filter(u8::is_ascii_alphanumeric)
            .fold(0, |set, byte| set | 1 << SYMBOLS[usize::from(byte)]);
        let positions = positions(way);
        let length = positions
            .iter()
            .take_while(|set| **set & !alnum == 0)
            .count();
        let Some(sign) = positions
            .get(length)
            .filter(|sign| sign.count_ones() == 1 && **sign & alnum == 0)
        else {
            return false;
        };
        if !way.left || !(LEAST..=MOST).contains(&length) {
            return false;
        }
        if self.table.is_empty() {
            self.table.resize(64 * (MOST + 1), 0);
        }
        let slot = &mut self.table[64 * length + sign.trailing_zeros() as usize];
        if *slot == 0 {
            self.lists.push(Vec::new());
            *slot = self.lists.len() as u16;
        }
        self.lists[usize::from(*slot) - 1].push(number);
        self.lengths |= 1 << length;
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// The programs that may match at `at`, where [`LEAST`] letters and digits begin.
    #[inline]
    pub(super) fn at(&self, text: &[u8], at: usize, masks: Blocks<'_>) -> &[u32] {
        let alnum = row(|number| masks.alnum(number), at);
        let length = alnum.trailing_ones() as usize;
        if self.lengths >> length & 1 == 0 {
            return &[];
        }
        let symbol = text
            .get(at + length)
            .and_then(|byte| SYMBOLS.get(usize::from(*byte)))
            .map_or(0, |symbol| usize::from(*symbol));
        self.table
            .get(64 * length + symbol)
            .and_then(|list| usize::from(*list).checked_sub(1))
            .and_then(|list| self.lists.get(list))
            .map_or(&[], Vec::as_slice)
    }
}
