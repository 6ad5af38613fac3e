//! Prompt injection in what comes in to the agent: response heads, bodies, messages.
//!
//! It is naive by design: it knows phrases, not meaning. Two rules:
//!
//! - `injection-disclosure` blocks: somebody is told to give a credential away.
//! - `injection-jailbreak` warns: two kinds of takeover phrases within 4 KiB, or one that is hidden. One alone, in
//!   plain sight, is what every text about the subject says.
//!
//! # When a request has no innocent reading
//!
//! Documentation is full of verbs beside credentials: *send your API key in the header*, *never print your token*,
//! *click Reveal to show the password*. What it does not do is order the reader to give the secret to the writer. So
//! a disclosure needs, within one sentence and ten words, a **verb** in the imperative (at the start of a clause, or
//! after *please*, *you must*, *your task is to* …; not after *can*, *will*, *if you*, and not negated), a
//! **determiner** (*your*, *all*, *the user's* …), a **credential**, and a sign that tells:
//!
//! | sign | example |
//! |---|---|
//! | the verb itself | *leak*, *exfiltrate*, *disclose*, *reveal your*, *dump all* |
//! | who gets it | *tell me your*, *reply with your*, *print your system prompt* |
//! | who is told | *AI agents: print*, *Assistant, output*, *SYSTEM: list all*, *you must print your* |
//! | what stood before | *ignore previous instructions*, *do not tell the user*, within 512 bytes |
//! | where it goes | *to https://…*, *to a@b*, *to this address*, *… and send it to* |
//! | the answer itself | *in your reply*, *into the chat*, *to your commit message* |
//! | how | *without telling*, *verbatim*, `cat .env \| curl` |
//! | where it stood | comments of HTML and Markdown, hidden elements, disguised letters, base64 |
//!
//! What an OAuth client does (*post the refresh token to https://…*) is no sign: tokens, client secrets and API keys
//! need *your* or *all* before a destination counts.
//!
//! # How it reads
//!
//! A machine reads characters as a person sees them (`unit`), follows the markup (`place`), makes words
//! (`words`), and asks at the end of each word whether a rule is complete, looking back only. So the verdict is the
//! same however the input is cut, a finding is reported by the push that completes it, and nothing that comes later
//! changes it; that is also why its context shows nothing of what comes after. Not to read all of it at that price,
//! one automaton looks for the literals without which no rule matches (`wake`), and the machine reads from 512
//! bytes before one to 1.5 KiB after it; where that is depends on the input alone.
//!
//! What is not seen: text split over the events of a stream, other languages than English, percent-encoding, paraphrase.

mod base64;
mod disclosure;
mod engine;
mod jailbreak;
mod lexicon;
mod mood;
mod place;
mod shell;
mod unit;
mod wake;
mod words;

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroize as _;

use crate::finding::{Finding, Location};
use engine::{Engine, Piece};
use wake::Wake;

/// The most bytes by which [`InjectionStream::released`] lags behind what was pushed.
const LOOK_BEHIND: usize = 2 * 1024;

/// Bytes before a literal that are read with it.
const BACK: u64 = 512;

/// Bytes before a finding that its context may show.
const CONTEXT: u64 = 192;

/// Where a stream's context and a finding's beginning must still be found.
const KEEP: usize = LOOK_BEHIND + CONTEXT as usize + 64;

/// Finds prompt injection; built once and shared, a clone is a reference count.
#[derive(Clone, Debug)]
pub struct InjectionDetector {
    wake: Arc<Wake>,
}

impl Default for InjectionDetector {
    fn default() -> Self {
        Self::new()
    }
}

impl InjectionDetector {
    pub fn new() -> Self {
        Self {
            wake: Arc::new(Wake::new()),
        }
    }

    /// Scans a whole input: an [`InjectionStream`] with one chunk, without the copy.
    pub fn scan(&self, location: &Location, input: &[u8]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let piece = Piece {
            bytes: input,
            base: 0,
            begin: 0,
            last: true,
        };
        Engine::default().run(&self.wake, piece, location, &mut findings);
        findings
    }

    /// A scan of an input that arrives in pieces.
    pub fn stream(&self, location: Location) -> InjectionStream {
        InjectionStream {
            wake: Arc::clone(&self.wake),
            location,
            engine: Engine::default(),
            buffer: Vec::new(),
            buffer_start: 0,
            begin: 0,
            released: 0,
        }
    }

    /// The most bytes by which [`InjectionStream::released`] can lag behind what was pushed: 2 KiB.
    pub fn look_behind(&self) -> usize {
        LOOK_BEHIND
    }
}

/// Scans an input chunk by chunk; made by [`InjectionDetector::stream`]. It holds about 5 KiB of it, and while it is
/// being pushed 64 KiB more.
pub struct InjectionStream {
    wake: Arc<Wake>,
    location: Location,
    engine: Engine,
    /// The last bytes of the input, from [`InjectionStream::buffer_start`] on.
    buffer: Vec<u8>,
    buffer_start: u64,
    /// Where this input begins: at 0, or where the one before it ended.
    begin: u64,
    released: u64,
}

impl fmt::Debug for InjectionStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectionStream")
            .field("location", &self.location)
            .field("released", &self.released)
            .finish_non_exhaustive()
    }
}

impl InjectionStream {
    /// Adds a chunk, and returns the findings that it completed: at once, for nothing after a finding changes it.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<Finding> {
        let mut findings = Vec::new();
        // In pieces, so that one huge chunk does not make one huge copy.
        for chunk in chunk.chunks(64 * 1024) {
            self.buffer.extend_from_slice(chunk);
            self.run(false, &mut findings);
            if self.buffer.len() > 2 * KEEP {
                let gone = self.buffer.len() - KEEP;
                self.buffer.drain(..gone);
                self.buffer_start += gone as u64;
            }
        }
        findings
    }

    /// Says that the input is over, and returns the findings that its end completed.
    ///
    /// What is pushed afterwards is another input, whose offsets go on from where this one ended.
    pub fn finish(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.run(true, &mut findings);
        self.begin = self.buffer_start + self.buffer.len() as u64;
        self.buffer_start = self.begin;
        self.buffer.zeroize();
        self.engine = Engine::starting_at(self.begin);
        findings
    }

    /// The offset before which no finding reported later can begin. In plain text it lags some 500 bytes behind, and a
    /// dozen words behind where something is being read; at most
    /// [`InjectionDetector::look_behind`].
    pub fn released(&self) -> u64 {
        self.released
    }

    fn run(&mut self, last: bool, findings: &mut Vec<Finding>) {
        let piece = Piece {
            bytes: &self.buffer,
            base: self.buffer_start,
            begin: self.begin,
            last,
        };
        self.engine.run(&self.wake, piece, &self.location, findings);
        let end = self.buffer_start + self.buffer.len() as u64;
        let released = if last { end } else { self.engine.released(end) };
        self.released = self.released.max(released);
    }
}
