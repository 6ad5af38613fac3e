//! Start, check, reload, stop, and what is written meanwhile.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use fixtures::origin::OriginOptions;
use fixtures::pki::Pki;
use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;

use crate::harness::{
    self, KNOWN, NAME, Setup, Sidecar, Wire, World, connect_head, route, routes, until, write_file,
};

#[tokio::test]
async fn a_new_policy_rules_open_tunnels_too() {
    let world = World::plain().await;
    let mut wire = world.h1().await;
    let mut h2 = world.h2().await;
    let get = world.fill(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n");
    wire.send(&get).await;
    assert_eq!(wire.answer().await.unwrap().status, 200);

    world.sidecar.rewrite(&routes(&[]));
    world.sidecar.reload("the policy was reloaded").await;
    wire.send(&get).await;
    assert_eq!(wire.answer().await.unwrap().code(), "host-not-allowed");
    assert_eq!(h2.get("/").await.status, 403);
    assert_eq!(world.sidecar.tunnel(&world.authority()).await.0.status, 403);

    // A route that is no longer private has no way to the address that the tunnel leads to.
    world
        .sidecar
        .rewrite(&routes(&[json!({"host": "origin.test:PORT"})]));
    world.sidecar.reload("the policy was reloaded").await;
    let requests = world.origin.requests().len();
    assert_eq!(h2.get("/").await.status, 502);
    assert_eq!(world.origin.requests().len(), requests);

    world.sidecar.rewrite(&routes(&[route()]));
    world.sidecar.reload("the policy was reloaded").await;
    assert_eq!(h2.get("/").await.status, 200);
    assert_eq!(
        world
            .raw(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n")
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn a_bad_new_file_changes_nothing() {
    let world = World::plain().await;
    let hash = world.sidecar.ready["policy"].clone();
    for text in ["not: [yaml", "", "egress: {routes: [{host: '*'}]}", "{}"] {
        world.sidecar.rewrite_text(text);
        world
            .sidecar
            .reload("the last good one stays in force")
            .await;
    }
    world.sidecar.rewrite_text("egress: 1");
    assert_eq!(
        world
            .raw(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n")
            .await
            .unwrap()
            .status,
        200
    );
    until("a record", || {
        world
            .sidecar
            .audit()
            .iter()
            .any(|record| record["verdict"] == "allow")
    })
    .await;
    assert!(
        world
            .sidecar
            .audit()
            .iter()
            .all(|record| record["policy"] == hash)
    );
}

#[tokio::test]
async fn a_bad_policy_at_boot_denies_everything_and_says_so() {
    for egress in [
        json!({"routes": [{"host": "a b"}]}),
        json!({"routes": [{"host": "origin.test:PORT", "allow_private": true}], "log": 7}),
        json!({"routes": [{"host": "origin.test:PORT", "no_such_key": 1}]}),
        json!({"routes": 7}),
        json!("nonsense"),
    ] {
        let world = World::policy(&egress).await;
        let (answer, _) = world.sidecar.tunnel(&world.authority()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "host-not-allowed"),
            "{egress}"
        );
        assert!(
            world.sidecar.stderr().contains("EVERYTHING IS DENIED"),
            "{egress}: {}",
            world.sidecar.stderr()
        );
        assert_eq!(world.origin.connections(), 0);
        world.sidecar.rewrite(&routes(&[route()]));
        world.sidecar.reload("the policy was reloaded").await;
        assert_eq!(world.sidecar.tunnel(&world.authority()).await.0.status, 200);
    }
}

#[tokio::test]
async fn what_ends_a_start() {
    let pki = Pki::new();
    let auth = json!({"host": "origin.test:PORT", "auth": {"scheme": "Bearer", "token_ref": "EGRESS_TOKEN_GONE"}});
    let plain = || Setup::new(&routes(&[route()]));
    for (what, setup, words) in [
        (
            "missing token",
            Setup::new(&routes(&[auth])),
            vec!["EGRESS_TOKEN_GONE", "egress.routes[0]"],
        ),
        (
            "short secret",
            plain().env("EGRESS_TOKEN_SHORT", "tiny-77"),
            vec!["EGRESS_TOKEN_SHORT"],
        ),
        (
            "short secret of another prefix",
            plain()
                .env("BOT_BOTTLE_SENSITIVE_PREFIXES", "MINE_")
                .env("MINE_A", "tiny-77"),
            vec!["MINE_A"],
        ),
        (
            "unknown key",
            plain().with("holdd", json!("1MiB")),
            vec!["holdd", "line "],
        ),
        (
            "bad size",
            plain().with("hold", json!("1GB")),
            vec!["hold", "1GB"],
        ),
        (
            "no listener",
            plain().with("listen", json!([])),
            vec!["listen"],
        ),
        (
            "bad listener",
            plain().with("listen", json!(["localhost:1"])),
            vec!["localhost:1"],
        ),
        (
            "no password",
            plain().with(
                "proxy_auth",
                json!({"basic": {"username": "a", "password_ref": "NOT_THERE"}}),
            ),
            vec!["NOT_THERE"],
        ),
        (
            "no audit",
            plain().with("audit", json!("/nonexistent/audit")),
            vec!["/nonexistent/audit"],
        ),
        (
            "no roots",
            plain().with("upstream", json!({"ca_files": ["/nonexistent/ca"]})),
            vec!["/nonexistent/ca"],
        ),
    ] {
        let Err((status, said)) = Sidecar::try_start(&pki, 443, setup).await else {
            panic!("{what}: it started")
        };
        assert_eq!(status.code(), Some(2), "{what}: {said}");
        for word in words {
            assert!(said.contains(word), "{what}: {said}");
        }
        assert!(
            !said.contains("tiny-77") && !said.contains(KNOWN),
            "{what}: {said}"
        );
    }
}

async fn check(setup: &Setup, arguments: &[&str]) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = write_file(dir.path(), &Pki::new(), 8443, setup);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecar"));
    command
        .arg("check")
        .arg(&file)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null());
    let (status, out, error) = harness::run(&mut command).await;
    (status.code(), String::from_utf8(out).unwrap(), error)
}

#[tokio::test]
async fn check_prints_the_effective_routes() {
    let mut get = route();
    get["matches"] = json!([{"methods": ["get"], "paths": [{"prefix": "/v1"}]}]);
    get["auth"] = json!({"scheme": "Bearer", "token_ref": "EGRESS_TOKEN_GONE"});
    let egress = routes(&[
        get,
        json!({"host": "*.wild.test", "git": {"fetch": true}}),
        json!({"host": "bad.wild.test", "deny": true}),
    ]);
    let (code, out, error) = check(&Setup::new(&egress), &[]).await;
    assert_eq!(code, Some(0), "{error}");
    let (first, rest) = out.split_once('\n').unwrap();
    assert!(
        first.ends_with("with 3 routes; everything else is denied"),
        "{first}"
    );
    insta::assert_snapshot!(rest, @r"
    allow https://origin.test:8443  [GET /v1[/…]]  injects EGRESS_TOKEN_GONE
    allow https://*.wild.test:443  git fetch
    deny  https://bad.wild.test:443
    ");
    let (code, _, error) = check(&Setup::new(&egress), &["--secrets"]).await;
    assert_eq!(code, Some(2));
    assert!(
        error.contains("EGRESS_TOKEN_GONE") || error.contains("PROXY_PASSWORD"),
        "{error}"
    );
    let (code, _, error) = check(&Setup::new(&json!({"routes": [{"hots": "a.test"}]})), &[]).await;
    assert_eq!(code, Some(2));
    assert!(error.contains("hots") && error.contains("line "), "{error}");
}

#[tokio::test]
async fn a_stop_lets_requests_in_flight_finish() {
    let mut world = World::plain().await;
    let mut idle = world.h1().await;
    let mut wire = world.h1().await;
    wire.send(&world.fill(b"GET /sse HTTP/1.1\r\nHost: HOST\r\n\r\n"))
        .await;
    let head = wire.head().await.unwrap();
    assert_eq!(head.status, 200);
    let mut h2 = world.h2().await;
    let request = h2.request("GET", "/sse").body(()).unwrap();
    let other = tokio::spawn(async move { h2.send(request, &[], None).await });
    until("the second request", || world.origin.requests().len() == 2).await;
    world.sidecar.signal(Signal::TERM);
    let rest = wire.rest().await;
    let text = String::from_utf8_lossy(&rest);
    assert!(
        text.contains("id: 9") && text.ends_with("\r\n0\r\n\r\n"),
        "{text}"
    );
    let answer = other.await.unwrap().unwrap();
    assert!(answer.whole && answer.text().contains("id: 9"));
    assert!(idle.rest().await.is_empty());
    assert!(world.sidecar.wait().await.success());
    assert!(
        !world.sidecar.stderr().contains("cut off"),
        "{}",
        world.sidecar.stderr()
    );
}

#[tokio::test]
async fn the_allowlist_shows_names_only() {
    let mut with_auth = route();
    with_auth["auth"] = json!({"scheme": "Bearer", "token_ref": "EGRESS_TOKEN_X"});
    let world = World::policy(&routes(&[with_auth])).await;
    let credentials = connect_head("x")
        .lines()
        .find(|line| line.starts_with("Proxy-"))
        .unwrap()
        .to_owned();
    let mut wire = world.sidecar.connect().await;
    for (start, host) in [
        ("http://_egress.local/allowlist", "_egress.local"),
        ("/allowlist", "_egress.local"),
        ("http://_EGRESS.local:80/allowlist", "x"),
    ] {
        wire.send(
            format!("GET {start} HTTP/1.1\r\nHost: {host}\r\n{credentials}\r\n\r\n").as_bytes(),
        )
        .await;
        let answer = wire.answer().await.unwrap();
        assert_eq!(answer.status, 200, "{start}");
        let table = answer.json();
        assert_eq!(table["routes"][0]["host"], NAME);
        assert_eq!(table["routes"][0]["credential"], "EGRESS_TOKEN_X");
        assert!(!answer.text().contains(KNOWN));
    }
    wire.send(format!("GET http://_egress.local/other HTTP/1.1\r\nHost: _egress.local\r\n{credentials}\r\n\r\n").as_bytes()).await;
    assert_eq!(wire.answer().await.unwrap().status, 404);
    assert_eq!(world.origin.connections(), 0);
}

#[tokio::test]
async fn the_audit_is_private_and_every_line_is_a_record() {
    let world = World::plain().await;
    let mode = std::fs::metadata(world.sidecar.dir().join("audit.jsonl"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for path in [
        "/",
        "/%0a%7b%22verdict%22%3a%22allow%22%7d",
        "/\"},{\"a\":\"",
        "/%1b[31m",
        "/%e2%80%ae",
        "/\u{2028}",
    ] {
        let request = world.fill(
            format!("GET {path} HTTP/1.1\r\nHost: HOST\r\nX-\"}}: a\"}}\u{1b}\r\n\r\n").as_bytes(),
        );
        let request = if path == "/" {
            world.fill(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n")
        } else {
            request
        };
        let mut wire = world.h1().await;
        wire.send(&request).await;
        wire.answer().await;
    }
    let mut h2 = world.h2().await;
    assert_eq!(h2.get("/%22x%7b").await.status, 200);
    until("the last record", || {
        world.sidecar.audit_text().contains("%22x%7b")
    })
    .await;
    for record in world.sidecar.audit() {
        assert!(
            ["start", "allow", "refuse", "block"].contains(&record["verdict"].as_str().unwrap()),
            "{record}"
        );
        assert_eq!(record["bottle"], "test");
    }
    let text = world.sidecar.audit_text();
    assert!(!text.contains('\u{1b}') && !text.contains('\u{2028}'));
}

#[tokio::test]
async fn what_cannot_be_recorded_does_not_happen() {
    let setup = Setup::new(&routes(&[route()]))
        .with("audit", json!("/dev/full"))
        .with("confine", json!(false));
    let world = World::start(OriginOptions::DEFAULT, setup).await;
    let (connect, wire) = world.sidecar.tunnel(&world.authority()).await;
    if connect.status == 200 {
        let mut wire = Wire::new(
            world
                .sidecar
                .handshake(wire.io, NAME, harness::H1)
                .await
                .unwrap(),
        );
        wire.send(&world.fill(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n"))
            .await;
        let answer = wire.answer().await.unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "audit-unavailable")
        );
    }
    let (answer, _) = world.sidecar.tunnel(&world.authority()).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "audit-unavailable")
    );
    assert!(world.origin.requests().is_empty());
    assert!(
        world
            .sidecar
            .stderr()
            .contains("the audit log cannot be written")
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_process_is_confined() {
    let world = World::plain().await;
    assert_eq!(
        world
            .raw(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n")
            .await
            .unwrap()
            .status,
        200
    );
    let tasks = std::fs::read_dir(format!("/proc/{}/task", world.sidecar.pid())).unwrap();
    let mut threads = 0;
    for task in tasks {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let value = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
                .trim()
                .to_owned()
        };
        assert_eq!(
            (value("NoNewPrivs:"), value("Seccomp:")),
            ("1".into(), "2".into()),
            "{status}"
        );
        threads += 1;
    }
    assert!(threads >= 2);
    let environment = std::fs::read(format!("/proc/{}/environ", world.sidecar.pid()));
    assert!(environment.is_ok());
}
