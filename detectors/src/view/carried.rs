//! Compressed data that goes on behind the window it begins in: decoders that are carried from window to window.
//!
//! A decoder is fed up to the end of each window, look-ahead and all, and what comes out is scanned as far as it is there, in
//! *pieces*: the end of the last one, and what is new. A piece owns the findings that begin behind what the last one owned and
//! so far before its end that what they are is told ([`Budget::seam`]), so that none is judged by half of it. Raw bytes whose output is not
//! owned yet are *held*: they must not leave. What a decoder may cost is bounded four times: by the work that the bytes of the
//! input buy ([`PER_BYTE`]), by the decoders that are open at once ([`MAX_OPEN`], [`MAX_WIDE`]), by their depth, and by the
//! bytes that may be held ([`MAX_HELD`]): input that gives no output cannot stand between the halves of a token. A bound
//! that is reached is the finding `undecodable`.

mod digits;
mod open;

use std::ops::Range;

use open::Open;

use super::inflate::Format;
use super::{UNDECODABLE, View, Writing, undecodable};
use crate::finding::Via;
use crate::window::{Engines, Match, Window};

/// Bytes that engines may be run over for each byte of the input. Sources are compressed to a fifth, and what is written
/// in them in another way is read in views.
const PER_BYTE: usize = 24;

/// What any input may have on top, and the most that may be saved up.
const FIRST: usize = 1024 * 1024;
const SAVED: usize = 8 * 1024 * 1024;

/// Decoders that are open at once.
const MAX_OPEN: usize = 8;

/// Of those the ones of formats with a window of megabytes.
const MAX_WIDE: usize = 2;

/// Raw bytes that may be held for one decoder. Of zstd nothing comes out before a block is complete, and a token may lie in
/// two: those are 256 KiB at most, and a third more in base64.
pub(crate) const MAX_HELD: usize = 384 * 1024;

/// Raw bytes that are read at once, by which it is told which output came of which.
const STEP: usize = 4 * 1024;

/// Bytes that tell how it is written: a wrapped line is shorter.
const SEEN: usize = 256;

/// Compressed data in a text that does not end in it, or not within the bounds of a window.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Where it begins, in base64 or as it is.
    pub(super) at: usize,
    /// For each layer of base64, from outside, the bytes that its first group has before it.
    pub(super) skips: Vec<usize>,
    pub(super) format: Format,
    pub(super) via: Vec<Via>,
}

impl Broken {
    /// Says where it is in the source of `view`, of which it was told in the view's text.
    pub(super) fn outside(&mut self, view: &View, start: usize) {
        let mut via = Vec::new();
        let seen = self.at..view.text.len().min(self.at + SEEN).max(self.at + 1);
        let source = view.to_source(seen, &mut via);
        self.via.splice(..0, via);
        self.at = start
            + if view.writing() == Writing::Base64 {
                let (group, skip) = view.group(self.at);
                self.skips.insert(0, skip);
                group
            } else {
                source.start
            };
    }
}

/// What may still be done.
#[derive(Debug)]
pub(super) struct Budget {
    credit: usize,
    open: usize,
    wide: usize,
    steps: usize,
    /// How much output must stand behind what is judged.
    seam: usize,
}

/// The decoders that are open at the end of a window.
#[derive(Debug)]
pub(crate) struct Carried {
    open: Vec<Open>,
    budget: Budget,
    /// Up to where the raw bytes may leave.
    released: u64,
}

impl Default for Carried {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            budget: Budget {
                credit: FIRST,
                open: 0,
                wide: 0,
                steps: 0,
                seam: 0,
            },
            released: 0,
        }
    }
}

impl Carried {
    /// Up to where the raw bytes may leave, as far as the last window tells.
    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    /// Reads the window through all that is open, and through what begins in it: `broken`. Returns what is found with its
    /// place in the input, and the number of bytes that engines were run over.
    pub(crate) fn read(
        &mut self,
        engines: &Engines,
        window: &Window<'_>,
        broken: Vec<Broken>,
    ) -> (Vec<(Match, Range<u64>)>, usize) {
        let budget = &mut self.budget;
        budget.steps = 0;
        budget.seam = engines.look_ahead / 2;
        budget.credit = (budget.credit + PER_BYTE * window.own.len()).min(SAVED.max(budget.credit));
        let own_end = window.base + window.own.end as u64;
        let end = window.base + window.bytes.len() as u64;
        let last = own_end == end;
        let floor = self.released;
        let mut found = Vec::new();
        for open in &mut self.open {
            open.window(engines, window, budget);
        }
        for broken in broken {
            // Others are those of the windows before and after.
            if !window.own.contains(&broken.at) {
                continue;
            }
            let at = window.base + broken.at as u64;
            if self.open.iter().any(|open| open.is(at, &broken)) {
                continue;
            }
            if let Some(mut open) = Open::new(&broken, (at, at), &[], 0, budget) {
                open.window(engines, window, budget);
                self.open.push(open);
            } else {
                let mut refused = undecodable(0..1);
                refused.via = broken.via;
                found.push((refused, at..end));
            }
        }
        self.released = own_end;
        self.open.retain_mut(|open| {
            open.settle(engines, last, budget);
            let held = open.held();
            if end - held > MAX_HELD as u64 {
                open.give_up(budget);
            }
            let start = open.start().max(floor);
            let stop = open.end().max(start + 1).min(end.max(start + 1));
            found.extend(
                open.take_found()
                    .into_iter()
                    .map(|found| (found, start..stop)),
            );
            let going = open.is_going();
            if going {
                self.released = self.released.min(held);
            }
            going
        });
        (found, budget.steps)
    }
}

impl Budget {
    /// Takes the place of one more decoder, if there is room.
    fn open(&mut self, format: Format) -> bool {
        let wide = usize::from(format.is_wide());
        if self.open >= MAX_OPEN || self.wide + wide > MAX_WIDE {
            return false;
        }
        self.open += 1;
        self.wide += wide;
        true
    }

    fn close(&mut self, format: Format) {
        self.open = self.open.saturating_sub(1);
        self.wide = self.wide.saturating_sub(usize::from(format.is_wide()));
    }

    fn spend(&mut self, steps: usize) {
        self.steps += steps;
        self.credit = self.credit.saturating_sub(steps);
    }
}

/// A finding that says what of a decoder's output was not read.
fn unread(via: &[Via]) -> Match {
    let mut found = undecodable(0..1);
    debug_assert_eq!(found.rule, UNDECODABLE, "the window knows it by its rule");
    found.via = via.to_vec();
    found
}
