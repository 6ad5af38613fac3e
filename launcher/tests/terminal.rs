//! An agent that is attached to a terminal: it has one of its own, with a session, a size and ^C.

#![expect(clippy::panic, reason = "a failed expectation ends the test")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use common::{Host, Running};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

#[test]
fn the_agent_has_a_terminal_and_ours_is_given_back() {
    let host = Host::new();
    let script = "tty; stty size; ls /dev/pts; trap 'echo interrupted' INT; echo ready; read line; echo got $line; exit 9";
    host.bottle(
        "sh",
        &format!("agent_provider: {{template: command, command: [bash, -c, \"{script}\"]}}"),
    );

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
    tcsetwinsize(
        master.as_fd(),
        Winsize {
            ws_row: 33,
            ws_col: 111,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )
    .unwrap();
    let before = tcgetattr(&slave).unwrap().local_modes;
    assert!(before.contains(LocalModes::ICANON));

    let launcher = host
        .command(&["start", "sh"])
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave.try_clone().unwrap())
        .spawn()
        .unwrap();
    let launcher = Running::of(launcher);
    let mut screen = Screen::of(File::from(master.try_clone().unwrap()));
    let mut keyboard = File::from(master);
    let shown = screen.until("ready");
    assert!(
        shown.contains("/dev/pts/0\r\n33 111\r\n0  ptmx\r\n"),
        "{shown}"
    );
    // Raw: the key is the agent's terminal's to make a signal of, not ours.
    assert!(
        !tcgetattr(&slave)
            .unwrap()
            .local_modes
            .contains(LocalModes::ISIG)
    );
    keyboard.write_all(b"\x03").unwrap();
    screen.until("interrupted");
    keyboard.write_all(b"hello\r").unwrap();
    screen.until("got hello");
    assert_eq!(launcher.wait(), Some(9));
    assert_eq!(tcgetattr(&slave).unwrap().local_modes, before);
}

struct Screen {
    parts: mpsc::Receiver<Vec<u8>>,
    shown: String,
}

impl Screen {
    fn of(mut terminal: File) -> Self {
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

    /// What has been shown when `text` is.
    fn until(&mut self, text: &str) -> String {
        while !self.shown.contains(text) {
            match self.parts.recv_timeout(Duration::from_secs(30)) {
                Ok(part) => self.shown.push_str(&String::from_utf8_lossy(&part)),
                Err(error) => panic!("{text:?} is not shown ({error}): {}", self.shown),
            }
        }
        self.shown.clone()
    }
}
