//! Runs of letters and digits: wrapped lines, base64 and the other bases, and simple ciphers.
//!
//! Most runs are names, paths and random bytes, so each decoder is asked first whether what it would make could be text: that is
//! told from the digits themselves, many at once, since each byte above 0x7F shows in one bit of one digit. Only where enough
//! bytes in a row are ASCII is anything decoded, and only around there.

use std::ops::Range;

use super::super::map::{Rewriter, View};
use super::super::{MAX_DEPTH, digits, examine_view, inflate, wrap};
use super::{AROUND, Reader, lowest};
use crate::finding::Via;
use crate::kernel::{self, BLOCK, Blocks, gate, row};
use crate::tokens::{Cipher, is_beside_base64};

/// Characters of base64 in a row from which on a line may be wrapped, and from which on a run is decoded.
const WRAPPED: usize = 16;
const BLOB: usize = 20;

/// Hexadecimal digits in a row from which on they are decoded: at most 32.
const HEX: usize = 32;

/// Characters of a run of repetitions that are decoded.
const REPEATED: usize = 512;

/// Characters of base32 in a row that hold the shortest credential.
const BASE32: usize = 26;

/// Characters of a run that is read as a whole, because it is one number or because it stands backwards.
const WHOLE: usize = 4096;

/// Bytes of a run after the swept text that are still decoded.
const BEYOND: usize = 2048;

/// Letters and digits among the bytes that a few groups of base64 stand for, if those are text that a credential is in.
const CHARACTERS: usize = 5;

/// Digits of base64 on either side of what is text that are decoded with it.
const BESIDE: usize = 1024;

/// Characters of a number in base58, at most.
const MOST_BASE58: usize = 256;

/// Digits at the beginning of a run that may be a path.
const PATH: usize = 256;

/// Digits at the beginning of a run that tell whether it is compressed.
const HEAD: usize = 44;

/// What was found of the blocks so far.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Where wrapped lines were joined last: what stands there is read in their view, what stands before them is not.
    wrapped: Range<usize>,
    /// Up to where base64 of each phase was decoded or needs no decoding.
    base64: [usize; 4],
    /// Of each phase what was decoded last to the end of its run.
    whole: [Range<usize>; 4],
    /// The last run whose end was looked for.
    run: Range<usize>,
}

/// What the first characters of a run are: a bit for each of so many.
struct Classes {
    length: usize,
    alnum: u64,
    upper: u64,
    digit: u64,
}

impl Runs {
    fn is_wrapped(&self, block: &Range<usize>) -> bool {
        self.wrapped.start <= block.start && block.end <= self.wrapped.end
    }
}

/// Every fourth bit.
const FOURTH: u64 = 0x1111_1111_1111_1111;

/// Rows of 16 bits: bit `i` is set if bits `i` to `i + 15` are.
fn sixteen(bits: u128) -> u128 {
    let two = bits & bits >> 1;
    let four = two & two >> 2;
    let eight = four & four >> 4;
    eight & eight >> 8
}

fn pair(mask: u64, next: u64) -> u128 {
    u128::from(mask) | u128::from(next) << 64
}

impl Reader<'_, '_> {
    /// Runs of base64 characters of which 16 in a row begin in the block.
    pub(super) fn runs(&mut self, number: usize, open: u64) {
        let rows = self.sweep.gates.rows[number];
        let begins =
            !(self.masks.wide(number) << 1 | self.masks.wide(number.wrapping_sub(1)) >> 63);
        self.each(number, rows & begins, Self::wrapped);
        if open & gate::BLOBS == 0
            || self
                .runs
                .is_wrapped(&(number * BLOCK..number * BLOCK + BLOCK))
        {
            return;
        }
        let blobs = self.sweep.gates.blobs[number];
        self.each(number, blobs & begins, Self::run_begins);
        if open & gate::TEXT != 0 {
            self.base64(number);
        }
        if open & gate::HEX != 0 {
            self.rows(number, HEX, |masks, number| masks.hex(number), Self::hex);
        }
        if open & gate::CAPITALS != 0 {
            self.rows(
                number,
                BASE32,
                |masks, number| masks.upper(number) | masks.digit(number),
                Self::base32,
            );
        }
        if open & gate::SMALL != 0 {
            self.rows(
                number,
                BASE32,
                |masks, number| masks.alnum(number) & !masks.upper(number),
                Self::base32,
            );
        }
    }

    /// Calls `read` with each place of `mask` that is not in what was joined.
    fn each(&mut self, number: usize, mut mask: u64, read: impl Fn(&mut Self, usize)) {
        while mask != 0 {
            let at = number * BLOCK + mask.trailing_zeros() as usize;
            mask &= mask - 1;
            if !self.runs.wrapped.contains(&at) {
                read(self, at);
            }
        }
    }

