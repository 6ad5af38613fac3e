//! An operator answers for a real bottle: real curl inside, the real commands outside, an origin that records.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{Host, Ran, Running, eventually};
use fixtures::origin::{Origin, OriginOptions};
use fixtures::pki::Pki;
use fixtures::require;
use serde_json::Value;

const KEY: &str = "AKIAIOSFODNN7EXAMPLE"; // gitleaks:allow
const OTHER: &str = "AKIAI44QH8DHBEXAMPLE"; // gitleaks:allow

fn waiting(host: &Host) -> Vec<Value> {
    let ran = host.run(&["supervise", "--once", "--format", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let list: Value = serde_json::from_str(&ran.stdout).unwrap();
    list.as_array()
        .unwrap()
        .iter()
        .filter(|one| one["state"] == "waiting")
        .cloned()
        .collect()
}

fn one(host: &Host) -> Value {
    let mut found = Vec::new();
    eventually("a request waits", || {
        found = waiting(host);
        found.len() == 1
    });
    found.remove(0)
}

fn said(ran: &Ran) -> &str {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    &ran.stdout
}

#[test]
fn a_held_request_is_approved_and_another_is_rejected() {
    if !require::require("curl", require::program("curl").is_some()) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    for host in Host::all() {
        let origin = runtime.block_on(Origin::start(
            &Pki::new(),
            &["127.0.0.1"],
            OriginOptions::PLAIN,
        ));
        let port = origin.port();
        host.bottle(
            "sh",
            &format!(
                "agent_provider: {{template: command, command: [sh, -c, \"{{prompt}}\"]}}\n\
                 egress:\n  routes:\n    - {{host: \"127.0.0.1:{port}\", scheme: http, allow_private: true}}"
            ),
        );
        assert_eq!(
            host.run(&["approve", "evt_0.1"]).code,
            1,
            "nothing runs yet"
        );
        let url = format!("http://127.0.0.1:{port}/items");
        let curl = |name: &str, key: &str| {
            format!(
                "curl -sS -m 60 -o {name}.body -w '%{{http_code}}' --data key={key} {url} > {name}.new && mv {name}.new {name}"
            )
        };
        let script = format!(
            "{}; {}; {}; ls -la {} >ls 2>&1; echo done",
            curl("first", KEY),
            curl("again", KEY),
            curl("second", OTHER),
            host.state.display()
        );
        let running = Running::of(
            host.command(&["start", "sh", "--headless", "--prompt", &script])
                .spawn()
                .unwrap(),
        );
        let read = |name: &str| fs::read_to_string(host.workspace.join(name)).ok();

        let ask = one(&host);
        let id = ask["id"].as_str().unwrap();
        assert_eq!(ask["credential"], "AWS access key");
        assert_eq!(ask["context"], "key=********");
        assert!(
            origin.requests().is_empty() && origin.raw().is_empty(),
            "0 bytes before approval"
        );
        let text = host.run(&["supervise", "--once"]);
        assert!(
            said(&text).contains(&format!("launcher approve {id}")),
            "{}",
            text.stdout
        );
        assert!(!text.stdout.contains(KEY));
        let bottle = host.bottles().remove(0);
        let control = host
            .state
            .join("bottles")
            .join(&bottle)
            .join("control.json");
        assert_eq!(
            fs::metadata(&control).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let access: Value = serde_json::from_slice(&fs::read(&control).unwrap()).unwrap();
        let token = access["token"].as_str().unwrap();
        assert!(
            host.processes().iter().all(|line| !line.contains(token)),
            "the token is on no command line"
        );

        let wrong = host.run(&["approve", "evt_0.1"]);
        assert_eq!(wrong.code, 1);
        assert!(
            wrong.stderr.contains("hint: `launcher supervise --once`"),
            "{}",
            wrong.stderr
        );
        let approved = host.run(&["approve", id, "--for", "1m", "--reason", "a sample"]);
        assert!(
            said(&approved).starts_with(
                "approved: AWS access key in body field key to 127.0.0.1; the request that waits goes on"
            ),
            "{}",
            approved.stdout
        );
        eventually("the first has its answer", || read("first").is_some());
        assert_eq!(read("first").as_deref(), Some("200"));
        // The same again needs no word.
        eventually("the same again has its answer", || read("again").is_some());
        assert_eq!(read("again").as_deref(), Some("200"));
        assert_eq!(origin.requests().len(), 2);
        assert!(origin.saw(KEY.as_bytes()));

        let ask = one(&host);
        let id = ask["id"].as_str().unwrap();
        let rejected = host.run(&[
            "reject",
            id,
            "--reason",
            "ask me for a test key",
            "--bottle",
            "sh",
        ]);
        assert!(
            said(&rejected).starts_with("rejected: AWS access key"),
            "{}",
            rejected.stdout
        );
        eventually("the second has its answer", || read("second").is_some());
        assert_eq!(read("second").as_deref(), Some("403"));
        let body: Value = serde_json::from_str(&read("second.body").unwrap()).unwrap();
        assert!(
            body["reason"]
                .as_str()
                .unwrap()
                .contains("ask me for a test key"),
            "{body}"
        );
        assert!(!origin.saw(OTHER.as_bytes()));
        let ran = running.finish();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        // The bottle cannot look where the token is.
        assert!(!read("ls").unwrap().contains("bottles"), "{:?}", read("ls"));

        let why = host.run(&["why", body["event"].as_str().unwrap()]);
        assert!(
            said(&why).contains("ask me for a test key") && why.stdout.contains("by        "),
            "{}",
            why.stdout
        );
        let log = host.state.join("logs").join(&bottle).join("audit.jsonl");
        let text = fs::read_to_string(&log).unwrap();
        assert!(!text.contains(KEY) && !text.contains(OTHER) && !text.contains(token));
        let verdicts: Vec<String> = text
            .lines()
            .map(|line| {
                let record: Value = serde_json::from_str(line).unwrap();
                record["verdict"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(
            verdicts,
            [
                // The probe, which has no password, is refused.
                "start", "refuse", "approve", "approved", "approved", "reject", "block", "stop"
            ]
        );
        let verified = host.run(&["verify-audit", log.to_str().unwrap()]);
        assert!(
            said(&verified).starts_with("ok: 8 records"),
            "{}",
            verified.stdout
        );
        assert_eq!(
            host.run(&["supervise", "--once", "--format", "json"])
                .stdout,
            "[]\n"
        );
        let nothing = host.run(&["approve", id]);
        assert!(
            nothing.stderr.contains("no bottle runs"),
            "{}",
            nothing.stderr
        );
    }
}

/// Nobody answers: the agent gets the command, and the next try passes once it was typed.
#[test]
fn a_refusal_names_the_command_that_lets_the_next_try_through() {
    if !require::require("curl", require::program("curl").is_some()) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut host = Host::new();
    host.env
        .push(("EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS".into(), "1".into()));
    let origin = runtime.block_on(Origin::start(
        &Pki::new(),
        &["127.0.0.1"],
        OriginOptions::PLAIN,
    ));
    let port = origin.port();
    host.bottle(
        "sh",
        &format!(
            "agent_provider: {{template: command, command: [sh, -c, \"{{prompt}}\"]}}\n\
             egress:\n  routes:\n    - {{host: \"127.0.0.1:{port}\", scheme: http, allow_private: true}}"
        ),
    );
    let url = format!("http://127.0.0.1:{port}/items");
    let script = format!(
        "curl -sS -m 60 -o body --data key={KEY} {url}; mv body first; while [ ! -e go ]; do sleep 0.05; done; \
         curl -sS -m 60 -o /dev/null -w '%{{http_code}}' --data key={KEY} {url}"
    );
    let running = Running::of(
        host.command(&["start", "sh", "--headless", "--prompt", &script])
            .spawn()
            .unwrap(),
    );
    let mut body = String::new();
    eventually("the refusal", || {
        match fs::read_to_string(host.workspace.join("first")) {
            Ok(text) => {
                body = text;
                true
            }
            Err(_) => false,
        }
    });
    let refusal: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(refusal["code"], "supervise-timeout", "{body}");
    let command = refusal["approve"][0].as_str().unwrap();
    let why = host.run(&["why", refusal["event"].as_str().unwrap()]);
    assert!(said(&why).contains(command), "{}", why.stdout);
    let arguments: Vec<&str> = command.split(' ').skip(1).collect();
    let approved = host.run(&arguments);
    assert!(
        said(&approved).contains("its next try goes through"),
        "{}",
        approved.stdout
    );
    fs::write(host.workspace.join("go"), "").unwrap();
    let ran = running.finish();
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "200"),
        "{}",
        ran.stderr
    );
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn asking_needs_a_terminal() {
    let host = Host::new();
    let ran = host.run(&["supervise"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("launcher supervise --once"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        host.run(&["reject", "evt_0.1"]).code,
        2,
        "a rejection needs a reason"
    );
}
