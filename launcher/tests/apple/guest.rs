//! The guest's half for real: the launcher's first process, the relay, the probe and the agent, in a container of runc's that has
//! loopback alone and exactly the capabilities that Apple's is asked for. What is missing of a Mac is the machine around it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::fake::{Fake, busybox};

/// Runs containers as root.
struct Runc(Child);

impl Drop for Runc {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// `None` where there is no runc or no root.
fn fake() -> Option<(Fake, Runc)> {
    let here = rustix::process::geteuid().is_root() && fixtures::require::program("runc").is_some();
    if !fixtures::require::require("runc, as root", here) {
        return None;
    }
    let mut fake = Fake::new();
    let script = fake.host.home.join("runc.py");
    fs::write(&script, include_str!("runc.py")).unwrap();
    let socket = fake.host.home.join("runc.sock");
    let uid = fs::metadata(&fake.host.state).unwrap().uid();
    let mut server = Command::new("python3")
        .arg(&script)
        .arg(&socket)
        .arg(uid.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let server = Runc(server);
    assert_eq!(line, "ready\n");
    fake.wish("runc", json!(socket));
    Some((fake, server))
}

#[test]
fn the_demo_in_a_container_without_a_network() {
    let Some((fake, _server)) = fake() else {
        return;
    };
    let ran = fake.host.run(&["start", "demo"]);
    println!("{}{}", ran.stderr, ran.stdout);
    assert_eq!(ran.code, 0, "{}{}", ran.stderr, ran.stdout);
    assert!(
        ran.stderr
            .contains("locked: no route but the alias (probe passed 11/11)"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stdout.contains("attacks failed, all 3 controls passed"),
        "{}",
        ran.stdout
    );
    for bad in ["LEAKED", "BROKEN", "MISSING"] {
        assert!(!ran.stdout.contains(bad), "{}", ran.stdout);
    }
    fake.is_clean();
}

#[test]
fn an_agent_of_an_image_is_an_ordinary_user() {
    if !fixtures::require::require(
        "busybox-static",
        fs::metadata("/bin/busybox").is_ok_and(|meta| meta.is_file()),
    ) {
        return;
    }
    let Some((fake, _server)) = fake() else {
        return;
    };
    busybox(&fake.host.home.join("image.tar"));
    let script = "id -u; echo $FROM_THE_IMAGE; echo hello > made; grep -c nameserver /etc/resolv.conf; grep CapBnd /proc/self/status; \
        echo x 2>/dev/null > /bot-bottle/x || echo read only; ls /proc | grep -c '^[0-9]'; exit 42";
    let ran = fake.host.sh(script);
    assert_eq!(ran.code, 42, "{}{}", ran.stdout, ran.stderr);
    let uid = fs::metadata(&fake.host.workspace).unwrap().uid();
    let wanted = format!("{uid}\nyes\n0\nCapBnd:\t0000000000000000\nread only\n");
    assert!(
        ran.stdout.starts_with(&wanted),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    assert_eq!(
        fs::read_to_string(fake.host.workspace.join("made")).unwrap(),
        "hello\n"
    );
    fake.is_clean();
}
