//! A credential does not leave: on no surface, in no encoding, in no piece of a long body.

use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::{
    BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD,
};
use fixtures::origin::{BodyState, OriginOptions, pattern};
use http::HeaderMap;
use serde_json::{Value, json};

use crate::harness::{Answer, KEY, KNOWN, Setup, World, dlp, route, routes, until};

/// A refusal that says what it should, an audit record that agrees, and an origin that knows nothing.
async fn assert_blocked(
    world: &World,
    what: &str,
    answer: &Answer,
    secret: &str,
    rule: &str,
    location: &str,
) {
    assert_eq!(answer.status, 403, "{what}: {answer:?}");
    assert_eq!(answer.verdict(), Some("blocked"), "{what}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{what}"
    );
    let said = answer.json();
    assert_eq!(said["rule"], rule, "{what}: {said}");
    assert_eq!(said["location"], location, "{what}: {said}");
    let event = said["event"].as_str().unwrap();
    let records = world.sidecar.event(event).await;
    let record = records
        .iter()
        .find(|record| record["rule"] == rule)
        .unwrap_or_else(|| panic!("{what}: {records:?}"));
    assert_eq!(record["verdict"], "block", "{what}");
    assert_eq!(record["status"], 403, "{what}");
    assert_eq!(record["location"], location, "{what}");
    assert_secret_free(world, what, answer, secret);
    world.assert_untouched(what);
}

fn assert_secret_free(world: &World, what: &str, answer: &Answer, secret: &str) {
    let secret = secret.to_ascii_lowercase();
    for (place, text) in [
        ("answer", format!("{answer:?} {}", answer.text())),
        ("audit", world.sidecar.audit_text()),
        ("log", world.sidecar.stderr()),
    ] {
        assert!(
            !text.to_ascii_lowercase().contains(&secret),
            "{what}: the value stands in the {place}: {text}"
        );
    }
    assert!(!world.origin.saw(secret.as_bytes()), "{what}");
}

