//! One decoder that is open, what came out of it, and those that were opened in that.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use super::super::decoder::{Decoder, Step};
use super::super::inflate::{Format, SURE};
use super::super::{MAX_DEPTH, UNDECODABLE, Work, examine};
use super::digits::Digits;
use super::{Broken, Budget, STEP, unread};
use crate::finding::Via;
use crate::window::{Engines, LOOK_BACK, Match, Window, merge};

/// Bytes of output that are scanned at once, and what of the last piece stands before them.
const PIECE: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Going,
    /// The data has ended, or what follows is none.
    Ended,
    /// The rest was given up.
    GivenUp,
    /// All was said.
    Closed,
}

/// A decoder that is open. Its *source* is the input, or the output of another one.
#[derive(Debug)]
pub(super) struct Open {
    start: u64,
    skips: Vec<usize>,
    format: Format,
    via: Vec<Via>,
    /// How deep its output lies.
    depth: u8,
    digits: Vec<Digits>,
    decoder: Decoder,
    state: State,
    /// Whether it turned out to be no such data, or to stand in none.
    failed: bool,
    /// Up to where the source was read.
    fed: u64,
    /// The end of the output, from `text_start` on.
    text: Zeroizing<Vec<u8>>,
    text_start: u64,
    /// Findings that begin in output before this were reported.
    owned: u64,
    /// From which raw byte on the output from some byte on comes, by both in order. The first one is at or before `owned`.
    marks: VecDeque<(u64, u64)>,
    children: Vec<Open>,
    found: Vec<Match>,
}

impl Open {
    /// One that begins at `start` of its source and at `raw` of the input, in output of another one's `via` and `depth`.
    pub(super) fn new(
        broken: &Broken,
        (start, raw): (u64, u64),
        via: &[Via],
        depth: u8,
        budget: &mut Budget,
    ) -> Option<Self> {
        let depth = usize::from(depth) + broken.skips.len() + 1;
        let depth = u8::try_from(depth)
            .ok()
            .filter(|depth| *depth <= MAX_DEPTH)?;
        if !budget.open(broken.format) {
            return None;
        }
        Some(Self {
            start,
            skips: broken.skips.clone(),
            format: broken.format,
            via: [via, &broken.via].concat(),
            depth,
            digits: broken.skips.iter().map(|skip| Digits::new(*skip)).collect(),
            decoder: Decoder::new(broken.format),
            state: State::Going,
            failed: false,
            fed: start,
            text: Zeroizing::default(),
            text_start: 0,
            owned: 0,
            marks: VecDeque::from([(0, raw)]),
            children: Vec::new(),
            found: Vec::new(),
        })
    }

