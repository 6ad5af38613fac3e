//! Magic numbers of compressed data in base64: what they look like at each of the three alignments.

use crate::kernel::{BASE64, Kind, POSITIONS};
use crate::tokens::Anchor;

/// What compressed data begins with, as far as it is told from base64: gzip, zip with a deflated member, zstd.
const MAGICS: [&[u8]; 3] = [b"\x1F\x8B\x08", b"PK\x03\x04", b"\x28\xB5\x2F\xFD"];

/// Four digits of one magic number at one alignment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Magic {
    /// The bits of each digit's value that are known, and what they are.
    digits: [(u8, u8); POSITIONS],
    /// How many digits after the beginning of a group the first of these stands.
    pub(super) skip: usize,
}

/// All of them.
pub(crate) fn all() -> Vec<Magic> {
    let mut all = Vec::new();
    for magic in MAGICS {
        for before in 0..3_usize {
            // The first digit of which all bits are known.
            let skip = (8 * before).div_ceil(6);
            let digit = |number: usize| {
                let (mut mask, mut value) = (0, 0);
                for bit in 0..6 {
                    let at = 6 * (skip + number) + bit;
                    let byte = (at / 8)
                        .checked_sub(before)
                        .and_then(|byte| magic.get(byte));
                    mask = mask << 1 | u8::from(byte.is_some());
                    value = value << 1 | byte.map_or(0, |byte| byte >> (7 - at % 8) & 1);
                }
                (mask, value)
            };
            all.push(Magic {
                digits: [digit(0), digit(1), digit(2), digit(3)],
                skip,
            });
        }
    }
    all
}

impl Magic {
    /// Whether `digits` begin with it.
    pub(super) fn begins(&self, digits: &[u8]) -> bool {
        digits.len() >= POSITIONS
            && self
                .digits
                .iter()
                .zip(digits)
                .all(|((mask, value), digit)| {
                    BASE64
                        .get(usize::from(*digit))
                        .is_some_and(|digit| digit & (mask | 0x80) == *value)
                })
    }

    pub(crate) fn anchor(&self) -> Anchor {
        Anchor::of_sets(
            self.digits.map(|(mask, value)| {
                (0..128_u8).filter(move |byte| {
                    BASE64
                        .get(usize::from(*byte))
                        .is_some_and(|digit| digit & (mask | 0x80) == value)
                })
            }),
            Kind::InRow,
        )
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn each_alignment_is_told() {
        for magic in MAGICS {
            for before in 0..3_usize {
                let bytes = [&vec![0xFF; before][..], magic, &[0xA5; 9]].concat();
                for written in [
                    BASE64_STANDARD_NO_PAD.encode(&bytes),
                    BASE64_URL_SAFE_NO_PAD.encode(&bytes),
                ] {
                    let told = all()
                        .iter()
                        .filter(|magic| magic.begins(&written.as_bytes()[magic.skip..]))
                        .count();
                    assert_eq!(told, 1, "{written}");
                }
            }
        }
    }
}