    /// Calls `read` with each run of at least `least` (16 to 32) bytes of a mask that begins in the block.
    fn rows(
        &mut self,
        number: usize,
        least: usize,
        select: impl Fn(Blocks<'_>, usize) -> u64,
        read: impl Fn(&mut Self, Range<usize>),
    ) {
        let here = select(self.masks, number);
        let next = select(self.masks, number + 1);
        let before = select(self.masks, number.wrapping_sub(1)) >> 63;
        let rows = sixteen(pair(here, next));
        let rows = (rows & rows >> (least - 16)) as u64 & !(here << 1 | before);
        self.each(number, rows, |reader, at| {
            let mut end = at + least;
            let mut number = end / BLOCK;
            let mut mask = select(reader.masks, number) | lowest(end % BLOCK);
            while mask == !0 {
                number += 1;
                mask = select(reader.masks, number);
            }
            end = end.max(number * BLOCK + mask.trailing_ones() as usize);
            read(reader, at..end);
        });
    }

    /// The run of base64 characters that holds `at`, as far back as [`BESIDE`] characters.
    #[inline(never)]
    fn run_of(&mut self, at: usize) -> Range<usize> {
        if !self.runs.run.contains(&at) {
            let end = self.run_end(at);
            self.runs.run = at..end;
        }
        let known = self.runs.run.clone();
        let least = at.saturating_sub(BESIDE);
        if known.start <= least {
            return known;
        }
        let mut start = at;
        loop {
            let number = start / BLOCK;
            let others = !self.masks.wide(number) & lowest(start - number * BLOCK);
            if others != 0 {
                start = number * BLOCK + 64 - others.leading_zeros() as usize;
                break;
            }
            start = number * BLOCK;
            if start <= least {
                break;
            }
            start -= 1;
            if self.masks.wide(start / BLOCK) >> (start % BLOCK) & 1 == 0 {
                start += 1;
                break;
            }
        }
        self.runs.run.start = start.max(least);
        self.runs.run.clone()
    }

    /// Where the run of base64 characters that holds `start` ends.
    fn run_end(&self, start: usize) -> usize {
        let mut number = start / BLOCK;
        let mut wide = self.masks.wide(number) | lowest(start % BLOCK);
        while wide == !0 {
            number += 1;
            wide = self.masks.wide(number);
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

    /// Joins the lines that the run which begins at `start` is the first of.
    #[inline(never)]
    fn wrapped(&mut self, start: usize) {
        let end = self.run_end(start);
        self.runs.run = start..end;
        if !matches!(self.text.get(end), Some(b'\n' | b'\r' | b'\\')) {
            return;
        }
        if let Some(region) = wrap::region(self.text, start..end, WRAPPED) {
            // It may be all there is, and the next line a word of something else. What begins in it is read with what follows.
            if end - start >= BLOB {
                self.whole_number(start..end);
            }
            self.runs.wrapped = region.clone();
            let region = region.start.saturating_sub(1)..region.end;
            let mut rewriter = Rewriter::new(&self.text[region.clone()]);
            wrap::unwrap(&mut rewriter, WRAPPED);
            self.view(rewriter.finish(), region.start);
        }
    }

    /// What only a run's beginning or all of it tells.
    #[inline(never)]
    fn run_begins(&mut self, start: usize) {
        let end = self.run_of(start).end;
        let Classes {
            alnum,
            upper,
            digit,
            ..
        } = self.first_classes(&(start..end));
        let lower = alnum & !upper & !digit;
        let run = self.text.get(start..end).unwrap_or_default();
        for phase in 0..4 {
            if digits::is_not_ascii_text(run.get(phase..).unwrap_or_default()) {
                self.whole_run(start + phase, end);
            }
        }
        // As mixed as compressed data is, but where zlib says that it is.
        let count = |mask: u64| (mask & lowest(32)).count_ones();
        let at_edge = start == 0 && self.work.continued == Some(self.depth);
        let mixed = count(lower) >= 4 && count(upper) >= 4 && count(alnum) >= 16;
        if (mixed || begins_zlib(run)) && !at_edge {
            self.inflated(start..end);
            // Behind `\n` and its like too, whose letter looks like the first digit.
            if self.text[..start].ends_with(b"\\") {
                self.inflated(start + 1..end);
            }
        }
        self.behind_signs(start..end);
        self.whole_number(start..end);
    }

    /// Decodes the base64 of a run from its beginning on, if it begins with compressed data.
    fn inflated(&mut self, run: Range<usize>) {
        let digits = self.text.get(run.clone()).unwrap_or_default();
        let mut bytes = [0; HEAD / 4 * 3];
        let length = kernel::base64_some(&digits[..digits.len().min(HEAD)], &mut bytes);
        if inflate::begins_compressed(&bytes[..length], digits.len() / 4 * 3) {
            self.whole_run(run.start, run.end);
        }
    }

    /// What zlib has made behind a sign that is a digit, too: in a path, or behind a name and a dash. In the midst of a blob its
    /// header of two bytes stands by chance. (Other formats have a magic number that is told wherever it stands.)
    fn behind_signs(&mut self, run: Range<usize>) {
        let masks = self.masks;
        let near = run.end.min(run.start + PATH);
        for start in (run.start..near).step_by(BLOCK) {
            let signs = row(|number| masks.wide(number) & !masks.alnum(number), start);
            let mut signs = signs & lowest((near - start).min(BLOCK));
            while signs != 0 {
                let at = start + signs.trailing_zeros() as usize + 1;
                signs &= signs - 1;
                if begins_zlib(self.text.get(at..run.end).unwrap_or_default()) {
                    self.inflated(at..run.end);
                }
            }
        }
    }

    /// What is one number in all, or stands backwards.
    fn whole_number(&mut self, run: Range<usize>) {
        let start = run.start;
        let Classes {
            length,
            alnum,
            upper,
            digit,
        } = self.first_classes(&run);
        let text = self.text;
        let before = &text[..start];
        let backwards = before.ends_with(b"=") && !before.ends_with(b"a=") && upper != 0;
        let number = digit == lowest(length);
        let base58 = alnum == lowest(length) && upper != 0 && alnum & !upper & !digit != 0;
        if backwards || number || base58 && run.len() <= MOST_BASE58 {
            let whole = &text[start..run.end.min(start + WHOLE)];
            let (any, all) = kernel::summary(self.work.level, whole);
            let mut views = digits::views(self.work.level, whole, any, all, backwards);
            while let Some(view) = views.next() {
                self.decoded(&view, start);
                views.give_back(view);
            }
        }
    }

    /// The classes of a run's first characters, of as many as a block has.
    fn first_classes(&self, run: &Range<usize>) -> Classes {
        let length = run.len().min(BLOCK);
        let (masks, start) = (self.masks, run.start);
        Classes {
            length,
            alnum: row(|number| masks.alnum(number), start) & lowest(length),
            upper: row(|number| masks.upper(number), start) & lowest(length),
            digit: row(|number| masks.digit(number), start) & lowest(length),
        }
    }

    fn whole_run(&mut self, start: usize, end: usize) {
        self.runs.base64[start % 4] = end;
        self.runs.whole[start % 4] = start..end;
        self.base64_region(start..end);
    }

    /// Base64 of text in the block.
    fn base64(&mut self, number: usize) {
        let mut texts = self.sweep.gates.texts[number];
        while texts != 0 {
            let at = number * BLOCK + texts.trailing_zeros() as usize;
            texts &= texts - 1;
            if at >= self.runs.base64[at % 4] && !self.runs.wrapped.contains(&at) {
                self.base64_at(at);
            }
        }
    }

    /// Decodes the base64 around `at`, where a group begins and bytes in a row are ASCII, if they are text.
    #[inline(never)]
    fn base64_at(&mut self, at: usize) {
        let phase = at % 4;
        // With the group before, of which a part may be text.
        let sample = at.checked_sub(4).unwrap_or(at)..(at + 24).min(self.text.len());
        let mut bytes = [0; 24];
        let length = kernel::base64_some(&self.text[sample], &mut bytes);
        // Zeros stand between the characters of UTF-16, and are else no text.
        let characters = bytes
            .iter()
            .filter(|byte| byte.is_ascii_alphanumeric())
            .count();
        if characters < CHARACTERS || !kernel::is_readable(self.work.level, &bytes[..length]) {
            return;
        }
        let run = self.run_of(at);
        let start = run
            .start
            .max(at.saturating_sub(BESIDE))
            .max(self.runs.base64[phase].saturating_sub(BESIDE));
        let start = start + (phase + 4 - start % 4) % 4;
        // On as long as there is more of it.
        let mut last = at;
        let mut number = at / BLOCK;
        while number * BLOCK < run.end.min(last + BESIDE) && number < self.masks.len() {
            let texts = self.sweep.gates.texts[number] & FOURTH << phase;
            if texts != 0 {
                last = last.max(number * BLOCK + 63 - texts.leading_zeros() as usize);
            }
            number += 1;
        }
        let mut end = run.end.min(last + BESIDE);
        // Compressed data is decoded to the end of its digits, or it would seem to break off.
        let found = &self.found.magics;
        let near = found.partition_point(|(at, _)| *at < start);
        let behind = found.partition_point(|(at, _)| *at < end);
        if found[near..behind].iter().any(|(at, number)| {
            self.magic_start(*at, *number)
                .is_some_and(|magic| magic % 4 == phase && (start..end).contains(&magic))
        }) {
            end = run.end;
            self.runs.whole[phase] = start..end;
        }
        self.runs.base64[phase] = end;
        self.base64_region(start..end);
    }

    fn base64_region(&mut self, region: Range<usize>) {
        let digits = without_repetition(self.text.get(region.clone()).unwrap_or_default());
        let mut text = Vec::new();
        kernel::base64(self.work.level, digits, &mut text);
        let view = View::digits(text, 0, 4, 3, Via::Base64);
        examine_view(
            self.engines,
            &view,
            region.start,
            self.depth,
            self.work,
            self.matches,
        );
    }

    /// Hexadecimal digits.
    #[inline(never)]
    fn hex(&mut self, part: Range<usize>) {
        let digits = &self.text[part.clone()];
        for phase in 0..2 {
            if digits::is_hex_of_text(digits, phase) {
                let view = digits::hex(digits, phase, Vec::new());
                self.decoded(&view, part.start);
            }
        }
    }

    /// Base32 characters of one case.
    #[inline(never)]
    fn base32(&mut self, part: Range<usize>) {
        let digits = without_repetition(&self.text[part.clone()]);
        for view in digits::base32(self.work.level, digits) {
            self.decoded(&view, part.start);
        }
    }

    /// Compressed data in the midst of base64, where nothing has decoded it yet.
    pub(super) fn magics(&mut self) {
        let found = self.found;
        for (at, number) in &found.magics {
            let Some(start) = self.magic_start(*at, *number) else {
                continue;
            };
            let run = self.run_of(*at);
            // What begins in what was decoded to its end was found in there, and what goes on in the next line in the view of
            // the joined lines. Behind it there may be text, which was decoded alone.
            if start >= run.start
                && !self.runs.whole[start % 4].contains(&start)
                && wrap::region(self.text, run.clone(), WRAPPED).is_none()
            {
                self.whole_run(start, run.end);
            }
        }
    }

    /// Where the group begins that magic number `number` begins in, if it stands at `at`.
    fn magic_start(&self, at: usize, number: usize) -> Option<usize> {
        let magic = self.engines.magics.get(number)?;
        let digits = self.text.get(at..)?;
        at.checked_sub(magic.skip).filter(|_| magic.begins(digits))
    }

    /// Whether a run goes on behind what was swept: digits of several layers may do so for long.
    pub(super) fn runs_cut(&mut self) {
        if self.swept < self.text.len()
            && let Some(last) = self.swept.checked_sub(1)
            && self.masks.wide(last / BLOCK) >> (last % BLOCK) & 1 == 1
        {
            self.cut |= self.run_of(last).len() >= BLOB;
        }
    }

    /// Strong tokens in a cipher, by the places in order where their anchors stand.
    pub(super) fn ciphers(&mut self, found: &[(usize, Cipher)]) {
        // Up to where each cipher was read.
        let mut done = [0; 3];
        for (at, cipher) in found {
            let done = &mut done[*cipher as usize];
            if *at < *done {
                continue;
            }
            let run = self.run_of(*at);
            if run.len() >= BLOB {
                *done = at + AROUND / 2;
                self.cipher(*at, *cipher, run);
            }
        }
    }

    /// Reads what stands around `at`, inside of `run`, in a cipher.
    fn cipher(&mut self, at: usize, cipher: Cipher, run: Range<usize>) {
        let region = at.saturating_sub(AROUND).max(run.start)..(at + AROUND).min(run.end);
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

/// Whether base64 digits stand for a header as all libraries write it (RFC 1950, 2.2): a window of 32 KiB, no dictionary.
fn begins_zlib(digits: &[u8]) -> bool {
    matches!(
        digits,
        [b'e', b'A', b'E'..=b'H', ..]
            | [b'e', b'F', b'4'..=b'7', ..]
            | [b'e', b'J', b'w'..=b'z', ..]
            | [b'e', b'N', b'o'..=b'r', ..]
    )
}

/// What repeats itself is read once: what it stands for repeats itself, too.
fn without_repetition(digits: &[u8]) -> &[u8] {
    match digits.get(..REPEATED) {
        Some(few) if (1..=8).any(|period| digits[period..] == digits[..digits.len() - period]) => {
            few
        }
        _ => digits,
    }
}
