//! Requests that wait for an operator, and the API that he answers through.

use std::time::Duration;

use fixtures::origin::OriginOptions;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::harness::{
    Answer, KEY, KNOWN, PATIENCE, Setup, Sidecar, Wire, World, connect_head, route, routes, until,
};

const TOKEN: &str = "control-token-of-this-test-0001"; // gitleaks:allow

pub fn supervised(egress: &Value) -> Setup {
    Setup::new(egress)
        .with(
            "control",
            json!({"listen": "127.0.0.1:0", "token_ref": "CONTROL_TOKEN"}),
        )
        .with("approve", json!("launcher approve {id}"))
        .env("CONTROL_TOKEN", TOKEN)
}

async fn world() -> World {
    World::start(OriginOptions::DEFAULT, supervised(&routes(&[route()]))).await
}

async fn raw_control(sidecar: &Sidecar, request: &str) -> Answer {
    let address = sidecar.ready["control"].as_str().unwrap().parse().unwrap();
    let mut wire = Wire::new(fixtures::client::connect(address).await);
    wire.send(request.as_bytes()).await;
    wire.answer().await.unwrap()
}

pub async fn control(sidecar: &Sidecar, method: &str, path: &str, body: Value) -> Answer {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = raw_control(
        sidecar,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: control\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
    )
    .await;
    for secret in [KEY, KNOWN, TOKEN] {
        assert!(!answer.text().contains(secret), "{}", answer.text());
    }
    answer
}

async fn pending(world: &World) -> Vec<Value> {
    let answer = control(&world.sidecar, "GET", "/v1/pending", Value::Null).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().unwrap().clone()
}

