//! Shapes: from a regular expression to straight programs.
//!
//! A shape is written in a small part of the syntax of the `regex` crate: literals, classes, alternatives, `?`, counted
//! repetitions of one class, `\b` at either end. Each way through its alternatives becomes one [`Program`], a row
//! of literals and counted classes, which is matched without a memory and tells what must stand where.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Ways through one shape.
const MAX_PROGRAMS: usize = 96;

/// Bytes that an open repetition takes at most.
pub(crate) const OPEN: u32 = 4096;

/// Lengths that are tried at one place at most.
const MAX_TRIES: u64 = 16 * 1024;

/// Bytes of a shape at most, open repetitions apart.
const MAX_LENGTH: u32 = 8192;

/// A set of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ByteSet([u64; 4]);

impl ByteSet {
    pub(crate) const EMPTY: Self = Self([0; 4]);

    pub(crate) fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(crate) fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.0
            .iter()
            .zip([0_u16, 64, 128, 192])
            .flat_map(|(word, base)| {
                let mut rest = *word;
                std::iter::from_fn(move || {
                    let bit = (rest != 0).then(|| rest.trailing_zeros() as u16)?;
                    rest &= rest - 1;
                    Some((base + bit) as u8)
                })
            })
    }

    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).any(|(a, b)| a & b != 0)
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The only byte of the set.
    pub(crate) fn single(&self) -> Option<u8> {
        if self.count() == 1 {
            self.bytes().next()
        } else {
            None
        }
    }
}

/// A set, so and so many times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Atom {
    pub(crate) set: ByteSet,
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl std::fmt::Debug for ByteSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: Vec<u8> = self.bytes().take(80).collect();
        write!(f, "[{}]", bytes.escape_ascii())
    }
}

/// One way through a shape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    pub(crate) atoms: Vec<Atom>,
    /// No word character before, or after.
    pub(crate) left: bool,
    pub(crate) right: bool,
}

/// Why a shape is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("{0}")]
    Syntax(Box<str>),
    #[error("`\\b` stands at the beginning or the end of a shape, nowhere else")]
    InnerBoundary,
    #[error("only `\\b` can be asked for, no other assertion")]
    Assertion,
    #[error("only a single character or class can be repeated, a group only by `?`")]
    RepeatedGroup,
    #[error("more than {MAX_PROGRAMS} alternatives: split the rule")]
    TooManyWays,
    #[error("a shape can match more than {MAX_LENGTH} bytes")]
    TooLong,
    #[error("a class with no characters")]
    EmptyClass,
    #[error("the shape can match nothing at all")]
    Empty,
    #[error(
        "no stretch of fixed characters within the first {} bytes to look for: add a literal of three characters or more",
        super::anchors::REACH
    )]
    NoAnchor,
    #[error(
        "two repetitions of varying length that can take the same characters: matching would not be linear"
    )]
    Ambiguous,
}

/// All ways through `shape`.
pub(crate) fn parse(shape: &str) -> Result<Vec<Way>, ShapeError> {
    let hir = regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .build()
        .parse(shape)
        .map_err(|error| ShapeError::Syntax(error.to_string().into()))?;
    let mut ways = expand(&hir)?;
    for way in &mut ways {
        way.finish()?;
    }
    Ok(ways)
}

/// An atom, or a boundary while ways are put together.
#[derive(Clone, Copy)]
enum Part {
    Atom(Atom),
    Boundary,
}

fn expand(hir: &Hir) -> Result<Vec<Way>, ShapeError> {
    let rows = rows(hir)?;
    let mut ways = Vec::with_capacity(rows.len());
    for row in rows {
        let last = row.len().saturating_sub(1);
        let mut way = Way::default();
        for (at, part) in row.iter().enumerate() {
            match part {
                Part::Atom(atom) => way.atoms.push(*atom),
                Part::Boundary if at == 0 => way.left = true,
                Part::Boundary if at == last => way.right = true,
                Part::Boundary => return Err(ShapeError::InnerBoundary),
            }
        }
        ways.push(way);
    }
    Ok(ways)
}

