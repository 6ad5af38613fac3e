//! Anchors: the four positions of a program that are least often seen, and where all of them stand in a text.
//!
//! Three sieves, each finer and each over what the one before left: the kernel marks the places where some bucket of anchors
//! fits, in a few table look-ups a byte; a filter of one bit a hash tells nearly all places at which no anchor stands; a hash
//! table names the programs. Anchors of so many different texts that they would fill the filter are kept apart.

use std::collections::HashMap;

use super::common;
use super::probe::Check;
use super::shape::{ByteSet, ShapeError, Way};
use crate::kernel::{
    self, AT_ONCE, BLOCK, Blocks, Kind, Level, Luts, POSITIONS, Places, SYMBOLS, Sweep, symbol,
};

/// Bytes from a match's beginning within which its anchor ends.
pub(crate) const REACH: usize = 96;

/// A set of symbols.
pub(crate) type SymbolSet = u64;

/// The anchor of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Anchor {
    pub(crate) sets: [SymbolSet; POSITIONS],
    pub(crate) kind: Kind,
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
    set.bytes()
        .fold(0, |symbols, byte| symbols | 1 << symbol_of(byte))
}

pub(super) fn symbol_of(byte: u8) -> u8 {
    SYMBOLS
        .get(usize::from(byte))
        .copied()
        .unwrap_or(symbol::HIGH)
}

/// The share of all places at which one anchor may fit ordinary text.
const MAX_COST: f64 = 0.002;

/// The share of all places of ordinary text at which four common symbols stand.
const COMMON: f64 = 1e-4;

/// What a broad anchor costs above others: it is looked for in a pass of its own.
const BROAD: f64 = 1e-3;

impl Anchor {
    /// The best anchor of a way, and how many bytes after its beginning it stands.
    pub(crate) fn of(way: &Way) -> Result<(Self, u8), ShapeError> {
        let mut best: Option<(f64, Self, usize)> = None;
        each(way, |offset, anchor, plain, cost| {
            // One in some hundred places of ordinary text would be a candidate.
            if plain > MAX_COST {
                return;
            }
            // Where a word must begin there are fewer places.
            let rare = if way.left && offset == 0 { 0.1 } else { 1.0 };
            if best
                .as_ref()
                .is_some_and(|(lowest, ..)| cost * rare >= *lowest)
            {
                return;
            }
            let many = if anchor.texts() > MAX_TEXTS {
                BROAD
            } else {
                0.0
            };
            let cost = (cost + COMMON * anchor.common() + many) * rare;
            if best
                .as_ref()
                .is_none_or(|(lowest, ..)| cost < *lowest * 0.999)
            {
                best = Some((cost, anchor, offset));
            }
        });
        let (_, mut anchor, offset) = best.ok_or(ShapeError::NoAnchor)?;
        let in_row = is_in_row(&positions(way), offset + POSITIONS - 1);
        anchor.kind = match (in_row, way.left && offset == 0) {
            (false, false) => Kind::Anywhere,
            (false, true) => Kind::AtBegin,
            (true, false) => Kind::InRow,
            (true, true) => Kind::InRowAtBegin,
        };
        Ok((anchor, offset as u8))
    }

    /// The share of places of ordinary text at which the rarest four positions of a way's first `reach` stand by chance.
    pub(super) fn least_chance(way: &Way, reach: usize) -> f64 {
        let mut least = 1.0;
        each(way, |offset, _, plain, _| {
            if offset < reach && plain < least {
                least = plain;
            }
        });
        least
    }

    /// An anchor of four sets of bytes.
    pub(crate) fn of_sets(sets: [impl Iterator<Item = u8>; POSITIONS], kind: Kind) -> Self {
        Self {
            sets: sets.map(|set| set.fold(0, |set, byte| set | 1 << symbol_of(byte))),
            kind,
        }
    }