/// What waits, once there are so many.
async fn waiting(world: &World, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all = pending(world).await;
        let waiting: Vec<Value> = all
            .into_iter()
            .filter(|one| one["state"] == "waiting")
            .collect();
        if waiting.len() == count {
            return waiting;
        }
        assert!(Instant::now() < deadline, "waited for {count}: {waiting:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn approve(world: &World, ask: &Value, more: Value) -> Answer {
    let id = ask["id"].as_str().unwrap();
    let mut body = json!({"by": "olga", "reason": "it is a sample"});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    control(
        &world.sidecar,
        "POST",
        &format!("/v1/pending/{id}/approve"),
        body,
    )
    .await
}

async fn reject(world: &World, ask: &Value, reason: &str) -> Answer {
    let id = ask["id"].as_str().unwrap();
    let path = format!("/v1/pending/{id}/reject");
    let body = json!({"by": "olga", "reason": reason});
    control(&world.sidecar, "POST", &path, body).await
}

async fn parked(world: &World) -> u64 {
    let answer = control(&world.sidecar, "GET", "/v1/status", Value::Null).await;
    answer.json()["parked"].as_u64().unwrap()
}

/// Sends a request on a connection of its own and waits for its answer meanwhile.
async fn send(world: &World, request: &str) -> JoinHandle<Answer> {
    let mut wire = world.h1().await;
    wire.send(&world.fill(request.as_bytes())).await;
    tokio::spawn(async move { patient(&mut wire).await })
}

async fn patient(wire: &mut Wire<tokio_rustls::client::TlsStream<TcpStream>>) -> Answer {
    wire.answer().await.unwrap()
}

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /items HTTP/1.1\r\nHost: HOST\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn nothing_leaves_before_it_is_approved_and_then_that_value_alone() {
    for options in [OriginOptions::HTTP1, OriginOptions::HTTP2] {
        let world = World::start(options, supervised(&routes(&[route()]))).await;
        let body = format!("the key is {KEY}, you see");
        let first = send(&world, &post(&body)).await;
        let [ask] = waiting(&world, 1).await.try_into().unwrap();
        assert_eq!(ask["rule"], "aws-access-key");
        assert_eq!(ask["location"], "body");
        assert_eq!(ask["method"], "POST");
        assert_eq!(ask["path"], "/items");
        assert_eq!(ask["context"], "the key is ********, you see");
        // Long enough for whatever would leak to leak.
        sleep(Duration::from_millis(300)).await;
        world.assert_untouched("a parked request");
        assert!(!first.is_finished());

        let answer = approve(&world, &ask, json!({})).await;
        assert_eq!(
            (answer.status, &answer.json()["waiting"]),
            (200, &json!(true))
        );
        assert_eq!(first.await.unwrap().status, 200);
        assert_eq!(world.origin.requests()[0].body, body.as_bytes());

        // The same value in the same place needs no second answer, over either protocol.
        assert_eq!(send(&world, &post(&body)).await.await.unwrap().status, 200);
        let mut h2 = world.h2().await;
        let request = h2.request("POST", "/other").body(()).unwrap();
        let answer = h2.send(request, &[KEY.as_bytes()], None).await.unwrap();
        assert_eq!(answer.status, 200);
        // Another place, and another value: each is asked about.
        let arrived = world.origin.requests().len();
        let query = send(
            &world,
            &format!("GET /?k={KEY} HTTP/1.1\r\nHost: HOST\r\n\r\n"),
        )
        .await;
        let other = send(&world, &post("AKIAI44QH8DHBEXAMPLE")).await; // gitleaks:allow
        let both = send(&world, &post(&format!("{KEY} and AKIAI44QH8DHBEXAMPLE"))).await; // gitleaks:allow
        let asks = waiting(&world, 3).await;
        assert_eq!(world.origin.requests().len(), arrived);
        for ask in &asks {
            reject(&world, ask, "not this one").await;
        }
        for refused in [query, other, both] {
            assert_eq!(refused.await.unwrap().code(), "supervise-rejected");
        }
        assert_eq!(world.origin.requests().len(), arrived);

        let records = world.sidecar.event(ask["event"].as_str().unwrap()).await;
        let verdicts: Vec<&str> = records
            .iter()
            .map(|record| record["verdict"].as_str().unwrap())
            .collect();
        assert_eq!(verdicts, ["approve", "approved"], "{records:#?}");
        assert_eq!(records[0]["by"], "olga");
        assert_eq!(
            records[0]["reason"],
            "AWS access key found in body: it is a sample"
        );
        assert!(records[0]["until"].is_string());
        assert_eq!(records[1]["asks"], json!([ask["id"]]));
    }
}

#[tokio::test]
async fn a_rejection_is_read_by_the_agent_and_holds() {
    let world = world().await;
    let first = send(&world, &post(KEY)).await;
    let [ask] = waiting(&world, 1).await.try_into().unwrap();
    let empty = reject(&world, &ask, "  ").await;
    assert_eq!(empty.status, 400, "{}", empty.text());
    assert_eq!(
        reject(&world, &ask, "use the vault\u{1b}[2J").await.status,
        200
    );
    let answer = first.await.unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "supervise-rejected")
    );
    assert_eq!(answer.verdict(), Some("blocked"));
    let reason = answer.json()["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.ends_with("an operator rejected it: use the vault\\u{1b}[2J"),
        "{reason}"
    );
    assert!(answer.json().get("approve").is_none());
    // An agent cannot wear the operator down: the next try is refused at once.
    let again = send(&world, &post(KEY)).await.await.unwrap();
    assert_eq!(again.code(), "supervise-rejected");
    world.assert_untouched("rejected requests");

    // Until he thinks better of it.
    let decided = control(&world.sidecar, "GET", "/v1/decisions", Value::Null)
        .await
        .json();
    assert_eq!(decided[0]["verdict"], "reject");
    let id = decided[0]["id"].as_str().unwrap();
    let path = format!("/v1/decisions/{id}?by=olga");
    assert_eq!(
        control(&world.sidecar, "DELETE", &path, Value::Null)
            .await
            .status,
        200
    );
    assert_eq!(
        control(&world.sidecar, "DELETE", &path, Value::Null)
            .await
            .status,
        404
    );
    let third = send(&world, &post(KEY)).await;
    let [ask] = waiting(&world, 1).await.try_into().unwrap();
    approve(&world, &ask, json!({"once": true})).await;
    assert_eq!(third.await.unwrap().status, 200);
    // Once is once.
    let fourth = send(&world, &post(KEY)).await;
    waiting(&world, 1).await;
    drop(fourth);
}

