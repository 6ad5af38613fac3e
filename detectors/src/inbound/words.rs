//! The input as words, and what stood between them.

use std::collections::VecDeque;

use super::lexicon::{self, class};
use super::place::{Effect, Place, Places};
use super::unit::{Dress, Unit};

/// Words that are remembered: the farthest that anything looks back.
const MEMORY: usize = 48;

/// Letters of a word that are kept; no word that a rule knows is longer.
const LETTERS: usize = 16;

/// A word, and how it stood.
#[derive(Clone, Debug)]
pub(super) struct Word {
    letters: [u8; LETTERS],
    length: usize,
    pub(super) classes: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) place: Place,
    /// A sentence begins here.
    pub(super) sentence: bool,
    /// A clause begins here: a comma, a colon, a quote stood before.
    pub(super) clause: bool,
    /// The last two characters before the word.
    pub(super) before: [u8; 2],
    pub(super) dresses: Dresses,
}

impl Word {
    pub(super) fn text(&self) -> &[u8] {
        self.letters.get(..self.length).unwrap_or_default()
    }

    pub(super) fn is(&self, any: &[&str]) -> bool {
        any.iter().any(|text| text.as_bytes() == self.text())
    }

    pub(super) fn has(&self, classes: u32) -> bool {
        self.classes & classes != 0
    }
}

/// A set of [`Dress`]es.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dresses(u8);

impl Dresses {
    pub(super) const ALL: [Dress; 4] = [
        Dress::Invisible,
        Dress::LookAlike,
        Dress::Json,
        Dress::Entity,
    ];

    fn add(&mut self, dress: Dress) {
        self.0 |= Self::bit(dress);
    }

    pub(super) fn join(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn holds(self, dress: Dress) -> bool {
        self.0 & Self::bit(dress) != 0
    }

    pub(super) fn any(self) -> bool {
        self.0 != 0
    }

    fn bit(dress: Dress) -> u8 {
        match dress {
            Dress::None | Dress::Harmless => 0,
            Dress::Invisible => 1,
            Dress::LookAlike => 2,
            Dress::Json => 4,
            Dress::Entity => 8,
        }
    }
}

/// The word that is being read.
#[derive(Clone, Debug, Default)]
struct Open {
    letters: [u8; LETTERS],
    length: usize,
    start: u64,
    end: u64,
    dresses: Dresses,
}

/// Puts words together from characters, and remembers the last ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    pub(super) places: Places,
    open: Option<Open>,
    recent: VecDeque<Word>,
    sentence: bool,
    clause: bool,
    before: [u8; 2],
    /// A full stop stood just before.
    stopped: bool,
    newlines: u8,
    /// Text all of which is hidden: decoded base64.
    pub(super) hidden: Option<Place>,
}

impl Words {
    /// Takes one unit at `start..end`; true if it ended a word, which is then the last of [`Words::recent`].
    pub(super) fn push(&mut self, unit: Unit, start: u64, end: u64) -> bool {
        match unit {
            Unit::Text(text, length, dress) => {
                let mut ended = false;
                for byte in text.iter().take(length) {
                    ended |= self.character(*byte, dress, start, end);
                }
                ended
            }
            Unit::Nothing(dress) => {
                if let Some(open) = &mut self.open {
                    open.dresses.add(dress);
                }
                false
            }
            Unit::Foreign => {
                let ended = self.finish_word();
                self.clause = true;
                self.separator(0, false);
                ended
            }
        }
    }

    /// Takes ASCII letters and digits that stand as themselves, from `start` on.
    pub(super) fn push_run(&mut self, run: &[u8], start: u64) {
        let open = self.open.get_or_insert_with(|| Open {
            start,
            ..Open::default()
        });
        if let Some(room) = open.letters.get_mut(open.length..) {
            for (to, byte) in room.iter_mut().zip(run) {
                *to = byte.to_ascii_lowercase();
            }
        }
        open.length = (open.length + run.len()).min(LETTERS + 1);
        open.end = start + run.len() as u64;
        self.places.push_run(run);
    }

    /// Takes an ASCII character; true if it ended a word.
    pub(super) fn character(&mut self, byte: u8, dress: Dress, start: u64, end: u64) -> bool {
        if byte.is_ascii_alphanumeric() {
            let open = self.open.get_or_insert_with(|| Open {
                start,
                ..Open::default()
            });
            if let Some(to) = open.letters.get_mut(open.length) {
                *to = byte.to_ascii_lowercase();
            }
            open.length = (open.length + 1).min(LETTERS + 1);
            open.end = end;
            open.dresses.add(dress);
            self.places.push_letter(byte, dress == Dress::None);
            return false;
        }
        if byte == b'\'' && self.open.is_some() {
            // `don't` is one word.
            self.places.push(byte, dress == Dress::None);
            return false;
        }
        let ended = self.finish_word();
        self.separator(byte, dress == Dress::None);
        ended
    }

    fn separator(&mut self, byte: u8, raw: bool) {
        self.before = [self.before[1], byte];
        if self.places.push(byte, raw) == Effect::Sentence {
            self.sentence = true;
        }
        match byte {
            b'\n' => {
                self.newlines = self.newlines.saturating_add(1);
                self.sentence |= self.newlines > 1 || self.stopped;
            }
            b' ' | b'\t' | b'\r' => self.sentence |= self.stopped,
            b'.' | b'!' | b'?' => self.stopped = true,
            // The beginning of a list's item, a heading, a cell.
            b'-' | b'*' | b'#' | b'+' if self.newlines > 0 => self.sentence = true,
            b'|' => self.sentence = true,
            b',' | b':' | b';' | b'(' | b')' | b'"' | b'`' | b'>' | b'[' | b']' | b'{' | b'}'
            | b'=' => self.clause = true,
            _ => {}
        }
        if !matches!(byte, b'\n' | b' ' | b'\t' | b'\r') {
            self.newlines = 0;
        }
    }

    /// Ends the word that is being read, if any.
    pub(super) fn finish_word(&mut self) -> bool {
        let Some(open) = self.open.take() else {
            return false;
        };
        let text = open.letters.get(..open.length);
        let disguised = open.dresses.any().then_some(Place::Disguised);
        if self.recent.len() == MEMORY {
            self.recent.pop_front();
        }
        self.recent.push_back(Word {
            letters: open.letters,
            length: text.map_or(0, <[u8]>::len),
            classes: text.map_or(0, lexicon::classes),
            start: open.start,
            end: open.end,
            place: self.hidden.or(disguised).unwrap_or(self.places.current()),
            sentence: self.sentence || self.recent.is_empty(),
            clause: self.clause,
            before: self.before,
            dresses: open.dresses,
        });
        self.sentence = false;
        self.clause = false;
        self.stopped = false;
        self.newlines = 0;
        self.before = [0; 2];
        true
    }

    pub(super) fn in_word(&self) -> bool {
        self.open.is_some()
    }

    /// The word `back` places before the last one, which is at 0.
    pub(super) fn back(&self, back: usize) -> Option<&Word> {
        self.recent.get(self.recent.len().checked_sub(back + 1)?)
    }

    /// Where the earliest text begins that a finding could still begin with, if `upto` bytes were read.
    pub(super) fn live(&self, upto: u64, reach: u64) -> u64 {
        const PHRASE: usize = 12;
        let open = self.open.as_ref().map_or(upto, |open| open.start);
        let count = self.recent.len();
        self.recent
            .iter()
            .enumerate()
            .find(|(index, word)| {
                word.end + reach > upto && (word.has(class::VERB) || index + PHRASE >= count)
            })
            .map_or(open, |(_, word)| word.start.min(open))
    }
}
