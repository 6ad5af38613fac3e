//! How bottles end, and what is left.

mod common;

use std::fs;

use common::screen::{Screen, size, terminal};
use common::{Host, eventually};
use rustix::process::Signal;

fn is_clean(host: &Host) {
    assert_eq!(host.bottles(), Vec::<String>::new());
    eventually("processes are left", || host.processes().is_empty());
}

#[test]
fn the_agents_exit_code_is_ours() {
    let host = Host::new();
    for (script, code) in [("true", 0), ("exit 42", 42), ("kill -9 $$", 137)] {
        assert_eq!(host.sh(script).code, code, "{script}");
    }
    is_clean(&host);
    assert_eq!(host.run(&["list"]).stdout, "");
}

#[test]
fn output_is_kept_apart_and_whole() {
    let host = Host::new();
    let ran = host.sh("echo out; echo err >&2; seq 1 20000 | tail -n 1; sleep 1000 & exit 3");
    assert_eq!((ran.code, ran.stdout.as_str()), (3, "out\n20000\n"));
    assert!(
        ran.stderr.contains("err\n") && ran.stderr.contains("locked: no route but the alias"),
        "{}",
        ran.stderr
    );
    is_clean(&host);
}

#[test]
fn a_missing_program_is_said() {
    let host = Host::new();
    host.bottle(
        "sh",
        "agent_provider: {template: command, command: [no-such-agent]}",
    );
    let ran = host.sh("x");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("find the program `no-such-agent`"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("hint: a bottle has the host's /usr"),
        "{}",
        ran.stderr
    );
    is_clean(&host);
}

#[test]
fn signals_end_it_in_order() {
    for host in Host::all() {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
            let running = host.start();
            assert_eq!(host.bottles().len(), 1);
            running.signal(signal);
            assert_eq!(running.finish().code, code);
            is_clean(&host);
        }
    }
}

/// `kill -9` takes every process with it at once, and the next `cleanup` or start the files.
#[test]
fn a_killed_launcher_leaves_nothing() {
    for host in Host::all() {
        let running = host.start();
        running.signal(Signal::KILL);
        assert_eq!(running.finish().code, 137);
        eventually("processes outlive the launcher", || {
            host.processes().is_empty()
        });
        let left = host.bottles();
        assert_eq!(left.len(), 1);

        let live = host.start();
        // The start has swept already; a running bottle is spared by both.
        assert_eq!(host.bottles().len(), 1);
        assert_ne!(host.bottles(), left);
        assert_eq!(host.run(&["cleanup"]).stdout, "");
        assert_eq!(host.bottles().len(), 1);
        live.signal(Signal::KILL);
        live.finish();

        let dry = host.run(&["cleanup", "--dry-run"]);
        assert!(dry.stdout.starts_with("would remove sh-"), "{dry:?}");
        assert_eq!(host.bottles().len(), 1);
        assert!(host.run(&["cleanup"]).stdout.starts_with("removed sh-"));
        is_clean(&host);
        assert_eq!(
            fs::read_dir(host.state.join("logs")).unwrap().count(),
            2,
            "logs are kept"
        );
    }
}