#[tokio::test]
async fn a_token_on_every_surface_of_http1() {
    let world = World::plain().await;
    for (what, location, request) in [
        (
            "value",
            "header x-note",
            format!("GET / HTTP/1.1\r\nHost: HOST\r\nx-note: my {KEY} ok\r\n\r\n"),
        ),
        (
            "name",
            "header name",
            format!("GET / HTTP/1.1\r\nHost: HOST\r\n{KEY}: 1\r\n\r\n"),
        ),
        (
            "lower-case name",
            "header name",
            format!(
                "GET / HTTP/1.1\r\nHost: HOST\r\n{}: 1\r\n\r\n",
                KEY.to_lowercase()
            ),
        ),
        (
            "path",
            "path",
            format!("GET /a/{KEY}/b HTTP/1.1\r\nHost: HOST\r\n\r\n"),
        ),
        (
            "query value",
            "query",
            format!("GET /?key={KEY}&x=1 HTTP/1.1\r\nHost: HOST\r\n\r\n"),
        ),
        (
            "query key",
            "query",
            format!("GET /?{KEY}=1 HTTP/1.1\r\nHost: HOST\r\n\r\n"),
        ),
        (
            "cookie",
            "header Cookie",
            format!("GET / HTTP/1.1\r\nHost: HOST\r\nCookie: a=1; b={KEY}\r\n\r\n"),
        ),
        (
            "method",
            "method",
            format!("{KEY} / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
        ),
        (
            "user agent",
            "header User-Agent",
            format!("GET / HTTP/1.1\r\nHost: HOST\r\nUser-Agent: {KEY}\r\n\r\n"),
        ),
        (
            "authorization",
            "header Authorization",
            format!("GET / HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer {KEY}\r\n\r\n"),
        ),
        (
            "body",
            "body at /k",
            format!(
                "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 30\r\n\r\n{{\"k\":\"{KEY}\"}}  "
            ),
        ),
        (
            "over chunks",
            "body",
            format!(
                "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}\r\n10\r\n{}+end\n\r\n0\r\n\r\n",
                &KEY[..9],
                &KEY[9..]
            ),
        ),
        (
            "trailer value",
            "trailer X-Sum",
            format!(
                "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: {KEY}\r\n\r\n"
            ),
        ),
        (
            "trailer name",
            "header name",
            format!(
                "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{KEY}: 1\r\n\r\n"
            ),
        ),
        (
            "multipart file name",
            "body",
            format!(
                "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 83\r\n\r\n--x\r\nContent-Disposition: form-data; name=f; filename={KEY}.txt\r\n\r\n--x--\r\n"
            ),
        ),
    ] {
        let answer = world
            .raw(request.as_bytes())
            .await
            .unwrap_or_else(|| panic!("{what}: no answer"));
        assert_blocked(&world, what, &answer, KEY, "aws-access-key", location).await;
    }
}

#[tokio::test]
async fn a_token_on_every_surface_of_http2() {
    let world = World::plain().await;
    let mut h2 = world.h2().await;
    let get = |path: &str| h2.request("GET", path);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", KEY.parse().unwrap());
    let (a, b) = KEY.as_bytes().split_at(7);
    let cases = [
        (
            "value",
            "header x-note",
            get("/").header("x-note", KEY).body(()).unwrap(),
            Vec::<&[u8]>::new(),
            None,
        ),
        (
            "name",
            "header name",
            get("/").header(KEY.to_lowercase(), "1").body(()).unwrap(),
            vec![],
            None,
        ),
        (
            "path",
            "path",
            get(&format!("/{KEY}")).body(()).unwrap(),
            vec![],
            None,
        ),
        (
            "query",
            "query",
            get(&format!("/?a={KEY}")).body(()).unwrap(),
            vec![],
            None,
        ),
        (
            "cookie crumb",
            "header cookie",
            get("/")
                .header("cookie", "a=1")
                .header("cookie", format!("b={KEY}"))
                .body(())
                .unwrap(),
            vec![],
            None,
        ),
        (
            "method",
            "method",
            h2.request(KEY, "/").body(()).unwrap(),
            vec![],
            None,
        ),
        (
            "body over frames",
            "body",
            h2.request("POST", "/").body(()).unwrap(),
            vec![a, b],
            None,
        ),
        (
            "trailer",
            "trailer x-sum",
            h2.request("POST", "/").body(()).unwrap(),
            vec![b"body"],
            Some(trailers),
        ),
    ];
    for (what, location, request, body, trailers) in cases {
        let answer = h2
            .send(request, &body, trailers)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_blocked(&world, what, &answer, KEY, "aws-access-key", location).await;
    }
}

#[tokio::test]
async fn a_token_in_a_host_label_is_blocked_before_any_look_up() {
    let world = World::policy(&routes(&[
        json!({"host": "*.wild.test:PORT", "allow_private": true}),
    ]))
    .await;
    let authority = format!("{KEY}.wild.test:{}", world.origin.port());
    let (answer, _) = world.sidecar.tunnel(&authority).await;
    assert_blocked(&world, "host", &answer, KEY, "aws-access-key", "host").await;
    assert_eq!(world.origin.connections(), 0);
    let (answer, _) = world
        .sidecar
        .tunnel(&format!("a.wild.test:{}", world.origin.port()))
        .await;
    assert_eq!(answer.status, 200);
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    text.encode_utf16()
        .flat_map(|unit| {
            if big {
                unit.to_be_bytes()
            } else {
                unit.to_le_bytes()
            }
        })
        .collect()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder =
        flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn brotli(data: &[u8]) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
    encoder.write_all(data).unwrap();
    encoder.into_inner()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 3).unwrap()
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn full_width(text: &str) -> String {
    let wide = |c: char| {
        if ('!'..='~').contains(&c) {
            char::from_u32(c as u32 + 0xfee0).unwrap()
        } else {
            c
        }
    };
    text.chars().map(wide).collect()
}

/// The known secret as an agent could write it into a body.
fn encodings() -> Vec<(&'static str, Vec<u8>)> {
    let inside = |before: &str| format!("{before}{KNOWN} and more text after it");
    let reversed: String = KNOWN.chars().rev().collect();
    let rot13: String = KNOWN
        .chars()
        .map(|c| match c {
            'a'..='z' => char::from((c as u8 - b'a' + 13) % 26 + b'a'),
            'A'..='Z' => char::from((c as u8 - b'A' + 13) % 26 + b'A'),
            other => other,
        })
        .collect();
    let json: String = KNOWN
        .chars()
        .map(|c| format!("\\u{:04x}", c as u32))
        .collect();
    let html: String = KNOWN.chars().map(|c| format!("&#{};", c as u32)).collect();
    let zero_width: String = KNOWN.chars().flat_map(|c| [c, '\u{200b}']).collect();
    let wrapped: String = BASE64_STANDARD
        .encode(inside("abc"))
        .as_bytes()
        .chunks(20)
        .map(|line| format!("{}\r\n", String::from_utf8_lossy(line)))
        .collect();
    vec![
        ("raw", KNOWN.into()),
        (
            "base64, offset 0",
            BASE64_STANDARD.encode(inside("")).into(),
        ),
        (
            "base64, offset 1",
            BASE64_STANDARD.encode(inside("x")).into(),
        ),
        (
            "base64, offset 2",
            BASE64_STANDARD.encode(inside("xy")).into(),
        ),
        (
            "base64 without padding",
            BASE64_STANDARD_NO_PAD.encode(KNOWN).into(),
        ),
        ("base64 wrapped", wrapped.into()),
        (
            "base64url, offset 0",
            BASE64_URL_SAFE.encode(inside("")).into(),
        ),
        (
            "base64url, offset 1",
            BASE64_URL_SAFE.encode(inside("x")).into(),
        ),
        (
            "base64url, offset 2",
            BASE64_URL_SAFE_NO_PAD.encode(inside("xy")).into(),
        ),
        ("hex", hex(KNOWN.as_bytes()).into()),
        (
            "hex, upper case",
            hex(KNOWN.as_bytes()).to_uppercase().into(),
        ),
        (
            "hex with colons",
            KNOWN
                .bytes()
                .map(|b| format!("{b:02x}"))
                .collect::<Vec<_>>()
                .join(":")
                .into(),
        ),
        ("percent", percent(KNOWN).into()),
        ("percent, twice", percent(&percent(KNOWN)).into()),
        ("full-width", full_width(KNOWN).into()),
        ("zero-width", zero_width.into()),
        ("reversed", reversed.into()),
        ("rot13", rot13.into()),
        ("json escapes", format!("{{\"a\":\"{json}\"}}").into()),
        ("html entities", html.into()),
        ("utf-16, little end", utf16(KNOWN, false)),
        ("utf-16, big end", utf16(KNOWN, true)),
        (
            "base64 of base64",
            BASE64_STANDARD
                .encode(BASE64_STANDARD.encode(inside("x")))
                .into(),
        ),
        (
            "hex of base64",
            hex(BASE64_STANDARD.encode(KNOWN).as_bytes()).into(),
        ),
        (
            "percent of base64",
            percent(&BASE64_STANDARD.encode(KNOWN)).into(),
        ),
    ]
}

/// Prints one line a case with `--nocapture`.
#[tokio::test]
async fn a_known_secret_in_every_encoding() {
    let world = World::plain().await;
    let mut wire = world.h1().await;
    let mut missed = Vec::new();
    let mut cases: Vec<(String, &str, Vec<u8>)> = encodings()
        .into_iter()
        .map(|(name, body)| (name.to_owned(), "identity", body))
        .collect();
    let text = format!("some text, {KNOWN}, and more of it");
    let base64 = BASE64_STANDARD.encode(&text);
    for (name, coding, body) in [
        ("gzip", "gzip", gzip(text.as_bytes())),
        ("zlib", "deflate", zlib(text.as_bytes())),
        ("raw deflate", "deflate", deflate(text.as_bytes())),
        ("brotli", "br", brotli(text.as_bytes())),
        ("zstd", "zstd", zstd(text.as_bytes())),
        ("x-gzip", "X-GZip", gzip(text.as_bytes())),
        ("zstd in gzip", "zstd, gzip", gzip(&zstd(text.as_bytes()))),
        ("gzip in brotli", "gzip,br", brotli(&gzip(text.as_bytes()))),
        ("base64 in gzip", "gzip", gzip(base64.as_bytes())),
        (
            "two gzip members",
            "gzip",
            [gzip(b"first"), gzip(text.as_bytes())].concat(),
        ),
        (
            "two zstd frames",
            "zstd",
            [zstd(b"first"), zstd(text.as_bytes())].concat(),
        ),
    ] {
        cases.push((name.to_owned(), coding, body));
    }
    let count = cases.len();
    for (name, coding, body) in cases {
        let head = format!(
            "POST /x HTTP/1.1\r\nHost: HOST\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        wire.send(&[world.fill(head.as_bytes()), body].concat())
            .await;
        let answer = wire.answer().await.expect(&name);
        println!("{:3} {name}", answer.status);
        if answer.status == 403 {
            assert_eq!(answer.json()["rule"], "known-secret", "{name}");
        } else {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "let through: {missed:?}");
    world.assert_untouched("encodings");
    fixtures::tell!("{count} encodings of a secret in bodies: all blocked, 0 bytes at the origin");
    assert!(!world.sidecar.audit_text().contains(KNOWN));
}

#[tokio::test]
async fn a_coding_that_cannot_be_read_is_refused() {
    let world = World::plain().await;
    let bomb = gzip(&vec![0; 80 << 20]);
    for (what, field, body) in [
        ("unknown", "Content-Encoding: aes128gcm", b"x".to_vec()),
        ("compress", "Content-Encoding: compress", b"x".to_vec()),
        (
            "unknown after known",
            "Content-Encoding: gzip, exi",
            gzip(b"x"),
        ),
        (
            "two fields",
            "Content-Encoding: gzip\r\nContent-Encoding: dcb",
            gzip(b"x"),
        ),
        ("with a parameter", "Content-Encoding: gzip;q=1", gzip(b"x")),
        (
            "not what it says",
            "Content-Encoding: gzip",
            b"plain text".to_vec(),
        ),
        (
            "cut short",
            "Content-Encoding: gzip",
            gzip(&pattern(5000))[..100].to_vec(),
        ),
        (
            "bytes after the end",
            "Content-Encoding: deflate",
            [zlib(b"x"), b"more".to_vec()].concat(),
        ),
        (
            "bytes after the end of brotli",
            "Content-Encoding: br",
            [brotli(b"x"), b"more".to_vec()].concat(),
        ),
        (
            "bytes after the end of zstd",
            "Content-Encoding: zstd",
            [zstd(b"x"), b"more".to_vec()].concat(),
        ),
        (
            "too many layers",
            "Content-Encoding: gzip, gzip, gzip, gzip, gzip",
            gzip(b"x"),
        ),
        ("a bomb", "Content-Encoding: gzip", bomb),
        (
            "longer than what is held",
            "Content-Encoding: gzip",
            pattern((1 << 20) + 1),
        ),
    ] {
        let mut wire = world.h1().await;
        let head = format!(
            "POST / HTTP/1.1\r\nHost: HOST\r\n{field}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        wire.send(&[world.fill(head.as_bytes()), body].concat())
            .await;
        let answer = wire.answer().await.expect(what);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "content-encoding"),
            "{what}"
        );
        world.assert_untouched(what);
    }
}

/// Where in a long body the secret stands.
fn long_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let length = 3 << 20;
    let filler = |length: usize| -> Vec<u8> {
        b"Lorem ipsum dolor sit amet. "
            .iter()
            .copied()
            .cycle()
            .take(length)
            .collect()
    };
    let with = |at: usize| {
        let mut body = filler(length);
        body[at..at + KEY.len() + 2].copy_from_slice(format!(" {KEY} ").as_bytes());
        body
    };
    vec![
        ("at the start", with(0)),
        // The cut of what is held, and those of the chunks below, go through it.
        ("across the end of what is held", with((1 << 20) - 10)),
        ("in the middle", with((3 << 19) - 7)),
        (
            "at the very end",
            [filler(length).as_slice(), b" ", KEY.as_bytes()].concat(),
        ),
    ]
}

#[tokio::test]
async fn no_byte_of_a_secret_in_a_long_body_leaves() {
    for options in [OriginOptions::HTTP1, OriginOptions::HTTP2] {
        let world = World::start(options, Setup::new(&routes(&[route()]))).await;
        for (place, body) in long_bodies() {
            for way in ["length", "chunked", "http2"] {
                let what = format!("{place}, {way}, to {:?}", options.protocols);
                world.origin.clear();
                let answer = match way {
                    "http2" => {
                        let mut h2 = world.h2().await;
                        let request = h2.request("POST", "/echo").body(()).unwrap();
                        let pieces: Vec<&[u8]> = body.chunks(13_001).collect();
                        Some(h2.send(request, &pieces, None).await.unwrap())
                    }
                    "length" => {
                        let mut wire = world.h1().await;
                        let head = format!(
                            "POST /echo HTTP/1.1\r\nHost: HOST\r\nContent-Length: {}\r\n\r\n",
                            body.len()
                        );
                        wire.send(&world.fill(head.as_bytes())).await;
                        wire.send(&body).await;
                        wire.answer().await
                    }
                    _ => {
                        let mut wire = world.h1().await;
                        let mut out = world.fill(b"POST /echo HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n");
                        for piece in body.chunks(13_001) {
                            out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                            out.extend_from_slice(piece);
                            out.extend_from_slice(b"\r\n");
                        }
                        out.extend_from_slice(b"0\r\n\r\n");
                        wire.send(&out).await;
                        wire.answer().await
                    }
                };
                let answer = answer.unwrap_or_else(|| panic!("{what}: no answer"));
                assert_eq!(answer.status, 403, "{what}: {answer:?}");
                assert_eq!(answer.json()["rule"], "aws-access-key", "{what}");
                for request in world.origin.requests() {
                    until(&what, || {
                        world
                            .origin
                            .requests()
                            .iter()
                            .all(|request| request.body_state != BodyState::Receiving)
                    })
                    .await;
                    assert_eq!(request.path, "/echo");
                }
                assert!(
                    world
                        .origin
                        .requests()
                        .iter()
                        .all(|request| request.body_state == BodyState::Cut),
                    "{what}"
                );
                for length in [4, 8, KEY.len()] {
                    assert!(
                        !world.origin.saw(&KEY.as_bytes()[..length]),
                        "{what}: {length} bytes left"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn redaction_keeps_framing_and_json() {
    for options in [OriginOptions::HTTP1, OriginOptions::HTTP2] {
        let setup = Setup::new(&dlp(json!({"outbound_on_match": "redact"})));
        let world = World::start(options, setup).await;
        let body = json!({"a": format!("x {KEY} y"), "b": [KEY, KNOWN], "c": 1}).to_string();
        let head = format!(
            "POST /p/{KEY}/q?k={KEY}&l=2 HTTP/1.1\r\nHost: HOST\r\nX-Note: n {KEY} m\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = world
            .raw(&[head.as_bytes(), body.as_bytes()].concat())
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{answer:?} {}", answer.text());
        let [request] = world.origin.wait_for_requests(1).await.try_into().unwrap();
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(
            sent,
            json!({"a": "x ******** y", "b": ["********", "********"], "c": 1})
        );
        assert_eq!(
            request.header("content-length"),
            Some(request.body.len().to_string())
        );
        assert_eq!(request.path, "/p/********/q?k=********&l=2");
        assert_eq!(request.header("x-note").as_deref(), Some("n ******** m"));
        assert!(!world.origin.saw(KEY.as_bytes()) && !world.origin.saw(KNOWN.as_bytes()));
        let records = world.sidecar.audit();
        let redacted: Vec<_> = records
            .iter()
            .filter(|record| record["verdict"] == "redact")
            .collect();
        assert!(redacted.len() >= 6, "{records:#?}");
        assert!(!world.sidecar.audit_text().contains(KEY));

        // Two fields of one name, one of them clean.
        world.origin.clear();
        let answer = world
            .raw(
                format!("GET / HTTP/1.1\r\nHost: HOST\r\nX-N: ok\r\nX-N: {KEY}\r\n\r\n").as_bytes(),
            )
            .await;
        assert_eq!(answer.unwrap().status, 200);
        assert!(!world.origin.saw(KEY.as_bytes()));
    }
}

#[tokio::test]
async fn what_cannot_be_redacted_is_blocked() {
    let world = World::policy(&dlp(json!({"outbound_on_match": "redact"}))).await;
    let zipped = gzip(format!("the key {KEY} in gzip").as_bytes());
    let head = format!(
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        zipped.len()
    );
    let long = [vec![b' '; 2 << 20], KEY.as_bytes().to_vec()].concat();
    let long_head = format!(
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: {}\r\n\r\n",
        long.len()
    );
    for (what, request) in [
        ("gzip", [head.as_bytes(), &zipped].concat()),
        ("header name", format!("GET / HTTP/1.1\r\nHost: HOST\r\n{KEY}: 1\r\n\r\n").into_bytes()),
        ("method", format!("{KEY} / HTTP/1.1\r\nHost: HOST\r\n\r\n").into_bytes()),
        (
            "trailer",
            format!("POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: {KEY}\r\n\r\n").into_bytes(),
        ),
        ("long", [long_head.as_bytes(), &long].concat()),
    ] {
        world.origin.clear();
        let answer = world.raw(&request).await.expect(what);
        assert_eq!((answer.status, answer.code().as_str()), (403, "credential-unredactable"), "{what}");
        assert!(!world.origin.saw(KEY.as_bytes()), "{what}");
        assert!(world.origin.requests().iter().all(|request| request.body_state != BodyState::Complete), "{what}");
    }
}

#[tokio::test]
async fn a_route_may_switch_detectors_off() {
    let world = World::policy(&dlp(json!({"outbound_detectors": false}))).await;
    let answer = world
        .raw(format!("GET /?{KEY} HTTP/1.1\r\nHost: HOST\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert!(world.origin.saw(KEY.as_bytes()));
    // The log is not the route's.
    assert!(
        !world.sidecar.audit_text().contains(KEY),
        "{}",
        world.sidecar.audit_text()
    );

    let world = World::policy(&dlp(json!({"outbound_detectors": ["known_secrets"]}))).await;
    let answer = world
        .raw(format!("GET /{KEY} HTTP/1.1\r\nHost: HOST\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert!(
        !world.sidecar.audit_text().contains(KEY),
        "{}",
        world.sidecar.audit_text()
    );
    let answer = world
        .raw(format!("GET / HTTP/1.1\r\nHost: HOST\r\nX: {KNOWN}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn an_archive_that_cannot_be_read_to_its_end_is_blocked_unless_the_route_lets_it() {
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..200_000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            b"0123456789abcdefghijklmnopqrstuvwxyz .,\n"[(state >> 40) as usize % 40]
        })
        .collect();
    let archive = gzip(&noise);
    assert!(archive.len() > 100_000);
    let upload = |archive: &[u8]| {
        let head = format!(
            "POST /upload HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/gzip\r\nContent-Length: {}\r\n\r\n",
            archive.len()
        );
        [head.as_bytes(), archive].concat()
    };
    let world = World::policy(&dlp(json!({}))).await;
    let answer = world.raw(&upload(&archive)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", world.sidecar.audit_text());
    // One that breaks off.
    let request = upload(&archive[..archive.len() - 1000]);
    for (detectors, status) in [
        (json!({}), 403),
        (
            json!({"outbound_detectors": ["token_patterns", "known_secrets"]}),
            200,
        ),
    ] {
        let world = World::policy(&dlp(detectors)).await;
        let answer = world.raw(&request).await.unwrap();
        assert_eq!(answer.status, status, "{}", world.sidecar.audit_text());
        // A refusal does not wait for its record.
        until("the record", || {
            world.sidecar.audit_text().contains("undecodable")
        })
        .await;
    }
}

#[tokio::test]
async fn oversize_bodies() {
    let world = World::policy(&dlp(json!({"max_request_bytes": 1000}))).await;
    for head in ["Content-Length: 1001", "Transfer-Encoding: chunked"] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: HOST\r\n{head}\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
            "a".repeat(1001)
        );
        let answer = world.raw(request.as_bytes()).await.unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "oversize"),
            "{head}"
        );
    }
    world.assert_untouched("oversize");

    for length in [2000usize, 2 << 20] {
        let world = World::policy(&dlp(
            json!({"max_request_bytes": 1000, "on_oversize": "noscan"}),
        ))
        .await;
        let mut body = vec![b' '; length];
        body[1500..1500 + KEY.len()].copy_from_slice(KEY.as_bytes());
        let head = format!("POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: {length}\r\n\r\n");
        let answer = world.raw(&[head.as_bytes(), &body].concat()).await.unwrap();
        assert_eq!(answer.status, 200, "{length}");
        assert!(world.origin.saw(KEY.as_bytes()));
        world.origin.clear();
        body[500..500 + KEY.len()].copy_from_slice(KEY.as_bytes());
        let answer = world.raw(&[head.as_bytes(), &body].concat()).await.unwrap();
        assert_eq!(answer.status, 403, "{length}");
        assert!(!world.origin.saw(KEY.as_bytes()));
    }
}

/// Structural: no policy lets it pass, and nothing of it is repeated.
#[tokio::test]
async fn header_injection_is_blocked_whatever_the_route_says() {
    let world = World::policy(&dlp(json!({"outbound_on_match": "redact"}))).await;
    for (what, request) in [
        (
            "query",
            "GET /?a=b%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: HOST\r\n\r\n".to_owned(),
        ),
        (
            "path",
            "GET /a%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: HOST\r\n\r\n".to_owned(),
        ),
        (
            "header",
            "GET / HTTP/1.1\r\nHost: HOST\r\nX-A: b%0D%0aX-Evil:%201\r\n\r\n".to_owned(),
        ),
        (
            "a header named as a key",
            format!("GET / HTTP/1.1\r\nHost: HOST\r\n{KEY}: b%0D%0aX-Evil:%201\r\n\r\n"),
        ),
        (
            "trailer",
            format!(
                "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{KEY}: b%0d%0aX-Evil:%201\r\n\r\n"
            ),
        ),
    ] {
        let answer = world.raw(request.as_bytes()).await.expect(what);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "structural"),
            "{what}: {}",
            answer.text()
        );
        assert_secret_free(&world, what, &answer, KEY);
        world.assert_untouched(what);
    }
    let form = "a=line%0d%0aline";
    let request = format!(
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    assert_eq!(
        world.raw(request.as_bytes()).await.unwrap().status,
        200,
        "a form's body may hold line breaks"
    );
}

/// The one place where the words of a refusal are fixed; `EVENT` stands for its number.
#[tokio::test]
async fn the_words_of_a_refusal_and_of_its_record() {
    let world = World::policy(&dlp(json!({"outbound_on_match": "block"}))).await;
    let answer = world
        .raw(
            format!(
                "POST /v1?a=1 HTTP/1.1\r\nHost: HOST\r\nContent-Length: 31\r\n\r\nkey is {KEY} ok\n"
            )
            .as_bytes(),
        )
        .await
        .unwrap();
    let event = answer.json()["event"].as_str().unwrap().to_owned();
    let tidy = |value: &Value| {
        let text = serde_json::to_string_pretty(value).unwrap();
        text.replace(&event, "EVENT")
            .replace(&world.origin.port().to_string(), "1234")
    };
    insta::assert_snapshot!(tidy(&answer.json()), @r#"
    {
      "code": "credential",
      "error": "blocked by the bottle's egress policy",
      "event": "EVENT",
      "explain": "launcher why EVENT",
      "host": "origin.test",
      "location": "body",
      "message": "This is policy, not a network fault. Retrying, another route or another encoding will not help; ask the operator.",
      "reason": "AWS access key found in body",
      "rule": "aws-access-key",
      "verdict": "blocked"
    }
    "#);
    let mut record = world.sidecar.event(&event).await.remove(0);
    record["time"] = "TIME".into();
    record["policy"] = "POLICY".into();
    record["prev"] = "PREV".into();
    insta::assert_snapshot!(tidy(&record), @r#"
    {
      "bottle": "test",
      "code": "credential",
      "context": "key is ******** ok ",
      "event": "EVENT",
      "host": "origin.test",
      "location": "body",
      "method": "POST",
      "path": "/v1",
      "policy": "POLICY",
      "port": 1234,
      "prev": "PREV",
      "reason": "AWS access key found in body",
      "rule": "aws-access-key",
      "scheme": "https",
      "seq": 2,
      "status": 403,
      "time": "TIME",
      "verdict": "block"
    }
    "#);
}
