//! How containers begin and end.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::process::Signal;
use serde_json::json;

use crate::common::eventually;
use crate::common::screen::Attached;
use crate::fake::{ARCHITECTURE, Fake, is_locked};

#[test]
fn a_container_is_made_read_back_proved_used_and_removed() {
    let fake = Fake::new();
    let ran = fake
        .host
        .sh("echo out; echo err >&2; pwd; echo $FROM_THE_IMAGE$LD_PRELOAD; exit 42");
    assert_eq!(ran.code, 42, "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        format!("out\n{}\nyes\n", fake.host.workspace.display())
    );
    for said in [
        "backend macos-container: a micro-VM of Apple's",
        "not yet seen on a Mac by those who made this: the probe decides whether it holds",
        "macos-container (a micro-VM), alias 127.0.0.",
        "locked: no route but the alias (probe passed 11/11)",
        "err\n",
    ] {
        assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
    }
    let started = fake.started();
    assert_eq!(started.len(), 1);
    assert!(is_locked(&started[0]), "{}", started[0]);
    fake.is_clean();
}

/// Every call, whole and in its order.
#[test]
fn the_command_lines_are_these() {
    let fake = Fake::new();
    let ran = fake.host.sh("true");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let bottle = fs::read_dir(fake.host.state.join("logs"))
        .unwrap()
        .flatten()
        .next()
        .unwrap();
    let slug = bottle.file_name().to_string_lossy().into_owned();
    let (name, image) = (
        format!("bot-bottle-{slug}"),
        format!("bot-bottle.invalid/machine:{slug}"),
    );
    let directory = fake.host.state.join("bottles").join(&slug);
    let directory = directory.display();
    let work = fake.host.workspace.display();
    let uid = fs::metadata(&fake.host.workspace).unwrap().uid();
    let owner = fake.started()[0]["configuration"]["labels"]["bot-bottle.owner"]
        .as_str()
        .unwrap()
        .to_owned();
    let resources = &fake.started()[0]["configuration"]["resources"];
    let cpus = &resources["cpus"];
    let memory = resources["memoryInBytes"].as_u64().unwrap() >> 20;
    let calls: Vec<String> = fake
        .calls()
        .iter()
        .map(|call| {
            let words = call["arguments"].as_array().unwrap().iter();
            let words: Vec<_> = words.map(|word| word.as_str().unwrap()).collect();
            words.join(" ")
        })
        .collect();
    // A dynamic launcher brings its loader.
    let own = calls[1]
        .split_once(&format!("{image} "))
        .unwrap()
        .1
        .strip_suffix(" __machine-init")
        .unwrap();
    assert!(own.starts_with("/bot-bottle/"), "{own}");
    let wanted = [
        format!("image load --input {directory}/image.oci.tar"),
        format!(
            "create --name {name} --label bot-bottle.owner={owner} --label bot-bottle.slug={slug} --label bot-bottle.uid={uid} \
             --platform linux/{ARCHITECTURE} --cpus {cpus} --memory {memory}M --network none --uid 0 --gid 0 --workdir / \
             --cap-drop ALL --cap-add CAP_CHOWN --cap-add CAP_DAC_OVERRIDE --cap-add CAP_FOWNER --cap-add CAP_KILL \
             --cap-add CAP_SETGID --cap-add CAP_SETPCAP --cap-add CAP_SETUID --cap-add CAP_SYS_ADMIN \
             --volume {directory}/parts:/bot-bottle:ro --volume {work}:{work} \
             --volume {directory}/run/egress.sock:/run/bot-bottle/egress.sock --no-dns --init {image} {own} __machine-init"
        ),
        format!("inspect {name}"),
        format!("start --attach --interactive {name}"),
        format!("inspect {name}"),
        format!("exec --interactive {name} {own} __machine-run 1"),
        format!("inspect {name}"),
        format!("exec --interactive {name} {own} __machine-run 2"),
        "list --all --format json".to_owned(),
        format!("delete --force {name}"),
        "list --all --format json".to_owned(),
        format!("image delete --force {image}"),
    ];
    // What does not run yet when it is looked at is looked at once more.
    let mut calls = calls;
    calls.dedup();
    assert_eq!(calls, wanted);
    for call in fake.calls() {
        let environment = call["environment"].as_object().unwrap();
        for name in environment.keys() {
            // Python's own.
            let known = ["PATH", "HOME", "LC_CTYPE"].contains(&name.as_str());
            assert!(known, "{name} in the environment of {call}");
        }
    }
    fake.is_clean();
}