fn rows(hir: &Hir) -> Result<Vec<Vec<Part>>, ShapeError> {
    let one = |set: ByteSet| {
        Part::Atom(Atom {
            set,
            min: 1,
            max: 1,
        })
    };
    Ok(match hir.kind() {
        HirKind::Empty => vec![Vec::new()],
        HirKind::Literal(literal) => {
            let row = literal
                .0
                .iter()
                .map(|byte| {
                    let mut set = ByteSet::EMPTY;
                    set.insert(*byte);
                    one(set)
                })
                .collect();
            vec![row]
        }
        HirKind::Class(class) => vec![vec![one(set(class)?)]],
        HirKind::Look(Look::WordAscii) => vec![vec![Part::Boundary]],
        HirKind::Look(_) => return Err(ShapeError::Assertion),
        HirKind::Capture(capture) => rows(&capture.sub)?,
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(rows(branch)?);
            }
            limited(all)?
        }
        HirKind::Concat(parts) => {
            let mut all = vec![Vec::new()];
            for part in parts {
                let next = rows(part)?;
                let joined = all
                    .iter()
                    .flat_map(|before| {
                        next.iter()
                            .map(move |after| [&before[..], &after[..]].concat())
                    })
                    .take(MAX_PROGRAMS + 1)
                    .collect();
                all = limited(joined)?;
            }
            all
        }
        HirKind::Repetition(repetition) => {
            let inner = rows(&repetition.sub)?;
            match (&inner[..], repetition.min, repetition.max) {
                ([row], min, max)
                    if matches!(row[..], [Part::Atom(Atom { min: 1, max: 1, .. })]) =>
                {
                    let [Part::Atom(Atom { set, .. })] = row[..] else {
                        return Err(ShapeError::RepeatedGroup);
                    };
                    let max = max.unwrap_or(OPEN.max(min));
                    if max > MAX_LENGTH {
                        return Err(ShapeError::TooLong);
                    }
                    vec![vec![Part::Atom(Atom { set, min, max })]]
                }
                (_, 0, Some(1)) => {
                    let mut all = inner;
                    all.push(Vec::new());
                    limited(all)?
                }
                _ => return Err(ShapeError::RepeatedGroup),
            }
        }
    })
}

fn limited(rows: Vec<Vec<Part>>) -> Result<Vec<Vec<Part>>, ShapeError> {
    if rows.len() > MAX_PROGRAMS {
        return Err(ShapeError::TooManyWays);
    }
    Ok(rows)
}

fn set(class: &Class) -> Result<ByteSet, ShapeError> {
    let mut set = ByteSet::EMPTY;
    match class {
        Class::Bytes(class) => {
            for range in class.ranges() {
                (range.start()..=range.end()).for_each(|byte| set.insert(byte));
            }
        }
        Class::Unicode(class) => {
            for range in class.ranges() {
                let end = u8::try_from(range.end())
                    .map_err(|_| ShapeError::Syntax("only ASCII characters".into()))?;
                (range.start() as u8..=end).for_each(|byte| set.insert(byte));
            }
        }
    }
    if set == ByteSet::EMPTY {
        return Err(ShapeError::EmptyClass);
    }
    Ok(set)
}

impl Way {
    /// Joins neighbours and checks what the whole must hold.
    fn finish(&mut self) -> Result<(), ShapeError> {
        self.atoms.retain(|atom| atom.max > 0);
        self.atoms.dedup_by(|next, kept| {
            let same = next.set == kept.set;
            if same {
                kept.min += next.min;
                kept.max = kept.max.saturating_add(next.max);
            }
            same
        });
        if self.atoms.iter().map(|atom| atom.min).sum::<u32>() == 0 {
            return Err(ShapeError::Empty);
        }
        if self
            .atoms
            .iter()
            .map(|atom| u64::from(atom.max.min(OPEN)))
            .sum::<u64>()
            > u64::from(MAX_LENGTH)
        {
            return Err(ShapeError::TooLong);
        }
        // A varying repetition whose end is not told by what follows is tried at each of its lengths, and two such at each
        // pair of them.
        let tries = self
            .atoms
            .iter()
            .zip(self.atoms.iter().skip(1))
            .filter(|(atom, next)| {
                atom.min != atom.max && (atom.set.meets(&next.set) || next.min == 0)
            })
            .map(|(atom, _)| u64::from(atom.max - atom.min) + 1)
            .fold(1, u64::saturating_mul);
        if tries > MAX_TRIES {
            return Err(ShapeError::Ambiguous);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_its_ways() {
        let ways = parse(r"\ba(?:b|cd)[0-9]{2,}").unwrap();
        assert_eq!(ways.len(), 2);
        assert!(ways.iter().all(|way| way.left && !way.right));
        assert_eq!(ways[1].atoms.len(), 4);
        assert_eq!(ways[1].atoms[3].max, OPEN);
        assert_eq!(
            parse("x?y")
                .unwrap()
                .iter()
                .map(|way| way.atoms.len())
                .max(),
            Some(2)
        );
    }

    #[test]
    fn what_is_no_shape_is_refused() {
        for (shape, error) in [
            (r"a\bc", ShapeError::InnerBoundary),
            ("^a", ShapeError::Assertion),
            ("(?:abc){3}", ShapeError::RepeatedGroup),
            ("(?:[ab]c){2,}", ShapeError::RepeatedGroup),
            ("[0-9]{0,4}", ShapeError::Empty),
            ("", ShapeError::Empty),
            ("a{9000}", ShapeError::TooLong),
            (
                "(?:a|bc)(?:d|ef)(?:g|hi)(?:j|kl)(?:m|no)(?:p|qr)(?:s|tu)",
                ShapeError::TooManyWays,
            ),
        ] {
            assert_eq!(parse(shape).unwrap_err(), error, "{shape}");
        }
        assert!(matches!(parse("a["), Err(ShapeError::Syntax(_))));
    }
}
