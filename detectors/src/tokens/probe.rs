//! What is told of a program at once where its anchor stands, before it is matched: eight bytes, and a stretch of the masks.

use super::anchors::{REACH, positions, wide};
use super::shape::Way;
use crate::kernel::{BLOCK, Blocks, row};

/// What is told of a program at once where its anchor stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Check {
    probe: Probe,
    stretch: Stretch,
}

impl Check {
    /// Of `way`, whose anchor stands at `offset`. A strong program's body may be in the other case, or in pieces.
    pub(super) fn of(way: &Way, offset: u8, strong: bool) -> Self {
        Self {
            probe: Probe::of(way, offset, strong),
            stretch: if strong {
                Stretch::default()
            } else {
                Stretch::of(way, offset)
            },
        }
    }

    /// Whether it may stand where the anchor is at `at`; what lies behind `masks` may be anything.
    #[inline]
    pub(super) fn may_stand(&self, at: usize, text: &[u8], masks: Blocks<'_>) -> bool {
        self.probe.may_stand(at, text) && self.stretch.may_stand(at, masks)
    }
}

/// A stretch of a way where nothing but base64 characters can stand, which is told at once from the masks.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    /// From the anchor on, or before it.
    skip: i8,
    length: u8,
}

impl Stretch {
    /// The longest of `way`, whose anchor stands at `offset`.
    fn of(way: &Way, offset: u8) -> Self {
        let wide = wide();
        let (mut best, mut start) = (Self::default(), 0);
        let positions = positions(way);
        for (at, set) in positions.iter().enumerate() {
            if set & !wide != 0 {
                start = at + 1;
            } else if at + 1 - start > usize::from(best.length)
                && let Ok(skip) = i8::try_from(start as i32 - i32::from(offset))
            {
                best = Self {
                    skip,
                    length: (at + 1 - start).min(64) as u8,
                };
            }
        }
        best
    }

    /// Whether it may stand where the anchor is at `at`; what lies behind `masks` may be anything.
    #[inline]
    fn may_stand(self, at: usize, masks: Blocks<'_>) -> bool {
        let Some(from) = at.checked_add_signed(isize::from(self.skip)) else {
            return false;
        };
        if from / BLOCK + 1 >= masks.len() {
            return true;
        }
        let wide = row(|number| masks.wide(number), from);
        (!wide).trailing_zeros() >= u32::from(self.length)
    }
}

/// Eight bytes of a way of which some can be but one: compared before anything else is.
#[derive(Clone, Copy, Debug, Default)]
struct Probe {
    /// From the anchor on, or before it.
    skip: i8,
    /// What is set before comparing: the bit by which letters differ in case, where that does not matter.
    fold: u64,
    mask: u64,
    value: u64,
}

impl Probe {
    /// Of `way`, whose anchor stands at `offset`. In `any_case` only what it begins with counts.
    fn of(way: &Way, offset: u8, any_case: bool) -> Self {
        let mut bytes: Vec<Option<u8>> = Vec::new();
        for atom in &way.atoms {
            let byte = atom.set.single();
            if any_case && byte.is_none() {
                break;
            }
            bytes.extend(std::iter::repeat_n(byte, atom.min as usize));
            if atom.min != atom.max || bytes.len() >= REACH {
                break;
            }
        }
        let mut best = (0, Self::default());
        for start in 0..bytes.len() {
            let here = &bytes[start..bytes.len().min(start + 8)];
            let fixed = here.iter().flatten().count();
            let Ok(skip) = i8::try_from(start as i32 - i32::from(offset)) else {
                continue;
            };
            if fixed <= best.0 {
                continue;
            }
            let mut probe = Self {
                skip,
                ..Self::default()
            };
            for (at, byte) in here.iter().enumerate() {
                let Some(byte) = byte else { continue };
                let fold = if any_case && byte.is_ascii_alphabetic() {
                    0x20
                } else {
                    0
                };
                probe.fold |= fold << (8 * at);
                probe.mask |= 0xFF << (8 * at);
                probe.value |= (u64::from(*byte) | fold) << (8 * at);
            }
            best = (fixed, probe);
        }
        best.1
    }

    #[inline]
    fn may_stand(&self, at: usize, text: &[u8]) -> bool {
        let Some(from) = at.checked_add_signed(isize::from(self.skip)) else {
            return false;
        };
        match text.get(from..).and_then(|rest| rest.first_chunk()) {
            Some(eight) => (u64::from_le_bytes(*eight) | self.fold) & self.mask == self.value,
            None => true,
        }
    }
}
