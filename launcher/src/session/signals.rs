//! The signals that end a session in order, and the one that says that the terminal has another size.

use std::future::pending;
use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    End(Signal),
    Resized,
}

/// While it lives, these signals do not end the process.
#[derive(Debug)]
pub struct Signals {
    interrupt: Option<unix::Signal>,
    terminate: Option<unix::Signal>,
    hangup: Option<unix::Signal>,
    resize: Option<unix::Signal>,
}

impl Signals {
    /// A signal that whoever started us ignores stays ignored: `nohup` and a shell's `&` mean it.
    pub fn listen() -> io::Result<Self> {
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status")?);
        let listen = |kind: SignalKind| {
            let bit = 1u64 << (kind.as_raw_value() - 1).clamp(0, 63);
            if ignored & bit == 0 {
                unix::signal(kind).map(Some)
            } else {
                Ok(None)
            }
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            resize: listen(SignalKind::window_change())?,
        })
    }

    pub async fn next(&mut self) -> Event {
        tokio::select! {
            () = came(&mut self.interrupt) => Event::End(Signal::INT),
            () = came(&mut self.terminate) => Event::End(Signal::TERM),
            () = came(&mut self.hangup) => Event::End(Signal::HUP),
            () = came(&mut self.resize) => Event::Resized,
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

async fn came(signal: &mut Option<unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => pending().await,
    }
}

/// The mask of ignored signals of a `/proc/PID/status`; bit 0 is signal 1.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_read() {
        assert_eq!(
            ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"),
            0x1001
        );
        assert_eq!(ignored(""), 0);
    }
}
