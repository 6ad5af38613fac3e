//! The signals that end a session in order, and the one that says that the terminal has another size.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    End(Signal),
    Resized,
}

/// While it lives, these signals do not end the process.
#[derive(Debug)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    resize: tokio::signal::unix::Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            resize: signal(SignalKind::window_change())?,
        })
    }

    pub async fn next(&mut self) -> Event {
        let ends = |kind: SignalKind| {
            Event::End(Signal::from_named_raw(kind.as_raw_value()).unwrap_or(Signal::TERM))
        };
        tokio::select! {
            _ = self.interrupt.recv() => ends(SignalKind::interrupt()),
            _ = self.terminate.recv() => ends(SignalKind::terminate()),
            _ = self.hangup.recv() => ends(SignalKind::hangup()),
            _ = self.resize.recv() => Event::Resized,
        }
    }

    /// The next signal that ends a session.
    pub async fn end(&mut self) -> Signal {
        loop {
            if let Event::End(signal) = self.next().await {
                return signal;
            }
        }
    }
}
