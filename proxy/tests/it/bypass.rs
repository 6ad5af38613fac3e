//! Ways around the inspection that were ever tried on a proxy.

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::harness::{H1, H2, KEY, NAME, Setup, Wire, World, connect_head, route, routes};

/// Writes in pieces of the given sizes; the last size goes for all the rest.
struct Dribble<S> {
    io: S,
    sizes: Vec<usize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Dribble<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Dribble<S> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let size = self.sizes[0].min(bytes.len());
        let wrote = std::pin::Pin::new(&mut self.io).poll_write(cx, &bytes[..size]);
        if wrote.is_ready() && self.sizes.len() > 1 {
            self.sizes.remove(0);
            // Long enough that the sidecar reads what is there.
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
        wrote
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_client_hello_in_pieces_is_still_one() {
    let world = World::plain().await;
    let ones = [vec![1; 300], vec![usize::MAX]].concat();
    for sizes in [
        vec![1, usize::MAX],
        vec![2, usize::MAX],
        vec![5, 1, usize::MAX],
        ones,
    ] {
        let (_, wire) = world.sidecar.tunnel(&world.authority()).await;
        wire.io.set_nodelay(true).unwrap();
        let stream = world
            .sidecar
            .handshake(Dribble { io: wire.io, sizes }, NAME, H1)
            .await
            .unwrap();
        let mut wire = Wire::new(stream);
        wire.send(&world.fill(format!("GET /?{KEY} HTTP/1.1\r\nHost: HOST\r\n\r\n").as_bytes()))
            .await;
        assert_eq!(wire.answer().await.unwrap().status, 403);
        wire.send(&world.fill(b"GET /clean HTTP/1.1\r\nHost: HOST\r\n\r\n"))
            .await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    assert!(!world.origin.saw(KEY.as_bytes()));
}

#[tokio::test]
async fn what_is_not_tls_does_not_go_on() {
    let world = World::plain().await;
    for (what, bytes, answered) in [
        (
            "http",
            &b"POST / HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 6\r\n\r\nsecret"[..],
            true,
        ),
        ("ssh", b"SSH-2.0-OpenSSH_9.9\r\nsecret", true),
        ("http/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nsecret", true),
        ("sslv2", b"\x80\x2e\x01\x03\x01secret", false),
        ("tls of another major version", b"\x16\x04\x01secret", false),
        (
            "a record of another kind",
            b"\x17\x03\x03\x00\x06secret",
            false,
        ),
        ("nul", b"\0\0\0secret", false),
        (
            "nothing that is tls inside",
            b"\x16\x03\x01\x00\x06secret",
            false,
        ),
    ] {
        let (answer, mut wire) = world.sidecar.tunnel(&world.authority()).await;
        assert_eq!(answer.status, 200);
        wire.send(bytes).await;
        let rest = wire.rest().await;
        let text = String::from_utf8_lossy(&rest);
        assert_eq!(
            text.contains("x-bottle-verdict: refused"),
            answered,
            "{what}: {text}"
        );
        assert!(!world.origin.saw(b"secret"), "{what}");
    }
    // Sent together with CONNECT, without waiting for its answer.
    let mut wire = world.sidecar.connect().await;
    wire.send(
        &[
            connect_head(&world.authority()).as_bytes(),
            b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n",
        ]
        .concat(),
    )
    .await;
    let text = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(
        text.starts_with("HTTP/1.1 200 ") && text.contains("400 Bad Request"),
        "{text}"
    );
    world.assert_untouched("plain text in a tunnel");
}

/// The one test that waits for a deadline: ten seconds.
#[tokio::test]
async fn a_silent_client_is_closed_at_the_deadline() {
    let world = World::plain().await;
    let (_, mut silent) = world.sidecar.tunnel(&world.authority()).await;
    let (_, mut half) = world.sidecar.tunnel(&world.authority()).await;
    half.send(b"\x16\x03\x01").await;
    let begun = std::time::Instant::now();
    let (a, b) = tokio::join!(silent.rest(), half.rest());
    assert!(a.is_empty() && b.is_empty());
    assert!(
        begun.elapsed() > std::time::Duration::from_secs(8),
        "closed early: {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn one_host_all_the_way() {
    let world = World::policy(&routes(&[
        route(),
        json!({"host": "other.test:PORT", "allow_private": true}),
    ]))
    .await;
    let sidecar = &world.sidecar;
    let authority = world.authority();
    let port = world.origin.port();

    let (_, wire) = sidecar.tunnel(&authority).await;
    assert!(
        sidecar.handshake(wire.io, "other.test", H1).await.is_err(),
        "another SNI"
    );
    let (_, wire) = sidecar.tunnel(&authority).await;
    let connector = tokio_rustls::TlsConnector::from(sidecar.client_config(H1, false));
    let name = rustls::pki_types::ServerName::try_from(NAME).unwrap();
    assert!(connector.connect(name, wire.io).await.is_err(), "no SNI");

    for host in [
        "other.test",
        &format!("other.test:{port}"),
        "origin.test:1",
        "",
        "origin.test@other.test",
        "origin.test, other.test",
        "[::1]",
    ] {
        let answer = world
            .raw(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        assert!(
            matches!(answer.status, 400 | 421),
            "Host: {host}: {answer:?}"
        );
    }
    for extra in ["Host: other.test\r\n", "host: origin.test\r\n"] {
        let answer = world
            .raw(format!("GET / HTTP/1.1\r\nHost: HOST\r\n{extra}\r\n").as_bytes())
            .await
            .unwrap();
        assert_eq!(answer.status, 400, "two hosts");
    }
    for host in [
        format!("ORIGIN.test:{port}"),
        format!("origin.test.:{port}"),
        "origin.test".to_owned(),
    ] {
        let answer = world
            .raw(format!("GET /ok HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "Host: {host} is the same host");
    }
    for request in world.origin.requests() {
        assert_eq!(
            (request.path.as_str(), &request.authority),
            ("/ok", &authority),
            "Host is written anew"
        );
    }
    world.origin.clear();

    let mut h2 = world.h2().await;
    for uri in [
        format!("https://other.test:{port}/"),
        "https://origin.test:1/".into(),
        format!("http://{authority}/"),
        format!("https://u@{authority}/"),
    ] {
        let request = http::Request::builder().uri(&uri).body(()).unwrap();
        match h2.send(request, &[], None).await {
            Ok(answer) => assert!(matches!(answer.status, 400 | 421), "{uri}: {answer:?}"),
            Err(error) => assert!(error.is_reset(), "{uri}: {error}"),
        }
    }
    let request = h2
        .request("GET", "/")
        .header("host", "other.test")
        .body(())
        .unwrap();
    assert!(
        matches!(h2.send(request, &[], None).await.unwrap().status, 400 | 421),
        ":authority and another Host"
    );
    world.assert_untouched("another host");
    assert!(!world.sidecar.audit_text().contains("u@"), "userinfo");
}

#[tokio::test]
async fn addresses_in_every_spelling() {
    let world = World::plain().await;
    let port = world.origin.port();
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::]",
        "0",
        "0.0.0.0",
        "[::1%25lo]",
        "127.0.0.1.",
        "１２７.0.0.1",
        "127。0。0。1",
        "localhost",
        "169.254.169.254",
        "[64:ff9b::7f00:1]",
    ] {
        let (answer, _) = world.sidecar.tunnel(&format!("{host}:{port}")).await;
        assert!(matches!(answer.status, 400 | 403), "{host}: {answer:?}");
    }
    assert_eq!(world.origin.connections(), 0);

    // Named by a route but not as private: refused by the address. With both: an IP certificate.
    let setup = Setup::new(&routes(&[json!({"host": "127.0.0.1:PORT"})]));
    let world = World::start(fixtures::origin::OriginOptions::DEFAULT, setup).await;
    let (answer, _) = world
        .sidecar
        .tunnel(&format!("127.0.0.1:{}", world.origin.port()))
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (502, "upstream-private-address")
    );
    let setup = Setup::new(&routes(&[
        json!({"host": "127.0.0.1:PORT", "allow_private": true}),
    ]));
    let world = World::start(fixtures::origin::OriginOptions::DEFAULT, setup).await;
    let authority = format!("[::ffff:127.0.0.1]:{}", world.origin.port());
    let stream = world
        .sidecar
        .tls(&authority, "127.0.0.1", H1)
        .await
        .unwrap();
    let mut wire = Wire::new(stream);
    wire.send(
        format!(
            "GET /ip HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n",
            world.origin.port()
        )
        .as_bytes(),
    )
    .await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn who_may_use_the_proxy() {
    let world = World::plain().await;
    let authority = world.authority();
    for field in [
        "",
        "Proxy-Authorization: Basic Ym90dGxlOndyb25n\r\n",
        "Proxy-Authorization: Bearer x\r\n",
        "Proxy-Authorization: Basic\r\n",
        "Proxy-Authorization: Basic \r\n",
        "Authorization: Basic Ym90dGxlOm9ubHktZm9yLXRoaXMtdGVzdA==\r\n",
    ] {
        for start in [
            format!("CONNECT {authority}"),
            format!("GET http://{authority}/"),
            "GET http://_egress.local/allowlist".into(),
        ] {
            let mut wire = world.sidecar.connect().await;
            wire.send(format!("{start} HTTP/1.1\r\nHost: {authority}\r\n{field}\r\n").as_bytes())
                .await;
            let answer = wire.answer().await.unwrap();
            assert_eq!(answer.status, 407, "{start} {field}");
            assert_eq!(
                answer.header("proxy-authenticate"),
                Some("Basic realm=\"bot-bottle\"")
            );
        }
    }
    assert_eq!(world.origin.connections(), 0);
    // Asked first, answered second, on one connection.
    let mut wire = world.sidecar.connect().await;
    wire.send(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes())
        .await;
    assert_eq!(wire.answer().await.unwrap().status, 407);
    wire.send(connect_head(&authority).as_bytes()).await;
    assert_eq!(wire.head().await.unwrap().status, 200);
}

#[tokio::test]
async fn what_no_route_names_is_not_even_dialled() {
    let world = World::plain().await;
    for authority in [
        "denied.test:443",
        "origin.test:443",
        "sub.origin.test:PORT",
        "rigin.test:PORT",
        "origin.test.evil.test:PORT",
    ] {
        let authority = authority.replace("PORT", &world.origin.port().to_string());
        let (answer, _) = world.sidecar.tunnel(&authority).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "host-not-allowed"),
            "{authority}"
        );
    }
    for authority in [
        "origin.test",
        "origin.test:",
        "origin.test:0",
        "origin.test:99999",
        "a b:1",
        "origin.test:443/",
        "u@origin.test:1",
        "http://origin.test:1",
    ] {
        let mut wire = world.sidecar.connect().await;
        wire.send(connect_head(authority).as_bytes()).await;
        assert_eq!(wire.answer().await.unwrap().status, 400, "{authority}");
    }
    assert_eq!(world.origin.connections(), 0);
}

#[tokio::test]
async fn each_pipelined_request_has_its_own_verdict() {
    let world = World::plain().await;
    let mut wire = world.h1().await;
    let two = format!(
        "GET /first HTTP/1.1\r\nHost: HOST\r\n\r\nGET /second?{KEY} HTTP/1.1\r\nHost: HOST\r\n\r\nGET /third HTTP/1.1\r\nHost: HOST\r\n\r\n"
    );
    wire.send(&world.fill(two.as_bytes())).await;
    let answers = [
        wire.answer().await.unwrap(),
        wire.answer().await.unwrap(),
        wire.answer().await.unwrap(),
    ];
    assert_eq!(answers.map(|answer| answer.status), [200, 403, 200]);
    let paths: Vec<String> = world
        .origin
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(paths, ["/first", "/third"]);
    // What follows a body that was not read is no request.
    world.origin.clear();
    let mut wire = world.h1().await;
    wire.send(&world.fill(
        b"TRACE / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 50\r\n\r\nGET /inner HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ))
    .await;
    assert_eq!(wire.answer().await.unwrap().status, 403);
    assert!(wire.answer().await.is_none());
    world.assert_untouched("a request in an unread body");
}

#[tokio::test]
async fn methods_and_upgrades_that_are_not_forwarded() {
    let world = World::plain().await;
    for (what, request) in [
        ("trace", "TRACE / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
        ("track", "TRACK / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
        (
            "connect",
            "CONNECT origin.test:443 HTTP/1.1\r\nHost: HOST\r\n\r\n",
        ),
        (
            "websocket",
            "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        ),
        (
            "h2c",
            "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        ),
        (
            "upgrade without connection",
            "GET / HTTP/1.1\r\nHost: HOST\r\nupgrade: anything\r\n\r\n",
        ),
        (
            "expectation",
            "POST / HTTP/1.1\r\nHost: HOST\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\na",
        ),
        (
            "absolute form in a tunnel",
            "GET http://origin.test/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
        ),
        ("preface inside tls", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        let answer = world.raw(request.as_bytes()).await.expect(what);
        assert!(matches!(answer.status, 400 | 403), "{what}: {answer:?}");
        world.assert_untouched(what);
    }
    // A protocol of another kind than ALPN promised.
    let mut h2 = world.h2().await;
    let request = http::Request::builder()
        .method("CONNECT")
        .uri(world.authority())
        .body(())
        .unwrap();
    match h2.send(request, &[], None).await {
        Ok(answer) => assert!(answer.status >= 400, "{answer:?}"),
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    let mut request = h2.request("CONNECT", "/chat").body(()).unwrap();
    request
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("websocket"));
    if let Ok(answer) = h2.send(request, &[], None).await {
        assert!(answer.status >= 400, "{answer:?}");
    }
    world.assert_untouched("connect on http/2");
    // HTTP/1.0 is understood: one request, and the connection closes.
    let mut wire = world.h1().await;
    wire.send(b"GET /old HTTP/1.0\r\n\r\nGET /next HTTP/1.0\r\n\r\n")
        .await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    assert!(wire.answer().await.is_none());
    assert_eq!(world.origin.requests().len(), 1);
}

/// Plain HTTP, in absolute form.
#[tokio::test]
async fn plain_http_is_judged_in_the_same_way() {
    let mut plain = route();
    plain["scheme"] = json!("http");
    let world = World::start(
        fixtures::origin::OriginOptions::PLAIN,
        Setup::new(&routes(&[plain])),
    )
    .await;
    let port = world.origin.port();
    let credentials = connect_head("x")
        .lines()
        .find(|line| line.starts_with("Proxy-"))
        .unwrap()
        .to_owned();
    let mut wire = world.sidecar.connect().await;
    for (target, host, rest, status) in [
        (
            format!("http://origin.test:{port}/echo"),
            format!("origin.test:{port}"),
            String::new(),
            200,
        ),
        (
            format!("HTTP://ORIGIN.test:{port}/?a"),
            format!("origin.test.:{port}"),
            String::new(),
            200,
        ),
        (
            format!("http://origin.test:{port}/?{KEY}"),
            format!("origin.test:{port}"),
            String::new(),
            403,
        ),
        (
            format!("http://origin.test:{port}/"),
            format!("origin.test:{port}"),
            format!("X-A: {KEY}\r\n"),
            403,
        ),
        (
            format!("http://origin.test:{port}/ok"),
            format!("origin.test:{port}"),
            String::new(),
            200,
        ),
    ] {
        wire.send(
            format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{credentials}\r\n{rest}\r\n")
                .as_bytes(),
        )
        .await;
        assert_eq!(wire.answer().await.unwrap().status, status, "{target}");
    }
    assert_eq!(world.origin.requests().len(), 3);
    world.origin.clear();
    for (target, host) in [
        (
            format!("http://origin.test:{port}/"),
            "other.test".to_owned(),
        ),
        (
            format!("http://u:p@origin.test:{port}/"),
            format!("origin.test:{port}"),
        ),
        ("http://denied.test/".into(), "denied.test".into()),
        (
            format!("https://origin.test:{port}/"),
            format!("origin.test:{port}"),
        ),
        ("/".into(), format!("origin.test:{port}")),
        ("*".into(), format!("origin.test:{port}")),
        (format!("http://{KEY}.test/"), format!("{KEY}.test")),
    ] {
        let mut wire = world.sidecar.connect().await;
        wire.send(
            format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{credentials}\r\n\r\n").as_bytes(),
        )
        .await;
        let answer = wire.answer().await.unwrap();
        assert!(
            matches!(answer.status, 400 | 403 | 421),
            "{target}: {answer:?}"
        );
    }
    world.assert_untouched("absolute form");
    assert!(!world.origin.saw(b"roxy-"));
    assert!(!world.sidecar.audit_text().contains(KEY));
}

#[tokio::test]
async fn alpn_that_no_one_speaks() {
    let world = World::plain().await;
    let (_, wire) = world.sidecar.tunnel(&world.authority()).await;
    assert!(
        world
            .sidecar
            .handshake(wire.io, NAME, &[b"ftp"])
            .await
            .is_err()
    );
    let stream = world
        .sidecar
        .tls(&world.authority(), NAME, &[])
        .await
        .unwrap();
    let mut wire = Wire::new(stream);
    wire.send(&world.fill(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n"))
        .await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    // A connection that promised one protocol and speaks the other.
    let stream = world
        .sidecar
        .tls(&world.authority(), NAME, H2)
        .await
        .unwrap();
    let mut wire = Wire::new(stream);
    wire.send(b"GET /wrong HTTP/1.1\r\nHost: origin.test\r\n\r\n")
        .await;
    wire.rest().await;
    assert!(!world.origin.saw(b"/wrong"));
    let _closed = wire.io.shutdown().await;
}
