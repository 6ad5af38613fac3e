//! Backend `smolmachines` on real machines: `.ci/smolvm` runs this where the host can boot them.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends the test")]

#[path = "../common/mod.rs"]
mod common;

mod image;
mod pack;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use common::screen::Attached;
use common::{Host, eventually};
use rustix::process::Signal;

/// The directory with the real `smolvm`.
const BIN: &str = "BOT_BOTTLE_SMOLVM_BIN";
/// How many attempts the demo makes is its own affair; that none got through is what counts.
const GOOD: &str = "attacks failed, all 3 controls passed";

/// An ordinary user's host with the real smolvm; `None` where there is none, which `.ci/smolvm` says.
fn host() -> Option<Host> {
    let Some(bin) = std::env::var_os(BIN).map(PathBuf::from) else {
        fixtures::tell!(
            "SKIPPED: a real machine: {BIN} is not set; .ci/smolvm sets it where libkrun boots"
        );
        return None;
    };
    let mut host = Host::unprivileged();
    for (name, value) in [
        (
            "PATH",
            format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()),
        ),
        ("BOT_BOTTLE_BACKEND", "smolmachines".to_owned()),
        ("DOCKER_HOST", "unix:///nonexistent/docker.sock".to_owned()),
    ] {
        host.env.push((name.into(), value));
    }
    for name in [
        "BOT_BOTTLE_SMOLVM_TIMEOUT",
        "BOT_BOTTLE_SKIP_KVM_CHECK",
        "BOT_BOTTLE_SMOLVM_CHANNEL",
        "BOT_BOTTLE_SMOLVM_ADDRESS",
    ] {
        if let Ok(value) = std::env::var(name) {
            host.env.push((name.into(), value));
        }
    }
    image::write(&host.home);
    host.bottle(
        "sh",
        "agent_provider: {template: command, command: [sh, -c, \"{prompt}\"], image: ~/image.tar}",
    );
    host.bottle(
        "packed",
        "agent_provider: {template: command, command: [sh, -c, \"{prompt}\"], image: ~/image.smolmachine}",
    );
    host.agent("packed", "bottle: packed", "");
    Some(host)
}

fn left(host: &Host) -> Vec<String> {
    let entries = |path: PathBuf| -> Vec<String> {
        match fs::read_dir(path) {
            Ok(entries) => entries
                .flatten()
                .map(|entry| entry.path().display().to_string())
                // What machines share: unpacked images by their content, and a lock.
                .filter(|path| !path.ends_with("_shared") && !path.ends_with(".lock"))
                .collect(),
            Err(_) => Vec::new(),
        }
    };
    let mut left = entries(host.home.join(".cache/smolvm/vms"));
    left.extend(entries(host.state.join("machines")));
    left.extend(host.bottles());
    left.extend(host.processes());
    left
}

fn step(what: &str, since: &mut Instant) {
    fixtures::tell!("{what}: {:.1} s", since.elapsed().as_secs_f64());
    *since = Instant::now();
}

#[test]
fn the_demo_on_a_real_machine() {
    let Some(host) = host() else { return };
    let mut since = Instant::now();
    demo(&host, &[]);
    step("the demo", &mut since);
}

/// All attacks failed, all controls passed, and nothing is left.
fn demo(host: &Host, more: &[&str]) {
    let ran = host.run(&[&["start", "demo", "--timings"], more].concat());
    fixtures::tell!("{}{}", ran.stderr, ran.stdout);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains(GOOD), "{}", ran.stdout);
    for bad in ["LEAKED", "BROKEN", "MISSING"] {
        assert!(!ran.stdout.contains(bad), "{}", ran.stdout);
    }
    eventually("something is left", || left(host).is_empty());
}

#[test]
fn an_agent_of_an_image_on_a_real_machine() {
    let Some(host) = host() else { return };
    let mut since = Instant::now();
    let script = "id -u; echo $FROM_THE_IMAGE; echo hello > made; cat /etc/resolv.conf; ls /bot-bottle-init 2>&1; \
        ip link | grep -c UP; grep -c agent /etc/passwd; head -c 27 /etc/bot-bottle/ca.pem; echo; uname -r; echo err >&2; exit 42";
    let ran = host.sh(script);
    assert_eq!(ran.code, 42, "{}{}", ran.stdout, ran.stderr);
    println!("{}{}", ran.stdout, ran.stderr);
    let uid = fs::metadata(&host.workspace)
        .map(|meta| std::os::unix::fs::MetadataExt::uid(&meta))
        .unwrap();
    assert!(
        ran.stdout.starts_with(&format!("{uid}\nyes\n")),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("-----BEGIN CERTIFICATE-----"),
        "{}",
        ran.stdout
    );
    assert!(ran.stderr.contains("err\n"), "{}", ran.stderr);
    assert_eq!(
        fs::read_to_string(host.workspace.join("made")).unwrap(),
        "hello\n"
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(
        !ran.stdout.contains(kernel.trim()),
        "it ran on the host's kernel"
    );
    eventually("something is left", || left(&host).is_empty());
    step("an exit code", &mut since);

    // A launcher that is killed takes its way out with it at once, and the machine a moment later.
    let running = host.start();
    step("a start", &mut since);
    running.signal(Signal::KILL);
    running.finish();
    eventually("the machine outlives its launcher", || {
        host.processes().is_empty() && machines(&host).is_empty()
    });
    step("a killed launcher's machine is gone", &mut since);
    host.run(&["cleanup"]);
    eventually("something is left", || left(&host).is_empty());

    on_a_terminal(&host);
    step("a terminal", &mut since);
}

fn on_a_terminal(host: &Host) {
    let script = "stty size; echo ready; read line; echo got $line; while read line; do stty size; done; exit 9";
    host.bottle(
        "sh",
        &format!("agent_provider: {{template: command, command: [sh, -c, \"{script}\"], image: ~/image.tar}}"),
    );
    let mut attached = Attached::to(host);
    let shown = attached.screen.until("ready");
    assert!(shown.contains("33 111"), "{shown:?}");
    attached.types(b"hello\r");
    attached.screen.until("got hello");
    attached.shrinks();
    attached.types(b"\x04");
    assert_eq!(attached.ends(), Some(9));
    eventually("something is left", || left(host).is_empty());
}

fn machines(host: &Host) -> Vec<String> {
    let home = host.home.display().to_string();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            (line.contains(&home) && line.contains("_boot-vm")).then_some(line)
        })
        .collect()
}
