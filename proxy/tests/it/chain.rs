//! The audit's chain, as `sidecar verify-audit` reads it.

use std::path::Path;

use fixtures::origin::OriginOptions;
use fixtures::require;
use rustix::process::Signal;
use tokio::process::Command;

use crate::harness::{KEY, Setup, World, route, routes, run, until};

async fn verify(path: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecar"));
    command.arg("verify-audit").arg(path);
    let (status, out, error) = run(&mut command).await;
    (
        status.code(),
        format!("{}{error}", String::from_utf8_lossy(&out)),
    )
}

#[tokio::test]
async fn a_real_log_is_whole_and_a_changed_one_is_not() {
    let mut world = World::plain().await;
    let path = world.sidecar.dir().join("audit.jsonl");
    let mut h2 = world.h2().await;
    for at in 0..20 {
        assert_eq!(h2.get(&format!("/{at}")).await.status, 200);
        let blocked = h2.get(&format!("/{at}?k={KEY}")).await;
        assert_eq!(blocked.status, 403);
    }
    until("all records", || world.sidecar.audit().len() == 41).await;
    let (code, said) = verify(&path).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with("ok: 41 records (20 allow, 20 block, 1 start); no orderly stop"),
        "{said}"
    );
    world.sidecar.signal(Signal::TERM);
    assert!(world.sidecar.wait().await.success());
    let (code, said) = verify(&path).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("1 start, 1 stop); closed by an orderly stop"),
        "{said}"
    );

    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let edited = text.replacen("\"verdict\":\"block\"", "\"verdict\":\"allow\"", 1);
    let first_block = 1 + lines
        .iter()
        .position(|line| line.contains("\"verdict\":\"block\""))
        .unwrap();
    let without = |at: usize| {
        let mut left = lines.clone();
        left.remove(at);
        left.join("\n") + "\n"
    };
    for (what, changed, expected) in [
        ("edited", edited, format!("line {first_block}: edited")),
        (
            "removed",
            without(7),
            "line 8: removed: record 8 is missing".to_owned(),
        ),
        (
            "truncated",
            without(41),
            "the end: truncated: records 42 to 42".to_owned(),
        ),
    ] {
        std::fs::write(&path, changed).unwrap();
        let (code, said) = verify(&path).await;
        assert_eq!(code, Some(1), "{what}: {said}");
        assert!(said.contains(&expected), "{what}: {said}");
    }
    let (code, _) = verify(Path::new("/nonexistent")).await;
    assert_eq!(code, Some(2));
}

/// A disk that is full denies everything; one that is free again serves again, and the log says what is missing.
#[tokio::test]
async fn a_disk_that_was_full_is_no_end_and_no_hole() {
    let prlimit = require::program("prlimit");
    if !require::require("prlimit", prlimit.is_some()) {
        return;
    }
    let prlimit = prlimit.unwrap().to_string_lossy().into_owned();
    let mut setup = Setup::new(&routes(&[route()]));
    setup.file["egress"]["log"] = 0.into();
    // As a full disk: a write fails, and the process goes on.
    setup.wrapper = [
        "/usr/bin/env",
        "--ignore-signal=XFSZ",
        &prlimit,
        "--fsize=16384:",
    ]
    .map(str::to_owned)
    .to_vec();
    let world = World::start(OriginOptions::DEFAULT, setup).await;
    let mut h2 = world.h2().await;
    let mut served = 0;
    let refused = loop {
        let answer = h2.get(&format!("/{served}")).await;
        if answer.status != 200 {
            break answer;
        }
        served += 1;
        assert!(served < 200, "the limit is not reached");
    };
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "audit-unavailable")
    );
    for _ in 0..3 {
        assert_eq!(h2.get("/full").await.status, 503);
    }
    assert_eq!(world.origin.requests().len(), served);
    let path = world.sidecar.dir().join("audit.jsonl");
    let (code, said) = verify(&path).await;
    assert_eq!(code, Some(0), "no half record is left: {said}");

    let pid = world.sidecar.pid().to_string();
    let mut command = Command::new(&prlimit);
    command.args(["--pid", &pid, "--fsize=unlimited:"]);
    let (status, _, error) = run(&mut command).await;
    assert!(status.success(), "{error}");
    // The record of one refusal shows that it can be written again.
    assert_eq!(h2.get("/probe").await.status, 503);
    until("the log is mended", || {
        world.sidecar.audit_text().contains("could not be written")
    })
    .await;
    assert_eq!(h2.get("/again").await.status, 200);
    let (code, said) = verify(&path).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 gap"), "{said}");
    assert_eq!(world.origin.requests().len(), served + 1);
}
