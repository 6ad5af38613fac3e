//! An agent that is attached to a terminal, through smolvm's client.

use crate::common::screen::Attached;
use crate::fake::Fake;

#[test]
fn the_agent_has_a_terminal_and_ours_is_given_back() {
    let fake = Fake::new();
    let script = "stty size; echo ready; read line; echo got $line; while read line; do stty size; done; exit 9";
    fake.host.bottle(
        "sh",
        &format!("agent_provider: {{template: command, command: [sh, -c, \"{script}\"], image: ~/image.tar}}"),
    );
    let mut attached = Attached::to(&fake.host);
    let shown = attached.screen.until("ready");
    assert!(shown.contains("33 111"), "{shown:?}");
    assert!(attached.is_raw());
    attached.types(b"hello\r");
    attached.screen.until("got hello");
    attached.shrinks();
    attached.types(b"\x04");
    assert_eq!(attached.ends(), Some(9));
    fake.is_clean();
}
