//! An agent that is attached to a terminal, through smolvm's client.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use rustix::termios::{LocalModes, tcgetattr};

use crate::common::Running;
use crate::common::screen::{Screen, size, terminal};
use crate::fake::Fake;

#[test]
fn the_agent_has_a_terminal_and_ours_is_given_back() {
    let fake = Fake::new();
    let script = "stty size; echo ready; read line; echo got $line; while read line; do stty size; done; exit 9";
    fake.host.bottle(
        "sh",
        &format!("agent_provider: {{template: command, command: [sh, -c, \"{script}\"], image: ~/image.tar}}"),
    );
    let (master, slave) = terminal();
    size(&master, 33, 111);
    let before = tcgetattr(&slave).unwrap().local_modes;
    let launcher = fake
        .host
        .command(&["start", "sh"])
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave.try_clone().unwrap())
        .spawn()
        .unwrap();
    let launcher = Running::of(launcher);
    let mut screen = Screen::of(File::from(master.try_clone().unwrap()));
    let shown = screen.until("ready");
    assert!(shown.contains("33 111"), "{shown:?}");
    assert!(
        !tcgetattr(&slave)
            .unwrap()
            .local_modes
            .contains(LocalModes::ISIG)
    );
    let mut keyboard = File::from(master.try_clone().unwrap());
    keyboard.write_all(b"hello\r").unwrap();
    screen.until("got hello");

    size(&master, 20, 50);
    launcher.signal(rustix::process::Signal::WINCH);
    let asked = std::time::Instant::now();
    while !screen.shown.contains("20 50") {
        assert!(
            asked.elapsed() < Duration::from_secs(30),
            "{}",
            screen.shown
        );
        keyboard.write_all(b"\r").unwrap();
        screen.more(Duration::from_millis(200));
    }
    keyboard.write_all(b"\x04").unwrap();
    assert_eq!(launcher.wait(), Some(9));
    assert_eq!(tcgetattr(&slave).unwrap().local_modes, before);
    fake.is_clean();
}
