//! Finds the regions of a text that a decoder would change, from its masks, and has them read.

use std::ops::Range;

use super::map::{Rewriter, View};
use super::{
    Work, ascii85, digits, examine_view, fold, inflate, is_promising, narrow, numbers,
    quoted_printable, spelled, unescape, uuencode, wrap,
};
use crate::finding::Via;
use crate::kernel::{self, BLOCK, Masks, Sweep};
use crate::tokens::is_beside_base64;
use crate::window::{Engines, Match};

/// Characters of base64 in a row from which on a line may be wrapped, and from which on a run is decoded.
const WRAPPED: usize = 16;
const BLOB: usize = 20;

/// Hexadecimal digits in a row from which on they are decoded: at most 32.
const HEX: usize = 32;

/// Characters of a run of repetitions that are decoded.
const REPEATED: usize = 512;

/// Characters of base32 in a row that hold the shortest credential.
const BASE32: usize = 26;

/// Bytes on either side of an escape or look-alike that may belong to the same word.
const AROUND: usize = 512;

/// Bytes between two escapes of one region.
const APART: usize = 64;

/// Token characters in a row, look-alikes among them, from which on they are folded.
const FOLDED: usize = 16;

/// Bytes of a run after the swept text that are still decoded.
const BEYOND: usize = 2048;

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

    /// Runs of base64 characters.
    fn runs(&mut self, number: usize, masks: &Masks, next: &Masks) {
        let wide = u128::from(masks.wide) | u128::from(next.wide) << 64;
        let two = wide & wide >> 1;
        let four = two & two >> 2;
        let eight = four & four >> 4;
        let mut starts = (eight & eight >> 8) as u64;
        while starts != 0 {
            let start = number * BLOCK + starts.trailing_zeros() as usize;
            if start < self.runs_done {
                starts &= !lowest(self.runs_done - number * BLOCK);
                continue;
            }
            self.run(start);
        }
    }

    /// Where the run of base64 characters that holds `start` ends.
    fn run_end(&self, start: usize) -> usize {
        let mut number = start / BLOCK;
        let mut wide = self.masks.get(number).map_or(0, |masks| masks.wide) | lowest(start % BLOCK);
        while wide == !0 {
            number += 1;
            wide = self.masks.get(number).map_or(0, |masks| masks.wide);
        }
        let end = number * BLOCK + wide.trailing_ones() as usize;
        if end < self.swept {
            return end;
        }
        // The run goes on behind what was swept.
        let rest = self
            .text
            .get(self.swept..)
            .unwrap_or_default()
            .iter()
            .take(BEYOND);
        self.swept
            + rest
                .take_while(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
                })
                .count()
    }

    #[inline(never)]
    fn run(&mut self, start: usize) {
        let end = self.run_end(start);
        self.runs_done = end.max(start + 1);
        if let Some(region) = wrap::region(self.text, start..end, WRAPPED) {
            self.runs_done = region.end;
            let region = region.start.saturating_sub(1)..region.end;
            let mut rewriter = Rewriter::new(&self.text[region.clone()]);
            wrap::unwrap(&mut rewriter, WRAPPED);
            self.view(rewriter.finish(), region.start);
            return;
        }
        if end - start < BLOB {
            return;
        }
        // Digits of several layers may go on for longer than was swept.
        self.cut |= end >= self.swept && self.swept < self.text.len();
        self.ciphers(start, end);
        self.hex_runs(start, end);
        self.base32_runs(start, end);
        // A run that repeats itself is read once: what it stands for repeats itself, too.
        let mut run = &self.text[start..end];
        if (1..=8).any(|period| run.len() > REPEATED && run[period..] == run[..run.len() - period])
        {
            run = &run[..REPEATED];
        }
        let (any, all) = kernel::summary(self.work.level, run);
        let at_edge = start == 0 && self.depth == 0 && !self.work.first;
        let backwards = self.text[..start].ends_with(b"=") && !self.text[..start].ends_with(b"a=");
        let mut views = digits::views(self.work.level, run, any, all, backwards);
        let mut first = true;
        while let Some(view) = views.next() {
            if is_promising(
                self.work.level,
                &view.text,
                std::mem::take(&mut first) && !at_edge,
            ) {
                examine_view(
                    self.engines,
                    &view,
                    start,
                    self.depth,
                    self.work,
                    self.matches,
                );
            }
            views.give_back(view);
        }
    }

    /// Runs of hexadecimal digits inside a run.
    #[inline(never)]
    fn hex_runs(&mut self, start: usize, end: usize) {
        for part in self.long_runs(start..end, HEX, |masks| masks.hex) {
            for phase in 0..2 {
                let view = digits::hex(&self.text[part.clone()], phase, Vec::new());
                self.decoded(&view, part.start);
            }
        }
    }

    /// Runs of base32 characters of one case inside a run.
    #[inline(never)]
    fn base32_runs(&mut self, start: usize, end: usize) {
        for lower in [false, true] {
            let parts = self.long_runs(start..end, BASE32, |masks| {
                if lower {
                    masks.alnum & !masks.upper
                } else {
                    masks.upper | masks.digit
                }
            });
            for part in parts {
                for view in digits::base32(self.work.level, &self.text[part.clone()]) {
                    self.decoded(&view, part.start);
                }
            }
        }
    }

    /// Runs of at least `least` (16 to 32) bytes of a mask inside of `range`.
    fn long_runs(
        &self,
        range: Range<usize>,
        least: usize,
        select: impl Fn(&Masks) -> u64,
    ) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for number in range.start / BLOCK..self.masks.len().min(range.end.div_ceil(BLOCK)) {
            let next = self.masks.get(number + 1).map_or(0, &select);
            let bits = u128::from(select(&self.masks[number])) | u128::from(next) << 64;
            let two = bits & bits >> 1;
            let four = two & two >> 2;
            let eight = four & four >> 4;
            let sixteen = eight & eight >> 8;
            let mut starts = (sixteen & sixteen >> (least - 16)) as u64;
            while starts != 0 {
                let at = number * BLOCK + starts.trailing_zeros() as usize;
                starts &= starts - 1;
                if found.last().is_some_and(|last| at < last.end)
                    || at < range.start
                    || at >= range.end
                {
                    continue;
                }
                let mut end = at + least;
                while end < range.end
                    && self
                        .masks
                        .get(end / BLOCK)
                        .is_some_and(|masks| select(masks) >> (end % BLOCK) & 1 == 1)
                {
                    end += 1;
                }
                found.push(at..end.min(range.end));
            }
        }
        found
    }

    /// Strong tokens in a cipher, inside a run.
    #[inline(never)]
    fn ciphers(&mut self, start: usize, end: usize) {
        let Some(tokens) = &self.engines.tokens else {
            return;
        };
        // Up to where each cipher was read.
        let mut done = [start; 3];
        for number in start / BLOCK..self.masks.len().min(end.div_ceil(BLOCK)) {
            let symbols = self.sweep.symbols.get(number * BLOCK..).unwrap_or_default();
            let mut mask = kernel::candidates_in(self.work.level, symbols, tokens.cipher_anchors());
            while mask != 0 {
                let at = number * BLOCK + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                if at < start || at >= end {
                    continue;
                }
                let mut ciphers = [None; 3];
                tokens.ciphered(&self.sweep.symbols, at, |cipher| {
                    let done = &mut done[cipher as usize];
                    if at >= *done {
                        *done = at + AROUND / 2;
                        ciphers[cipher as usize] = Some(cipher);
                    }
                });
                let region = at.saturating_sub(AROUND).max(start)..(at + AROUND).min(end);
                for cipher in ciphers.into_iter().flatten() {
                    let text = cipher.read(&self.text[region.clone()]);
                    let view = match cipher.via() {
                        Via::Reversed => View::backwards(text, region.len(), Via::Reversed),
                        via => View::same(text, 0, via),
                    };
                    // Only the tokens themselves: a cipher over an encoding is not looked for.
                    self.work.ciphered = true;
                    let known = self.matches.len();
                    examine_view(
                        self.engines,
                        &view,
                        region.start,
                        super::MAX_DEPTH - 1,
                        self.work,
                        self.matches,
                    );
                    self.work.ciphered = false;
                    let text = self.text;
                    let mut number = 0;
                    self.matches.retain(|found| {
                        number += 1;
                        number <= known || !is_beside_base64(text, &found.span)
                    });
                }
            }
        }
    }

    /// Where an escape may begin.
    fn escapes_in(&self, number: usize) -> u64 {
        let masks = &self.masks[number];
        if masks.lead | masks.backslash | masks.ampersand == 0 {
            return 0;
        }
        let next = self.masks.get(number + 1).copied().unwrap_or_default();
        let hex_pair = shifted(masks.hex, next.hex, 1) & shifted(masks.hex, next.hex, 2);
        let escaped = shifted(masks.escaped, next.escaped, 1);
        let gap = shifted(masks.gap, next.gap, 1);
        let after_word = masks.wide << 1
            | number
                .checked_sub(1)
                .map_or(0, |number| self.masks[number].wide >> 63)
            | u64::from(number == 0);
        let soft = masks.lead & escaped & gap & (after_word | masks.gap << 1);
        masks.backslash & escaped
            | masks.lead & (hex_pair | escaped & !gap)
            | soft
            | masks.ampersand & !gap
    }

    #[inline(never)]
    fn escapes(&mut self, number: usize, mut mask: u64) {
        while mask != 0 {
            let at = number * BLOCK + mask.trailing_zeros() as usize;
            mask &= mask - 1;
            if at < self.escapes_done || !self.is_telling(at) {
                continue;
            }
            let (end, kinds) = self.escapes_end(at);
            // With the byte before, which a shape may want to be no letter.
            let start = self
                .word_start(at)
                .max(self.escapes_done.min(at))
                .saturating_sub(1);
            if end >= self.swept {
                self.cut |= self.swept < self.text.len();
            }
            self.escapes_done = end;
            if number * BLOCK + BLOCK <= end {
                mask = 0;
            }
            let region = self.text.get(start..end).unwrap_or_default();
            if kinds.others {
                let mut rewriter = Rewriter::new(region);
                unescape::unescape(&mut rewriter);
                self.view(rewriter.finish(), start);
            }
            if kinds.quoted_printable {
                let mut rewriter = Rewriter::new(region);
                quoted_printable::decode(&mut rewriter);
                self.view(rewriter.finish(), start);
            }
        }
    }

    /// Whether the escape at `at` stands for something that a credential is made of, or for a part of another layer.
    fn is_telling(&self, at: usize) -> bool {
        let Some(rest) = self.text.get(at..) else {
            return false;
        };
        if rest.first() == Some(&b'=') {
            return match rest.get(1..).and_then(unescape::hex_pair) {
                Some(byte) => is_visible(byte) || byte >= 0x80 && rest.get(3) == Some(&b'='),
                None => quoted_printable::is_soft_break(rest),
            };
        }
        let Some((written, _)) = unescape::one(rest) else {
            return false;
        };
        match written.bytes() {
            [] | [0] => true,
            [byte] => is_visible(*byte) || *byte >= 0x80,
            bytes => fold::decode(bytes).is_some_and(|(character, _)| fold::changes(character)),
        }
    }

    /// The end of the region of escapes that begins at `at`, and what kinds are in it.
    fn escapes_end(&self, at: usize) -> (usize, Kinds) {
        let mut kinds = Kinds::default();
        let mut last = at;
        let mut number = at / BLOCK;
        let mut mask = self.escapes_in(number) & !lowest(at % BLOCK);
        loop {
            while mask != 0 {
                let here = number * BLOCK + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                if here > last + APART {
                    return (self.word_end(last), kinds);
                }
                last = here;
                let is_quoted_printable = self.text.get(here) == Some(&b'=');
                kinds.quoted_printable |= is_quoted_printable;
                kinds.others |= !is_quoted_printable;
            }
            number += 1;
            if number >= self.masks.len() || number * BLOCK > last + APART {
                return (self.word_end(last), kinds);
            }
            mask = self.escapes_in(number);
        }
    }

    /// Where the word begins that `at` is in.
    fn word_start(&self, at: usize) -> usize {
        let least = at.saturating_sub(AROUND);
        let mut number = at / BLOCK;
        let mut gaps = self.masks.get(number).map_or(0, |masks| masks.gap) & lowest(at % BLOCK);
        loop {
            if gaps != 0 {
                return (number * BLOCK + 64 - gaps.leading_zeros() as usize).max(least);
            }
            if number == 0 || number * BLOCK <= least {
                return least;
            }
            number -= 1;
            gaps = self.masks[number].gap;
        }
    }

    /// Where the word ends that begins after the escape at `last`.
    fn word_end(&self, last: usize) -> usize {
        let rest = self.text.get(last..).unwrap_or_default();
        let length = match rest.first() {
            Some(b'=') if rest.get(1..).and_then(unescape::hex_pair).is_none() => {
                quoted_printable::soft_break_length(rest)
            }
            Some(b'=') => 3,
            _ => unescape::one(rest).map_or(1, |(_, length)| length),
        };
        self.gap_after(last + length.max(1))
    }

    fn gap_after(&self, at: usize) -> usize {
        let most = (at + AROUND).min(self.text.len());
        let mut number = at / BLOCK;
        let mut gaps = self.masks.get(number).map_or(0, |masks| masks.gap) & !lowest(at % BLOCK);
        loop {
            if gaps != 0 {
                return (number * BLOCK + gaps.trailing_zeros() as usize).min(most);
            }
            number += 1;
            if number >= self.masks.len() || number * BLOCK >= most {
                return most.min(if number >= self.masks.len() {
                    self.swept.max(at.min(self.text.len()))
                } else {
                    most
                });
            }
            gaps = self.masks[number].gap;
        }
    }

    /// Look-alikes and invisible characters, where there are enough of them and of token characters in a row.
    #[inline(never)]
    fn folds(&mut self, number: usize, mut mask: u64) {
        while mask != 0 {
            let at = number * BLOCK + mask.trailing_zeros() as usize;
            mask &= mask - 1;
            if at < self.folds_done {
                continue;
            }
            let rest = self.text.get(at..).unwrap_or_default();
            // Nothing in U+4000 to U+9FFF nor in the middle of Hangul looks like ASCII.
            if let Some(0xE4..=0xE9 | 0xEB | 0xEC) = rest.first() {
                self.folds_done = at + 3;
                continue;
            }
            let Some((character, length)) = fold::decode(rest) else {
                continue;
            };
            self.folds_done = at + length;
            if !fold::changes(character) {
                continue;
            }
            self.fold(at);
        }
    }

    /// Folds the word around the look-alike at `at`, if it is long enough to hold a credential.
    #[inline(never)]
    fn fold(&mut self, at: usize) {
        let mut end = at;
        let mut row = 0;
        let limit = (at + 16 * 1024).min(self.text.len());
        // What stands before, up to where the last word ended.
        let start = self.word_start(at);
        let before = self.text.get(start..at).unwrap_or_default();
        row += before
            .iter()
            .rev()
            .take_while(|byte| is_token(**byte))
            .count();
        while end < limit {
            let byte = self.text[end];
            let length = if byte < 0x80 {
                if is_gap(byte) {
                    break;
                }
                if !is_token(byte) {
                    end += 1;
                    continue;
                }
                1
            } else {
                fold::decode(&self.text[end..])
                    .filter(|(character, _)| fold::changes(*character))
                    .map_or(0, |(_, length)| length)
            };
            if length == 0 {
                // Another script: the end, unless there was enough before it.
                if row < FOLDED {
                    break;
                }
                end += 1;
                continue;
            }
            row += 1;
            end += length;
        }
        self.folds_done = end.max(self.folds_done);
        if end >= self.swept {
            self.cut |= self.swept < self.text.len();
        }
        if row < FOLDED {
            return;
        }
        // `Bearer` and a blank may stand before.
        let start = start.saturating_sub(10);
        let mut rewriter = Rewriter::new(&self.text[start..end]);
        fold::fold(&mut rewriter);
        self.view(rewriter.finish(), start);
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
            let Some(region) = alphabet
                .region(self.text, middle)
                .filter(|region| ascii85::is_likely(&self.text[region.clone()]))
            else {
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
            if start.format.is_guessed() {
                let Some(left) = self.work.attempts.checked_sub(1) else {
                    if !std::mem::replace(&mut self.work.exceeded, true) {
                        self.matches
                            .push(super::undecodable(start.at..start.at + 1));
                    }
                    return;
                };
                self.work.attempts = left;
            }
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

#[derive(Clone, Copy, Default)]
struct Kinds {
    quoted_printable: bool,
    others: bool,
}

/// The bits below number `count`.
fn lowest(count: usize) -> u64 {
    if count >= 64 { !0 } else { (1 << count) - 1 }
}

/// Bit `i` is bit `i + by` of the two in a row.
fn shifted(mask: u64, next: u64, by: u32) -> u64 {
    mask >> by | next << (64 - by)
}

fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'/')
}

fn is_gap(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'\'' | b'`')
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
    // Numbers in escapes are for the decoder of those.
    if masks.hex.count_ones() < 10 || (masks.lead | masks.ampersand).count_ones() >= 8 {
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
        && signs >= 8
        && masks.digit.count_ones() >= 3
        && (8..=34).contains(&capitals)
        && (12..=44).contains(&others)
        && masks.alnum.count_ones() <= 57
        && masks.gap.count_ones() <= 6
}