#[tokio::test]
async fn each_secret_of_a_request_needs_its_own_approval() {
    let world = world().await;
    let request = format!(
        "POST /?a={KEY} HTTP/1.1\r\nHost: HOST\r\nX-Note: {KNOWN}\r\nContent-Length: {}\r\n\r\n{KEY}",
        KEY.len()
    );
    let sent = send(&world, &request).await;
    let asks = waiting(&world, 3).await;
    let places: Vec<&str> = asks
        .iter()
        .map(|ask| ask["location"].as_str().unwrap())
        .collect();
    assert_eq!(places, ["query", "header X-Note", "body"]);
    // An event is not an answer to all of its findings.
    let event = asks[0]["event"].as_str().unwrap();
    let path = format!("/v1/pending/{event}/approve");
    let several = control(&world.sidecar, "POST", &path, json!({"by": "olga"})).await;
    assert_eq!(several.status, 409, "{}", several.text());
    for ask in &asks[..2] {
        assert_eq!(approve(&world, ask, json!({})).await.status, 200);
    }
    sleep(Duration::from_millis(200)).await;
    assert!(!sent.is_finished());
    world.assert_untouched("two of three approved");
    approve(&world, &asks[2], json!({})).await;
    assert_eq!(sent.await.unwrap().status, 200);

    // A second one does not hide behind one that is approved: in a name (in lower case), across fields, in base64.
    let arrived = world.origin.requests().len();
    for hidden in [
        format!("{}: 1", "AKIAI44QH8DHBEXAMPLE".to_lowercase()), // gitleaks:allow
        "X-A: AKIAI44QH8\r\nX-B: DHBEXAMPLE\r\nX-Note2: QUtJQUk0NFFIOERIQkVYQU1QTEU=".to_owned(), // gitleaks:allow
    ] {
        let request =
            format!("GET /?a={KEY} HTTP/1.1\r\nHost: HOST\r\nX-Note: {KNOWN}\r\n{hidden}\r\n\r\n");
        let sent = send(&world, &request).await;
        sleep(Duration::from_millis(300)).await;
        assert_eq!(world.origin.requests().len(), arrived, "{hidden}");
        for ask in waiting(&world, pending(&world).await.len()).await {
            reject(&world, &ask, "no").await;
        }
        assert_eq!(sent.await.unwrap().status, 403, "{hidden}");
    }
}

#[tokio::test]
async fn what_nobody_answers_is_refused_and_can_be_approved_for_the_next_try() {
    let setup = supervised(&routes(&[route()])).env("EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS", "1");
    let world = World::start(OriginOptions::DEFAULT, setup).await;
    let answer = send(&world, &post(KEY)).await.await.unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "supervise-timeout")
    );
    let said = answer.json();
    let event = said["event"].as_str().unwrap();
    assert_eq!(
        said["approve"],
        json!([format!("launcher approve {event}.1")])
    );
    world.assert_untouched("a request that timed out");
    let [ask] = pending(&world).await.try_into().unwrap();
    assert_eq!(
        (&ask["state"], &ask["event"]),
        (&json!("timed-out"), &json!(event))
    );
    assert_eq!(
        approve(&world, &ask, json!({"once": true})).await.status,
        409
    );
    let answer = approve(&world, &ask, json!({"for_seconds": 2})).await;
    assert_eq!(
        (answer.status, &answer.json()["waiting"]),
        (200, &json!(false))
    );
    assert!(pending(&world).await.is_empty());
    assert_eq!(send(&world, &post(KEY)).await.await.unwrap().status, 200);
    // Not for ever.
    sleep(Duration::from_millis(2100)).await;
    assert_eq!(
        send(&world, &post(KEY)).await.await.unwrap().code(),
        "supervise-timeout"
    );
    assert_eq!(world.origin.requests().len(), 1);
}

