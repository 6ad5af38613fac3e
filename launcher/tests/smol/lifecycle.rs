//! How machines begin and end.

use std::fs;

use rustix::process::Signal;
use serde_json::json;

use crate::common::{self, eventually};
use crate::fake::{Fake, is_locked};

#[test]
fn a_machine_is_made_locked_proved_used_and_removed() {
    let fake = Fake::new();
    let ran = fake.host.sh("echo out; echo err >&2; pwd; exit 42");
    assert_eq!(ran.code, 42, "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        format!("out\n{}\n", fake.host.workspace.display())
    );
    for said in [
        "backend smolmachines: a micro-VM",
        "smolmachines (a micro-VM), alias 127.0.0.",
        "locked: no route but the alias (probe passed 11/11)",
        "err\n",
    ] {
        assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
    }
    let started = fake.started();
    assert_eq!(started.len(), 1);
    assert!(is_locked(&started[0]), "{}", started[0]);
    let name = started[0]["name"].as_str().unwrap();
    assert!(name.starts_with("bot-bottle-sh-"), "{name}");
    let labels = started[0]["labels"].as_object().unwrap();
    assert_eq!(
        labels["bot-bottle.slug"],
        json!(name.trim_start_matches("bot-bottle-"))
    );
    assert!(labels.contains_key("bot-bottle.owner"));
    fake.is_clean();
}

#[test]
fn the_agent_has_its_environment_and_no_argument_holds_a_secret() {
    let fake = Fake::new();
    let ran = fake.host.sh(
        "echo $HTTPS_PROXY; for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null",
    );
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut lines = ran.stdout.lines();
    let proxy = lines.next().unwrap();
    let password = proxy
        .strip_prefix("http://bottle:")
        .and_then(|rest| rest.split_once("@127.0.0."))
        .map(|(password, _)| password.to_owned())
        .unwrap();
    assert!(password.len() >= 32);
    assert!(
        lines.all(|line| !line.contains(&password)),
        "{}",
        ran.stdout
    );
    let row = fake.started()[0].to_string();
    assert!(!row.contains(&password), "{row}");
}

#[test]
fn exit_codes_and_signals_of_the_agent_are_its_own() {
    let fake = Fake::new();
    for (script, code) in [("exit 1", 1), ("exit 255", 255), ("kill -9 $$", 137)] {
        assert_eq!(fake.host.sh(script).code, code, "{script}");
    }
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let running = fake.host.start();
        running.signal(signal);
        assert_eq!(running.finish().code, code);
        fake.is_clean();
    }
}

#[test]
fn it_is_the_strongest_and_the_plan_says_so() {
    let mut fake = Fake::new();
    fake.env("BOT_BOTTLE_BACKEND", "");
    let plan = fake
        .host
        .run(&["start", "sh", "--dry-run", "--headless", "--prompt", "x"]);
    for text in [
        "backend    smolmachines: a micro-VM with a kernel of its own and without a network",
        "chosen     the strongest that this host can run; smolvm is here, and a hypervisor",
        "image      the archive ",
        "machine    smolvm 1.32.2 (",
        "channel socket",
    ] {
        assert!(
            plan.stdout.contains(text),
            "{text}: {}{}",
            plan.stdout,
            plan.stderr
        );
    }
    // Without it the next one is chosen, and the reason is said.
    fake.wish("says", json!("smolvm 0.5.20\n"));
    let plan = fake
        .host
        .run(&["start", "sh", "--dry-run", "--headless", "--prompt", "x"]);
    assert!(
        plan.stdout.contains("backend    local") && plan.stdout.contains("smolmachines cannot: "),
        "{}{}",
        plan.stdout,
        plan.stderr
    );
    assert_eq!(fake.calls(), Vec::<String>::new());
}

/// The watchdog does not wait for anybody.
#[test]
fn a_killed_launcher_leaves_no_machine() {
    let fake = Fake::new();
    let running = fake.host.start();
    assert_eq!(fake.machines().len(), 1);
    running.signal(Signal::KILL);
    assert_eq!(running.finish().code, 137);
    eventually("the machine outlives its launcher", || {
        fake.machines().is_empty() && fake.rows().is_empty()
    });
    eventually("processes outlive the launcher", || {
        fake.host.processes().is_empty()
    });
    // Files are the sweep's.
    assert_eq!(fake.host.bottles().len(), 1);
    assert!(
        fake.host
            .run(&["cleanup"])
            .stdout
            .starts_with("removed sh-")
    );
    fake.is_clean();
}

/// Launcher and watchdog killed at once: the next start finds the machine by its note, `cleanup` also by its labels
/// alone.
#[test]
fn a_sweep_removes_dead_machines_and_spares_live_ones() {
    for by_labels in [false, true] {
        let fake = Fake::new();
        let running = fake.host.start();
        for line in fake.host.processes() {
            if line.contains("__machine-watchdog") {
                let pid = line.split(' ').next().unwrap().parse().unwrap();
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                rustix::process::kill_process(pid, Signal::KILL).unwrap();
            }
        }
        running.signal(Signal::KILL);
        running.finish();
        assert_eq!(fake.rows().len(), 1);
        let dead = fake.rows();
        if by_labels {
            fs::remove_dir_all(fake.host.state.join("machines")).unwrap();
            let dry = fake.host.run(&["cleanup", "--dry-run"]);
            assert!(dry.stdout.starts_with("would remove sh-"), "{dry:?}");
            assert_eq!(fake.rows(), dead);
            assert!(
                fake.host
                    .run(&["cleanup"])
                    .stdout
                    .starts_with("removed sh-")
            );
            fake.is_clean();
            continue;
        }
        let live = fake.host.start();
        assert_eq!(fake.rows().len(), 1);
        assert_ne!(fake.rows(), dead);
        assert_eq!(fake.host.run(&["cleanup"]).stdout, "");
        assert_eq!(fake.machines().len(), 1);
        live.signal(Signal::TERM);
        live.finish();
        fake.is_clean();
    }
}

