//! Finds the regions of a text that a decoder would change, from its masks, and has them read.

mod escapes;
mod runs;

use std::ops::Range;

use super::map::{Rewriter, View};
use super::{
    Work, ascii85, examine_view, inflate, is_promising, narrow, numbers, spelled, uuencode,
};
use crate::finding::Via;
use crate::kernel::{BLOCK, Masks, Sweep};
use crate::window::{Engines, Match};

/// Bytes on either side of an escape or look-alike that may belong to the same word.
const AROUND: usize = 512;

/// Reads one text.
pub(super) struct Reader<'a, 'm> {
    engines: &'a Engines,
    text: &'a [u8],
    swept: usize,
    sweep: &'a Sweep,
    masks: &'a [Masks],
    depth: u8,
    work: &'a mut Work,
    matches: &'m mut Vec<Match>,
    /// Whether a region went on behind what was swept.
    cut: bool,
    /// Up to where each kind of region was read.
    runs_done: usize,
    escapes_done: usize,
    folds_done: usize,
    narrow_done: usize,
    spelled_done: usize,
    numbers_done: usize,
    ascii85_done: [usize; 3],
}

impl<'a, 'm> Reader<'a, 'm> {
    pub(super) fn new(
        engines: &'a Engines,
        text: &'a [u8],
        swept: usize,
        sweep: &'a Sweep,
        depth: u8,
        work: &'a mut Work,
        matches: &'m mut Vec<Match>,
    ) -> Self {
        Self {
            engines,
            text,
            swept,
            sweep,
            masks: &sweep.masks[..swept.div_ceil(BLOCK)],
            depth,
            work,
            matches,
            cut: false,
            runs_done: 0,
            escapes_done: 0,
            folds_done: 0,
            narrow_done: 0,
            spelled_done: 0,
            numbers_done: 0,
            ascii85_done: [0; 3],
        }
    }

    pub(super) fn read(mut self) -> bool {
        // Every magic number has, or is followed by, bytes that are not ASCII.
        if self.masks.iter().any(|masks| masks.high != 0) {
            self.compressed();
        }
        self.uuencoded();
        for number in 0..self.masks.len() {
            let masks = self.masks[number];
            let next = self.masks.get(number + 1).copied().unwrap_or_default();
            self.runs(number, &masks, &next);
            let escapes = self.escapes_in(number);
            if escapes != 0 {
                self.escapes(number, escapes);
            }
            let beginnings =
                masks.high & !masks.continued & shifted(masks.continued, next.continued, 1);
            if beginnings != 0 {
                self.folds(number, beginnings);
            }
            if masks.zero != 0
                && (masks.alnum & shifted(masks.zero, next.zero, 1)).count_ones() >= 10
            {
                self.narrow(number);
            }
            let previous = number
                .checked_sub(1)
                .map_or(0, |number| self.masks[number].alnum >> 63);
            let alone =
                masks.alnum & !(masks.alnum << 1 | previous) & !shifted(masks.alnum, next.alnum, 1);
            if is_spelled(&masks, alone) {
                self.spelled(number);
            }
            if is_numbers(&masks) {
                self.numbers(number);
            }
            if is_ascii85(&masks) {
                self.ascii85(number);
            }
        }
        self.cut
    }

    /// What digits stand for is looked at if it is not random.
    fn decoded(&mut self, view: &View, start: usize) {
        if is_promising(self.work.level, &view.text, true) {
            examine_view(
                self.engines,
                view,
                start,
                self.depth,
                self.work,
                self.matches,
            );
        }
    }

    fn view(&mut self, view: Option<View>, start: usize) {
        if let Some(view) = view {
            examine_view(
                self.engines,
                &view,
                start,
                self.depth,
                self.work,
                self.matches,
            );
        }
    }

    /// Zero bytes between characters.
    #[inline(never)]
    fn narrow(&mut self, number: usize) {
        if number * BLOCK < self.narrow_done {
            return;
        }
        let qualifies = |masks: &Masks| (masks.alnum & masks.zero >> 1).count_ones() >= 8;
        let region = self.blocks_around(number, qualifies);
        self.narrow_done = region.end;
        let mut rewriter = Rewriter::new(&self.text[region.clone()]);
        narrow::narrow(&mut rewriter);
        self.view(rewriter.finish(), region.start);
    }

    /// Blocks in a row of which `qualifies` is true, and one on either side.
    fn blocks_around(&mut self, number: usize, qualifies: impl Fn(&Masks) -> bool) -> Range<usize> {
        let more = self.masks[number + 1..]
            .iter()
            .take_while(|masks| qualifies(masks))
            .count();
        let start = number.saturating_sub(1) * BLOCK;
        // What goes on behind what was swept must be asked for again.
        self.cut |= number + more + 2 >= self.masks.len() && self.swept < self.text.len();
        start..((number + more + 2) * BLOCK).min(self.text.len())
    }