#[tokio::test]
async fn an_agent_that_goes_away_frees_its_place() {
    let world = world().await;
    let mut wire = world.h1().await;
    wire.send(&world.fill(post(KEY).as_bytes())).await;
    waiting(&world, 1).await;
    drop(wire);
    waiting(&world, 0).await;
    assert_eq!(parked(&world).await, 0);
    // A pipelined request does not keep it from being seen.
    let mut wire = world.h1().await;
    let two = format!("{}{}", post(KEY), post(KEY));
    wire.send(&world.fill(two.as_bytes())).await;
    waiting(&world, 1).await;
    drop(wire);
    waiting(&world, 0).await;

    // Nor does an answer that it would still read: who says that nothing more comes is not waited for.
    let mut wire = world.h1().await;
    wire.send(&world.fill(post(KEY).as_bytes())).await;
    let [ask] = waiting(&world, 1).await.try_into().unwrap();
    wire.io.shutdown().await.unwrap();
    waiting(&world, 0).await;
    assert_eq!(parked(&world).await, 0);
    approve(&world, &ask, json!({"once": true})).await;
    let said = wire.rest().await;
    assert!(
        !String::from_utf8_lossy(&said).contains(" 200 "),
        "{said:?}"
    );
    world.assert_untouched("a half-closed request");

    let mut h2 = world.h2().await;
    let request = h2.request("POST", "/").body(()).unwrap();
    let task = tokio::spawn(async move { h2.send(request, &[KEY.as_bytes()], None).await });
    let [ask] = waiting(&world, 1).await.try_into().unwrap();
    task.abort();
    waiting(&world, 0).await;
    assert_eq!(parked(&world).await, 0);
    // An answer that comes too late sends nothing by itself.
    approve(&world, &ask, json!({})).await;
    sleep(Duration::from_millis(200)).await;
    world.assert_untouched("requests whose agent went away");
}

#[tokio::test]
async fn no_more_wait_than_there_is_room_for() {
    let world = world().await;
    let h2 = world.h2().await;
    let mut tasks = Vec::new();
    for at in 0..64 {
        let mut h2 = h2.clone();
        let request = h2.request("POST", &format!("/{at}")).body(()).unwrap();
        tasks.push(tokio::spawn(async move {
            h2.send(request, &[KEY.as_bytes()], None).await.unwrap()
        }));
    }
    let asks = waiting(&world, 64).await;
    let answer = send(&world, &post(KEY)).await.await.unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "supervise-full")
    );
    world.assert_untouched("65 requests with a key");
    // One answer about the value releases all that wait for it.
    approve(&world, &asks[40], json!({})).await;
    for task in tasks {
        assert_eq!(task.await.unwrap().status, 200);
    }
    assert_eq!(parked(&world).await, 0);
}

