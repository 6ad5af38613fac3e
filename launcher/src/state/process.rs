//! Which process it was: a number alone is given again to others.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// A process by number, start time (`/proc/PID/stat`, field 22, in clock ticks since boot) and boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    started: u64,
    boot: String,
}

impl ProcessId {
    pub fn current() -> io::Result<Self> {
        Self::of(i32::try_from(std::process::id()).map_err(io::Error::other)?)
    }

    /// An error of kind `NotFound` where it does not run, or has ended and was not waited for.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let started = parse_start(&stat).ok_or(io::ErrorKind::NotFound)?;
        let boot = fs::read_to_string(BOOT)
            .map_err(|error| io::Error::new(error.kind(), format!("{BOOT}: {error}")))?
            .trim()
            .to_owned();
        Ok(Self { pid, started, boot })
    }

    /// What `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once(':')?;
        let (started, boot) = rest.split_once(':')?;
        Some(Self {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
            boot: boot.to_owned(),
        })
    }

    /// It ran before the host was started last.
    pub fn is_of_another_boot(&self) -> bool {
        fs::read_to_string(BOOT).is_ok_and(|boot| boot.trim() != self.boot)
    }

    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }

    /// Sends `signal` to exactly this process and waits for its end; whether it came in time. Also where it is gone.
    pub fn end(&self, signal: Signal, patience: Duration) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(true);
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        // Looked at after the handle is open, as in `kill`.
        if !self.is_alive() {
            return Ok(true);
        }
        end(&handle, signal, patience)
    }

    /// Kills exactly this process and waits up to a second for its end; `Ok` also where it is gone already.
    pub fn kill(&self) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // Looked at after the handle is open: from here on the number cannot pass to another process unseen.
        if !self.is_alive() {
            return Ok(());
        }
        end(&handle, Signal::KILL, Duration::from_secs(1))?;
        Ok(())
    }
}

/// `PID:START:BOOT`.
impl std::fmt::Display for ProcessId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.pid, self.started, self.boot)
    }
}

/// Sends `signal` and waits for the end of the process; whether it came in time.
pub fn end(handle: &OwnedFd, signal: Signal, patience: Duration) -> io::Result<bool> {
    match pidfd_send_signal(handle, signal) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    has_ended(handle, patience)
}

/// Waits up to `patience` for the process to end.
pub fn has_ended(handle: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let until = Instant::now() + patience;
    let mut fds = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&timeout)) {
            // A signal of ours, such as that of another child's end, says nothing of this process.
            Err(Errno::INTR) => {}
            polled => return Ok(polled? > 0),
        }
    }
}

fn parse_start(stat: &str) -> Option<u64> {
    // The second field is the command's name in brackets and may itself hold brackets and spaces.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A teardown hears of the end of children of its own while it waits for others.
    #[test]
    fn a_wait_outlasts_signals() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _heard = runtime
            .block_on(async {
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())
            })
            .unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("0.6")
            .spawn()
            .unwrap();
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        // Linux gives it to this very thread, as its number is named.
        let thread = rustix::thread::gettid();
        #[expect(
            clippy::disallowed_methods,
            reason = "a thread of its own, and no runtime's"
        )]
        let signals = std::thread::spawn(move || {
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(10));
                rustix::process::kill_process(thread, Signal::USR1).unwrap();
            }
        });
        assert!(!has_ended(&handle, Duration::from_millis(100)).unwrap());
        assert!(has_ended(&handle, Duration::from_secs(20)).unwrap());
        signals.join().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_name_cannot_fake_the_fields() {
        let line = "7 (a) R 1 (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_start(line), Some(4242));
        assert_eq!(
            parse_start("7 (a) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242"),
            None
        );
        assert_eq!(parse_start("7 (a"), None);
    }

    #[test]
    fn only_the_very_process_is_alive() {
        let own = ProcessId::current().unwrap();
        assert!(own.is_alive());
        let other = ProcessId {
            started: own.started + 1,
            ..own
        };
        assert!(!other.is_alive());
        // Must not kill this test, whose number it has.
        other.kill().unwrap();
    }
}
