//! How bottles in containers end, and what is left.

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;

use crate::common::{self, eventually};
use crate::engine::{self, docker, is_clean, slugs, things};

#[test]
fn output_is_kept_apart_and_whole_and_the_exit_code_is_ours() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let ran = host.sh("echo out; echo err >&2; seq 1 20000 | tail -n 1; sleep 1000 & exit 3");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (3, "out\n20000\n"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("err\n"), "{}", ran.stderr);
    let ran = host.sh("seq 1 200000");
    assert_eq!(ran.stdout.lines().count(), 200_000);
    assert_eq!(host.sh("kill -9 $$").code, 137);
    is_clean(&host, &slugs(&host));
}

/// The engine outlives bottles: it has nothing more than before, and no descriptor more.
#[test]
fn fifty_containers_leave_nothing() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    // The first makes what all bottles share: the images.
    assert_eq!(host.sh("true").code, 0);
    is_clean(&host, &slugs(&host));
    let all = || -> Vec<String> {
        [
            &["ps", "-a", "-q", "--no-trunc"][..],
            &["network", "ls", "-q", "--no-trunc"],
            &["volume", "ls", "-q"],
            &["images", "-a", "-q", "--no-trunc"],
        ]
        .iter()
        .flat_map(|arguments| {
            let mut lines: Vec<_> = docker(arguments).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        })
        .collect()
    };
    let engine = engine::processes();
    let descriptors = || -> usize { engine.iter().map(|pid| common::descriptors(*pid)).sum() };
    // Connections of clients that have ended are closed a moment later.
    let mut idle = 0;
    eventually("the engine is not idle", || {
        let now = descriptors();
        let settled = now == idle;
        idle = now;
        settled
    });
    let (things, traces) = (all(), host.traces());
    for _ in 0..common::cycles() {
        assert_eq!(host.sh("true").code, 0);
        is_clean(&host, &slugs(&host));
    }
    assert_eq!(all(), things);
    assert_eq!(host.traces(), traces);
    // A client's connection more or less is the engine's own affair; what a bottle left would be there once for each.
    eventually("the engine has more descriptors than before", || {
        descriptors() < idle + common::cycles()
    });
}

#[test]
fn signals_end_it_in_order() {
    let (hosts, _turn) = engine::hosts();
    for host in hosts {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
            let running = host.start();
            let slug = host.bottles().remove(0);
            assert_eq!(things(&slug).len(), 3);
            running.signal(signal);
            assert_eq!(running.finish().code, code);
            is_clean(&host, &[slug]);
        }
    }
}

#[test]
fn stop_ends_it_and_list_and_info_show_it() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let running = host.start();
    let slug = host.bottles().remove(0);
    let list = host.run(&["list"]);
    assert!(
        list.stdout.contains(&slug) && list.stdout.contains("docker  127.0.0.16"),
        "{}",
        list.stdout
    );
    let info = host.run(&["info", "sh", "--format", "json"]);
    let info: serde_json::Value = serde_json::from_str(&info.stdout).unwrap();
    assert_eq!(info["record"]["backend"], "docker");
    assert_eq!(info["record"]["proof"].as_array().unwrap().len(), 11);
    assert_eq!(
        host.run(&["stop", "sh"]).stdout,
        format!("stopped {slug}\n")
    );
    assert_eq!(running.finish().code, 143);
    is_clean(&host, &[slug]);
    let none = host.run(&["stop", "sh"]);
    assert_eq!(none.code, 2);
    assert!(
        none.stderr
            .contains("there is no bottle `sh`; none is running"),
        "{}",
        none.stderr
    );
}