    /// An anchor of a literal text: its rarest four bytes, without regard to case.
    pub(crate) fn of_literal(literal: &[u8]) -> (Self, usize) {
        let mut best = (
            f64::INFINITY,
            Self {
                sets: [!0; POSITIONS],
                kind: Kind::Anywhere,
            },
            0,
        );
        for (offset, four) in literal.windows(POSITIONS).enumerate() {
            let mut sets = [0; POSITIONS];
            for (set, byte) in sets.iter_mut().zip(four) {
                *set = 1 << symbol_of(*byte);
            }
            let anchor = Self {
                sets,
                kind: Kind::Anywhere,
            };
            let cost =
                sets.iter().map(|set| weight_of(*set)).product::<f64>() + COMMON * anchor.common();
            if cost < best.0 {
                best = (cost, anchor, offset);
            }
        }
        (best.1, best.2)
    }

    /// Stands nowhere.
    pub(super) const NEVER: Self = Self {
        sets: [0; POSITIONS],
        kind: Kind::Anywhere,
    };

    /// Whether it stands for so many texts that it should be looked for in another way, if there is one.
    pub(super) fn is_broad(&self) -> bool {
        self.texts() > MAX_TEXTS
    }

    /// How many different rows of symbols it is.
    fn texts(&self) -> u64 {
        self.sets
            .iter()
            .fold(1, |texts, set| texts * u64::from(set.count_ones()))
    }

    /// How many common words its texts stand in.
    fn common(&self) -> f64 {
        members(self.sets[0])
            .flat_map(common::grams)
            .filter(|gram| self.fits(**gram))
            .count() as f64
    }

    #[inline]
    fn fits(&self, gram: [u8; POSITIONS]) -> bool {
        self.sets
            .iter()
            .zip(gram)
            .all(|(set, symbol)| set >> (symbol & 63) & 1 == 1)
    }

    fn each_text(&self, mut visit: impl FnMut([u8; POSITIONS])) {
        for a in members(self.sets[0]) {
            for b in members(self.sets[1]) {
                for c in members(self.sets[2]) {
                    for d in members(self.sets[3]) {
                        visit([a, b, c, d]);
                    }
                }
            }
        }
    }
}

fn members(set: SymbolSet) -> impl Iterator<Item = u8> {
    (0..64).filter(move |symbol| set >> symbol & 1 == 1)
}

/// Calls `visit` with each place where an anchor of `way` may stand, the share of places that it fits by chance, and the same
/// with repetitions counted as likely.
fn each(way: &Way, mut visit: impl FnMut(usize, Anchor, f64, f64)) {
    let positions = positions(way);
    for offset in 0..positions.len() {
        let mut sets = [!0; POSITIONS];
        let (mut plain, mut cost) = (1.0, 1.0);
        for (number, (to, from)) in sets.iter_mut().zip(&positions[offset..]).enumerate() {
            *to = *from;
            let weight = weight_of(*from).min(1.0);
            plain *= weight;
            // What is like what it follows is likely: dashes, zeros, digits of a number.
            let again = number > 0 && *from == positions[offset + number - 1];
            cost *= if again { weight.max(0.5) } else { weight };
        }
        let anchor = Anchor {
            sets,
            kind: Kind::Anywhere,
        };
        visit(offset, anchor, plain, cost);
    }
}

/// What may stand at each place of a way, as far as its places are told.
pub(super) fn positions(way: &Way) -> Vec<SymbolSet> {
    let mut positions: Vec<SymbolSet> = Vec::new();
    for atom in &way.atoms {
        let fixed = (atom.min as usize).min(REACH - positions.len());
        positions.extend(std::iter::repeat_n(symbols(&atom.set), fixed));
        if atom.min != atom.max || positions.len() == REACH {
            break;
        }
    }
    positions
}

/// The symbols of base64 characters.
pub(super) fn wide() -> SymbolSet {
    (b'0'..=b'z')
        .chain(*b"+-/")
        .filter(|byte| byte.is_ascii_alphanumeric() || b"+-/_".contains(byte))
        .fold(0, |set, byte| set | 1 << symbol_of(byte))
}

/// Whether place `at` of a way is in a row of 16 base64 characters at least.
fn is_in_row(positions: &[SymbolSet], at: usize) -> bool {
    let wide = wide();
    let is_wide = |set: &&SymbolSet| **set & !wide == 0;
    let (before, after) = positions.split_at(at.min(positions.len()));
    let after = after.iter().take_while(is_wide).count();
    after > 0 && after + before.iter().rev().take_while(is_wide).count() >= 16
}