#[tokio::test]
async fn what_no_approval_covers() {
    let world = World::start(
        OriginOptions::DEFAULT,
        supervised(&routes(&[route()])).env("EGRESS_TOKEN_CANARY", "canary-5c1f0e9b7a"),
    )
    .await;
    let gzip = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(KEY.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let long = format!("{}{KEY}", " ".repeat(2 << 20));
    let structural = "GET / HTTP/1.1\r\nHost: HOST\r\nX-A: b%0d%0aX-C: d\r\n\r\n".to_owned();
    for (what, request, code) in [
        ("structural", structural.into_bytes(), "structural"),
        (
            "a name",
            format!("GET / HTTP/1.1\r\nHost: HOST\r\n{KEY}: 1\r\n\r\n").into_bytes(),
            "supervise-place",
        ),
        (
            "canary",
            post("canary-5c1f0e9b7a").into_bytes(),
            "supervise-place",
        ),
        (
            "compressed",
            [
                format!("POST / HTTP/1.1\r\nHost: HOST\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", gzip.len()).into_bytes(),
                gzip,
            ]
            .concat(),
            "supervise-place",
        ),
        (
            "trailer",
            format!("POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: {KEY}\r\n\r\n").into_bytes(),
            "supervise-place",
        ),
        (
            "a long body behind a key",
            format!("POST /?k={KEY} HTTP/1.1\r\nHost: HOST\r\nContent-Length: {}\r\n\r\n{}", 2 << 20, " ".repeat(2 << 20)).into_bytes(),
            "supervise-streamed",
        ),
    ] {
        let answer = world.raw(&request).await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (403, code), "{what}");
        world.assert_untouched(what);
    }
    // Of all of these only a key in a head can be approved, for the next try; what follows it is judged by itself.
    let [ask] = pending(&world).await.try_into().unwrap();
    assert_eq!(
        (&ask["state"], &ask["location"]),
        (&json!("ended"), &json!("query"))
    );
    let answer = world.raw(post(&long).as_bytes()).await;
    if let Some(answer) = answer {
        assert_eq!(answer.code(), "supervise-streamed");
        assert!(
            answer.text().contains("too long to be held"),
            "{}",
            answer.text()
        );
    }
    assert!(!world.origin.saw(KEY.as_bytes()));
    assert_eq!(approve(&world, &ask, json!({})).await.status, 200);
    let spaces = " ".repeat(2 << 20);
    let next = format!(
        "POST /?k={KEY} HTTP/1.1\r\nHost: HOST\r\nContent-Length: {}\r\n\r\n{spaces}",
        spaces.len()
    );
    assert_eq!(world.raw(next.as_bytes()).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_stop_and_a_new_policy_refuse_what_waits() {
    let mut world = world().await;
    let first = send(&world, &post(KEY)).await;
    let [ask] = waiting(&world, 1).await.try_into().unwrap();
    let mut narrower = route();
    narrower["matches"] = json!([{"methods": ["GET"]}]);
    world.sidecar.rewrite(&routes(&[narrower]));
    let reloaded = control(&world.sidecar, "POST", "/v1/reload", Value::Null).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    approve(&world, &ask, json!({})).await;
    assert_eq!(first.await.unwrap().code(), "supervise-policy-changed");
    let again = send(&world, &post(KEY)).await.await.unwrap();
    assert_eq!(again.code(), "request-not-allowed");
    world.sidecar.rewrite_text("egress: 1");
    let bad = control(&world.sidecar, "POST", "/v1/reload", Value::Null).await;
    assert_eq!(bad.status, 422);

    let waits = send(
        &world,
        &format!("GET /?k={KEY} HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    )
    .await;
    waiting(&world, 1).await;
    world.sidecar.signal(Signal::TERM);
    let answer = waits.await.unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "supervise-stopping")
    );
    assert!(world.sidecar.wait().await.success());
    world.assert_untouched("what waited");
}

#[tokio::test]
async fn the_control_api_is_for_the_operator_alone() {
    let mut local = json!({"host": "127.0.0.1:CONTROL", "allow_private": true});
    let world = world().await;
    let address = world.sidecar.ready["control"].as_str().unwrap().to_owned();
    for (authorization, status) in [
        (String::new(), 401),
        (format!("Authorization: Bearer {TOKEN}x\r\n"), 401),
        (format!("Authorization: Bearer {}\r\n", &TOKEN[1..]), 401),
        (format!("Authorization: Basic {TOKEN}\r\n"), 401),
        (
            format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n"),
            401,
        ),
        (format!("Authorization: Bearer {TOKEN}\r\n"), 200),
    ] {
        for path in ["/v1/pending", "/v1/status", "/metrics", "/v1/decisions"] {
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\r\n"
            );
            let answer = raw_control(&world.sidecar, &request).await;
            assert_eq!(answer.status, status, "{path} {authorization}");
        }
    }
    let health = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(
        raw_control(&world.sidecar, health).await.json(),
        json!({"ok": true})
    );
    let long = "x".repeat(20_000);
    let request = format!(
        "POST /v1/pending/x/approve HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nX: {long}\r\n\r\n"
    );
    assert!(raw_control(&world.sidecar, &request).await.status >= 400);
    let unknown = control(
        &world.sidecar,
        "POST",
        "/v1/pending/evt_0.1/approve",
        json!({"by": "olga"}),
    )
    .await;
    assert_eq!(unknown.status, 404);

    // No route leads an agent there, not even one that names it.
    let port = address.rsplit(':').next().unwrap();
    local["host"] = json!(format!("127.0.0.1:{port}"));
    let named = json!({"host": format!("origin.test:{port}"), "allow_private": true});
    let mut plain = named.clone();
    plain["scheme"] = json!("http");
    world.sidecar.rewrite(&routes(&[local, named, plain]));
    world.sidecar.reload("the policy was reloaded").await;
    for authority in [address.clone(), format!("origin.test:{port}")] {
        let (answer, _) = world.sidecar.tunnel(&authority).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "control-port"),
            "{authority}"
        );
    }
    let credentials = connect_head("x")
        .lines()
        .find(|line| line.starts_with("Proxy-"))
        .unwrap()
        .to_owned();
    let mut wire = world.sidecar.connect().await;
    let request = format!(
        "GET http://origin.test:{port}/health HTTP/1.1\r\nHost: origin.test:{port}\r\n{credentials}\r\n\r\n"
    );
    wire.send(request.as_bytes()).await;
    assert_eq!(wire.answer().await.unwrap().code(), "control-port");
}

