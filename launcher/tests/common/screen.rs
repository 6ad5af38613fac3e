//! A terminal that a launcher is started in, as a person would see it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::{Host, Running};

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

/// `launcher start sh` in a terminal of 33 lines of 111 characters.
#[derive(Debug)]
pub struct Attached {
    pub screen: Screen,
    keyboard: File,
    master: OwnedFd,
    slave: OwnedFd,
    before: LocalModes,
    launcher: Running,
}

impl Attached {
    pub fn to(host: &Host) -> Self {
        let (master, slave) = terminal();
        size(&master, 33, 111);
        let before = tcgetattr(&slave).unwrap().local_modes;
        assert!(before.contains(LocalModes::ICANON));
        let launcher = host
            .command(&["start", "sh"])
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap())
            .spawn()
            .unwrap();
        Self {
            screen: Screen::of(File::from(master.try_clone().unwrap())),
            keyboard: File::from(master.try_clone().unwrap()),
            launcher: Running::of(launcher),
            master,
            slave,
            before,
        }
    }

    pub fn types(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Raw: a key is the agent's terminal's to make a signal of, not ours.
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        !modes.contains(LocalModes::ISIG)
    }

    /// Makes it 20 lines of 50, which the agent says at its next line.
    pub fn shrinks(&mut self) {
        size(&self.master, 20, 50);
        self.launcher.signal(Signal::WINCH);
        let asked = Instant::now();
        while !self.screen.shown.contains("20 50") {
            assert!(asked.elapsed() < super::patience(), "{}", self.screen.shown);
            self.types(b"\r");
            self.screen.more(Duration::from_millis(200));
        }
    }

    /// The exit code, once the terminal is as it was.
    pub fn ends(self) -> Option<i32> {
        let code = self.launcher.wait();
        assert_eq!(tcgetattr(&self.slave).unwrap().local_modes, self.before);
        code
    }
}
