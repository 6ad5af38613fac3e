//! The channel `interceptor`: a machine whose connections smolvm hands to the sidecar.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::common::eventually;
use crate::fake::{Fake, is_locked};

fn fake() -> Fake {
    let mut fake = Fake::new();
    fake.env("BOT_BOTTLE_SMOLVM_CHANNEL", "interceptor");
    fake
}

fn has_curl() -> bool {
    fixtures::require::require("curl", fixtures::require::program("curl").is_some())
}

/// What the agent asks of the proxy, with what it has.
const ASK: &str = "curl -sS --max-time 30 -x $HTTP_PROXY http://_egress.local/allowlist";

#[test]
fn the_agent_reaches_the_sidecar_and_the_row_is_as_it_must_be() {
    if !has_curl() {
        return;
    }
    let fake = fake();
    let ran = fake.host.sh(&format!("{ASK}; exit 42"));
    assert_eq!(ran.code, 42, "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stdout.contains("\"policy\""),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    let started = fake.started();
    assert_eq!(started.len(), 1);
    let row = &started[0];
    assert!(is_locked(row), "{row}");
    assert_eq!(row["network"], json!(true));
    assert_eq!(row["allowed_cidrs"], json!(["192.0.2.1/32"]));
    assert_eq!(row["external_interceptor_required"], json!(true));
    assert_eq!(row["published_sockets"], json!([]));
    // One name, which nobody in the guest can guess.
    let names = row["dns_filter_hosts"].as_array().unwrap();
    let name = names[0].as_str().unwrap();
    assert_eq!(names.len(), 1);
    assert!(name.len() == 49 && name.ends_with(".invalid"), "{name}");
    fake.is_clean();
    fake.forget();
    fake.host.sh("true");
    assert_ne!(fake.started()[0]["dns_filter_hosts"][0], json!(name));
    fake.is_clean();
}

#[test]
fn a_token_of_its_own_is_in_no_argument_and_no_file() {
    let fake = fake();
    let running = fake.host.start();
    let mut tokens = Vec::new();
    let mut lines = String::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| {
            let text = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&text).into_owned()
        };
        if !read("environ").contains(&fake.host.home.display().to_string()) {
            continue;
        }
        lines.push_str(&read("cmdline"));
        let env = read("environ");
        let found = env
            .split('\0')
            .find_map(|pair| pair.strip_prefix("SMOLVM_INTERCEPTOR_TOKEN="));
        tokens.extend(found.map(str::to_owned));
    }
    tokens.dedup();
    // The machine's own process has it, and no other that can be looked into.
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    let token = &tokens[0];
    assert_eq!(token.len(), 64);
    assert!(!lines.contains(token));
    for place in [&fake.host.home, &fake.host.state, &fake.host.workspace] {
        for file in files(place) {
            let text = fs::read(&file).unwrap_or_default();
            let there = text.windows(64).any(|window| window == token.as_bytes());
            assert!(!there, "{}", file.display());
        }
    }
    running.signal(Signal::TERM);
    running.finish();
    fake.is_clean();
}

fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() && entry.metadata().is_ok_and(|meta| meta.len() < 1 << 20) {
            found.push(entry.path());
        }
    }
    found
}

/// Any program of the host's can dial the alias.
#[test]
fn a_stranger_on_the_alias_hears_nothing() {
    let fake = fake();
    let running = fake.host.start();
    let listed = fake.host.run(&["list"]).stdout;
    let alias = listed
        .split_whitespace()
        .find(|word| word.starts_with("127.0.0."))
        .unwrap();
    let address: SocketAddr = format!("{alias}:9098").parse().unwrap();
    for said in [
        b"GET http://_egress.local/allowlist HTTP/1.1\r\n\r\n".to_vec(),
        [
            b"SMOLICPT\x01".as_slice(),
            &[7; 32],
            &[4, 0x23, 0x8b, 192, 0, 2, 1],
        ]
        .concat(),
        [
            b"SMOLICPT\x01".as_slice(),
            &[0; 32],
            &[4, 0, 80, 10, 0, 0, 1],
        ]
        .concat(),
    ] {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(20)).unwrap();
        stream.write_all(&said).unwrap();
        // Ended by the sidecar, with or without a reset; one that says nothing more is shown out by the deadline.
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut heard = Vec::new();
        match stream.read_to_end(&mut heard) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        assert_eq!(heard, b"");
    }
    running.signal(Signal::TERM);
    running.finish();
    fake.is_clean();
}

