//! Anchors: the four positions of a program that are least often seen, and where all of them may stand in a text.
//!
//! The kernel marks the places where some bucket of anchors fits, in three to six table look-ups a byte. Here those
//! places are told apart by their first two symbols, and the few programs left are matched.

use super::shape::{ByteSet, ShapeError, Way};
use crate::kernel::{Luts, POSITIONS, SYMBOLS, symbol};

/// Bytes from a match's beginning within which its anchor ends.
pub(crate) const REACH: usize = 96;

/// A set of symbols.
pub(crate) type SymbolSet = u64;

/// The anchor of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Anchor {
    pub(crate) sets: [SymbolSet; POSITIONS],
}

/// How often symbols are seen in what agents send, in thousandths; from text, code and base64 alike.
const fn weight(symbol: u8) -> u32 {
    const LETTERS: [u32; 26] = [
        50, 14, 30, 28, 70, 18, 14, 24, 46, 5, 10, 32, 20, 44, 44, 20, 4, 42, 44, 60, 20, 9, 12, 8,
        12, 4,
    ];
    const SIGNS: [u32; 26] = [
        12, 10, 14, 12, 10, 3, 10, 2, 1, 1, 20, 8, 90, 1, 1, 2, 1, 4, 12, 12, 14, 8, 5, 5, 1, 25,
    ];
    match symbol {
        0..26 => LETTERS[symbol as usize],
        26..36 => 12,
        36..62 => SIGNS[symbol as usize - 36],
        _ => 20,
    }
}

pub(crate) fn weight_of(set: SymbolSet) -> f64 {
    const WEIGHTS: [u32; 64] = {
        let mut weights = [0; 64];
        let mut symbol = 0;
        while symbol < 64 {
            weights[symbol] = weight(symbol as u8);
            symbol += 1;
        }
        weights
    };
    let (mut rest, mut sum) = (set, 0);
    while rest != 0 {
        sum += WEIGHTS[rest.trailing_zeros() as usize & 63];
        rest &= rest - 1;
    }
    f64::from(sum) / 1000.0
}

fn symbols(set: &ByteSet) -> SymbolSet {
    if let Some(byte) = set.single() {
        return 1
            << SYMBOLS
                .get(usize::from(byte))
                .copied()
                .unwrap_or(symbol::HIGH);
    }
    set.bytes().fold(0, |symbols, byte| {
        let symbol = SYMBOLS
            .get(usize::from(byte))
            .copied()
            .unwrap_or(symbol::HIGH);
        symbols | 1 << symbol
    })
}

impl Anchor {
    /// The best anchor of a way, and how many bytes after its beginning it stands.
    pub(crate) fn of(way: &Way) -> Result<(Self, u8), ShapeError> {
        let mut positions: Vec<SymbolSet> = Vec::new();
        let mut weights: Vec<f64> = Vec::new();
        for atom in &way.atoms {
            let set = symbols(&atom.set);
            let fixed = (atom.min as usize).min(REACH - positions.len());
            positions.extend(std::iter::repeat_n(set, fixed));
            weights.extend(std::iter::repeat_n(weight_of(set).min(1.0), fixed));
            if atom.min != atom.max || positions.len() == REACH {
                break;
            }
        }
        let length = positions.len();
        let mut best: Option<(f64, Self, usize)> = None;
        for offset in 0..length {
            // What is like what it follows is likely: dashes, zeros, digits of a number.
            let again = |at: usize| at > offset && positions[at] == positions[at - 1];
            let last = (offset + POSITIONS).min(length);
            let cost: f64 = (offset..last)
                .map(|at| {
                    if again(at) {
                        weights[at].max(0.5)
                    } else {
                        weights[at]
                    }
                })
                .product();
            // Of windows as rare as each other the one that begins with something rare: the first two symbols are what
            // most places are told by.
            let cost = cost
                * (offset..last.min(offset + 2))
                    .map(|at| weights[at])
                    .product::<f64>()
                    .sqrt();
            // One in some hundred places of ordinary text would be a candidate.
            let plain: f64 = weights.iter().skip(offset).take(POSITIONS).product();
            if plain > MAX_COST {
                continue;
            }
            if best
                .as_ref()
                .is_none_or(|(lowest, ..)| cost < *lowest * 0.999)
            {
                let mut sets = [!0; POSITIONS];
                for (to, from) in sets.iter_mut().zip(&positions[offset..]) {
                    *to = *from;
                }
                best = Some((cost, Self { sets }, offset));
            }
        }
        let (_, anchor, offset) = best.ok_or(ShapeError::NoAnchor)?;
        Ok((anchor, offset as u8))
    }
}

/// The share of all places at which one anchor may fit ordinary text.
const MAX_COST: f64 = 0.002;

/// All anchors, ready to be looked up.
#[derive(Debug, Default)]
pub(crate) struct Anchors {
    pub(crate) luts: Luts,
    /// Three tables, by the first, second and third pair of symbols; each anchor is in the one where fewest pairs are its own.
    tables: [Table; POSITIONS - 1],
    /// For each symbol at a position, which may stand at the next one.
    pairs: Vec<[SymbolSet; 64]>,
}

/// For each pair of symbols, where in `entries` its anchors begin.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<u32>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sets: [SymbolSet; POSITIONS],
    number: u32,
}

