//! A scan of an input that arrives in pieces.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroize;

use crate::finding::{Finding, Location};
use crate::memory::Memory;
use crate::window::{BLOCK, Engines, History, LOOK_BACK, Window};

/// Scans an input chunk by chunk; made by [`Scanner::stream`](crate::Scanner::stream).
///
/// A window is scanned when all of it has arrived, so findings are deferred, never revised, and their
/// spans equal those of a one-shot scan. State is at most 80 KiB + 512 bytes of input, the chunk being pushed, and what is
/// needed to go on in compressed data that has not ended: 64 KiB for each of at most eight decoders, and of zstd and brotli, of
/// which two may be open, the windows that they declare, of up to 8 and 16 MiB.
pub struct Stream {
    engines: Arc<Engines>,
    memory: Option<Arc<Memory>>,
    location: Location,
    history: History,
    /// Input from [`Stream::buffer_start`] on: the look-back of the next window, and what is not released.
    buffer: Vec<u8>,
    buffer_start: u64,
    /// The end of what windows have owned.
    scanned: u64,
    released: u64,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The buffer is the agent's data and may hold a secret.
        f.debug_struct("Stream")
            .field("location", &self.location)
            .field("released", &self.released)
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn new(
        engines: Arc<Engines>,
        memory: Option<Arc<Memory>>,
        location: Location,
    ) -> Self {
        Self {
            engines,
            memory,
            location,
            history: History::default(),
            buffer: Vec::new(),
            buffer_start: 0,
            scanned: 0,
            released: 0,
        }
    }

    /// Adds a chunk, and returns the findings that it completed. They are in the order of their places, window by window; what
    /// is inside of compressed data comes with the window in which it was read.
    pub fn push(&mut self, mut chunk: &[u8]) -> Vec<Finding> {
        let mut findings = Vec::new();
        // In pieces, so that one huge chunk does not make one huge copy.
        while !chunk.is_empty() {
            let full = LOOK_BACK + BLOCK + self.engines.look_ahead;
            let room = full.saturating_sub(self.buffer.len()).max(1);
            let (now, later) = chunk.split_at(room.min(chunk.len()));
            self.buffer.extend_from_slice(now);
            chunk = later;
            self.scan_windows(false, &mut findings);
        }
        findings
    }

    /// Whether a chunk of this length completes a window, which is when [`Stream::push`] takes long.
    pub fn completes_window(&self, chunk: usize) -> bool {
        let pending = (self.end() - self.scanned) as usize + chunk;
        pending >= BLOCK + self.engines.look_ahead
    }

    /// Says that the input is over, and returns the findings in what was still held back.
    ///
    /// What is pushed afterwards is another input, whose offsets go on from where this one ended.
    pub fn finish(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.scan_windows(true, &mut findings);
        self.buffer_start = self.end();
        self.released = self.buffer_start;
        self.buffer.zeroize();
        self.history.restart();
        findings
    }

    /// The offset before which no finding reported later can begin: bytes before it may leave, unless a
    /// finding already reported covers them.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Whether, since this was asked last, a window was none of those that the scanner remembers.
    pub fn has_read(&mut self) -> bool {
        self.history.has_read()
    }

    fn end(&self) -> u64 {
        self.buffer_start + self.buffer.len() as u64
    }

    fn scan_windows(&mut self, last: bool, findings: &mut Vec<Finding>) {
        loop {
            let pending = (self.end() - self.scanned) as usize;
            if pending == 0 || (!last && pending < BLOCK + self.engines.look_ahead) {
                return;
            }
            let own_start = (self.scanned - self.buffer_start) as usize;
            let own_end = (own_start + BLOCK).min(self.buffer.len());
            let end = (own_start + BLOCK + self.engines.look_ahead).min(self.buffer.len());
            let window = Window {
                bytes: self.buffer.get(..end).unwrap_or_default(),
                base: self.buffer_start,
                own: own_start..own_end,
            };
            self.engines.scan_window(
                &self.location,
                window,
                self.memory.as_deref(),
                &mut self.history,
                findings,
            );
            self.scanned = self.buffer_start + own_end as u64;
            self.released = self.history.released(self.scanned);
            let keep_from = own_end.saturating_sub(LOOK_BACK);
            self.buffer.drain(..keep_from);
            self.buffer_start += keep_from as u64;
        }
    }
}
