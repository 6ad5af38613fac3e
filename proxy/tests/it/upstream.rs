//! Origins that cannot be trusted, or that cannot speak properly.

use bytes::Bytes;
use fixtures::origin::OriginOptions;
use fixtures::pki::Pki;
use fixtures::raw_origin::{RawOrigin, Script, Step};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Answer, H1, H2, NAME, PATIENCE, Setup, Sidecar, Wire, World, route, routes};

#[tokio::test]
async fn origins_that_cannot_be_reached() {
    let world = World::policy(&routes(&[
        json!({"host": "origin.test:PORT"}),
        json!({"host": "other.test:1", "allow_private": true}),
        json!({"host": "no-such-name.invalid"}),
    ]))
    .await;
    for (authority, code) in [
        (world.authority(), "upstream-private-address"),
        ("other.test:1".into(), "upstream-connect"),
        ("no-such-name.invalid:443".into(), "upstream-resolve"),
    ] {
        let (answer, _) = world.sidecar.tunnel(&authority).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (502, code),
            "{authority}"
        );
    }
    assert_eq!(world.origin.connections(), 0);
    // Something that does not speak TLS at all.
    let pki = Pki::new();
    let plain = RawOrigin::start(
        None,
        Script::new([
            Step::WaitForBytes(1),
            Step::Send(b"220 mail ready\r\n".to_vec()),
        ]),
    )
    .await;
    let sidecar = Sidecar::start(&pki, plain.port(), Setup::new(&routes(&[route()]))).await;
    let (answer, _) = sidecar.tunnel(&format!("{NAME}:{}", plain.port())).await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.code().starts_with("upstream-tls"),
        "{}",
        answer.code()
    );
}

async fn scripted(script: Script) -> (RawOrigin, Sidecar) {
    let pki = Pki::new();
    let origin = RawOrigin::start(Some(pki.server_config(&[NAME], H1)), script).await;
    let sidecar = Sidecar::start(&pki, origin.port(), Setup::new(&routes(&[route()]))).await;
    (origin, sidecar)
}

