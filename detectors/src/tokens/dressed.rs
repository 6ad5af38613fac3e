//! Strong programs in other writings: in the other case, in pieces, in a simple cipher.
//!
//! Only a program whose prefix does not stand in ordinary text is looked for in this way, so that a wrong alarm is as
//! unlikely as for the plain shape.

use std::ops::Range;

use super::TokenEngine;
use super::anchors::{Anchor, SymbolSet};
use super::program::{Case, Program, Runs};
use super::shape::Way;
use crate::finding::Via;
use crate::kernel::{Kind, POSITIONS, SYMBOLS};

/// Bytes of a body that begins after the prefix, at least, for a program to be strong.
const MIN_BODY: u32 = 16;

/// How rare an anchor must be to be strong: about one place in a million of ordinary text has it by chance.
const MAX_CHANCE: f64 = 2e-6;

/// A cipher without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cipher {
    Rot13,
    Atbash,
    Reversed,
}

pub(crate) fn is_strong(way: &Way) -> bool {
    if way.left || way.right {
        return false;
    }
    let fixed = way
        .atoms
        .iter()
        .take_while(|atom| atom.min == atom.max && atom.set.count() < 9);
    let prefix: u32 = fixed.clone().map(|atom| atom.min).sum();
    let has_sign = fixed
        .clone()
        .any(|atom| atom.set.bytes().all(|byte| !byte.is_ascii_alphabetic()));
    let body: u32 = way.atoms.iter().map(|atom| atom.min).sum::<u32>() - prefix;
    let Ok((_, offset)) = Anchor::of(way) else {
        return false;
    };
    prefix >= 4
        && has_sign
        && offset < 16
        && body >= MIN_BODY
        && Anchor::least_chance(way, 16) < MAX_CHANCE
}

/// The anchor as each cipher writes it.
pub(crate) fn anchors(anchor: &Anchor, mut add: impl FnMut(Cipher, Anchor)) {
    for cipher in [Cipher::Rot13, Cipher::Atbash] {
        let mut sets = [0; POSITIONS];
        for (to, from) in sets.iter_mut().zip(anchor.sets) {
            *to = ciphered(cipher, from);
        }
        add(
            cipher,
            Anchor {
                sets,
                kind: Kind::AtEdge,
            },
        );
    }
    let mut sets = anchor.sets;
    sets.reverse();
    add(
        Cipher::Reversed,
        Anchor {
            sets,
            kind: Kind::AtEdge,
        },
    );
}

fn ciphered(cipher: Cipher, set: SymbolSet) -> SymbolSet {
    (0..128_u8)
        .filter(|byte| set >> SYMBOLS[usize::from(*byte)] & 1 == 1)
        .fold(0, |set, byte| {
            let written = cipher.write(byte);
            set | SYMBOLS
                .get(usize::from(written))
                .map_or(0, |symbol| 1 << symbol)
        })
}

impl Cipher {
    /// Each of these is its own inverse.
    fn write(self, byte: u8) -> u8 {
        match (self, byte) {
            (Self::Rot13, b'a'..=b'm' | b'A'..=b'M') => byte + 13,
            (Self::Rot13, b'n'..=b'z' | b'N'..=b'Z') => byte - 13,
            (Self::Atbash, b'a'..=b'z') => b'a' + b'z' - byte,
            (Self::Atbash, b'A'..=b'Z') => b'A' + b'Z' - byte,
            _ => byte,
        }
    }

    pub(crate) fn via(self) -> Via {
        match self {
            Self::Rot13 => Via::Rot13,
            Self::Atbash => Via::Atbash,
            Self::Reversed => Via::Reversed,
        }
    }

    /// What `text` is in the clear.
    pub(crate) fn read(self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Reversed => text.iter().rev().copied().collect(),
            _ => text.iter().map(|byte| self.write(*byte)).collect(),
        }
    }
}

/// Bytes of pieces and what joins them, at most.
const MAX_PIECES: usize = 768;

/// Characters after the least of a token that are put together.
const MORE: usize = 512;

/// Characters in a row that are more than a piece.
const LONG_WORD: usize = 4096;

/// What pieces of a token are made of; all else is looked at as a joint.
fn is_piece(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+' | b'=' | b':')
}

/// Bytes of one joint.
const MAX_JOINT: usize = 64;

