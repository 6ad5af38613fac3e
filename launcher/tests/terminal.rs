//! An agent that is attached to a terminal: it has one of its own, with a session, a size and ^C.

mod common;

use common::Host;
use common::screen::Attached;

#[test]
fn the_agent_has_a_terminal_and_ours_is_given_back() {
    let host = Host::new();
    let script = "tty; stty size; ls /dev/pts; trap 'echo interrupted' INT; echo ready; read line; echo got $line; exit 9";
    host.bottle(
        "sh",
        &format!("agent_provider: {{template: command, command: [bash, -c, \"{script}\"]}}"),
    );

    let mut attached = Attached::to(&host);
    let shown = attached.screen.until("ready");
    assert!(
        shown.contains("/dev/pts/0\r\n33 111\r\n0  ptmx\r\n"),
        "{shown}"
    );
    assert!(attached.is_raw());
    attached.types(b"\x03");
    attached.screen.until("interrupted");
    attached.types(b"hello\r");
    attached.screen.until("got hello");
    assert_eq!(attached.ends(), Some(9));
}