impl Anchors {
    /// `anchors[i]` is number `i`'s.
    pub(crate) fn new(anchors: &[Anchor], max_sets: usize) -> Self {
        let mut parts: [Vec<Entry>; POSITIONS - 1] = Default::default();
        for (number, anchor) in (0_u32..).zip(anchors) {
            let sets = anchor.sets;
            let cost = |at: &usize| sets[*at].count_ones() * sets[*at + 1].count_ones();
            let best = (0..POSITIONS - 1).min_by_key(cost).unwrap_or(0);
            parts[best].push(Entry { sets, number });
        }
        let mut at = 0;
        let tables = parts.map(|part| {
            at += 1;
            Table::new(&part, at - 1)
        });
        let mut pairs = vec![[0; 64]; POSITIONS - 1];
        for Anchor { sets } in anchors {
            for (pairs, (first, second)) in pairs.iter_mut().zip(sets.iter().zip(&sets[1..])) {
                for (symbol, next) in pairs.iter_mut().enumerate() {
                    if first >> symbol & 1 == 1 {
                        *next |= second;
                    }
                }
            }
        }
        Self {
            luts: buckets(anchors, max_sets),
            tables,
            pairs,
        }
    }

    /// Whether any anchor may fit: a bucket mixes its anchors' symbols, and most of what fits one is no pair of any.
    #[inline]
    pub(crate) fn may_fit(&self, symbols: [u8; POSITIONS]) -> bool {
        let [first, second, third] = &self.pairs[..] else {
            return false;
        };
        let [a, b, c, d] = symbols.map(|symbol| usize::from(symbol & 63));
        first[a] >> b & second[b] >> c & third[c] >> d & 1 == 1
    }

    /// Calls `report` with the numbers of the anchors that fit `symbols`.
    #[inline]
    pub(crate) fn at(&self, symbols: [u8; POSITIONS], mut report: impl FnMut(u32)) {
        let [a, b, c, d] = symbols.map(|symbol| usize::from(symbol & 63));
        for (table, (first, second)) in self.tables.iter().zip([(a, b), (b, c), (c, d)]) {
            let [Some(begin), Some(end)] = [
                table.slots.get(first * 64 + second),
                table.slots.get(first * 64 + second + 1),
            ] else {
                continue;
            };
            for entry in table
                .entries
                .get(*begin as usize..*end as usize)
                .unwrap_or_default()
            {
                let fits = entry.sets[0] >> a
                    & entry.sets[1] >> b
                    & entry.sets[2] >> c
                    & entry.sets[3] >> d
                    & 1;
                if fits == 1 {
                    report(entry.number);
                }
            }
        }
    }
}

impl Table {
    /// Of entries that are told by their positions `at` and `at + 1`.
    fn new(part: &[Entry], at: usize) -> Self {
        if part.is_empty() {
            return Self::default();
        }
        let pairs = |entry: &Entry| {
            let (first, second) = (entry.sets[at], entry.sets[at + 1]);
            (0..64_usize)
                .filter(move |a| first >> a & 1 == 1)
                .flat_map(move |a| {
                    (0..64_usize)
                        .filter(move |b| second >> b & 1 == 1)
                        .map(move |b| a * 64 + b)
                })
        };
        let mut slots = vec![0_u32; 64 * 64 + 1];
        for pair in part.iter().flat_map(pairs) {
            slots[pair + 1] += 1;
        }
        let mut begin = 0;
        for slot in &mut slots {
            begin += *slot;
            *slot = begin;
        }
        let mut entries = vec![
            Entry {
                sets: [0; POSITIONS],
                number: 0
            };
            begin as usize
        ];
        let mut next = slots.clone();
        for entry in part {
            for pair in pairs(entry) {
                entries[next[pair] as usize] = *entry;
                next[pair] += 1;
            }
        }
        Self { slots, entries }
    }
}

/// Puts anchors that look alike into one bucket, so that a bucket fits few other texts.
fn buckets(anchors: &[Anchor], max_sets: usize) -> Luts {
    if anchors.is_empty() {
        return Luts::default();
    }
    let mut distinct: Vec<[SymbolSet; POSITIONS]> =
        anchors.iter().map(|anchor| anchor.sets).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let sets = max_sets.min(distinct.len().div_ceil(8));
    let mut buckets: Vec<[SymbolSet; POSITIONS]> = vec![[0; POSITIONS]; sets * 8];
    let mut weights: Vec<[f64; POSITIONS]> = vec![[0.0; POSITIONS]; sets * 8];
    // The commonest first: they make the seeds that the others join.
    let cost =
        |sets: &[SymbolSet; POSITIONS]| sets.iter().map(|set| weight_of(*set)).product::<f64>();
    let mut order: Vec<([SymbolSet; POSITIONS], f64)> = distinct
        .into_iter()
        .map(|sets| (sets, cost(&sets)))
        .collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (anchor, _) in order {
        let mut best = (f64::INFINITY, 0, [0.0; POSITIONS]);
        for (number, (bucket, weight)) in buckets.iter().zip(&weights).enumerate() {
            let mut joined = [0.0; POSITIONS];
            for position in 0..POSITIONS {
                let new = anchor[position] & !bucket[position];
                joined[position] = weight[position] + if new == 0 { 0.0 } else { weight_of(new) };
            }
            let growth = joined.iter().product::<f64>() - weight.iter().product::<f64>();
            if growth < best.0 {
                best = (growth, number, joined);
            }
        }
        let (_, number, joined) = best;
        weights[number] = joined;
        for (to, from) in buckets[number].iter_mut().zip(anchor) {
            *to |= from;
        }
    }
    let luts = buckets
        .chunks(8)
        .map(|eight| {
            let mut luts = [[0_u8; 64]; POSITIONS];
            for (bit, bucket) in eight.iter().enumerate() {
                for (lut, set) in luts.iter_mut().zip(bucket) {
                    for (symbol, buckets) in lut.iter_mut().enumerate() {
                        *buckets |= ((set >> symbol & 1) as u8) << bit;
                    }
                }
            }
            luts
        })
        .collect();
    Luts::new(luts)
}