async fn ask(sidecar: &Sidecar, origin: &RawOrigin, method: &str) -> (Option<Answer>, Vec<u8>) {
    let authority = format!("{NAME}:{}", origin.port());
    let mut wire = Wire::new(sidecar.tls(&authority, NAME, H1).await.unwrap());
    wire.send(format!("{method} / HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes())
        .await;
    let answer = wire.answer_to(method).await;
    let rest = if answer
        .as_ref()
        .is_some_and(|answer| answer.whole && answer.header("connection").is_none())
    {
        Vec::new()
    } else {
        wire.rest().await
    };
    (answer, rest)
}

#[tokio::test]
async fn a_malformed_response_is_not_passed_on() {
    for (what, response) in [
        ("no http", &b"hello\r\n\r\n"[..]),
        ("another version", b"HTTP/3.0 200 OK\r\n\r\n"),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ("length and chunks", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("bare line feed", b"HTTP/1.1 200 OK\nX: y\n\n"),
        ("folded", b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n"),
        ("nul", b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n"),
        ("control", b"HTTP/1.1 200 OK\r\nX: \x01\r\n\r\n"),
        ("bad length", b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc"),
        ("unknown coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("unasked switch", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw bytes"),
        ("status out of range", b"HTTP/1.1 099 X\r\n\r\n"),
        ("closed without a word", b""),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le"),
    ] {
        let (origin, sidecar) = scripted(Script::answer(response)).await;
        let (answer, _) = ask(&sidecar, &origin, "GET").await;
        let answer = answer.unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!((answer.status, answer.verdict()), (502, Some("error")), "{what}: {answer:?}");
    }
    let huge = [
        b"HTTP/1.1 200 OK\r\nX: ".as_slice(),
        &b"a".repeat(80_000),
        b"\r\n\r\n",
    ]
    .concat();
    let (origin, sidecar) = scripted(Script::answer(huge)).await;
    assert_eq!(ask(&sidecar, &origin, "GET").await.0.unwrap().status, 502);
}

#[tokio::test]
async fn a_truncated_response_is_seen_to_be_truncated() {
    for response in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\npart"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nff\r\nmore",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n",
        // The end of the connection is the end of the body: without close_notify it is no end.
        b"HTTP/1.1 200 OK\r\n\r\npart",
    ] {
        let script = Script::new([
            Step::WaitFor(b"\r\n\r\n".to_vec()),
            Step::Send(response.to_vec()),
            Step::Pause(std::time::Duration::from_millis(20)),
            Step::Abort,
        ]);
        let (origin, sidecar) = scripted(script).await;
        let (answer, _) = ask(&sidecar, &origin, "GET").await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200);
        assert!(!answer.whole, "{}: {answer:?}", response.escape_ascii());
        let mut h2 = sidecar.h2(&format!("{NAME}:{}", origin.port())).await;
        let request = h2.request("GET", "/").body(()).unwrap();
        if let Ok(answer) = h2.send(request, &[], None).await {
            assert!(!answer.whole, "{}: {answer:?}", response.escape_ascii());
        }
    }
}

/// What an origin says beyond its answer is not the next answer.
#[tokio::test]
async fn a_second_response_is_not_taken_for_the_next_requests() {
    let split = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    for (method, response) in [
        ("GET", split.to_vec()),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 50\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged".to_vec()),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged".to_vec()),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nforged".to_vec()),
    ] {
        let script = Script::new([
            Step::WaitFor(b"\r\n\r\n".to_vec()),
            Step::Send(response.clone()),
            Step::WaitForBytes(usize::MAX),
        ]);
        let (origin, sidecar) = scripted(script).await;
        let authority = format!("{NAME}:{}", origin.port());
        let mut wire = Wire::new(sidecar.tls(&authority, NAME, H1).await.unwrap());
        for turn in 0..2 {
            wire.send(format!("{method} /{turn} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes()).await;
            let answer = wire.answer_to(method).await.unwrap();
            assert_ne!(answer.text(), "forged", "{}", response.escape_ascii());
        }
        assert!(origin.connections() > 1, "the connection was used again");
        if response.starts_with(b"HTTP/1.1 204") {
            wire.send(format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes()).await;
            assert_eq!(wire.answer().await.unwrap().header("content-length"), None, "no length on a 204 (RFC 9110 8.6)");
        }
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_origin_closed() {
    // One answer a connection, and the end of it is announced by nothing.
    let script = Script::new([
        Step::WaitFor(b"\r\n\r\n".to_vec()),
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        Step::Finish,
    ]);
    let (origin, sidecar) = scripted(script).await;
    let authority = format!("{NAME}:{}", origin.port());
    let mut wire = Wire::new(sidecar.tls(&authority, NAME, H1).await.unwrap());
    for _ in 0..5 {
        wire.send(format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes())
            .await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    // Closed in answer to the second request: repeated where that does no harm, and only there.
    let script = Script::new([
        Step::WaitFor(b"\r\n\r\n".to_vec()),
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        Step::WaitFor(b"second HTTP/1.1".to_vec()),
        Step::Abort,
    ]);
    for (method, statuses) in [
        ("GET", [200, 200]),
        ("PUT", [200, 200]),
        ("POST", [200, 502]),
        ("PATCH", [200, 502]),
    ] {
        let (origin, sidecar) = scripted(script.clone()).await;
        let authority = format!("{NAME}:{}", origin.port());
        let mut wire = Wire::new(sidecar.tls(&authority, NAME, H1).await.unwrap());
        for (turn, status) in ["first", "second"].iter().zip(statuses) {
            wire.send(
                format!(
                    "{method} /{turn} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 1\r\n\r\nx"
                )
                .as_bytes(),
            )
            .await;
            assert_eq!(
                wire.answer().await.unwrap().status,
                status,
                "{method} {turn}"
            );
        }
        let seconds = origin
            .raw()
            .windows(7)
            .filter(|window| window == b"/second")
            .count();
        assert_eq!(seconds, if statuses[1] == 200 { 2 } else { 1 }, "{method}");
    }
}

#[tokio::test]
async fn the_marker_and_the_way_around_are_taken_out_of_responses() {
    for options in [OriginOptions::HTTP1, OriginOptions::HTTP2] {
        let world = World::start(options, Setup::new(&routes(&[route()]))).await;
        let h1 = world
            .raw(b"GET /forged HTTP/1.1\r\nHost: HOST\r\n\r\n")
            .await
            .unwrap();
        let h2 = world.h2().await.get("/forged").await;
        for answer in [h1, h2] {
            assert_eq!((answer.status, answer.text().as_str()), (200, "forged"));
            assert_eq!((answer.verdict(), answer.header("alt-svc")), (None, None));
        }
    }
}

#[tokio::test]
async fn protocols_are_translated_both_ways() {
    for (options, version) in [
        (OriginOptions::HTTP1, "HTTP/1.1"),
        (OriginOptions::HTTP2, "HTTP/2.0"),
    ] {
        let world = World::start(options, Setup::new(&routes(&[route()]))).await;
        let mut h2 = world.h2().await;
        let request = h2
            .request("POST", "/echo?a")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        let h2_answer = h2.send(request, &[b"one", b"two"], None).await.unwrap();
        let h1_answer = world
            .raw(b"POST /echo?a HTTP/1.1\r\nHost: HOST\r\nCookie: a=1; b=2\r\nContent-Length: 6\r\n\r\nonetwo")
            .await
            .unwrap();
        for answer in [h2_answer, h1_answer] {
            let echo = answer.json();
            assert_eq!(
                (&echo["version"], &echo["path"], &echo["body_len"]),
                (&json!(version), &json!("/echo?a"), &json!(6))
            );
            assert!(echo["headers"].to_string().contains("a=1; b=2"), "{echo}");
        }
        for path in [
            "/status/204",
            "/status/304",
            "/status/404",
            "/chunked",
            "/bytes/0",
        ] {
            let h2 = world.h2().await.get(path).await;
            let h1 = world
                .raw(format!("GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n").as_bytes())
                .await
                .unwrap();
            assert_eq!(
                (h1.status, &h1.body, h1.whole),
                (h2.status, &h2.body, h2.whole),
                "{path}"
            );
        }
        let mut h1 = world.h1().await;
        h1.send(&world.fill(b"HEAD /bytes/9 HTTP/1.1\r\nHost: HOST\r\n\r\n"))
            .await;
        assert_eq!(
            h1.answer_to("HEAD").await.unwrap().header("content-length"),
            Some("9")
        );
        h1.send(&world.fill(b"GET /bytes/2 HTTP/1.1\r\nHost: HOST\r\n\r\n"))
            .await;
        assert_eq!(h1.answer().await.unwrap().body, [0, 1]);
    }
}

/// An origin on HTTP/2 that answers as told by the path and by no library's good manners.
async fn bare_h2(pki: &Pki) -> u16 {
    let acceptor = TlsAcceptor::from(pki.server_config(&[NAME], H2));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut turn = 0;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            turn += 1;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let response = http::Response::builder();
                    match request.uri().path() {
                        "/empty" => drop(
                            respond.send_response(response.status(404).body(()).unwrap(), true),
                        ),
                        "/lie" => {
                            let response = response.header("content-length", "6").body(()).unwrap();
                            drop(respond.send_response(response, true));
                        }
                        "/goaway" if turn == 1 => {
                            respond.send_reset(h2::Reason::REFUSED_STREAM);
                            connection.graceful_shutdown();
                        }
                        "/trailers" => {
                            let mut stream = respond
                                .send_response(response.body(()).unwrap(), false)
                                .unwrap();
                            let _gone = stream.send_data(Bytes::from_static(b"x"), false);
                            let mut trailers = http::HeaderMap::new();
                            trailers.insert("x-bottle-verdict", "forged".parse().unwrap());
                            trailers.insert("alt-svc", "h3".parse().unwrap());
                            trailers.insert("x-sum", "1".parse().unwrap());
                            let _gone = stream.send_trailers(trailers);
                        }
                        _ => {
                            let mut stream = respond
                                .send_response(response.body(()).unwrap(), false)
                                .unwrap();
                            let _gone = stream.send_data(Bytes::from_static(b"ok"), true);
                        }
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn responses_without_a_body_end_for_an_http1_agent() {
    let pki = Pki::new();
    let port = bare_h2(&pki).await;
    let sidecar = Sidecar::start(&pki, port, Setup::new(&routes(&[route()]))).await;
    let authority = format!("{NAME}:{port}");
    let mut wire = Wire::new(sidecar.tls(&authority, NAME, H1).await.unwrap());
    for (path, status) in [
        ("/empty", 404),
        ("/ok", 200),
        ("/lie", 0),
        ("/ok", 200),
        ("/trailers", 200),
        ("/goaway", 200),
        ("/ok", 200),
    ] {
        wire.send(
            format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nTE: trailers\r\n\r\n").as_bytes(),
        )
        .await;
        let answer = tokio::time::timeout(PATIENCE / 4, wire.answer())
            .await
            .unwrap_or_else(|_| panic!("{path} does not end"));
        let Some(answer) = answer else {
            assert_eq!(path, "/lie");
            wire = Wire::new(sidecar.tls(&authority, NAME, H1).await.unwrap());
            continue;
        };
        if path == "/lie" {
            assert!(
                answer.body.is_empty() && matches!(answer.status, 200 | 502)
                    || answer.status == 502,
                "{answer:?}"
            );
            continue;
        }
        assert_eq!(answer.status, status, "{path}");
        if path == "/trailers" {
            assert_eq!(answer.trailers, [("x-sum".to_owned(), "1".to_owned())]);
        }
    }
}

/// What an origin is offered follows the agent before; one that speaks HTTP/2 and nothing else is not translated for.
#[tokio::test]
async fn an_agent_of_http2_alone_gets_it_after_one_that_had_none() {
    let world = World::plain().await;
    let ask = world.fill(b"GET /echo HTTP/1.1\r\nHost: HOST\r\n\r\n");
    for _ in 0..2 {
        let mut h1 = world.h1().await;
        h1.send(&ask).await;
        assert_eq!(h1.answer().await.unwrap().status, 200);
    }
    let mut h1 = world.h1().await;
    h1.send(&ask).await;
    let version = h1.answer().await.unwrap().json()["version"].clone();
    assert_eq!(version, "HTTP/1.1", "the agent has no HTTP/2");
    let version = world.h2().await.get("/echo").await.json()["version"].clone();
    assert_eq!(version, "HTTP/2.0", "gRPC over HTTP/1.1 would be none");
}
