//! A terminal that a launcher is started in, as a person would see it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// The two ends of a new one.
pub fn terminal() -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = rustix::fs::open(
        name,
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap();
    (master, slave)
}

pub fn size(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal.as_fd(), size).unwrap();
}

#[derive(Debug)]
pub struct Screen {
    parts: mpsc::Receiver<Vec<u8>>,
    pub shown: String,
}

impl Screen {
    pub fn of(mut terminal: File) -> Self {
        let (sender, parts) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = terminal.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            parts,
            shown: String::new(),
        }
    }

    pub fn more(&mut self, patience: Duration) -> bool {
        match self.parts.recv_timeout(patience) {
            Ok(part) => {
                self.shown.push_str(&String::from_utf8_lossy(&part));
                true
            }
            Err(_) => false,
        }
    }

    /// What has been shown when `text` is.
    pub fn until(&mut self, text: &str) -> String {
        while !self.shown.contains(text) {
            assert!(
                self.more(super::patience()),
                "{text:?} is not shown: {}",
                self.shown
            );
        }
        self.shown.clone()
    }
}
