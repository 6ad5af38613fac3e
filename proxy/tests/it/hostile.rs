//! An agent that has read the source.

use std::time::{Duration, Instant};

use fixtures::origin::OriginOptions;
use fixtures::pki::Pki;
use fixtures::raw_origin::{RawOrigin, Script};
use serde_json::json;

use crate::harness::{H1, KEY, KNOWN, NAME, Setup, Sidecar, Wire, World, dlp, route, routes};

fn peak_mebibytes(sidecar: &Sidecar) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        / 1024
}

fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// What redaction leaves may be what another route is for; its request must not carry this route's credential.
#[tokio::test]
async fn redaction_does_not_move_a_request_to_another_route() {
    let mut narrow = route();
    narrow["matches"] = json!([{"paths": [{"regex": "/v1/[A-Z0-9]+"}]}]);
    narrow["auth"] = json!({"scheme": "Bearer", "token_ref": "EGRESS_TOKEN_ROUTE"});
    narrow["dlp"] = json!({"outbound_on_match": "redact"});
    let mut wide = route();
    wide["dlp"] = json!({"outbound_detectors": false});
    let setup =
        Setup::new(&routes(&[narrow, wide])).env("EGRESS_TOKEN_ROUTE", "for-the-narrow-route-only");
    let world = World::start(OriginOptions::DEFAULT, setup).await;
    assert_eq!(
        world
            .raw(b"GET /v1/ABC HTTP/1.1\r\nHost: HOST\r\n\r\n")
            .await
            .unwrap()
            .status,
        200
    );
    assert!(world.origin.saw(b"for-the-narrow-route-only"));
    world.origin.clear();
    let answer = world
        .raw(format!("GET /v1/{KEY} HTTP/1.1\r\nHost: HOST\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "credential-unredactable")
    );
    world.assert_untouched("redacted out of its route");
}

/// Sixteen bodies that decode to 80 MiB each, at once.
#[tokio::test]
async fn bombs_are_decoded_one_after_the_other() {
    let world = World::plain().await;
    let bomb = gzip(&vec![0; 80 << 20]);
    let mut all = Vec::new();
    for _ in 0..16 {
        let mut wire = world.h1().await;
        let head = format!(
            "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            bomb.len()
        );
        wire.send(&[world.fill(head.as_bytes()), bomb.clone()].concat())
            .await;
        all.push(wire);
    }
    for mut wire in all {
        assert_eq!(wire.answer().await.unwrap().code(), "content-encoding");
    }
    let peak = peak_mebibytes(&world.sidecar);
    assert!(peak < 500, "{peak} MiB");
}

/// Unfinished bodies fill what may be held; then nothing more is taken, and what holds nothing goes on.
#[tokio::test]
async fn held_bodies_share_one_budget() {
    let world = World::start(
        OriginOptions::DEFAULT,
        Setup::new(&routes(&[route()])).with("hold", json!("64MiB")),
    )
    .await;
    let piece = vec![b' '; 1 << 20];
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut wire = world.h1().await;
        wire.send(
            &world.fill(b"POST /held HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n"),
        )
        .await;
        for _ in 0..63 {
            wire.send(&[b"100000\r\n".as_slice(), &piece, b"\r\n"].concat())
                .await;
        }
        open.push(wire);
    }
    // Sent is not taken in: what still waits in a socket is not held yet.
    let port = format!(":{:04X}", world.sidecar.addr.port());
    crate::harness::until("the bodies to be taken in", || {
        // Local end, remote end, state, bytes to send:bytes to read. What the sidecar says to us does not count.
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        sockets.lines().skip(1).all(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (to_send, to_read) = fields[4].split_once(':').unwrap();
            let listens = fields[3] == "0A";
            (!fields[1].ends_with(&port) || listens || to_read == "00000000")
                && (!fields[2].ends_with(&port) || to_send == "00000000")
        })
    })
    .await;
    let mut wire = world.h1().await;
    wire.send(&world.fill(b"POST /late HTTP/1.1\r\nHost: HOST\r\nContent-Length: 6291456\r\n\r\n"))
        .await;
    for _ in 0..6 {
        wire.send(&piece).await;
    }
    let mut other = world.h1().await;
    other
        .send(&world.fill(b"GET /small HTTP/1.1\r\nHost: HOST\r\n\r\n"))
        .await;
    assert_eq!(other.answer().await.unwrap().status, 200);
    assert_eq!(wire.answer().await.unwrap().status, 503);
    assert!(!world.origin.saw(b"/late"));
    drop(open);
    crate::harness::until("room again", || {
        world
            .sidecar
            .audit()
            .iter()
            .filter(|record| record["verdict"] == "refuse")
            .count()
            >= 4
    })
    .await;
    let answer = world
        .raw(
            &[
                b"POST /again HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1048576\r\n\r\n".as_slice(),
                &piece,
            ]
            .concat(),
        )
        .await;
    assert_eq!(answer.unwrap().status, 200);
}

