//! Counts the frames of an agent's HTTP/2 connection that cost us work and carry nothing, and ends a flood of them.
//!
//! The library bounds what one frame can do (header lists, continuations, streams at a time); how many pings, settings,
//! resets and empty frames follow each other is counted here (CVE-2019-9512, -9514, -9515, -9518, CVE-2023-44487).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits;

const PREFACE: usize = 24;
const HEADER: usize = 9;

/// A stream whose reads are counted as HTTP/2 frames. Past the budget a read fails.
#[derive(Debug)]
pub struct Metered<S> {
    io: S,
    meter: Meter,
    /// Set where it was the meter that ended it.
    flooded: Arc<AtomicBool>,
}

impl<S> Metered<S> {
    pub fn new(io: S) -> Self {
        Self {
            io,
            meter: Meter::new(Instant::now()),
            flooded: Arc::default(),
        }
    }

    pub fn flooded(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flooded)
    }
}

#[derive(Debug)]
struct Meter {
    /// Bytes that belong to no header: of the preface, of a payload.
    skip: usize,
    header: [u8; HEADER],
    read: usize,
    budget: usize,
    filled: Instant,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE,
            header: [0; HEADER],
            read: 0,
            budget: limits::H2_IDLE_FRAMES,
            filled: now,
        }
    }

    /// False where the flood is past its budget.
    fn see(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let take = (HEADER - self.read).min(bytes.len());
            let (now_read, rest) = bytes.split_at(take);
            if let Some(slot) = self.header.get_mut(self.read..self.read + take) {
                slot.copy_from_slice(now_read);
            }
            self.read += take;
            bytes = rest;
            if self.read == HEADER {
                self.read = 0;
                if !self.frame(now) {
                    return false;
                }
            }
        }
        true
    }

    fn frame(&mut self, now: Instant) -> bool {
        let [a, b, c, kind, flags, ..] = self.header;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let ends = flags & 1 != 0;
        match kind {
            // DATA that carries something pays for what comes with it.
            0 if self.skip > 0 => {
                self.budget = (self.budget + 1).min(limits::H2_IDLE_FRAMES);
                return true;
            }
            0 if ends => return true,
            // HEADERS and CONTINUATION are the library's to bound, WINDOW_UPDATE is cheap and frequent.
            1 | 8 | 9 => return true,
            _ => {}
        }
        if self.budget == 0 {
            let earned = now.saturating_duration_since(self.filled).as_millis() as usize
                * limits::H2_IDLE_FRAMES_PER_SECOND
                / 1000;
            self.budget = earned.min(limits::H2_IDLE_FRAMES);
            self.filled = now;
        }
        match self.budget.checked_sub(1) {
            Some(left) => {
                self.budget = left;
                true
            }
            None => false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if this.meter.see(fresh, Instant::now()) {
            return Poll::Ready(Ok(()));
        }
        this.flooded.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::other(
            "a flood of frames that carry nothing",
        )))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut out = vec![
            0,
            (length >> 8) as u8,
            length as u8,
            kind,
            flags,
            0,
            0,
            0,
            1,
        ];
        out.resize(HEADER + length, 0);
        out
    }

    fn passes(frames: &[u8], step: usize) -> bool {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        let wire = [&[b' '; PREFACE][..], frames].concat();
        wire.chunks(step).all(|chunk| meter.see(chunk, now))
    }

    #[test]
    fn floods_end_and_work_does_not() {
        let more = limits::H2_IDLE_FRAMES + 1;
        for step in [1, 9, 4096] {
            for (what, flood) in [
                ("ping", frame(6, 0, 8)),
                ("settings", frame(4, 0, 6)),
                ("reset", [frame(1, 5, 3), frame(3, 0, 4)].concat()),
                ("priority", frame(2, 0, 5)),
                ("empty data", frame(0, 0, 0)),
                ("unknown", frame(0x20, 0, 1)),
            ] {
                assert!(!passes(&flood.repeat(more), step), "{what}");
                assert!(passes(&flood.repeat(more - 1), step), "{what}");
            }
            for (what, work) in [
                ("requests", [frame(1, 4, 30), frame(0, 1, 0)].concat()),
                (
                    "data and pings",
                    [frame(0, 0, 100), frame(6, 0, 8), frame(8, 0, 4)].concat(),
                ),
            ] {
                assert!(passes(&work.repeat(4 * more), step), "{what}");
            }
        }
    }

    #[test]
    fn a_quiet_time_is_paid_back() {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        assert!(meter.see(&[b' '; PREFACE], now));
        assert!(meter.see(&frame(6, 0, 8).repeat(limits::H2_IDLE_FRAMES), now));
        let later = now + Duration::from_secs(2);
        assert!(meter.see(
            &frame(6, 0, 8).repeat(2 * limits::H2_IDLE_FRAMES_PER_SECOND),
            later
        ));
        assert!(!meter.see(&frame(6, 0, 8), later));
    }
}