/// A state file that was half written says nothing; the lock does.
#[test]
fn half_written_state_is_removed_only_when_nobody_holds_it() {
    let host = Host::new();
    let running = host.start();
    let own = host.bottles().remove(0);
    fs::write(
        host.state.join("bottles").join(&own).join("state.json"),
        "{\"slug\":",
    )
    .unwrap();
    let dead = host.state.join("bottles/sh-00dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("state.json"), "{").unwrap();
    assert_eq!(host.run(&["cleanup"]).stdout, "removed sh-00dead\n");
    assert_eq!(host.bottles(), [own]);
    running.signal(Signal::TERM);
    running.finish();
    is_clean(&host);
}

#[test]
fn four_at_a_time_have_four_aliases() {
    let host = Host::new();
    let running: Vec<_> = (0..4).map(|_| host.start()).collect();
    let list = host.run(&["list", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let mut aliases: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|bottle| bottle["record"]["alias"].as_str().unwrap().to_owned())
        .collect();
    aliases.sort();
    assert_eq!(
        aliases,
        ["127.0.0.16", "127.0.0.17", "127.0.0.18", "127.0.0.19"]
    );
    fs::write(host.workspace.join("stop"), "").unwrap();
    for one in running {
        assert_eq!(one.finish().code, 0);
    }
    is_clean(&host);
}

/// All of the pool at once, and then one more.
#[test]
fn sixteen_at_once_have_sixteen_aliases_and_the_next_is_told_who_has_them() {
    let host = Host::new();
    let script = "mktemp up.XXXXXX; while [ ! -e stop ]; do sleep 0.2; done";
    let running: Vec<_> = (0..16)
        .map(|_| {
            let child = host
                .command(&["start", "sh", "--headless", "--prompt", script])
                .stderr(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            common::Running::of(child)
        })
        .collect();
    eventually("the bottles are not up", || {
        let entries = fs::read_dir(&host.workspace).unwrap().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("up."))
            .count()
            == 16
    });
    let list = host.run(&["list", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let aliases: std::collections::BTreeSet<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|bottle| bottle["record"]["alias"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(aliases.len(), 16, "{aliases:?}");
    let one_more = host.sh("true");
    assert_eq!(one_more.code, 1, "{}", one_more.stderr);
    assert!(
        one_more
            .stderr
            .contains("all loopback aliases (127.0.0.16 to 127.0.0.31) are in use, by sh-"),
        "{}",
        one_more.stderr
    );
    for name in host.bottles() {
        assert!(
            one_more.stderr.contains(&name),
            "{name}: {}",
            one_more.stderr
        );
    }
    fs::write(host.workspace.join("stop"), "").unwrap();
    for one in running {
        assert_eq!(one.wait(), Some(0));
    }
    is_clean(&host);
}

/// An agent whose sidecar is gone is offline, and its user is told at once.
#[test]
fn a_dead_sidecar_is_said_and_the_agent_goes_on() {
    let host = Host::new();
    let running = host.start();
    let sidecar = host
        .processes()
        .into_iter()
        .find(|line| line.contains("__sidecar"))
        .unwrap();
    let pid: i32 = sidecar.split(' ').next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL)
        .unwrap();
    eventually("the sidecar lives", || {
        !host
            .processes()
            .iter()
            .any(|line| line.contains("__sidecar"))
    });
    fs::write(host.workspace.join("stop"), "").unwrap();
    let ran = running.finish();
    assert_eq!(ran.code, 0);
    assert!(
        ran.stderr
            .contains("the sidecar has ended: the agent is offline"),
        "{}",
        ran.stderr
    );
    is_clean(&host);
}

/// A path of the state directory that is too long for a socket is not a reason to fail.
#[test]
fn a_long_state_path_still_works() {
    let mut host = Host::new();
    host.state = host.state.join("x".repeat(120));
    let ran = host.sh("exit 5");
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    is_clean(&host);
}

/// `--keep` is for a look at it: the next start leaves it, `cleanup` does not.
#[test]
fn what_is_kept_stays_until_cleanup() {
    let host = Host::new();
    assert_eq!(
        host.run(&["start", "sh", "--headless", "--prompt", "true", "--keep"])
            .code,
        0
    );
    let kept = host.bottles();
    assert_eq!(kept.len(), 1);
    let file = fs::read_to_string(
        host.state
            .join("bottles")
            .join(&kept[0])
            .join("sidecar.yaml"),
    )
    .unwrap();
    assert!(
        file.contains("proxy_auth") && file.contains("BOT_BOTTLE_PROXY_TOKEN"),
        "{file}"
    );
    assert_eq!(host.sh("true").code, 0);
    assert_eq!(host.bottles(), kept);
    assert_eq!(
        host.run(&["cleanup"]).stdout,
        format!("removed {}\n", kept[0])
    );
    is_clean(&host);
}

/// A kernel that refuses is named with the knob that turns it, and the exit code says preflight.
#[test]
fn a_host_without_user_namespaces_is_told_so() {
    if !fixtures::require::require("unshare", fixtures::require::program("unshare").is_some()) {
        return;
    }
    let host = Host::new();
    let command = host.command(&["start", "sh", "--headless", "--prompt", "true"]);
    let launcher = command.get_program().to_owned();
    let mut inner = std::process::Command::new("unshare");
    inner.args(["--user", "--map-root-user", "sh", "-c"]);
    inner
        .arg("echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\" \"$@\"")
        .arg(launcher)
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        inner.env(name, value.unwrap_or_default());
    }
    let output = inner.current_dir(&host.workspace).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("sudo sysctl -w user.max_user_namespaces=15000"),
        "{text}"
    );
    is_clean(&host);
}

/// What outlives bottles is `launcher supervise`, which meets each of them: it has no descriptor more afterwards.
#[test]
fn fifty_bottles_leave_nothing() {
    let host = Host::new();
    let (master, slave) = terminal();
    size(&master, 24, 80);
    let supervise = host
        .command(&["supervise"])
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave.try_clone().unwrap())
        .spawn()
        .unwrap();
    // `env` becomes the launcher, with its number.
    let pid = supervise.id();
    let supervise = common::Running::of(supervise);
    // Somebody has to take what it shows.
    let mut screen = Screen::of(fs::File::from(master.try_clone().unwrap()));
    let cycle = |screen: &mut Screen| {
        let running = host.start();
        // It asks bottles for what waits; while one is there it holds a connection at most.
        screen.more(std::time::Duration::from_millis(300));
        running.signal(Signal::TERM);
        assert_eq!(running.finish().code, 143);
        eventually("processes are left", || host.bottles().is_empty());
        for entry in fs::read_dir(&host.workspace).unwrap().flatten() {
            fs::remove_file(entry.path()).unwrap();
        }
    };
    // The first makes what all bottles share.
    cycle(&mut screen);
    let mut idle = 0;
    eventually("supervise is not idle", || {
        let now = common::descriptors(pid);
        let settled = now != 0 && now == idle;
        idle = now;
        settled
    });
    let before = host.traces();
    for _ in 0..common::cycles() {
        cycle(&mut screen);
    }
    assert_eq!(host.traces(), before);
    eventually("supervise has more descriptors than before", || {
        (1..=idle).contains(&common::descriptors(pid))
    });
    supervise.signal(Signal::TERM);
    supervise.wait();
    is_clean(&host);
}

/// `nohup launcher start …` outlives its terminal.
#[test]
fn an_ignored_signal_stays_ignored() {
    let host = Host::new();
    let mut command = std::process::Command::new("sh");
    let script = "trap '' HUP; exec \"$0\" start sh --headless --prompt 'touch up; while [ ! -e stop ]; do sleep 0.05; done; exit 6'";
    let inner = host.command(&[]);
    command
        .args(["-c", script])
        .arg(env!("CARGO_BIN_EXE_launcher"))
        .current_dir(&host.workspace)
        .env_clear();
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let running = common::Running::of(command.spawn().unwrap());
    eventually("the bottle is not up", || {
        host.workspace.join("up").exists()
    });
    running.signal(Signal::HUP);
    fs::write(host.workspace.join("stop"), "").unwrap();
    assert_eq!(running.wait(), Some(6));
    is_clean(&host);
}
