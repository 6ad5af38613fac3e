//! Matches one way through a shape at one place.

use std::ops::Range;

use super::shape::{ByteSet, Way};

/// A way through a shape, ready to be matched.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The row of the table.
    pub(crate) rule: u16,
    pieces: Box<[Piece]>,
    left: bool,
    right: bool,
    /// Bytes from the match's beginning to where its anchor begins.
    pub(crate) anchor: u8,
    /// The prefix is so telling, and the body so long, that the shape may also be looked for in other writings: in the
    /// other case, in pieces, reversed.
    pub(crate) strong: bool,
    /// The least length of a match.
    pub(crate) least: usize,
    /// The same, if the shape occurs by chance in a hundred megabytes of random base64url or so.
    pub(crate) by_chance: Option<usize>,
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(Box<[u8]>),
    Class {
        set: u16,
        min: u32,
        max: u32,
        /// Whether what follows may begin with a byte of the class, so that shorter runs must be tried too.
        try_shorter: bool,
    },
}

/// The sets of all programs; a program names them by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classes {
    sets: Vec<ByteSet>,
    /// For each set one byte a byte: in the set as it is, in either case.
    tables: Vec<[u8; 256]>,
}

const AS_IS: u8 = 1;
const IN_EITHER_CASE: u8 = 2;

/// How letters are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Kept,
    Ignored,
}

/// For each class, and for it in either case, the run of its bytes that was measured last, so that a text is walked once a class, however many
/// candidates stand in a run.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<(u32, Range<usize>)>,
    /// Which text the runs are of that have this number.
    text: u32,
}

impl Runs {
    pub(crate) fn reset(&mut self, classes: &Classes) {
        if self.runs.len() != 2 * classes.sets.len() || self.text == u32::MAX {
            self.runs.clear();
            self.runs.resize(2 * classes.sets.len(), (0, 0..0));
            self.text = 0;
        }
        self.text += 1;
    }
}

impl Classes {
    fn number(&mut self, set: ByteSet) -> u16 {
        let known = self.sets.iter().position(|other| *other == set);
        let number = known.unwrap_or_else(|| {
            let mut table = [0; 256];
            for byte in set.bytes() {
                table[usize::from(byte)] |= AS_IS;
                table[usize::from(byte.to_ascii_lowercase())] |= IN_EITHER_CASE;
                table[usize::from(byte.to_ascii_uppercase())] |= IN_EITHER_CASE;
            }
            self.sets.push(set);
            self.tables.push(table);
            self.sets.len() - 1
        });
        number as u16
    }

    /// The bytes of the class from `at` on, at most `max`.
    fn run(
        &self,
        set: u16,
        case: Case,
        text: &[u8],
        at: usize,
        max: usize,
        runs: &mut Runs,
    ) -> usize {
        let Some(table) = self.tables.get(usize::from(set)) else {
            return 0;
        };
        let wanted = if case == Case::Kept {
            AS_IS
        } else {
            IN_EITHER_CASE
        };
        let count = |from: usize, most: usize| {
            text.get(from..)
                .unwrap_or_default()
                .iter()
                .take(most)
                .take_while(|byte| table[usize::from(**byte)] & wanted != 0)
                .count()
        };
        let text_number = runs.text;
        let Some((of, run)) = runs
            .runs
            .get_mut(2 * usize::from(set) + usize::from(case == Case::Ignored))
        else {
            return count(at, max);
        };
        if *of != text_number || !run.contains(&at) {
            (*of, *run) = (text_number, at..at + count(at, usize::MAX));
        }
        (run.end - at).min(max)
    }
}

/// Matches at one place of random base64url, above which a shape says nothing inside of it.
const MAX_CHANCE: f64 = 1e-12;

/// Characters on either side of a match that make it a part of something longer.
const BLOB: usize = 24;

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/')
}

/// Whether `length` bytes from `start` on stand in the midst of base64.
pub(crate) fn is_inside_base64(text: &[u8], start: usize, length: usize) -> bool {
    let row = |bytes: &mut dyn Iterator<Item = &u8>| {
        let mut count = 0;
        for byte in bytes.take(BLOB + 8) {
            if is_base64(*byte) {
                count += 1;
            } else if !matches!(byte, b'\n' | b'\r' | b'\\') {
                break;
            }
        }
        count >= BLOB
    };
    row(&mut text.get(..start).unwrap_or_default().iter().rev())
        && row(&mut text.get(start + length..).unwrap_or_default().iter())
}

