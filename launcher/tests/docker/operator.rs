//! An operator answers for a bottle in a container: real requests of its own client, the real commands outside.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::common::{Running, eventually};
use crate::engine::{self, bottle, is_clean, slugs};

const KEY: &str = "AKIAIOSFODNN7EXAMPLE"; // gitleaks:allow
const OTHER: &str = "AKIAI44QH8DHBEXAMPLE"; // gitleaks:allow

/// The host's address in the network of `.ci/with-engine`, which a sidecar's container can reach.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// Answers whatever comes with 200, and keeps every byte.
fn origin(listener: TcpListener) -> Arc<Mutex<Vec<u8>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&kept);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            // Its body ends with the key's value, or it is none of ours.
            while !request.ends_with(b".") {
                match stream.read(&mut buffer) {
                    Ok(length @ 1..) => {
                        request.extend_from_slice(&buffer[..length]);
                        seen.lock().unwrap().extend_from_slice(&buffer[..length]);
                    }
                    _ => break,
                }
            }
            let _gone = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n",
            );
        }
    });
    kept
}

#[test]
fn a_held_request_is_approved_and_another_is_rejected() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let Ok(listener) = TcpListener::bind((HOST, 0)) else {
        fixtures::require::require("the host's address of .ci/with-engine", false);
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let origin = origin(listener);
    let saw = |needle: &str| {
        let seen = origin.lock().unwrap();
        seen.windows(needle.len())
            .any(|window| window == needle.as_bytes())
    };
    host.bottle(
        "sh",
        &bottle(&format!(
            "egress:\n  routes:\n    - {{host: \"{HOST}:{port}\", scheme: http, allow_private: true}}"
        )),
    );
    // Its input stays open until it has its answer: who closes it no longer waits.
    let post = |name: &str, key: &str| {
        let length = format!("key={key}.").len();
        format!(
            "{{ printf 'POST http://{HOST}:{port}/items HTTP/1.1\\r\\nHost: {HOST}:{port}\\r\\nProxy-Authorization: Basic %s\\r\\n\
             Content-Type: application/x-www-form-urlencoded\\r\\nContent-Length: {length}\\r\\nConnection: close\\r\\n\\r\\n\
             key={key}.' $(printf %s ${{way%@*}} | base64 | tr -d '\\n'); while [ ! -s {name} ]; do sleep 0.1; done; }} \
             | nc ${{way#*@}} > {name}"
        )
    };
    let script = format!(
        "way=${{http_proxy#http://}}; way=${{way%/}}; way=\"${{way%:*}} ${{way##*:}}\"; {}; {}; {}; ls {} >ls 2>&1; echo done",
        post("first", KEY),
        post("again", KEY),
        post("second", OTHER),
        host.state.display()
    );
    let running = Running::of(
        host.command(&["start", "sh", "--headless", "--prompt", &script])
            .spawn()
            .unwrap(),
    );
    let read = |name: &str| fs::read_to_string(host.workspace.join(name)).ok();
    let one = || {
        let mut found = None;
        eventually("a request waits", || {
            let ran = host.run(&["supervise", "--once", "--format", "json"]);
            let list: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
            found = list.as_array().and_then(|list| {
                list.iter()
                    .find(|one| one["state"] == "waiting")
                    .and_then(|one| one["id"].as_str().map(str::to_owned))
            });
            found.is_some()
        });
        found.unwrap()
    };

    let id = one();
    assert!(origin.lock().unwrap().is_empty(), "0 bytes before approval");
    let approved = host.run(&["approve", &id, "--for", "1m", "--reason", "a sample"]);
    assert_eq!(approved.code, 0, "{}", approved.stderr);
    let answer = |name: &str| {
        let mut text = String::new();
        eventually("an answer", || {
            text = read(name).unwrap_or_default();
            text.ends_with(['\n', '}'])
        });
        text
    };
    assert!(
        answer("first").starts_with("HTTP/1.1 200"),
        "{}",
        answer("first")
    );
    // The same again needs no word.
    assert!(
        answer("again").starts_with("HTTP/1.1 200"),
        "{}",
        answer("again")
    );
    assert!(saw(KEY));

    let rejected = host.run(&["reject", &one(), "--reason", "use the test key"]);
    assert_eq!(rejected.code, 0, "{}", rejected.stderr);
    let second = answer("second");
    assert!(
        second.starts_with("HTTP/1.1 403") && second.contains("use the test key"),
        "{second}"
    );
    assert!(!saw(OTHER));
    let ran = running.finish();
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "done\n"),
        "{}",
        ran.stderr
    );
    // The bottle cannot look where the control token is.
    assert!(!read("ls").unwrap().contains("bottles"), "{:?}", read("ls"));
    is_clean(&host, &slugs(&host));
}
