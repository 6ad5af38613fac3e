//! An agent that is attached to a terminal, through the engine.

use crate::common::screen::Attached;
use crate::engine;

#[test]
fn the_agent_has_a_terminal_and_ours_is_given_back() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    // The byte 1 at the beginning of output is a header to some clients, and here it is the agent's.
    let script = "stty size; printf '\\\\001\\\\002\\\\377raw\\\\n'; trap 'echo interrupted' INT; echo ready; read line; read line; echo got $line; while read line; do stty size; done; exit 9";
    host.bottle(
        "sh",
        &format!(
            "agent_provider: {{template: command, command: [sh, -c, \"{script}\"], dockerfile: ../images/sh/Dockerfile}}"
        ),
    );
    let mut attached = Attached::to(&host);
    let shown = attached.screen.until("ready");
    assert!(
        shown.contains("33 111\r\n\u{1}\u{2}\u{fffd}raw\r\n"),
        "{shown:?}"
    );
    assert!(attached.is_raw());
    attached.types(b"\x03");
    attached.screen.until("interrupted");
    attached.types(b"hello\r");
    attached.screen.until("got hello");
    attached.shrinks();
    // ^P^Q is an engine's way off a terminal, and here two keys like any other; ^D is the end of the input.
    attached.types(b"\x10\x11\r\x04");
    assert_eq!(attached.ends(), Some(9));
}