#[tokio::test]
async fn events_and_metrics() {
    let world = world().await;
    let address = world.sidecar.ready["control"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let mut events = Wire::new(fixtures::client::connect(address).await);
    let request =
        format!("GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    events.send(request.as_bytes()).await;
    assert_eq!(
        events.head().await.unwrap().header("content-type"),
        Some("text/event-stream")
    );
    let sent = send(&world, &post(KEY)).await;
    let [ask] = waiting(&world, 1).await.try_into().unwrap();
    reject(&world, &ask, "no").await;
    sent.await.unwrap();
    let mut heard = String::new();
    while !heard.contains("event: decided") || !heard.ends_with("\r\n") {
        heard.push_str(&events.line().await.unwrap());
        heard.push_str("\r\n");
    }
    assert!(
        heard.contains("event: waiting\ndata: {") && !heard.contains(KEY),
        "{heard}"
    );

    let text = control(&world.sidecar, "GET", "/metrics", Value::Null)
        .await
        .text();
    for line in [
        "bot_bottle_verdicts_total{verdict=\"block\",code=\"supervise-rejected\"} 1",
        "bot_bottle_findings_total{rule=\"aws-access-key\",verdict=\"block\"} 1",
        "bot_bottle_parked_requests 0",
        "bot_bottle_audit_broken 0",
        "bot_bottle_log_lines_suppressed_total 0",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}: {text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// Without anybody to ask it is a block, at once.
#[tokio::test]
async fn without_a_control_api_nothing_waits() {
    let world = World::plain().await;
    let answer = world.raw(post(KEY).as_bytes()).await.unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "credential-unsupervised")
    );
    assert!(world.sidecar.ready.get("control").is_none());
    until("the record", || {
        world
            .sidecar
            .audit_text()
            .contains("credential-unsupervised")
    })
    .await;
}

#[tokio::test]
async fn a_route_lets_so_much_out_and_no_more() {
    for body_of in [100usize, 3 << 20] {
        let mut limited = route();
        let limit = body_of * 2 + 2000;
        limited["dlp"] = json!({"max_total_bytes": limit});
        let world = World::policy(&routes(&[limited])).await;
        let body = " ".repeat(body_of);
        for _ in 0..2 {
            assert_eq!(send(&world, &post(&body)).await.await.unwrap().status, 200);
        }
        let mut refused = 0;
        // In heads as well as in bodies, and over HTTP/2 as well.
        let mut h2 = world.h2().await;
        for at in 0..40 {
            let answer = h2.get(&format!("/{at}/{}", "x".repeat(100))).await;
            if answer.status == 403 {
                assert_eq!(answer.code(), "volume");
                refused += 1;
            }
        }
        assert!((20..40).contains(&refused), "{refused}");
        let mut wire = world.h1().await;
        wire.send(&world.fill(post(&body).as_bytes())).await;
        if let Some(answer) = wire.answer().await {
            assert_eq!(answer.code(), "volume");
        }
        assert!(world.origin.raw().len() < limit + 20_000);
    }
}

/// To the detectors it is clean, so that they could remember it; it stays refused, held or streamed, however often it comes.
#[tokio::test]
async fn what_the_scanner_remembers_has_no_short_pieces() {
    const SECRET: &str = "q7Rk2Lw9Xz4Pn8Vb3Tc6Hd1Mf5Gj0Ys"; // gitleaks:allow
    let setup = Setup::new(&routes(&[route()])).env("EGRESS_TOKEN_PIECES", SECRET);
    let world = World::start(OriginOptions::DEFAULT, setup).await;
    let sent = send(&world, &post(&SECRET[..9])).await.await.unwrap();
    assert_eq!(sent.status, 200);
    let prose = |length: usize| "so many words, ".repeat(length / 15);
    let piece = &SECRET[12..21];
    for length in [600, 200_000] {
        let clean = prose(length);
        for (before, after) in [(&*clean, ""), ("", &*clean), (&clean[..300], &clean[300..])] {
            for _ in 0..2 {
                let whole = send(&world, &post(&format!("{before} {after}"))).await;
                assert_eq!(whole.await.unwrap().status, 200);
                let body = format!("{before} {piece} {after}");
                let answer = send(&world, &post(&body)).await.await.unwrap();
                assert_eq!(
                    (answer.status, answer.code().as_str()),
                    (403, "credential-pieces"),
                    "{} before it, {} behind it",
                    before.len(),
                    after.len()
                );
            }
        }
    }
    // Streamed: at and around the edges of what the scanner reads at once, and of a turn, with all the rest known already.
    let clean = "so many more words; ".repeat(170_000);
    let turn = 96 * 1024;
    for at in [
        0,
        65_530,
        65_536,
        turn - 4,
        5 * turn - 5,
        1 << 20,
        2_000_000,
        clean.len() - 4,
    ] {
        let with = |piece: &str| {
            [
                &clean[..at],
                piece,
                &clean[at + piece.len().min(clean.len() - at)..],
            ]
            .concat()
        };
        for piece in [" ", piece, piece] {
            let mut wire = world.h1().await;
            wire.send(&world.fill(post(&with(piece)).as_bytes())).await;
            let answer = wire.answer().await;
            if piece == " " {
                assert_eq!(answer.unwrap().status, 200, "{at}");
            } else {
                assert!(
                    answer.is_none_or(|answer| answer.code() == "credential-pieces"),
                    "{at}"
                );
            }
        }
    }
    assert!(!world.origin.saw(piece.as_bytes()));
}

/// Pieces that no detector would call a secret, over many requests, ways and protocols: half of it is too much.
#[tokio::test]
async fn a_secret_does_not_leave_in_short_pieces() {
    const SECRET: &str = "q7Rk2Lw9Xz4Pn8Vb3Tc6Hd1Mf5Gj0Ys"; // gitleaks:allow
    let setup = Setup::new(&routes(&[route()])).env("EGRESS_TOKEN_PIECES", SECRET);
    let world = World::start(OriginOptions::DEFAULT, setup).await;
    let mut h2 = world.h2().await;
    assert_eq!(h2.get(&format!("/?a={}", &SECRET[..9])).await.status, 200);
    // The same one again is no more of it.
    let again = send(&world, &post(&SECRET[..9])).await.await.unwrap();
    assert_eq!(again.status, 200);
    let header = format!(
        "GET / HTTP/1.1\r\nHost: HOST\r\nX-A: {}\r\n\r\n",
        &SECRET[12..21]
    );
    let answer = send(&world, &header).await.await.unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "credential-pieces")
    );
    let long = format!("{}{}", " ".repeat(2 << 20), &SECRET[20..30]);
    let mut wire = world.h1().await;
    wire.send(&world.fill(post(&long).as_bytes())).await;
    let answer = wire.answer().await;
    assert!(answer.is_none_or(|answer| answer.code() == "credential-pieces"));
    for piece in [&SECRET[12..21], &SECRET[20..30]] {
        assert!(!world.origin.saw(piece.as_bytes()), "{piece}");
    }
    assert_eq!(h2.get("/nothing").await.status, 200);
}