#[test]
fn no_argument_and_no_variable_of_a_call_holds_a_secret() {
    let mut fake = Fake::new();
    fake.env("GITHUB_TOKEN", "ghp_0123456789abcdefghijABCDEFGHIJ012345"); // gitleaks:allow
    fake.host.bottle(
        "sh",
        "agent_provider: {template: command, command: [sh, -c, \"{prompt}\"], image: ~/image.tar}\n\
         egress: {routes: [{host: api.github.com, auth: {scheme: Bearer, token_ref: GITHUB_TOKEN}}]}",
    );
    let ran = fake.host.sh(
        "echo $HTTPS_PROXY; for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null",
    );
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let (proxy, lines) = ran.stdout.split_once('\n').unwrap();
    let password = proxy
        .strip_prefix("http://bottle:")
        .and_then(|rest| rest.split_once("@127.0.0."))
        .map(|(password, _)| password)
        .unwrap();
    assert!(password.len() >= 32);
    let calls = json!(fake.calls()).to_string();
    let started = json!(fake.started()).to_string();
    for secret in [password, "ghp_"] {
        for text in [&calls, &started, lines] {
            assert!(!text.contains(secret));
        }
    }
    fake.is_clean();
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

/// What was started answers before it is listed as running.
#[test]
fn a_container_that_is_listed_late_is_waited_for() {
    let mut fake = Fake::new();
    fake.wish("late", json!(1.5));
    let ran = fake.host.sh("exit 7");
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    let looks = fake
        .verbs()
        .iter()
        .filter(|verb| *verb == "inspect")
        .count();
    assert!(looks > 4, "{looks}");
    fake.is_clean();
}

/// It is the choice only where there is no other.
#[test]
fn it_is_chosen_last_and_the_plan_says_so() {
    let mut fake = Fake::new();
    fake.env("BOT_BOTTLE_BACKEND", "");
    let plan = |fake: &Fake| {
        let ran = fake
            .host
            .run(&["start", "sh", "--dry-run", "--headless", "--prompt", "x"]);
        format!("{}{}", ran.stdout, ran.stderr)
    };
    let said = plan(&fake);
    for text in [
        "backend    macos-container: a micro-VM of Apple's",
        "chosen     the only one that this host can run; docker cannot: ",
        "smolmachines cannot: ",
        "image      the archive ",
        "machine    container 1.2.2 (",
        "channel socket",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    fake.wish("services", json!("unregistered"));
    let said = plan(&fake);
    assert!(
        said.contains("backend    local") && !said.contains("macos-container"),
        "{said}"
    );
    assert_eq!(fake.verbs(), Vec::<String>::new());
}

/// Its lifeline is cut, and nobody has to do anything.
#[test]
fn a_killed_launcher_leaves_no_machine_and_a_sweep_removes_the_rest() {
    for by_labels in [false, true] {
        let fake = Fake::new();
        let running = fake.host.start();
        assert!(!fake.machines().is_empty());
        running.signal(Signal::KILL);
        assert_eq!(running.finish().code, 137);
        eventually("the machine outlives its launcher", || {
            fake.machines().is_empty() && fake.host.processes().is_empty()
        });
        assert_eq!(fake.containers().len(), 1);
        let dead = fake.containers();
        if by_labels {
            fs::remove_dir_all(fake.host.state.join("containers")).unwrap();
            let dry = fake.host.run(&["cleanup", "--dry-run"]);
            assert!(dry.stdout.starts_with("would remove sh-"), "{dry:?}");
            assert_eq!(fake.containers(), dead);
            let cleanup = fake.host.run(&["cleanup"]);
            assert!(cleanup.stdout.starts_with("removed sh-"), "{cleanup:?}");
            fake.is_clean();
            continue;
        }
        let live = fake.host.start();
        assert_eq!(fake.containers().len(), 1);
        assert_ne!(fake.containers(), dead);
        assert_eq!(fake.images().len(), 1);
        assert_eq!(fake.host.run(&["cleanup"]).stdout, "");
        assert!(!fake.machines().is_empty());
        live.signal(Signal::TERM);
        live.finish();
        fake.is_clean();
    }
}

#[test]
fn list_info_stop_and_doctor_know_it() {
    let fake = Fake::new();
    let running = fake.host.start();
    let listed = fake.host.run(&["list"]).stdout;
    assert!(listed.contains("  macos-container  127.0.0."), "{listed}");
    let info = fake.host.run(&["info", "sh"]).stdout;
    assert!(
        info.contains("backend    macos-container") && info.contains("probe      host"),
        "{info}"
    );
    let doctor = fake.host.run(&["doctor"]).stdout;
    assert!(
        doctor.contains("ok       backend macos-container: container 1.2.2 (")
            && doctor.contains("the probe decides"),
        "{doctor}"
    );
    assert!(fake.host.run(&["stop", "sh"]).code == 0);
    assert_eq!(running.finish().code, 143);
    fake.is_clean();
}

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
    let calls = json!(fake.calls()).to_string();
    assert!(
        calls.contains("\"exec\",\"--interactive\",\"--tty\",\"bot-bottle-sh-"),
        "{calls}"
    );
    fake.is_clean();
}
