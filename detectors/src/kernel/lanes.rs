//! Eight words at a time. Each operation is a loop of fixed length without a branch, which a compiler makes one vector
//! instruction of where the machine has them.

use std::array::from_fn;
use std::ops::{BitAnd, BitOr, Not, Shl, Shr};

pub(super) const LANES: usize = 8;

/// A word of each of eight blocks in a row.
#[derive(Clone, Copy)]
pub(super) struct Lanes([u64; LANES]);

impl Lanes {
    pub(super) const ZERO: Self = Self([0; LANES]);

    /// The words of `column` from number `at` on; it must be long enough.
    #[inline(always)]
    pub(super) fn load(column: &[u64], at: usize) -> Self {
        let mut lanes = [0; LANES];
        lanes.copy_from_slice(&column[at..at + LANES]);
        Self(lanes)
    }

    /// The same; zeros after the end.
    #[inline(always)]
    pub(super) fn load_some(column: &[u64], at: usize) -> Self {
        match column.get(at..at + LANES) {
            Some(all) => Self::load(all, 0),
            None => Self(from_fn(|lane| {
                column.get(at + lane).map_or(0, |word| *word)
            })),
        }
    }

    /// A zero, and then all but the last.
    #[inline(always)]
    pub(super) fn after_zero(self) -> Self {
        Self(from_fn(|lane| {
            lane.checked_sub(1).map_or(0, |lane| self.0[lane])
        }))
    }

    #[inline(always)]
    pub(super) fn store(self, column: &mut [u64], at: usize) {
        column[at..at + LANES].copy_from_slice(&self.0);
    }

    #[inline(always)]
    pub(super) fn count_ones(self) -> Self {
        Self(self.0.map(|word| u64::from(word.count_ones())))
    }

    /// All bits of a lane, if its word is at least `least`.
    #[inline(always)]
    pub(super) fn at_least(self, least: u64) -> Self {
        Self(self.0.map(|word| if word >= least { !0 } else { 0 }))
    }

    #[inline(always)]
    pub(super) fn at_most(self, most: u64) -> Self {
        !self.at_least(most + 1)
    }

    /// All bits of a lane, if this word is at least that of `other`.
    #[inline(always)]
    pub(super) fn not_below(self, other: Self) -> Self {
        Self(from_fn(
            |lane| if self.0[lane] >= other.0[lane] { !0 } else { 0 },
        ))
    }

    /// `gate` in the lanes that are not zero.
    #[inline(always)]
    pub(super) fn gate(self, gate: u64) -> Self {
        Self(self.0.map(|word| if word != 0 { gate } else { 0 }))
    }

    #[inline(always)]
    pub(super) fn is_zero(self) -> Self {
        Self(self.0.map(|word| if word == 0 { !0 } else { 0 }))
    }

    #[inline(always)]
    pub(super) fn minus(self, other: Self) -> Self {
        Self(from_fn(|lane| self.0[lane].wrapping_sub(other.0[lane])))
    }

    /// The lower 32 bits.
    #[inline(always)]
    pub(super) fn low(self) -> Self {
        Self(self.0.map(|word| word & 0xFFFF_FFFF))
    }
}

impl BitAnd for Lanes {
    type Output = Self;

    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(from_fn(|lane| self.0[lane] & other.0[lane]))
    }
}

impl BitOr for Lanes {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        Self(from_fn(|lane| self.0[lane] | other.0[lane]))
    }
}

impl Not for Lanes {
    type Output = Self;

    #[inline(always)]
    fn not(self) -> Self {
        Self(self.0.map(|word| !word))
    }
}

impl Shl<u32> for Lanes {
    type Output = Self;

    #[inline(always)]
    fn shl(self, by: u32) -> Self {
        Self(self.0.map(|word| word << by))
    }
}

impl Shr<u32> for Lanes {
    type Output = Self;

    #[inline(always)]
    fn shr(self, by: u32) -> Self {
        Self(self.0.map(|word| word >> by))
    }
}
