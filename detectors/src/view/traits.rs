//! What a text has that a view could take off.

use super::simd::vectorised;

/// Which steps could change a text. Wrong only in being too careful.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traits {
    pub(super) nul: bool,
    pub(super) escape: bool,
    pub(super) equals: bool,
    pub(super) non_ascii: bool,
    pub(super) line_break: bool,
}

/// Bytes looked at together: short enough to stop early, long enough for the loop to be vectorised.
const PIECE: usize = 256;

impl Traits {
    pub(super) fn any(self) -> bool {
        self != Self::default()
    }

    pub(super) fn of(text: &[u8]) -> Self {
        vectorised(
            #[inline(always)]
            || Self::by_pieces(text),
        )
    }

    #[inline(always)]
    fn by_pieces(text: &[u8]) -> Self {
        let mut flags = 0;
        let mut at = 0;
        while let Some(piece) = text
            .get(at..(at + PIECE + 2).min(text.len()))
            .filter(|piece| !piece.is_empty())
        {
            flags |= flags_of(piece);
            if flags == ALL {
                break;
            }
            at += PIECE;
        }
        let has = |flag| flags & flag != 0;
        Self {
            nul: has(NUL),
            escape: has(ESCAPE),
            equals: has(EQUALS),
            non_ascii: has(NON_ASCII),
            line_break: has(LINE_BREAK),
        }
    }
}

const NUL: u8 = 1;
const ESCAPE: u8 = 2;
const EQUALS: u8 = 4;
const NON_ASCII: u8 = 8;
const LINE_BREAK: u8 = 16;
const ALL: u8 = NUL | ESCAPE | EQUALS | NON_ASCII | LINE_BREAK;

/// No branches, so that the compiler can do many bytes at once.
#[inline(always)]
fn flags_of(piece: &[u8]) -> u8 {
    let second = piece.get(1..).unwrap_or_default();
    let third = piece.get(2..).unwrap_or_default();
    let mut flags = 0;
    for ((a, b), c) in piece.iter().zip(second).zip(third) {
        flags |= pair_flags(*a, *b)
            | ((u8::from(*a == b'=') & u8::from(is_hex(*b)) & u8::from(is_hex(*c))) * EQUALS);
    }
    // The last two bytes have no two after them; a pair is decided by what there is.
    let tail = piece
        .get(piece.len().saturating_sub(2)..)
        .unwrap_or_default();
    for (index, a) in tail.iter().enumerate() {
        flags |= pair_flags(*a, tail.get(index + 1).copied().unwrap_or(b' '));
    }
    flags
}

#[inline(always)]
fn pair_flags(a: u8, b: u8) -> u8 {
    let percent = u8::from(a == b'%') & (u8::from(is_hex(b)) | u8::from(b == b'u'));
    let backslash = u8::from(a == b'\\')
        & (u8::from(b | 0x20 == b'u')
            | u8::from(b == b'x')
            | u8::from(b == b'/')
            | u8::from(b & 0xF8 == b'0')
            | u8::from(b == b'\n')
            | u8::from(b == b'\r'));
    let entity =
        u8::from(a == b'&') & (u8::from(b == b'#') | u8::from((b | 0x20).wrapping_sub(b'a') < 26));
    let soft_break = u8::from(a == b'=') & (u8::from(b == b'\n') | u8::from(b == b'\r'));
    let wrapped = u8::from(is_base64(a))
        & (u8::from(b == b'\n') | u8::from(b == b'\r') | u8::from(b == b'\\'));
    (u8::from(a == 0) * NUL)
        | ((percent | backslash | entity) * ESCAPE)
        | (soft_break * EQUALS)
        | (u8::from(a >= 0x80) * NON_ASCII)
        | (wrapped * LINE_BREAK)
}

#[inline(always)]
fn is_hex(byte: u8) -> bool {
    (byte.wrapping_sub(b'0') < 10) | ((byte | 0x20).wrapping_sub(b'a') < 6)
}

#[inline(always)]
fn is_base64(byte: u8) -> bool {
    ((byte | 0x20).wrapping_sub(b'a') < 26)
        | (byte.wrapping_sub(b'/') < 11)
        | (byte == b'+')
        | (byte == b'-')
        | (byte == b'_')
        | (byte == b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trait_is_seen_at_every_place() {
        let none = Traits::default();
        let cases: &[(&[u8], Traits)] = &[
            (b"\0", Traits { nul: true, ..none }),
            (
                b"%4a",
                Traits {
                    escape: true,
                    ..none
                },
            ),
            (
                b"\\u",
                Traits {
                    escape: true,
                    ..none
                },
            ),
            (
                b"&#",
                Traits {
                    escape: true,
                    ..none
                },
            ),
            (
                b"&amp",
                Traits {
                    escape: true,
                    ..none
                },
            ),
            (
                b"=3D",
                Traits {
                    equals: true,
                    ..none
                },
            ),
            (
                b"\xC3",
                Traits {
                    non_ascii: true,
                    ..none
                },
            ),
            (
                b"a\n",
                Traits {
                    line_break: true,
                    ..none
                },
            ),
            (
                b"a\\n",
                Traits {
                    line_break: true,
                    ..none
                },
            ),
            (b"100% of a \\ b = c & d", none),
        ];
        for (text, expected) in cases {
            for before in [0, 1, 254, 255, 256, 257, 511, 512, 513] {
                for after in [0, 1, 2, 300] {
                    let padded = [&vec![b' '; before][..], text, &vec![b' '; after]].concat();
                    assert_eq!(
                        Traits::of(&padded),
                        *expected,
                        "{text:?} after {before}, before {after}"
                    );
                }
            }
        }
    }
}
