//! Runs of letters and digits: wrapped lines, base64 and the other bases, and simple ciphers.

use std::ops::Range;

use super::super::map::{Rewriter, View};
use super::super::{MAX_DEPTH, digits, examine_view, is_promising, wrap};
use super::{AROUND, Reader, lowest};
use crate::finding::Via;
use crate::kernel::{self, BLOCK, Masks};
use crate::tokens::is_beside_base64;

/// Characters of base64 in a row from which on a line may be wrapped, and from which on a run is decoded.
const WRAPPED: usize = 16;
const BLOB: usize = 20;

/// Hexadecimal digits in a row from which on they are decoded: at most 32.
const HEX: usize = 32;

/// Characters of a run of repetitions that are decoded.
const REPEATED: usize = 512;

/// Characters of base32 in a row that hold the shortest credential.
const BASE32: usize = 26;

/// Bytes of a run after the swept text that are still decoded.
const BEYOND: usize = 2048;

impl Reader<'_, '_> {
    /// Runs of base64 characters.
    pub(super) fn runs(&mut self, number: usize, masks: &Masks, next: &Masks) {
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
                        MAX_DEPTH - 1,
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
}