/// An agent that gives up on HTTP/2 does not leave a request running at the origin.
#[tokio::test]
async fn a_request_that_was_cancelled_is_cancelled_at_the_origin() {
    let pki = Pki::new();
    let origin = RawOrigin::start(Some(pki.server_config(&[NAME], H1)), Script::silent()).await;
    let sidecar = Sidecar::start(&pki, origin.port(), Setup::new(&routes(&[route()]))).await;
    let mut h2 = sidecar.h2(&format!("{NAME}:{}", origin.port())).await;
    let request = h2.request("GET", "/slow").body(()).unwrap();
    let (response, mut stream) = h2.sender.send_request(request, true).unwrap();
    origin.wait_for(b"/slow").await;
    let sockets = |pid: u32| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .filter(|to| to.to_string_lossy().starts_with("socket:"))
            .count()
    };
    let before = sockets(sidecar.pid());
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    crate::harness::until("the origin's connection to close", || {
        sockets(sidecar.pid()) < before
    })
    .await;
}

/// A body in the smallest chunks costs the sidecar no more than the agent.
#[tokio::test]
async fn one_byte_chunks() {
    let world = World::plain().await;
    let mut request =
        world.fill(b"POST /echo HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n");
    for byte in format!("{} {KEY} {}", "x".repeat(40_000), "y".repeat(40_000)).bytes() {
        request.extend_from_slice(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let begun = Instant::now();
    let mut wire = world.h1().await;
    wire.send(&request).await;
    assert_eq!(wire.answer().await.unwrap().status, 403);
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    world.assert_untouched("one-byte chunks");
}

/// Neighbours in the head that could shift an encoding's alignment or pass for a part of it.
#[tokio::test]
async fn neighbouring_fields_do_not_hide_a_secret() {
    use base64::Engine as _;
    let world = World::plain().await;
    let hex: String = KNOWN.bytes().map(|byte| format!("{byte:02x}")).collect();
    let base64 = base64::prelude::BASE64_STANDARD.encode(KNOWN);
    let base32ish: String = KNOWN.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut wire = world.h1().await;
    let mut missed = Vec::new();
    for before in [
        "", "a", "ab", "abc", "abcd", "0", "%", "%4", "\\u00", "=", "x-abc", "&amp",
    ] {
        for (kind, value) in [
            ("hex", &hex),
            ("base64", &base64),
            ("percent", &base32ish),
            ("raw", &KNOWN.to_owned()),
            ("token", &KEY.to_owned()),
        ] {
            for request in [
                format!(
                    "GET / HTTP/1.1\r\nHost: HOST\r\nX-Before: {before}\r\nabc: {value}\r\nabcd: f\r\n\r\n"
                ),
                format!(
                    "GET /{before}?{before} HTTP/1.1\r\nHost: HOST\r\na: {value}\r\nbeef: {before}\r\n\r\n"
                ),
                format!("GET /?{value} HTTP/1.1\r\nHost: HOST\r\nA: {before}\r\n\r\n"),
            ] {
                wire.send(&world.fill(request.as_bytes())).await;
                let answer = wire.answer().await.unwrap();
                if answer.status != 403 {
                    missed.push(format!(
                        "{kind} after {before:?}: {}",
                        request.lines().next().unwrap()
                    ));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// `Connection` may name the field that tells how the body is read.
#[tokio::test]
async fn a_coding_that_is_named_away_is_still_undone() {
    let world = World::plain().await;
    let body = gzip(format!("it is {KEY} here").as_bytes());
    let head = format!(
        "POST / HTTP/1.1\r\nHost: HOST\r\nConnection: content-encoding\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = world.raw(&[head.as_bytes(), &body].concat()).await.unwrap();
    assert_eq!(answer.status, 403);
    world.assert_untouched("a coding named away");
}

/// What a route's own detectors do not look for must not reach the log as a neighbour of what they do.
#[tokio::test]
async fn the_surroundings_of_a_finding_hold_no_other_one() {
    let world = World::policy(&dlp(json!({"outbound_detectors": ["known_secrets"]}))).await;
    let body = format!("a {KEY} b {KNOWN} c");
    for request in [
        format!(
            "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
        format!("GET / HTTP/1.1\r\nHost: HOST\r\n{KEY}: {KNOWN}\r\n\r\n"),
        format!(
            "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{KEY}: {KNOWN}\r\n\r\n"
        ),
    ] {
        let answer = world.raw(request.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 403);
        let event = answer.json()["event"].as_str().unwrap().to_owned();
        world.sidecar.event(&event).await;
        for text in [
            answer.text(),
            world.sidecar.audit_text(),
            world.sidecar.stderr(),
        ] {
            assert!(
                !text
                    .to_ascii_lowercase()
                    .contains(&KEY.to_ascii_lowercase()),
                "{text}"
            );
        }
    }
}

/// A tunnel that is held open while everything else goes on; requests behind it wait for nothing.
#[tokio::test]
async fn idle_and_half_open_connections_do_not_starve_others() {
    let world = World::plain().await;
    let mut held = Vec::new();
    for turn in 0..200 {
        let mut wire = world.sidecar.connect().await;
        if turn % 2 == 0 {
            wire.send(b"CONNECT origin.test:1 HTTP/1.1\r\nX: ").await;
        }
        held.push(wire);
    }
    let begun = Instant::now();
    assert_eq!(
        world
            .raw(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n")
            .await
            .unwrap()
            .status,
        200
    );
    assert!(begun.elapsed() < Duration::from_secs(3));
}

/// Some origins read a method or a path in a header, whatever the request line says.
#[tokio::test]
async fn a_header_that_stands_for_the_request_line_is_judged_as_one() {
    let mut narrow = route();
    narrow["matches"] = json!([{"methods": ["GET", "POST"], "paths": [{"prefix": "/v1"}]}]);
    let world = World::policy(&routes(&[narrow])).await;
    for (field, allowed) in [
        ("X-HTTP-Method-Override: DELETE", false),
        ("x-http-method: put", false),
        ("X-Method-Override: GET\r\nX-Method-Override: DELETE", false),
        ("X-Original-URL: /admin", false),
        ("X-Rewrite-Url: /v1/../admin", false),
        ("X-Rewrite-Url: /v1/r.git/git-receive-pack", false),
        ("X-HTTP-Method-Override: GET", true),
        ("X-Original-URL: /v1/other", true),
    ] {
        let request = format!("POST /v1/x HTTP/1.1\r\nHost: HOST\r\n{field}\r\n\r\n");
        let answer = world.raw(request.as_bytes()).await.unwrap();
        assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{field}");
        assert_eq!(
            world.origin.requests().len(),
            usize::from(allowed),
            "{field}"
        );
        world.origin.clear();
    }
}

/// Each panic of a task is a line in the log; there must be none, whatever came.
#[tokio::test]
async fn noise_does_not_panic() {
    let world = World::plain().await;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let good = world.fill(b"POST /n HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n5;a\r\nhello\r\n0\r\nT: u\r\n\r\n");
    for _ in 0..150 {
        let mut noise = good.clone();
        for _ in 0..1 + next() % 4 {
            let at = usize::try_from(next()).unwrap_or(0) % noise.len();
            match next() % 3 {
                0 => noise[at] = next().to_le_bytes()[0],
                1 => drop(noise.remove(at)),
                _ => noise.insert(at, b"\r\n:; \0,0"[usize::try_from(next() % 8).unwrap()]),
            }
        }
        let stream = world
            .sidecar
            .tls(&world.authority(), NAME, H1)
            .await
            .unwrap();
        let mut wire = Wire::new(stream);
        wire.send(&noise).await;
        let _closed = tokio::io::AsyncWriteExt::shutdown(&mut wire.io).await;
        wire.rest().await;
    }
    for request in world.origin.requests() {
        assert_eq!(request.authority, world.authority());
    }
    let log = world.sidecar.stderr();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(
        world
            .raw(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n")
            .await
            .unwrap()
            .status,
        200
    );
}