/// `kill -9` takes both containers with it at once; the network and the files go with the next `cleanup` or start.
#[test]
fn a_killed_launcher_leaves_nothing() {
    let (hosts, _turn) = engine::hosts();
    for host in hosts {
        let running = host.start();
        let dead = host.bottles().remove(0);
        running.signal(Signal::KILL);
        assert_eq!(running.finish().code, 137);
        eventually("containers outlive the launcher", || {
            things(&dead) == [format!("bot-bottle-{dead}")]
        });

        let live = host.start();
        assert_eq!(things(&dead), Vec::<String>::new());
        let own = host.bottles().remove(0);
        assert_ne!(own, dead);
        assert_eq!(host.run(&["cleanup"]).stdout, "");
        assert_eq!(things(&own).len(), 3);
        live.signal(Signal::KILL);
        live.finish();

        let dry = host.run(&["cleanup", "--dry-run"]);
        assert_eq!(
            dry.stdout,
            format!("would remove {own}\n"),
            "{}",
            dry.stderr
        );
        assert_eq!(host.bottles(), std::slice::from_ref(&own));
        assert_eq!(host.run(&["cleanup"]).stdout, format!("removed {own}\n"));
        is_clean(&host, &[own, dead]);
    }
}

/// Labels alone are enough: the state directory may be gone.
#[test]
fn what_has_no_record_is_found_by_its_labels() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let running = host.start();
    let slug = host.bottles().remove(0);
    running.signal(Signal::KILL);
    running.finish();
    fs::remove_dir_all(host.state.join("bottles").join(&slug)).unwrap();
    assert_eq!(host.run(&["cleanup"]).stdout, format!("removed {slug}\n"));
    is_clean(&host, &[slug]);
}

/// A launcher in another PID namespace may be alive, whatever its number means here.
#[test]
fn what_cannot_be_judged_is_spared() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let slug = "other-00beef";
    let make = |owner: String| {
        docker(&[
            "network",
            "create",
            "--internal",
            "--label",
            &format!("bot-bottle.slug={slug}"),
            "--label",
            &format!("bot-bottle.owner={owner}"),
            "--label",
            "bot-bottle.uid=0",
            &format!("bot-bottle-{slug}"),
        ])
    };
    make(format!("1:1:{}:1", boot.trim()));
    let ran = host.run(&["cleanup"]);
    let left = things(slug);
    docker(&["network", "rm", &format!("bot-bottle-{slug}")]);
    assert_eq!(left.len(), 1, "{ran:?}");
    assert!(ran.stderr.contains("other-00beef is left alone"), "{ran:?}");
    // Who ran before the host was started last is dead, wherever that was.
    make("1:1:another-boot:1".into());
    assert_eq!(host.run(&["cleanup"]).stdout, format!("removed {slug}\n"));
    assert_eq!(things(slug), Vec::<String>::new());
}

#[test]
fn bottles_at_a_time_have_aliases_of_their_own() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    // A foreign program is no bottle, and has the address all the same.
    let foreign = TcpListener::bind("127.0.0.16:9099").unwrap();
    let running: Vec<_> = (0..2).map(|_| host.start()).collect();
    let list = host.run(&["list", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let mut aliases: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|bottle| bottle["record"]["alias"].as_str().unwrap().to_owned())
        .collect();
    aliases.sort();
    assert_eq!(aliases, ["127.0.0.17", "127.0.0.18"]);
    drop(foreign);
    fs::write(host.workspace.join("stop"), "").unwrap();
    for one in running {
        assert_eq!(one.finish().code, 0);
    }
    is_clean(&host, &slugs(&host));
}

/// `BOT_BOTTLE_CYCLES` says how many.
#[test]
fn cycles_leave_nothing() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let cycles = std::env::var("BOT_BOTTLE_CYCLES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(4);
    let count = || {
        let engine = docker(&["info", "--format", "{{.Containers}} {{.Images}}"]);
        let networks = docker(&["network", "ls", "-q"]).lines().count();
        let own = fs::read_dir(&host.state).unwrap().count()
            + fs::read_dir(host.state.join("guest")).unwrap().count();
        (engine, networks, own)
    };
    assert_eq!(host.sh("true").code, 0);
    let before = count();
    for _ in 0..cycles {
        assert_eq!(host.sh("exit 7").code, 7);
    }
    is_clean(&host, &slugs(&host));
    assert_eq!(count(), before);
}