/// The guest's root can send to any address; what is handed over for another one ends there.
#[test]
fn another_destination_is_refused_by_the_sidecar() {
    if !has_curl() {
        return;
    }
    for other in ["192.0.2.2", "127.0.0.1"] {
        let mut fake = fake();
        fake.wish("dials", json!(other));
        let ran = fake.host.sh(&format!("{ASK}; echo curl $?"));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(!ran.stdout.contains("policy"), "{}", ran.stdout);
        // Reset, or closed without an answer.
        let refused = ["curl 56", "curl 52", "curl 7", "curl 35"];
        assert!(
            refused.iter().any(|code| ran.stdout.contains(code)),
            "{}{}",
            ran.stdout,
            ran.stderr
        );
        fake.is_clean();
    }
}

#[test]
fn a_row_that_differs_is_refused() {
    // Before the start.
    for row in [
        json!({"network_backend": "tsi"}),
        json!({"dns_filter_hosts": ["=nothing.invalid"]}),
        json!({"external_interceptor_required": "yes"}),
    ] {
        let mut fake = fake();
        fake.wish("row", row.clone());
        let ran = fake.host.sh("echo the agent ran");
        assert_eq!(ran.code, 4, "{row}: {}", ran.stderr);
        assert!(fake.started().is_empty(), "{row}");
        assert!(
            ran.stderr.contains("smolvm's row of bot-bottle-sh-"),
            "{}",
            ran.stderr
        );
        fake.is_clean();
    }
    // After it: a list that was opened, and a machine that would start without an interceptor.
    for (key, value) in [
        ("running_row", json!({"allowed_cidrs": ["0.0.0.0/0"]})),
        ("running_row", json!({"dns_filter_hosts": []})),
        ("forget_interceptor", json!(true)),
    ] {
        let mut fake = fake();
        fake.wish(key, value.clone());
        let ran = fake.host.sh("echo the agent ran");
        assert_eq!(ran.code, 4, "{value}: {}", ran.stderr);
        assert!(!ran.stdout.contains("the agent ran"), "{value}");
        fake.is_clean();
    }
}

/// A list that another program opens between the two is closed again before the start.
#[test]
fn a_list_that_create_gets_wrong_is_written() {
    for list in [
        json!(null),
        json!([]),
        json!(["0.0.0.0/0"]),
        json!(["192.0.2.1/24"]),
    ] {
        let mut fake = fake();
        fake.wish("row", json!({"allowed_cidrs": list}));
        let ran = fake.host.sh("exit 5");
        assert_eq!(ran.code, 5, "{}", ran.stderr);
        assert_eq!(fake.started()[0]["allowed_cidrs"], json!(["192.0.2.1/32"]));
        fake.is_clean();
    }
}

#[test]
fn without_its_sidecar_the_machine_is_offline() {
    if !has_curl() {
        return;
    }
    let fake = fake();
    let script = format!(
        "{ASK} >/dev/null && echo before; touch here; while [ ! -e gone ]; do sleep 0.1; done; {ASK} >/dev/null || echo offline"
    );
    let child = fake
        .host
        .command(&["start", "sh", "--headless", "--prompt", &script])
        .spawn()
        .unwrap();
    let running = crate::common::Running::of(child);
    let here = fake.host.workspace.join("here");
    eventually("the agent runs", || here.exists());
    for line in fake.host.processes() {
        if line.contains("__sidecar") {
            let pid = line.split(' ').next().unwrap().parse().unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, Signal::KILL).unwrap();
        }
    }
    eventually("the sidecar is gone", || {
        !fake
            .host
            .processes()
            .iter()
            .any(|line| line.contains("__sidecar"))
    });
    fs::write(fake.host.workspace.join("gone"), "").unwrap();
    let ran = running.finish();
    assert_eq!(ran.stdout, "before\noffline\n", "{}", ran.stderr);
    fake.is_clean();
}

#[test]
fn versions_without_it_are_refused() {
    for (version, without) in [
        ("1.9.1", &["allow-host-pattern", "egress-interceptor"][..]),
        ("1.32.1", &[]),
        ("1.32.2", &["egress-interceptor"]),
        ("1.32.2", &["allow-host-pattern"]),
    ] {
        let mut fake = fake();
        fake.version(version, without);
        let ran = fake.host.sh("echo the agent ran");
        assert_eq!(ran.code, 3, "{version}: {}", ran.stderr);
        assert_eq!(fake.calls(), Vec::<String>::new(), "{version}");
    }
}