#[test]
fn list_info_stop_and_doctor_know_it() {
    let fake = Fake::new();
    let running = fake.host.start();
    assert!(
        fake.host
            .run(&["list"])
            .stdout
            .contains("  smolmachines  127.0.0.")
    );
    let info = fake.host.run(&["info", "sh"]).stdout;
    assert!(
        info.contains("backend    smolmachines") && info.contains("probe      host"),
        "{info}"
    );
    let doctor = fake.host.run(&["doctor"]).stdout;
    assert!(
        doctor.contains("ok       backend smolmachines: smolvm 1.32.2 (")
            && doctor.contains("channel socket"),
        "{doctor}"
    );
    assert!(
        fake.host
            .run(&["stop", "sh"])
            .stdout
            .starts_with("stopped sh-")
    );
    assert_eq!(running.finish().code, 143);
    fake.is_clean();
}

#[test]
fn a_machine_that_is_late_to_answer_is_asked_again() {
    let mut fake = Fake::new();
    fake.wish("late", json!(true));
    let ran = fake.host.sh("exit 7");
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    fake.is_clean();
}

#[test]
fn fifty_machines_leave_nothing() {
    let fake = Fake::new();
    // The first makes what all bottles share.
    assert_eq!(fake.host.sh("true").code, 0);
    fake.is_clean();
    let before = fake.host.traces();
    for _ in 0..common::cycles() {
        assert_eq!(fake.host.sh("true").code, 0);
        fake.is_clean();
    }
    assert_eq!(fake.started().len(), 1 + common::cycles());
    assert_eq!(fake.host.traces(), before);
}

/// The list is lost where a version forgets it, is written, and the machine starts with it.
#[test]
fn a_list_that_create_forgets_is_written() {
    let mut fake = Fake::new();
    let Some(address) = host_address() else {
        fixtures::require::require("an address beside loopback", false);
        return;
    };
    fake.env("BOT_BOTTLE_SMOLVM_CHANNEL", "cidr")
        .env("BOT_BOTTLE_SMOLVM_ADDRESS", &address)
        .wish("drop_list", json!(true));
    let ran = fake.host.sh("exit 3");
    let alone = !ran.stderr.contains("not only the sidecar listens there");
    if !fixtures::require::require(
        "an address that nothing else listens on (.ci/with-engine)",
        alone,
    ) {
        return;
    }
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let started = fake.started();
    assert!(is_locked(&started[0]), "{}", started[0]);
    assert_eq!(
        started[0]["allowed_cidrs"],
        json!([format!("{address}/32")])
    );
    fake.is_clean();

    // The same with a file that cannot be written.
    fake.forget();
    fake.wish("read_only", json!(true));
    let ran = fake.host.sh("echo the agent ran");
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("the boundary could not be confirmed, so the agent was not started"),
        "{}",
        ran.stderr
    );
    assert_eq!(fake.started(), Vec::<serde_json::Value>::new());
    // Not a test of its own: nothing else may listen on the address.
    a_pack_starts_with_it(&address);
}

/// The same where a version loses it for machines of packs, with the network and the filter of names.
fn a_pack_starts_with_it(address: &str) {
    for (version, without) in [
        (
            "1.7.7",
            &["label", "allow-host-pattern", "egress-interceptor"][..],
        ),
        ("1.9.1", &["allow-host-pattern", "egress-interceptor"]),
        ("1.32.2", &[]),
    ] {
        let mut fake = Fake::new();
        fake.pack()
            .version(version, without)
            .env("BOT_BOTTLE_SMOLVM_CHANNEL", "cidr")
            .env("BOT_BOTTLE_SMOLVM_ADDRESS", address);
        let ran = fake.host.sh("exit 3");
        assert_eq!(ran.code, 3, "{version}: {}", ran.stderr);
        let started = fake.started();
        assert!(is_locked(&started[0]), "{version}: {}", started[0]);
        let list = json!([format!("{address}/32")]);
        assert_eq!(started[0]["allowed_cidrs"], list, "{version}");
        fake.is_clean();
    }
}

/// Any that is not loopback: the one that this machine goes out by, or the one of `.ci/with-engine`.
fn host_address() -> Option<String> {
    let routed = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        // Nothing is sent by this; the kernel only chooses a source.
        socket.connect("192.0.2.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    };
    [routed(), Some("10.99.0.1".to_owned())]
        .into_iter()
        .flatten()
        .find(|address| {
            !address.starts_with("127.")
                && std::net::TcpListener::bind((address.as_str(), 0)).is_ok()
        })
}