/// Texts of one anchor, above which it is broad.
const MAX_TEXTS: u64 = 1600;

/// The logarithm of the filter's bits: as much as fits the fastest cache.
const FILTER_BITS: u32 = 20;

/// All anchors, ready to be looked up.
#[derive(Debug, Default)]
pub(crate) struct Anchors {
    /// Of those that are not broad.
    pub(crate) luts: Luts,
    filter: Filter,
    /// Open addressing; a free slot has no entries.
    slots: Box<[Slot]>,
    /// Those of all slots; of one slot they stand in a row.
    entries: Vec<Entry>,
    broad: Vec<(Anchor, Entry)>,
    broad_luts: Luts,
}

/// One bit for each hash of four symbols.
#[derive(Debug)]
struct Filter(Box<[u64; 1 << (FILTER_BITS - 6)]>);

impl Default for Filter {
    fn default() -> Self {
        Self(Box::new([0; 1 << (FILTER_BITS - 6)]))
    }
}

impl Filter {
    #[inline]
    fn may_hold(&self, hash: u32) -> bool {
        let bit = hash >> (32 - FILTER_BITS);
        self.0[(bit >> 6) as usize] >> (bit & 63) & 1 == 1
    }

    fn insert(&mut self, hash: u32) {
        let bit = hash >> (32 - FILTER_BITS);
        self.0[(bit >> 6) as usize] |= 1 << (bit & 63);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    gram: u32,
    /// The first entry, and how many there are.
    first: u32,
    count: u32,
}

/// An anchor's number, and what is looked at before it is reported: beside each other in memory, since most end there.
#[derive(Clone, Copy, Debug)]
struct Entry {
    check: Check,
    number: u32,
}

#[inline]
fn hash(gram: u32) -> u32 {
    // Odd, and its bits well mixed: the golden ratio.
    gram.wrapping_mul(0x9E37_79B1)
}

impl Anchors {
    /// `anchors[i]` is number `i`'s, and so is `checks[i]`; where there is none anything may stand there.
    pub(crate) fn new(anchors: &[Anchor], checks: &[Check]) -> Self {
        let mut broad = Vec::new();
        let mut narrow = Vec::new();
        let mut grams: HashMap<u32, Vec<u32>> = HashMap::new();
        let entry = |number: u32| Entry {
            check: checks.get(number as usize).copied().unwrap_or_default(),
            number,
        };
        for (number, anchor) in (0_u32..).zip(anchors) {
            if *anchor == Anchor::NEVER {
                continue;
            }
            if anchor.is_broad() {
                broad.push((*anchor, entry(number)));
                continue;
            }
            narrow.push(*anchor);
            anchor.each_text(|gram| {
                grams
                    .entry(u32::from_le_bytes(gram))
                    .or_default()
                    .push(number)
            });
        }
        let mut filter = Filter::default();
        let size = (grams.len() * 2).next_power_of_two();
        let mut slots = vec![Slot::default(); size].into_boxed_slice();
        let mut entries = Vec::new();
        let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
        for (gram, list) in grams {
            filter.insert(hash(gram));
            let count = list.len() as u32;
            let first = *known.entry(list).or_insert_with_key(|list| {
                let first = entries.len() as u32;
                entries.extend(list.iter().map(|number| entry(*number)));
                first
            });
            let mut at = slot_of(gram, size);
            while slots[at].count != 0 {
                at = (at + 1) % size;
            }
            slots[at] = Slot { gram, first, count };
        }
        let broad_anchors: Vec<Anchor> = broad.iter().map(|(anchor, _)| *anchor).collect();
        Self {
            luts: luts(&narrow),
            filter,
            slots,
            entries,
            broad,
            broad_luts: Luts::new(Kind::ALL.map(|kind| match kind {
                Kind::Anywhere => buckets(&broad_anchors, 1),
                _ => Vec::new(),
            })),
        }
    }