/// Whether on either side of `span` base64 goes on for more than a few letters that may be glued to a token.
pub(crate) fn is_beside_base64(text: &[u8], span: &Range<usize>) -> bool {
    const GLUED: usize = 12;
    let row = |bytes: &mut dyn Iterator<Item = &u8>| {
        bytes
            .take(GLUED)
            .take_while(|byte| is_base64(**byte))
            .count()
            == GLUED
    };
    row(&mut text.get(..span.start).unwrap_or_default().iter().rev())
        || row(&mut text.get(span.end..).unwrap_or_default().iter())
}

impl Program {
    pub(crate) fn new(
        rule: u16,
        way: &Way,
        anchor: u8,
        strong: bool,
        classes: &mut Classes,
    ) -> Self {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut literal = Vec::new();
        for (number, atom) in way.atoms.iter().enumerate() {
            if let Some(byte) = atom.set.single()
                && atom.min == atom.max
            {
                literal.extend(std::iter::repeat_n(byte, atom.min as usize));
                continue;
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            let next = way.atoms.get(number + 1);
            pieces.push(Piece::Class {
                set: classes.number(atom.set),
                min: atom.min,
                max: atom.max,
                try_shorter: atom.min != atom.max
                    && next.map_or(way.right, |next| next.min == 0 || next.set.meets(&atom.set)),
            });
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        let share =
            |set: ByteSet| set.bytes().filter(|byte| is_base64(*byte)).count() as f64 / 64.0;
        // A run of one character is as common as zero bytes are.
        let count = |atom: &super::shape::Atom| {
            if atom.set.single().is_some() {
                atom.min.min(2)
            } else {
                atom.min
            }
        };
        let chance: f64 = way
            .atoms
            .iter()
            .map(|atom| share(atom.set).min(1.0).powi(count(atom) as i32))
            .product();
        let length: u32 = way.atoms.iter().map(|atom| atom.min).sum();
        let least = length as usize;
        let by_chance = (chance > MAX_CHANCE).then_some(least);
        Self {
            rule,
            pieces: pieces.into(),
            left: way.left,
            right: way.right,
            anchor,
            strong,
            least,
            by_chance,
        }
    }

    /// Whether the literal that the shape begins with stands at `at`.
    pub(crate) fn begins(&self, text: &[u8], at: usize) -> bool {
        match self.pieces.first() {
            Some(Piece::Literal(literal)) => {
                text.get(at..).is_some_and(|rest| rest.starts_with(literal))
            }
            _ => true,
        }
    }

    /// Where a match that begins at `at` ends.
    pub(crate) fn matched(
        &self,
        classes: &Classes,
        case: Case,
        text: &[u8],
        at: usize,
        runs: &mut Runs,
    ) -> Option<usize> {
        let is_word = |at: usize| {
            text.get(at)
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        };
        if self.left && at.checked_sub(1).is_some_and(is_word) {
            return None;
        }
        self.rest(0, classes, case, text, at, runs)
            .filter(|end| *end > at)
    }

    fn rest(
        &self,
        from: usize,
        classes: &Classes,
        case: Case,
        text: &[u8],
        mut at: usize,
        runs: &mut Runs,
    ) -> Option<usize> {
        for (number, piece) in self.pieces.iter().enumerate().skip(from) {
            match piece {
                Piece::Literal(literal) => {
                    let end = at + literal.len();
                    let bytes = text.get(at..end)?;
                    let equal = match case {
                        // The first one tells mostly, and costs no call.
                        Case::Kept => bytes.first() == literal.first() && *bytes == **literal,
                        Case::Ignored => bytes.eq_ignore_ascii_case(literal),
                    };
                    if !equal {
                        return None;
                    }
                    at = end;
                }
                Piece::Class {
                    set,
                    min,
                    max,
                    try_shorter,
                } => {
                    let (min, max) = (*min as usize, *max as usize);
                    let run = classes.run(*set, case, text, at, max, runs);
                    if run < min {
                        return None;
                    }
                    if *try_shorter {
                        return (min..=run).rev().find_map(|length| {
                            self.rest(number + 1, classes, case, text, at + length, runs)
                        });
                    }
                    at += run;
                }
            }
        }
        let is_word = text
            .get(at)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        // Greedy and not allowed to give back: a class that may end sooner is tried shorter above.
        (!(self.right && is_word)).then_some(at)
    }
}
