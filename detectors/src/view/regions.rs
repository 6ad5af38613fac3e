//! Finds the regions of a text that a decoder would change, from its masks, and has them read.

mod escapes;
mod runs;

use std::ops::Range;

use super::map::{Rewriter, View};
use super::{
    Broken, Chain, Work, ascii85, examine_view, inflate, is_promising, narrow, numbers, spelled,
    uuencode,
};
use crate::finding::Via;
use crate::kernel::{self, BLOCK, Blocks, Sweep, gate, is_numbers};
use crate::tokens::Cipher;
use crate::window::{Engines, Match};

/// Bytes on either side of an escape or look-alike that may belong to the same word.
const AROUND: usize = 512;

/// Where anchors stand that are no token's as it is.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Those of strong programs in ciphers.
    pub(super) ciphered: Vec<(usize, Cipher)>,
    /// Those of uuencoded files.
    pub(super) begins: Vec<usize>,
    /// Those of magic numbers in base64, and their numbers.
    pub(super) magics: Vec<(usize, usize)>,
}

/// Reads one text.
pub(super) struct Reader<'a, 'm> {
    engines: &'a Engines,
    text: &'a [u8],
    swept: usize,
    sweep: &'a Sweep,
    found: &'a Marks,
    masks: Blocks<'a>,
    depth: u8,
    work: &'a mut Work,
    matches: &'m mut Vec<Match>,
    /// Whether a region went on behind what was swept.
    cut: bool,
    runs: runs::Runs,
    /// Up to where each kind of region was read.
    escapes_done: usize,
    folds_done: usize,
    narrow_done: usize,
    spelled_done: usize,
    numbers_done: usize,
    /// Of each dialect and each place of its groups.
    ascii85_done: [[usize; 5]; 3],
}

impl<'a, 'm> Reader<'a, 'm> {
    pub(super) fn new(
        engines: &'a Engines,
        text: &'a [u8],
        swept: usize,
        (sweep, found): (&'a Sweep, &'a Marks),
        depth: u8,
        work: &'a mut Work,
        matches: &'m mut Vec<Match>,
    ) -> Self {
        Self {
            engines,
            text,
            swept,
            sweep,
            found,
            masks: sweep.blocks(swept),
            depth,
            work,
            matches,
            cut: false,
            runs: runs::Runs::default(),
            escapes_done: 0,
            folds_done: 0,
            narrow_done: 0,
            spelled_done: 0,
            numbers_done: 0,
            ascii85_done: [[0; 5]; 3],
        }
    }

    pub(super) fn read(mut self) -> bool {
        self.compressed();
        self.uuencoded(&self.found.begins);
        let sweep = self.sweep;
        for (number, open) in sweep.gates.open[..self.masks.len()].iter().enumerate() {
            if *open == 0 {
                continue;
            }
            if open & gate::ROWS != 0 {
                self.runs(number, *open);
            }
            if open & gate::ESCAPES != 0 {
                self.escapes(number, self.escapes_in(number));
            }
            if open & gate::FOLDS != 0 {
                let masks = self.masks;
                let (continued, next) = (masks.continued(number), masks.continued(number + 1));
                let beginnings = masks.high(number) & !continued & shifted(continued, next, 1);
                self.folds(number, beginnings);
            }
            if open & gate::NARROW != 0 {
                self.narrow(number);
            }
            if open & gate::SPELLED != 0 {
                self.spelled(number);
            }
            if open & gate::NUMBERS != 0 {
                self.numbers(number);
            }
            if open & gate::BASE85 != 0 {
                self.ascii85(number);
            }
        }
        self.ciphers(&self.found.ciphered);
        self.magics();
        self.runs_cut();
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
        let masks = self.masks;
        let qualifies = |number| (masks.alnum(number) & masks.zero(number) >> 1).count_ones() >= 8;
        let region = self.blocks_around(number, qualifies);
        self.narrow_done = region.end;
        let mut rewriter = Rewriter::new(&self.text[region.clone()]);
        narrow::narrow(&mut rewriter);
        self.reaches(region.end);
        self.view(rewriter.finish(), region.start);
    }

    /// `region` without the words that it cuts: what is left of one would seem to have an end there.
    fn whole_words(&self, region: Range<usize>) -> Range<usize> {
        let is_word = |at: usize| {
            self.text
                .get(at)
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        };
        let cut = |at: usize| at > 0 && is_word(at - 1) && is_word(at);
        let (mut start, mut end) = (region.start, region.end);
        // Longer ones are no words.
        for _ in 0..BLOCK {
            if start == end || !cut(start) {
                break;
            }
            start += 1;
        }
        for _ in 0..BLOCK {
            if start == end || !cut(end) {
                break;
            }
            end -= 1;
        }
        start..end
    }

    /// Something was found in a region that ends at `end`: if that goes on behind what was swept, it must be asked for again.
    fn reaches(&mut self, end: usize) {
        self.cut |= end + BLOCK >= self.swept && self.swept < self.text.len();
    }

    /// Blocks in a row of which `qualifies` is true, and one on either side.
    fn blocks_around(&self, number: usize, qualifies: impl Fn(usize) -> bool) -> Range<usize> {
        let more = (number + 1..self.masks.len())
            .take_while(|number| qualifies(*number))
            .count();
        let start = number.saturating_sub(1) * BLOCK;
        self.whole_words(start..((number + more + 2) * BLOCK).min(self.text.len()))
    }