    /// Single characters with something between each two.
    #[inline(never)]
    fn spelled(&mut self, number: usize) {
        if number * BLOCK < self.spelled_done {
            return;
        }
        let qualifies = |masks: &Masks| {
            (masks.alnum & !(masks.alnum << 1) & !(masks.alnum >> 1)).count_ones() >= 9
        };
        let region = self.blocks_around(number, qualifies);
        self.spelled_done = region.end - BLOCK.min(region.end);
        self.view(spelled::view(&self.text[region.clone()]), region.start);
    }

    /// Bytes written as numbers.
    #[inline(never)]
    fn numbers(&mut self, number: usize) {
        if number * BLOCK < self.numbers_done {
            return;
        }
        let region = self.blocks_around(number, is_numbers);
        self.numbers_done = region.end - BLOCK.min(region.end);
        for view in numbers::views(&self.text[region.clone()]) {
            self.view(Some(view), region.start);
        }
    }

    #[inline(never)]
    fn ascii85(&mut self, number: usize) {
        for (kind, alphabet) in ascii85::ALPHABETS.iter().enumerate() {
            let middle = number * BLOCK + BLOCK / 2;
            if middle < self.ascii85_done[kind] {
                continue;
            }
            let Some(region) = alphabet.region(self.text, middle) else {
                continue;
            };
            self.ascii85_done[kind] = region.end;
            for phase in 0..5 {
                let view = alphabet.view(&self.text[region.clone()], phase);
                self.decoded(&view, region.start);
            }
        }
    }

    /// Compressed data.
    #[inline(never)]
    fn compressed(&mut self) {
        for start in inflate::starts(self.text, self.swept, self.depth) {
            let left = if start.format.is_guessed() {
                &mut self.work.attempts
            } else {
                &mut self.work.members
            };
            let Some(fewer) = left.checked_sub(1) else {
                if !std::mem::replace(&mut self.work.exceeded, true) {
                    self.matches
                        .push(super::undecodable(start.at..start.at + 1));
                }
                return;
            };
            *left = fewer;
            match inflate::inflate(
                &self.text[start.at..],
                start.format,
                &mut self.work.inflated,
            ) {
                inflate::Outcome::Nothing => {}
                inflate::Outcome::Whole(text, length) => {
                    self.decoded(&View::whole(text, 0..length, Via::Compressed), start.at);
                }
                inflate::Outcome::Bound(text, length) => {
                    self.view(
                        Some(View::whole(text, 0..length, Via::Compressed)),
                        start.at,
                    );
                    if !std::mem::replace(&mut self.work.exceeded, true) {
                        self.matches
                            .push(super::undecodable(start.at..start.at + length.max(1)));
                    }
                }
            }
        }
    }

    #[inline(never)]
    fn uuencoded(&mut self) {
        for region in uuencode::regions(self.text, self.swept) {
            let mut rewriter = Rewriter::new(&self.text[region.clone()]);
            uuencode::decode(&mut rewriter);
            self.view(rewriter.finish(), region.start);
        }
    }
}

/// The bits below number `count`.
fn lowest(count: usize) -> u64 {
    if count >= 64 { !0 } else { (1 << count) - 1 }
}

/// Bit `i` is bit `i + by` of the two in a row.
fn shifted(mask: u64, next: u64, by: u32) -> u64 {
    mask >> by | next << (64 - by)
}

/// Whether nearly all letters and digits of a block, or of half of it, stand alone. Random bytes have nine such in a block, and
/// half of those bytes are high.
fn is_spelled(masks: &Masks, alone: u64) -> bool {
    let most = |alone: u32, alnum: u32| 4 * alone >= 3 * alnum;
    let count = alone.count_ones();
    if masks.high != 0 {
        return count >= 14 && most(count, masks.alnum.count_ones());
    }
    count >= 10 && most(count, masks.alnum.count_ones())
        || count >= 8
            && [0, 32].into_iter().any(|half| {
                let part = |mask: u64| ((mask >> half) as u32).count_ones();
                part(alone) >= 8 && most(part(alone), part(masks.alnum))
            })
}

/// Whether half of a block holds hardly more than numbers and what stands between them.
fn is_numbers(masks: &Masks) -> bool {
    if masks.hex.count_ones() < 10 {
        return false;
    }
    let begin = masks.alnum & !(masks.alnum << 1);
    [0, 32].into_iter().any(|half| {
        let part = |mask: u64| (mask >> half) as u32;
        let hex = part(masks.hex).count_ones();
        let letters = part(masks.alnum & !masks.hex).count_ones();
        let numbers = part(begin).count_ones();
        // Binary numbers are eight digits long, all others four at most.
        hex >= 10 && 2 * letters <= hex && (numbers >= 5 || numbers >= 3 && hex >= 26)
    })
}

/// Whether a block may be base 85: hardly a gap, and of 85 characters about 26 capitals, 36 small letters and digits, and 23
/// signs.
fn is_ascii85(masks: &Masks) -> bool {
    let capitals = masks.upper.count_ones();
    let others = masks.alnum.count_ones() - capitals;
    let signs = (!(masks.alnum | masks.gap)).count_ones();
    masks.high | masks.zero == 0
        && signs >= 5
        && masks.digit.count_ones() >= 1
        && (8..=40).contains(&capitals)
        && (8..=44).contains(&others)
        && masks.gap.count_ones() <= 6
}