    /// Whether this is the decoder of `broken`, which begins at `at`.
    pub(super) fn is(&self, at: u64, broken: &Broken) -> bool {
        self.start == at && self.skips == broken.skips && self.format == broken.format
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Up to where its source was read.
    pub(super) fn end(&self) -> u64 {
        self.fed
    }

    pub(super) fn is_going(&self) -> bool {
        self.state == State::Going
    }

    pub(super) fn take_found(&mut self) -> Vec<Match> {
        std::mem::take(&mut self.found)
    }

    fn total(&self) -> u64 {
        self.text_start + self.text.len() as u64
    }

    /// The raw byte from which on the output at `at` comes.
    fn raw_at(&self, at: u64) -> u64 {
        let behind = self.marks.partition_point(|(out, _)| *out <= at);
        self.marks
            .get(behind.saturating_sub(1))
            .map_or(0, |(_, raw)| *raw)
    }

    /// The raw byte from which on nothing may leave yet.
    pub(super) fn held(&self) -> u64 {
        let children = self.children.iter().filter(|child| child.is_going());
        children
            .map(Self::held)
            .fold(self.raw_at(self.owned), u64::min)
    }

    /// Reads what the window has of it, which is its source.
    pub(super) fn window(&mut self, engines: &Engines, window: &Window<'_>, budget: &mut Budget) {
        let from = self.fed.saturating_sub(window.base) as usize;
        let bytes = window.bytes.get(from..).unwrap_or_default();
        for step in bytes.chunks(STEP) {
            let raw = self.fed;
            self.step(step, raw, engines, budget);
        }
        // Its place is for others.
        if self.state == State::Ended {
            self.settle(engines, false, budget);
        }
    }

    /// Reads a little of the source, which comes from raw bytes at or after `raw`.
    fn step(&mut self, bytes: &[u8], raw: u64, engines: &Engines, budget: &mut Budget) {
        if self.state != State::Going {
            return;
        }
        let before = self.total();
        let (first, others) = match self.digits.split_first_mut() {
            Some((first, others)) => (Some(first), others),
            None => (None, &mut [][..]),
        };
        let mut read = Vec::new();
        let mut input = match first {
            Some(first) => {
                first.push(bytes, &mut read);
                for digits in others {
                    let outer = std::mem::take(&mut read);
                    digits.push(&outer, &mut read);
                }
                &read[..]
            }
            None => bytes,
        };
        self.decode(&mut input, engines, budget);
        if self.state == State::Ended && self.digits.is_empty() {
            self.fed += (bytes.len() - input.len()) as u64;
        } else {
            self.fed += bytes.len() as u64;
        }
        if self.state == State::Going && self.digits.iter().any(Digits::has_ended) {
            self.breaks_off();
        }
        if self.total() > before {
            self.marks.push_back((self.total(), raw));
        }
    }

    fn decode(&mut self, input: &mut &[u8], engines: &Engines, budget: &mut Budget) {
        while self.state == State::Going {
            let most = PIECE + budget.seam + LOOK_BACK;
            let room = most.saturating_sub(self.text.len());
            match self.decoder.push(input, &mut self.text, room) {
                Step::More => return,
                Step::Full => self.piece(false, engines, budget),
                Step::End => self.state = State::Ended,
                // What follows is none, or none of it was: what stands verbatim in another archive is cut up there.
                Step::Failed => {
                    self.failed = true;
                    self.state = State::Ended;
                }
            }
        }
    }

    /// There is no more of it, though it has not ended. If that is what it is at all, something is left unread.
    fn breaks_off(&mut self) {
        if !self.failed && !self.format.is_guessed() && self.total() >= SURE as u64 {
            self.found.push(unread(&self.via));
        }
        self.state = State::Ended;
    }

    /// A bound is reached.
    pub(super) fn give_up(&mut self, budget: &mut Budget) {
        if self.state == State::Going {
            self.found.push(unread(&self.via));
            self.state = State::GivenUp;
            self.close(budget);
        }
    }

    /// Scans what has come out so far; all of it if the source is over.
    pub(super) fn settle(&mut self, engines: &Engines, last: bool, budget: &mut Budget) {
        if last && self.state == State::Going {
            self.finish(engines, budget);
        }
        match self.state {
            State::Going => self.piece(false, engines, budget),
            State::Ended => self.piece(true, engines, budget),
            State::GivenUp | State::Closed => {}
        }
        if self.state != State::Going {
            self.close(budget);
        }
        // Only the end of it is kept.
        self.text.shrink_to_fit();
    }

    /// The source is over.
    fn finish(&mut self, engines: &Engines, budget: &mut Budget) {
        let mut read = Vec::new();
        for digits in &mut self.digits {
            let outer = std::mem::take(&mut read);
            digits.push(&outer, &mut read);
            digits.finish(&mut read);
        }
        self.decode(&mut &read[..], engines, budget);
        if self.state == State::Going {
            self.breaks_off();
        }
    }

    fn close(&mut self, budget: &mut Budget) {
        if self.state != State::Closed {
            self.state = State::Closed;
            budget.close(self.format);
            for child in &mut self.children {
                child.close(budget);
            }
            self.children.clear();
        }
    }

    /// Scans the text, and lets go of what will not be needed for the next piece.
    fn piece(&mut self, last: bool, engines: &Engines, budget: &mut Budget) {
        let owned = (self.owned.saturating_sub(self.text_start)) as usize;
        let own_end = if last {
            self.text.len()
        } else {
            self.text.len().saturating_sub(budget.seam)
        };
        if own_end <= owned {
            if last {
                self.feed_children(last, engines, budget);
            }
            return;
        }
        if budget.credit < self.text.len() {
            self.give_up(budget);
            return;
        }
        self.feed_children(last, engines, budget);
        let mut work = Work::of_piece(engines.level, self.text.len(), budget.credit);
        work.continued = (self.text_start > 0).then_some(self.depth);
        let mut matches = Vec::new();
        examine(
            engines,
            &self.text,
            self.text.len(),
            self.depth,
            &mut work,
            &mut matches,
        );
        budget.spend(work.steps);
        let own = owned..own_end;
        matches.retain(|found| {
            !found.shadow && (found.rule == UNDECODABLE || own.contains(&found.span.start))
        });
        for mut found in merge(&self.text, matches) {
            found.via.splice(..0, self.via.iter().copied());
            self.found.push(found);
        }
        for broken in work.broken {
            if own.contains(&broken.at) {
                self.open(&broken, last, engines, budget);
            }
        }
        self.owned = self.text_start + own_end as u64;
        let gone = own_end.saturating_sub(LOOK_BACK);
        self.text.drain(..gone);
        self.text_start += gone as u64;
        while self.marks.get(1).is_some_and(|(out, _)| *out <= self.owned) {
            self.marks.pop_front();
        }
    }

    /// Opens what begins in the text.
    fn open(&mut self, broken: &Broken, last: bool, engines: &Engines, budget: &mut Budget) {
        let at = self.text_start + broken.at as u64;
        if self.children.iter().any(|child| child.is(at, broken)) {
            return;
        }
        let raw = self.raw_at(at);
        match Self::new(broken, (at, raw), &self.via, self.depth, budget) {
            Some(child) => {
                self.children.push(child);
                self.feed_children(last, engines, budget);
            }
            None => {
                let via = [&self.via[..], &broken.via].concat();
                self.found.push(unread(&via));
            }
        }
    }

    /// Gives the text to those who have not read it yet, and takes what they found.
    fn feed_children(&mut self, last: bool, engines: &Engines, budget: &mut Budget) {
        let mut children = std::mem::take(&mut self.children);
        children.retain_mut(|child| {
            let from = child.fed.saturating_sub(self.text_start) as usize;
            let raw = self.raw_at(child.fed);
            for step in self.text.get(from..).unwrap_or_default().chunks(STEP) {
                child.step(step, raw, engines, budget);
            }
            child.failed |= self.failed;
            child.settle(engines, last, budget);
            self.found.append(&mut child.found);
            child.is_going()
        });
        self.children = children;
    }
}