    /// Calls `report` with the number of each anchor that stands in one of the places of `masks`, and where it begins, if its check
    /// holds there. `masks` are of the blocks of `sweep` from number `first` on, by [`Anchors::luts`]; `classes` are of the same text.
    /// The broad anchors come after the others.
    #[inline]
    pub(crate) fn find(
        &self,
        level: Level,
        (text, classes): (&[u8], Blocks<'_>),
        sweep: &Sweep,
        masks: &[u64],
        mut report: impl FnMut(usize, u32),
    ) {
        if !self.entries.is_empty() {
            kernel::with_places(|places| {
                for (number, masks) in masks.chunks(AT_ONCE).enumerate() {
                    let begin = number * AT_ONCE * BLOCK;
                    let symbols = sweep.symbols.get(begin..).unwrap_or_default();
                    let count = self.sieve(level, masks, symbols, places);
                    for place in &places[..count] {
                        let at = usize::from(*place);
                        for entry in self.list(gram_at(symbols, at)) {
                            if entry.check.may_stand(begin + at, text, classes) {
                                report(begin + at, entry.number);
                            }
                        }
                    }
                }
            });
        }
        if !self.broad.is_empty() {
            self.find_broad(level, (text, classes), sweep, masks.len(), &mut report);
        }
    }

    /// The places of `masks` whose symbols some anchor may have: their number; they stand at the beginning of `places`.
    #[inline(never)]
    fn sieve(&self, level: Level, masks: &[u64], symbols: &[u8], places: &mut Places) -> usize {
        let count = kernel::places(level, masks, places);
        let mut kept = 0;
        for number in 0..count {
            let place = places[number];
            // Always written and mostly written over, which costs less than a branch that nobody can foretell.
            places[kept] = place;
            kept += usize::from(
                self.filter
                    .may_hold(hash(gram_at(symbols, usize::from(place)))),
            );
        }
        kept
    }

    #[inline(never)]
    fn list(&self, gram: u32) -> &[Entry] {
        let size = self.slots.len();
        let mut at = slot_of(gram, size);
        loop {
            let Some(slot) = self.slots.get(at).filter(|slot| slot.count != 0) else {
                return &[];
            };
            if slot.gram == gram {
                let first = slot.first as usize;
                let entries = self.entries.get(first..first + slot.count as usize);
                return entries.unwrap_or_default();
            }
            at = (at + 1) & (size - 1);
        }
    }

    #[inline(never)]
    fn find_broad(
        &self,
        level: Level,
        (text, classes): (&[u8], Blocks<'_>),
        sweep: &Sweep,
        blocks: usize,
        report: &mut impl FnMut(usize, u32),
    ) {
        for block in 0..blocks {
            let symbols = sweep.symbols.get(block * BLOCK..).unwrap_or_default();
            let mut mask = kernel::candidates_in(level, symbols, &self.broad_luts);
            while mask != 0 {
                let at = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                let gram = gram_at(symbols, at).to_le_bytes();
                let at = block * BLOCK + at;
                for (anchor, entry) in &self.broad {
                    if anchor.fits(gram) && entry.check.may_stand(at, text, classes) {
                        report(at, entry.number);
                    }
                }
            }
        }
    }
}

/// The four symbols at `at`.
#[inline]
fn gram_at(symbols: &[u8], at: usize) -> u32 {
    symbols
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |four| u32::from_le_bytes(*four))
}

#[inline]
fn slot_of(gram: u32, size: usize) -> usize {
    // Other bits of the hash than the filter's come first.
    (hash(gram).rotate_left(17) ^ gram) as usize & (size - 1)
}

/// Sets of buckets of each kind: another one costs a little at each place, and fits fewer.
const SETS: [usize; Kind::ALL.len()] = [4, 2, 3, 2, 2];

fn luts(anchors: &[Anchor]) -> Luts {
    let mut sets = SETS.iter();
    Luts::new(Kind::ALL.map(|kind| {
        let of_kind: Vec<Anchor> = anchors
            .iter()
            .copied()
            .filter(|anchor| anchor.kind == kind)
            .collect();
        buckets(&of_kind, sets.next().copied().unwrap_or(1))
    }))
}

/// Puts anchors that look alike into one bucket, so that a bucket fits few other texts.
fn buckets(anchors: &[Anchor], max_sets: usize) -> Vec<[[u8; 64]; POSITIONS]> {
    if anchors.is_empty() {
        return Vec::new();
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
    buckets
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
        .collect()
}