impl TokenEngine {
    /// A strong program's match at `start` in the other case, or in pieces. Pieces are put together only as long as
    /// `budget` lasts.
    pub(super) fn dressed(
        &self,
        program: &Program,
        text: &[u8],
        start: usize,
        runs: &mut Runs,
        state: &mut super::State,
        budget: &mut usize,
    ) -> Option<(Range<usize>, Vec<Via>)> {
        if let Some(end) = program.matched(&self.classes, Case::Ignored, text, start, runs) {
            return Some((start..end, vec![Via::CaseSwapped]));
        }
        if !program.begins(text, start) {
            return None;
        }
        // Where the word ends that the token begins in, if it is not too long to be a piece.
        if !state.word.contains(&start) {
            let length = text
                .get(start..)?
                .iter()
                .take(LONG_WORD)
                .take_while(|byte| is_piece(**byte))
                .count();
            state.word = start..start + length;
        }
        let end = state.word.end;
        if end - start > program.least || joint(text.get(end..)?) == 0 {
            return None;
        }
        let enough = program.least + MORE;
        let rest = text.get(start..(start + MAX_PIECES).min(text.len()))?;
        let (mut joined, mut from) = (Vec::with_capacity(enough), Vec::with_capacity(enough));
        let mut at = 0;
        while at < rest.len() && joined.len() < enough {
            if at > 0 && !is_piece(rest[at]) {
                let joint = joint(&rest[at..]);
                if joint == 0 {
                    break;
                }
                at += joint;
                continue;
            }
            joined.push(rest[at]);
            from.push(at);
            at += 1;
        }
        *budget = budget.saturating_sub(at);
        if *budget == 0 {
            return None;
        }
        state.joined.reset(&self.classes);
        let end = program.matched(&self.classes, Case::Kept, &joined, 0, &mut state.joined)?;
        let last = *from.get(end.checked_sub(1)?)?;
        Some((start..start + last + 1, vec![Via::Joined]))
    }
}

/// The length of what joins two pieces of one string, if `rest` begins with it.
fn joint(rest: &[u8]) -> usize {
    let blanks = |at: usize| {
        rest.iter()
            .skip(at)
            .take(MAX_JOINT)
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
            .count()
    };
    match rest {
        // A line that goes on in the next one.
        [b'\\', b'\n', ..] => 2 + blanks(2),
        [b'\\', b'\r', b'\n', ..] => 3 + blanks(3),
        [b'\\', b'n', ..] => 2 + blanks(2),
        [b'\n', ..] | [b'\r', b'\n', ..] => blanks(0),
        // A path's segments, a query's parameters, a cookie's or a form's.
        [b'/', ..] => 1,
        [b'&', ..] => {
            let name = rest
                .iter()
                .skip(1)
                .take(MAX_JOINT)
                .take_while(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'[' | b']' | b'.')
                })
                .count();
            if rest.get(1 + name) == Some(&b'=') {
                name + 2
            } else {
                0
            }
        }
        [b';', ..] => {
            let start = 1 + blanks(1);
            let name = rest
                .iter()
                .skip(start)
                .take(MAX_JOINT)
                .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
                .count();
            if name > 0 && rest.get(start + name) == Some(&b'=') {
                start + name + 1
            } else {
                0
            }
        }
        // `" + "`, `", "`, `" "`, `","key":"`, with `\"` for `"` inside another string.
        _ => {
            let Some((quote, length)) = quote(rest) else {
                return 0;
            };
            let mut at = length;
            let mut signs = 0;
            while let Some(byte) = rest.get(at).filter(|_| at < MAX_JOINT) {
                if let Some((other, length)) = quote_at(rest, at) {
                    if other != quote {
                        return 0;
                    }
                    at += length;
                    // A key of an object, and the value after it.
                    let key = rest
                        .iter()
                        .skip(at)
                        .take(MAX_JOINT)
                        .take_while(|byte| {
                            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
                        })
                        .count();
                    if key > 0
                        && let Some((_, closing)) = quote_at(rest, at + key)
                    {
                        let colon = at + key + closing + blanks(at + key + closing);
                        if rest.get(colon) == Some(&b':') {
                            let value = colon + 1 + blanks(colon + 1);
                            if let Some((_, opening)) = quote_at(rest, value) {
                                return value + opening;
                            }
                        }
                    }
                    return at;
                }
                let sign = matches!(byte, b'+' | b',' | b'.' | b'&' | b'<' | b'|' | b'~');
                signs += usize::from(sign);
                let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'\\' | b'n');
                if !(sign || blank) || signs > 2 {
                    return 0;
                }
                at += 1;
            }
            0
        }
    }
}

fn quote(rest: &[u8]) -> Option<(u8, usize)> {
    quote_at(rest, 0)
}

fn quote_at(rest: &[u8], at: usize) -> Option<(u8, usize)> {
    match rest.get(at..)? {
        [quote @ (b'"' | b'\'' | b'`'), ..] => Some((*quote, 1)),
        [b'\\', quote @ (b'"' | b'\''), ..] => Some((*quote, 2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joints_are_what_joins_strings() {
        for (text, length) in [
            (r#"" + "x"#, 5),
            (r#"","x"#, 3),
            (r#"", "b": "x"#, 9),
            (r#"\",\"x"#, 5),
            ("' .\n   'x", 8),
            ("\\\n  x", 4),
            ("\n    x", 5),
            ("/x", 1),
            ("&b=x", 3),
            ("; c=x", 4),
            (r#""x"#, 0),
            (r#"" == "x"#, 0),
            (r#"", 'x"#, 0),
            ("&x", 0),
        ] {
            assert_eq!(joint(text.as_bytes()), length, "{text}");
        }
    }

    #[test]
    fn a_cipher_is_its_own_inverse() {
        let all: Vec<u8> = (0..=255).collect();
        for cipher in [Cipher::Rot13, Cipher::Atbash, Cipher::Reversed] {
            assert_eq!(cipher.read(&cipher.read(&all)), all);
            assert_ne!(cipher.read(&all), all);
        }
    }
}