    /// Single characters with something between each two.
    #[inline(never)]
    fn spelled(&mut self, number: usize) {
        if number * BLOCK < self.spelled_done {
            return;
        }
        let masks = self.masks;
        let qualifies = |number| {
            let alnum = masks.alnum(number);
            (alnum & !(alnum << 1) & !(alnum >> 1)).count_ones() >= 9
        };
        let region = self.blocks_around(number, qualifies);
        self.spelled_done = region.end - BLOCK.min(region.end);
        if let Some(view) = spelled::view(&self.text[region.clone()]) {
            self.reaches(region.end);
            self.view(Some(view), region.start);
        }
    }

    /// Bytes written as numbers.
    #[inline(never)]
    fn numbers(&mut self, number: usize) {
        if number * BLOCK < self.numbers_done {
            return;
        }
        let masks = self.masks;
        let qualifies = |number| is_numbers(masks.alnum(number), masks.hex(number));
        let region = self.blocks_around(number, qualifies);
        self.numbers_done = region.end - BLOCK.min(region.end);
        let (text, swept) = (self.text, self.swept);
        let alnum = |number: usize| {
            if swept < text.len() && number >= swept / BLOCK {
                numbers::alnum(text, number)
            } else {
                masks.alnum(number)
            }
        };
        for (start, view) in numbers::views(text, &region, alnum) {
            self.reaches(region.end);
            self.view(Some(view), start);
        }
    }

    #[inline(never)]
    fn ascii85(&mut self, number: usize) {
        let bits = |number: usize| {
            let begin = (number * BLOCK).min(self.text.len());
            let block = &self.text[begin..self.text.len().min(begin + BLOCK)];
            kernel::base85_bits(self.work.level, block)
        };
        let (here, next) = (bits(number), bits(number + 1));
        let before = number
            .checked_sub(1)
            .map_or([(0, 0); 3], bits)
            .map(|(digits, _)| digits >> 63 == 1);
        for (dialect, alphabet) in ascii85::ALPHABETS.iter().enumerate() {
            let (mut texts, mut begins) =
                ascii85::starts(&here[dialect], &next[dialect], before[dialect]);
            while texts != 0 {
                let at = number * BLOCK + texts.trailing_zeros() as usize;
                texts &= texts - 1;
                let done = self.ascii85_done[dialect][at % 5];
                if at >= done && alphabet.is_text(self.text, at) {
                    self.ascii85_at(dialect, at);
                }
            }
            while begins != 0 {
                let at = number * BLOCK + begins.trailing_zeros() as usize;
                begins &= begins - 1;
                if alphabet.is_compressed(self.text, at) {
                    self.ascii85_at(dialect, at);
                }
            }
        }
    }

    /// Decodes the run of base 85 around `at`, where a group begins.
    #[inline(never)]
    fn ascii85_at(&mut self, dialect: usize, at: usize) {
        let alphabet = &ascii85::ALPHABETS[dialect];
        let Some(region) = alphabet.region(self.text, at) else {
            return;
        };
        self.ascii85_done[dialect][at % 5] = region.end;
        let view = alphabet.view(&self.text[region.clone()], (at - region.start) % 5);
        self.view(Some(view), region.start);
    }

    /// The numbers of the blocks with that gate.
    fn blocks_with(&self, gate: u64) -> impl Iterator<Item = usize> + use<'a> {
        let open = &self.sweep.gates.open[..self.masks.len()];
        let with = move |(number, open): (usize, &u64)| (open & gate != 0).then_some(number);
        open.iter().enumerate().filter_map(with)
    }

    /// Compressed data.
    #[inline(never)]
    fn compressed(&mut self) {
        let blocks = self.blocks_with(gate::MAGIC);
        let continued = self.work.continued == Some(self.depth);
        for start in inflate::starts(self.text, self.swept, self.depth, continued, blocks) {
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
            let budget = if self.work.chain == Chain::Bytes {
                &mut self.work.inflated_first
            } else {
                &mut self.work.inflated
            };
            match inflate::inflate(&self.text[start.at..], start.format, budget) {
                inflate::Outcome::Nothing => {}
                inflate::Outcome::Whole(text, length) => {
                    self.decoded(&View::whole(text, 0..length, Via::Compressed), start.at);
                }
                inflate::Outcome::Cut(text, length) => {
                    let chain = std::mem::replace(&mut self.work.chain, Chain::Cut);
                    self.decoded(&View::whole(text, 0..length, Via::Compressed), start.at);
                    self.work.chain = chain;
                }
                inflate::Outcome::Bound(..) | inflate::Outcome::Open(..)
                    if self.work.chain == Chain::Bytes =>
                {
                    self.work.broken.push(Broken {
                        at: start.at,
                        skips: Vec::new(),
                        format: start.format,
                        via: vec![Via::Compressed],
                    });
                }
                inflate::Outcome::Open(..) if start.format.is_guessed() => {}
                inflate::Outcome::Open(text, length)
                    if text.len() < inflate::SURE || self.work.chain == Chain::Cut =>
                {
                    self.decoded(&View::whole(text, 0..length, Via::Compressed), start.at);
                }
                inflate::Outcome::TooWide => {
                    if !std::mem::replace(&mut self.work.exceeded, true) {
                        self.matches
                            .push(super::undecodable(start.at..start.at + 1));
                    }
                }
                inflate::Outcome::Bound(text, length) | inflate::Outcome::Open(text, length) => {
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
    fn uuencoded(&mut self, begins: &[usize]) {
        let blocks = self.blocks_with(gate::UUENCODED);
        for region in uuencode::regions(self.text, self.swept, begins, blocks) {
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
