//! WebSocket: what the origin hears of what an agent says, and how both are told.

use std::io::Write as _;

use fixtures::pki::Pki;
use fixtures::ws_origin::{WsFrame, WsOptions, WsOrigin, client_frame, server_frame, take};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::harness::{H1, KEY, KNOWN, NAME, PATIENCE, Setup, Sidecar, Wire, route, routes};
use crate::supervise::{control, supervised};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const COMPRESSED: u8 = 0x40;
const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

struct Ws {
    origin: WsOrigin,
    sidecar: Sidecar,
}

fn allowed(dlp: Value) -> Value {
    let mut route = route();
    route["websocket"] = json!(true);
    if !dlp.is_null() {
        route["dlp"] = dlp;
    }
    routes(&[route])
}

impl Ws {
    async fn start(options: WsOptions, setup: Setup) -> Self {
        let pki = Pki::new();
        let tls = pki.server_config(&[NAME], &[b"http/1.1"]);
        let origin = WsOrigin::start(tls, options).await;
        let sidecar = Sidecar::start(&pki, origin.port(), setup).await;
        Self { origin, sidecar }
    }

    async fn with(options: WsOptions) -> Self {
        Self::start(options, Setup::new(&allowed(Value::Null))).await
    }

    async fn plain() -> Self {
        Self::with(WsOptions::default()).await
    }

    /// Asks for a WebSocket and says nothing of the answer.
    async fn ask(&self, lines: &str) -> Wire<TlsStream<TcpStream>> {
        let authority = format!("{NAME}:{}", self.origin.port());
        let mut wire = Wire::new(self.sidecar.tls(&authority, NAME, H1).await.unwrap());
        let head = format!(
            "GET /chat?room=1 HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        );
        wire.send(head.as_bytes()).await;
        wire
    }

    async fn open(&self, lines: &str) -> Client {
        let mut wire = self.ask(lines).await;
        let start = wire.line().await.unwrap();
        assert!(start.starts_with("HTTP/1.1 101 "), "{start}");
        let fields = wire.fields().await.unwrap();
        let field = |name: &str| {
            let mut all = fields
                .iter()
                .filter(|(own, _)| own.eq_ignore_ascii_case(name));
            let (first, none) = (all.next(), all.next());
            assert!(none.is_none(), "{fields:?}");
            first.map(|(_, value)| value.clone())
        };
        assert_eq!(
            field("sec-websocket-accept").as_deref(),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        Client {
            extensions: field("sec-websocket-extensions"),
            protocol: field("sec-websocket-protocol"),
            wire,
        }
    }
}

struct Client {
    wire: Wire<TlsStream<TcpStream>>,
    extensions: Option<String>,
    protocol: Option<String>,
}

impl Client {
    async fn say(&mut self, first: u8, payload: &[u8]) {
        self.wire.send(&client_frame(first, payload)).await;
    }

    /// `None`: the connection ended without one.
    async fn hear(&mut self) -> Option<WsFrame> {
        let mut buf = self.wire.take(2).await?;
        let mut more = match buf[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        loop {
            buf.extend(self.wire.take(more).await?);
            let mut whole = buf.clone();
            if let Some(frame) = take(&mut whole) {
                return Some(frame);
            }
            more = match (buf.len(), buf[1] & 0x7f) {
                (4, 126) => usize::from(u16::from_be_bytes([buf[2], buf[3]])),
                (10, 127) => u64::from_be_bytes(buf[2..10].try_into().unwrap()) as usize,
                (_, short) => usize::from(short),
            };
        }
    }

    /// The code and reason of the close that ends it.
    async fn ended(&mut self) -> (u16, String) {
        loop {
            let frame = self.hear().await.expect("a close before the end");
            assert_eq!(frame.reserved, 0);
            if frame.opcode == 8 {
                let (code, reason) = frame.payload.split_at(2);
                return (
                    u16::from_be_bytes(code.try_into().unwrap()),
                    String::from_utf8(reason.to_vec()).unwrap(),
                );
            }
        }
    }

    /// It says goodbye, and both sides close.
    async fn bye(mut self) {
        self.say(CLOSE, b"\x03\xe8").await;
        assert_eq!(self.ended().await.0, 1000);
        let rest = timeout(PATIENCE, self.wire.io.read_to_end(&mut Vec::new())).await;
        rest.expect("the connection ends").unwrap();
    }
}

fn deflated(text: &[u8]) -> Vec<u8> {
    let mut state = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    state.write_all(text).unwrap();
    state.flush().unwrap();
    let mut out = state.get_ref().clone();
    assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
    out
}

#[tokio::test]
async fn messages_arrive_framed_anew_and_answers_come_back() {
    let ws = Ws::with(WsOptions {
        echo: true,
        lines: "Set-Cookie: a=b\r\nX-Bottle-Verdict: forged\r\n".into(),
        greeting: server_frame(true, 1, b"welcome"),
        ..WsOptions::default()
    })
    .await;
    let mut client = ws.open("Origin: https://app.test\r\n").await;
    assert_eq!(client.extensions, None);
    assert_eq!(client.hear().await.unwrap().payload, b"welcome");
    // In pieces, with a ping between them and an empty fragment.
    client.say(0x01, "caf\u{e9}".as_bytes()).await;
    client.say(PING, b"still there?").await;
    client.say(0x00, b"").await;
    let pong = client.hear().await.unwrap();
    assert_eq!((pong.opcode, &pong.payload[..]), (10, &b"still there?"[..]));
    client.say(0x80, b" au lait").await;
    let echo = client.hear().await.unwrap();
    assert_eq!((echo.fin, echo.opcode), (true, 1));
    assert_eq!(echo.payload, "caf\u{e9} au lait".as_bytes());
    for length in [0usize, 1, 125, 126, 65535, 65536, 400_000, 1 << 20] {
        client.say(BINARY, &vec![b'.'; length]).await;
        let mut payload = Vec::new();
        loop {
            let frame = client.hear().await.unwrap();
            payload.extend(frame.payload);
            if frame.fin {
                break;
            }
        }
        assert_eq!(payload, vec![b'.'; length]);
    }
    client.bye().await;

    let heads = ws.origin.heads();
    let head = heads[0].to_ascii_lowercase();
    assert_eq!(heads.len(), 1);
    assert!(head.starts_with("get /chat?room=1 http/1.1\r\n"), "{head}");
    assert!(head.contains("origin: https://app.test\r\n"));
    assert!(
        !heads[0].contains("dGhlIHNhbXBsZSBub25jZQ"),
        "the agent's key went on"
    );
    let frames = ws.origin.frames();
    let (text, masks): (Vec<_>, Vec<_>) = frames
        .iter()
        .map(|frame| ((frame.opcode, frame.fin), frame.mask))
        .unzip();
    assert_eq!(text[..2], [(9, true), (1, true)]);
    assert!(frames.iter().all(|frame| frame.reserved == 0));
    // Masks are ours, and none is the agent's.
    assert!(!masks.contains(&[0x1d, 0x2c, 0x3b, 0x4a]));
    assert!(masks.windows(2).all(|two| two[0] != two[1]), "{masks:x?}");
}

#[tokio::test]
async fn what_is_agreed_on_is_what_both_sides_know() {
    let ws = Ws::with(WsOptions {
        lines: format!("{DEFLATE}Sec-WebSocket-Protocol: v2.chat\r\n"),
        ..WsOptions::default()
    })
    .await;
    let client = ws
        .open("Sec-WebSocket-Extensions: x-webkit-thing, permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: v1.chat, v2.chat\r\n")
        .await;
    assert_eq!(client.extensions.as_deref(), Some("permessage-deflate"));
    assert_eq!(client.protocol.as_deref(), Some("v2.chat"));
    client.bye().await;
    let head = ws.origin.heads().remove(0);
    assert!(
        head.contains("permessage-deflate; client_max_window_bits\r\n"),
        "{head}"
    );
    assert!(!head.contains("webkit"), "{head}");
    assert!(head.contains("v1.chat, v2.chat\r\n"), "{head}");
}

#[tokio::test]
async fn the_agent_gets_its_101_only_after_a_valid_one() {
    for (what, options, status, code) in [
        (
            "no upgrade",
            WsOptions { instead: Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_vec()), ..WsOptions::default() },
            200,
            None,
        ),
        (
            "not found",
            WsOptions { instead: Some(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno".to_vec()), ..WsOptions::default() },
            404,
            None,
        ),
        (
            "a wrong accept",
            WsOptions { instead: Some(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n".to_vec()), ..WsOptions::default() },
            502,
            Some("upstream-protocol"),
        ),
        (
            "another protocol",
            WsOptions { instead: Some(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".to_vec()), ..WsOptions::default() },
            502,
            Some("upstream-protocol"),
        ),
        ("an extension unasked", WsOptions { lines: DEFLATE.into(), ..WsOptions::default() }, 502, Some("upstream-protocol")),
        ("a subprotocol unasked", WsOptions { lines: "Sec-WebSocket-Protocol: x\r\n".into(), ..WsOptions::default() }, 502, Some("upstream-protocol")),
    ] {
        let ws = Ws::with(options).await;
        let mut wire = ws.ask("").await;
        let answer = wire.answer().await.expect(what);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(code.is_some(), answer.verdict().is_some(), "{what}");
        if let Some(code) = code {
            assert_eq!(answer.code(), code, "{what}");
        } else {
            assert_eq!(answer.body, b"no", "{what}");
        }
        // What was pipelined behind the question is not tunnelled.
        wire.send(&client_frame(TEXT, b"hello\r\n\r\n")).await;
        wire.send(b"\r\n\r\n").await;
        let rest = wire.rest().await;
        assert!(!rest.starts_with(b"\x81"), "{what}");
        assert!(ws.origin.raw().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_handshake_that_is_wrong_or_not_allowed_reaches_nobody() {
    let closed = Ws::start(WsOptions::default(), Setup::new(&routes(&[route()]))).await;
    let answer = closed.ask("").await.answer().await.unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "websocket-not-allowed")
    );
    assert!(closed.origin.heads().is_empty());

    let mut narrow = route();
    narrow["websocket"] = json!(true);
    narrow["matches"] = json!([{"methods": ["GET"], "paths": [{"exact": "/other"}]}]);
    let narrow = Ws::start(WsOptions::default(), Setup::new(&routes(&[narrow]))).await;
    let answer = narrow.ask("").await.answer().await.unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "request-not-allowed")
    );
    assert!(narrow.origin.heads().is_empty());

    let ws = Ws::plain().await;
    for (what, lines) in [
        ("a key in a header", format!("X-Key: {KEY}\r\n")),
        (
            "a key in a subprotocol",
            format!("Sec-WebSocket-Protocol: {KEY}\r\n"),
        ),
        ("a known secret", format!("X-Key: {KNOWN}\r\n")),
    ] {
        let answer = ws.ask(&lines).await.answer().await.expect(what);
        assert_eq!(answer.status, 403, "{what}");
        assert!(answer.code().starts_with("credential"), "{what}");
    }
    for (what, lines) in [
        (
            "two keys",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        ("two versions", "Sec-WebSocket-Version: 8\r\n"),
        ("two upgrades", "Upgrade: h2c\r\n"),
        ("a body", "Content-Length: 3\r\n"),
        ("a chunked body", "Transfer-Encoding: chunked\r\n"),
        ("no list of extensions", "Sec-WebSocket-Extensions: a b\r\n"),
        ("no list of protocols", "Sec-WebSocket-Protocol: a b\r\n"),
    ] {
        let answer = ws.ask(lines).await.answer().await.expect(what);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "malformed"),
            "{what}"
        );
    }
    assert!(ws.origin.heads().is_empty(), "{:?}", ws.origin.heads());
}

/// A message that must not leave: the origin gets no byte of it, both sides get a close that says why, and it is on
/// record.
async fn stopped(ws: &Ws, what: &str, mut client: Client, rule: &str) {
    let (code, reason) = client.ended().await;
    assert_eq!(code, 1008, "{what}: {reason}");
    assert!(
        reason.starts_with(&format!("blocked by policy: {rule} (evt_")),
        "{what}: {reason}"
    );
    let event = reason.split(['(', ')']).nth(1).unwrap();
    ws.origin.until(what, |origin| origin.closed() == 1).await;
    assert_eq!(ws.origin.data(), b"", "{what}");
    let frames = ws.origin.frames();
    let [close] = &frames[..] else {
        panic!("{what}: {frames:?}");
    };
    assert_eq!(close.opcode, 8, "{what}");
    assert_eq!(&close.payload[2..], reason.as_bytes(), "{what}");
    crate::harness::until(what, || {
        ws.sidecar.audit().iter().any(|record| {
            record["event"] == event && record["verdict"] == "block" && record["rule"] == rule
        })
    })
    .await;
    ws.origin.clear();
}

#[tokio::test]
async fn nothing_of_a_blocked_message_reaches_the_origin() {
    let ws = Ws::with(WsOptions {
        lines: DEFLATE.into(),
        ..WsOptions::default()
    })
    .await;
    let text = format!("the key is {KEY}, keep it");
    let mut blocked = 0;
    for (what, first, payload) in [
        ("text", TEXT, text.clone().into_bytes()),
        ("binary", BINARY, text.clone().into_bytes()),
        (
            "compressed text",
            TEXT | COMPRESSED,
            deflated(text.as_bytes()),
        ),
        (
            "compressed binary",
            BINARY | COMPRESSED,
            deflated(text.as_bytes()),
        ),
        ("ping", PING, text.clone().into_bytes()),
        ("pong", 0x8a, text.clone().into_bytes()),
        (
            "close reason",
            CLOSE,
            [b"\x03\xe8", text.as_bytes()].concat(),
        ),
        (
            "base64 in text",
            TEXT,
            base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &text).into_bytes(),
        ),
        ("gzip in binary", BINARY, {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            gzip.write_all(text.as_bytes()).unwrap();
            gzip.finish().unwrap()
        }),
    ] {
        let mut client = ws.open(DEFLATE).await;
        client.say(first, &payload).await;
        stopped(&ws, what, client, "aws-access-key").await;
        blocked += 1;
    }
    // Cut in two fragments at every offset, and with a ping between them.
    for cut in 0..=text.len() {
        let mut client = ws.open(DEFLATE).await;
        client.say(0x01, &text.as_bytes()[..cut]).await;
        client.say(0x80, &text.as_bytes()[cut..]).await;
        stopped(
            &ws,
            &format!("fragments at {cut}"),
            client,
            "aws-access-key",
        )
        .await;
        blocked += 1;
    }
    let packed = deflated(text.as_bytes());
    for cut in 0..=packed.len() {
        let mut client = ws.open(DEFLATE).await;
        client.say(0x01 | COMPRESSED, &packed[..cut]).await;
        client.say(0x80, &packed[cut..]).await;
        stopped(
            &ws,
            &format!("compressed fragments at {cut}"),
            client,
            "aws-access-key",
        )
        .await;
        blocked += 1;
    }
    fixtures::tell!("{blocked} messages with a credential, 0 bytes of them at the origin");
}

/// A message has no place to wait in: an operator is not asked, and nothing of it leaves.
#[tokio::test]
async fn a_message_is_blocked_where_an_operator_could_be_asked_too() {
    for dlp in [Value::Null, json!({"outbound_on_match": "supervise"})] {
        let ws = Ws::start(WsOptions::default(), supervised(&allowed(dlp))).await;
        let text = format!("the key is {KEY}, keep it");
        for first in [TEXT, BINARY, PING] {
            let mut client = ws.open("").await;
            client.say(first, text.as_bytes()).await;
            stopped(&ws, "a message", client, "aws-access-key").await;
            let asked = control(&ws.sidecar, "GET", "/v1/pending", Value::Null).await;
            assert_eq!(asked.json(), json!([]));
        }
    }
}

const INJECTED: &str = "tok/Injected+5d1e9a7c3b"; // gitleaks:allow

/// Cut in two and in three fragments at every offset, with a ping between them, and in what a ping or a close says.
#[tokio::test]
async fn an_echoed_credential_is_scrubbed_however_its_fragments_cut_it() {
    let said = format!("you sent {INJECTED}, did you not?");
    let bytes = said.as_bytes();
    let clean = format!("you sent {}, did you not?", "*".repeat(INJECTED.len()));
    let mut greeting = Vec::new();
    let mut messages = 0;
    for cut in 0..=bytes.len() {
        greeting.extend(server_frame(false, 1, &bytes[..cut]));
        greeting.extend(server_frame(true, 9, b"ping"));
        greeting.extend(server_frame(true, 0, &bytes[cut..]));
        let next = (cut + 5).min(bytes.len());
        greeting.extend(server_frame(false, 2, &bytes[..cut]));
        greeting.extend(server_frame(false, 0, &bytes[cut..next]));
        greeting.extend(server_frame(true, 0, &bytes[next..]));
        messages += 2;
    }
    greeting.extend(server_frame(true, 9, INJECTED.as_bytes()));
    let reason = [b"\x03\xe8", INJECTED.as_bytes()].concat();
    greeting.extend(server_frame(true, 8, &reason));
    let mut egress = allowed(Value::Null);
    egress["routes"][0]["auth"] = json!({"scheme": "Bearer", "token_ref": "EGRESS_TOKEN_ROUTE"});
    let options = WsOptions {
        greeting,
        ..WsOptions::default()
    };
    let ws = Ws::start(
        options,
        Setup::new(&egress).env("EGRESS_TOKEN_ROUTE", INJECTED),
    )
    .await;
    let mut client = ws.open("").await;
    assert!(ws.origin.heads()[0].contains(INJECTED));
    let (mut whole, mut heard, mut pings) = (Vec::new(), 0, 0);
    let close = loop {
        let frame = client.hear().await.unwrap();
        match frame.opcode {
            8 => break frame,
            9 => {
                assert!(!String::from_utf8_lossy(&frame.payload).contains("Injected"));
                pings += 1;
            }
            _ => {
                whole.extend_from_slice(&frame.payload);
                if frame.fin {
                    assert_eq!(String::from_utf8_lossy(&whole), clean, "message {heard}");
                    whole.clear();
                    heard += 1;
                }
            }
        }
    };
    assert_eq!((heard, pings), (messages, messages / 2 + 1));
    assert!(!String::from_utf8_lossy(&close.payload).contains("Injected"));
}

/// A dictionary that an earlier message left behind is the inflater's, and so the scanner's.
#[tokio::test]
async fn a_compressed_message_that_leans_on_an_earlier_one() {
    let ws = Ws::with(WsOptions {
        lines: DEFLATE.into(),
        ..WsOptions::default()
    })
    .await;
    let mut client = ws.open(DEFLATE).await;
    let mut state = flate2::Compress::new(flate2::Compression::best(), false);
    let mut pack = |text: &[u8]| {
        let mut out = Vec::with_capacity(4096);
        state
            .compress_vec(text, &mut out, flate2::FlushCompress::Sync)
            .unwrap();
        out.truncate(out.len() - 4);
        out
    };
    // The pieces of the key are back references into this one, which is clean.
    let clean = pack(b"AKIAIO, SFODNN, 7EXAMPLE, and the key is what they make");
    let key = pack(format!("the key is {KEY}").as_bytes());
    assert!(
        !key.windows(4)
            .any(|four| KEY.as_bytes().windows(4).any(|own| own == four))
    );
    client.say(TEXT | COMPRESSED, &clean).await;
    ws.origin
        .until("the clean one", |origin| origin.frames().len() == 1)
        .await;
    assert!(ws.origin.data().ends_with(b"what they make"));
    ws.origin.clear();
    client.say(TEXT | COMPRESSED, &key).await;
    stopped(&ws, "leaning", client, "aws-access-key").await;
}

/// Of a credential cut over messages the last piece stays here, however small the pieces are.
#[tokio::test]
async fn a_credential_over_several_messages_does_not_arrive_whole() {
    let ws = Ws::plain().await;
    let mut cases = 0;
    for (secret, rule) in [(KEY, "aws-access-key"), (KNOWN, "known-secret")] {
        for size in 1..secret.len() {
            for kinds in [[TEXT, TEXT], [BINARY, BINARY], [TEXT, BINARY]] {
                let mut client = ws.open("").await;
                for (at, piece) in secret.as_bytes().chunks(size).enumerate() {
                    client.say(kinds[at % 2], piece).await;
                }
                let (code, reason) = client.ended().await;
                assert_eq!(code, 1008, "{rule} in pieces of {size}: {reason}");
                assert!(
                    reason.contains(rule),
                    "{rule} in pieces of {size}: {reason}"
                );
                ws.origin
                    .until("the end", |origin| origin.closed() == 1)
                    .await;
                let arrived = ws.origin.data();
                assert!(arrived.len() < secret.len(), "{rule} in pieces of {size}");
                if rule == "known-secret" {
                    let told = arrived
                        .iter()
                        .filter(|byte| byte.is_ascii_alphanumeric())
                        .count();
                    assert!(told < 15, "{told} letters in pieces of {size}");
                }
                ws.origin.clear();
                cases += 1;
            }
        }
    }
    // Other messages between the pieces, of the kind that a receiver reads apart.
    let mut client = ws.open("").await;
    for piece in KEY.as_bytes().chunks(7) {
        client.say(BINARY, b"0123 and so on").await;
        client.say(PING, b"ping").await;
        client.say(TEXT, piece).await;
    }
    assert_eq!(client.ended().await.0, 1008);
    fixtures::tell!("{cases} ways to cut a secret over messages, none arrived whole");
}

#[tokio::test]
async fn a_long_message_flows_and_a_hit_in_it_cuts_it_off() {
    let ws = Ws::with(WsOptions {
        lines: DEFLATE.into(),
        ..WsOptions::default()
    })
    .await;
    let size = 3 << 20;
    let line = b"a line of a log that says nothing much, 0123456789\n";
    let long: Vec<u8> = line.iter().copied().cycle().take(size).collect();
    for (what, first, payload) in [
        ("plain", BINARY, long.clone()),
        ("text", TEXT, long.clone()),
    ] {
        let mut client = ws.open(DEFLATE).await;
        client.say(first, &payload).await;
        ws.origin
            .until(what, |origin| {
                origin.data_len() == size && origin.is_between_messages()
            })
            .await;
        assert!(ws.origin.data() == long, "{what}");
        assert!(ws.origin.frames().len() > 3, "{what}: it was held whole");
        client.bye().await;
        ws.origin
            .until("the end", |origin| origin.closed() == 1)
            .await;
        ws.origin.clear();
    }
    for at in [10, 1 << 20, (2 << 20) + 12_345, size - 1] {
        let mut secret = long.clone();
        secret.splice(at..at, format!(" {KEY} ").into_bytes());
        for fragment in [usize::MAX, 60_000] {
            let mut client = ws.open(DEFLATE).await;
            let mut chunks = secret.chunks(fragment).enumerate().peekable();
            while let Some((index, chunk)) = chunks.next() {
                let fin = if chunks.peek().is_none() { 0x80 } else { 0 };
                client
                    .say(fin | if index == 0 { 2 } else { 0 }, chunk)
                    .await;
            }
            let (code, reason) = client.ended().await;
            assert_eq!(code, 1008, "at {at}: {reason}");
            ws.origin
                .until("the end", |origin| origin.closed() == 1)
                .await;
            let arrived = ws.origin.data();
            assert!(
                secret.starts_with(&arrived) && arrived.len() <= at + 1,
                "at {at}: {}",
                arrived.len()
            );
            assert!(
                ws.origin
                    .frames()
                    .iter()
                    .all(|frame| frame.opcode == 8 || !frame.fin),
                "a whole message"
            );
            ws.origin.clear();
        }
    }
}

#[tokio::test]
async fn a_text_can_be_redacted_and_nothing_else() {
    let redact = allowed(json!({"outbound_on_match": "redact"}));
    let ws = Ws::start(WsOptions::default(), Setup::new(&redact)).await;
    let text = format!("the key is {KEY}, keep it");
    let mut client = ws.open("").await;
    client.say(0x01, &text.as_bytes()[..20]).await;
    client.say(0x80, &text.as_bytes()[20..]).await;
    client.say(TEXT, b"next").await;
    ws.origin
        .until("both", |origin| origin.frames().len() == 2)
        .await;
    assert_eq!(ws.origin.data(), b"the key is ********, keep itnext");
    client.bye().await;
    crate::harness::until("a record", || {
        ws.sidecar.audit().iter().any(|record| {
            record["verdict"] == "redact" && record["location"] == "websocket text message"
        })
    })
    .await;
    for (what, first, payload) in [
        ("binary", BINARY, text.clone().into_bytes()),
        ("ping", PING, text.clone().into_bytes()),
        ("close", CLOSE, [b"\x03\xe8", text.as_bytes()].concat()),
    ] {
        ws.origin
            .until("the end", |origin| origin.closed() >= 1)
            .await;
        ws.origin.clear();
        let mut client = ws.open("").await;
        client.say(first, &payload).await;
        stopped_unredacted(&ws, what, client).await;
    }
}

async fn stopped_unredacted(ws: &Ws, what: &str, mut client: Client) {
    assert_eq!(client.ended().await.0, 1008, "{what}");
    ws.origin
        .until("the end", |origin| origin.closed() >= 1)
        .await;
    assert_eq!(ws.origin.data(), b"", "{what}");
    assert!(
        ws.origin.frames().iter().all(|frame| frame.opcode == 8),
        "{what}"
    );
}

#[tokio::test]
async fn frames_that_no_peer_may_send_end_it() {
    let ws = Ws::with(WsOptions {
        lines: DEFLATE.into(),
        ..WsOptions::default()
    })
    .await;
    let unmasked = server_frame(true, 1, b"hello");
    let mut bomb = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![0u8; 64 << 20]).unwrap();
    bomb.flush().unwrap();
    let flood = [
        client_frame(0x01, b""),
        client_frame(0x00, b"").repeat(10_000),
    ]
    .concat();
    let mut longer = client_frame(BINARY, b"");
    longer[1] = 0xff;
    longer.splice(2..2, u64::MAX.to_be_bytes());
    for (what, wire, code) in [
        ("unmasked", unmasked, 1002),
        ("rsv2", client_frame(TEXT | 0x20, b"a"), 1002),
        ("rsv3", client_frame(TEXT | 0x10, b"a"), 1002),
        ("opcode 3", client_frame(0x83, b"a"), 1002),
        ("opcode 15", client_frame(0x8f, b"a"), 1002),
        ("a long ping", client_frame(PING, &[b'a'; 126]), 1002),
        ("a ping in fragments", client_frame(0x09, b"a"), 1002),
        (
            "a compressed ping",
            client_frame(PING | COMPRESSED, b"a"),
            1002,
        ),
        ("a continuation of nothing", client_frame(0x80, b"a"), 1002),
        (
            "a message in another",
            [client_frame(0x01, b"a"), client_frame(TEXT, b"b")].concat(),
            1002,
        ),
        (
            "a compressed continuation",
            [client_frame(0x01, b"a"), client_frame(0xc0, b"b")].concat(),
            1002,
        ),
        ("half a code", client_frame(CLOSE, b"\x03"), 1002),
        (
            "a code that may not be sent",
            client_frame(CLOSE, &1005u16.to_be_bytes()),
            1002,
        ),
        (
            "a close that is not text",
            client_frame(CLOSE, b"\x03\xe8\xff\xfe"),
            1007,
        ),
        (
            "a text that is not text",
            client_frame(TEXT, b"\xff\xfe"),
            1007,
        ),
        (
            "a text that ends in a character",
            client_frame(TEXT, b"a\xe2\x82"),
            1007,
        ),
        ("a length with the highest bit", longer, 1002),
        ("fragments of nothing", flood, 1002),
        (
            "what does not inflate",
            client_frame(TEXT | COMPRESSED, b"\xff\xff\xff"),
            1002,
        ),
        (
            "a bomb",
            client_frame(BINARY | COMPRESSED, bomb.get_ref()),
            1009,
        ),
    ] {
        let mut client = ws.open(DEFLATE).await;
        client.wire.send(&wire).await;
        let (told, reason) = client.ended().await;
        assert_eq!(told, code, "{what}: {reason}");
        ws.origin.until(what, |origin| origin.closed() == 1).await;
        let frames = ws.origin.frames();
        if what != "a bomb" {
            assert!(
                frames.iter().all(|frame| frame.opcode == 8),
                "{what}: {frames:?}"
            );
        } else {
            assert!(
                frames.iter().all(|frame| frame.opcode == 8 || !frame.fin),
                "{what}"
            );
        }
        ws.origin.clear();
    }
    // The same from the origin's side.
    for (what, greeting, code) in [
        ("masked", client_frame(TEXT, b"hello"), 1002),
        ("rsv1 unasked", server_frame(true, 0x41, b"a"), 1002),
        ("not text", server_frame(true, 1, b"\xff"), 1007),
        ("a continuation", server_frame(true, 0, b"a"), 1002),
    ] {
        let ws = Ws::with(WsOptions {
            greeting,
            ..WsOptions::default()
        })
        .await;
        let mut client = ws.open("").await;
        assert_eq!(client.ended().await.0, code, "{what}");
        crate::harness::until(what, || {
            ws.sidecar
                .audit()
                .iter()
                .any(|record| record["code"] == "upstream-protocol")
        })
        .await;
    }
}

#[tokio::test]
async fn a_message_limit_is_a_messages_and_not_the_connections() {
    let limited = allowed(json!({"max_request_bytes": 1000}));
    let ws = Ws::start(WsOptions::default(), Setup::new(&limited)).await;
    let mut client = ws.open("").await;
    for _ in 0..10 {
        client.say(TEXT, &[b'a'; 900]).await;
    }
    ws.origin
        .until("all", |origin| origin.data_len() == 9000)
        .await;
    ws.origin.clear();
    client.say(0x01, &[b'a'; 900]).await;
    client.say(0x80, &[b'a'; 101]).await;
    let (code, reason) = client.ended().await;
    assert_eq!(code, 1009, "{reason}");
    assert!(reason.contains("oversize"), "{reason}");
    ws.origin
        .until("the end", |origin| origin.closed() == 1)
        .await;
    assert_eq!(ws.origin.data(), b"");
}

#[tokio::test]
async fn an_end_on_one_side_is_one_on_the_other() {
    let ws = Ws::plain().await;
    // The agent goes without a word.
    let client = ws.open("").await;
    drop(client);
    ws.origin
        .until("the end", |origin| origin.closed() == 1)
        .await;
    ws.origin.clear();
    // The origin closes, with a code of its own.
    let ws = Ws::with(WsOptions {
        greeting: server_frame(true, 8, b"\x0f\xa1go away"),
        ..WsOptions::default()
    })
    .await;
    let mut client = ws.open("").await;
    assert_eq!(client.ended().await, (4001, "go away".into()));
    client.say(CLOSE, b"\x0f\xa1").await;
    assert!(client.hear().await.is_none());
    // The sidecar stops.
    let mut ws = Ws::plain().await;
    let mut client = ws.open("").await;
    client.say(TEXT, b"hello").await;
    ws.origin
        .until("hello", |origin| origin.data() == b"hello")
        .await;
    ws.sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(client.ended().await.0, 1001);
    ws.origin
        .until("the end", |origin| origin.closed() == 1)
        .await;
    assert!(ws.sidecar.wait().await.success());
}

/// A stream of small messages with a long tail behind them is held in constant memory.
#[tokio::test]
async fn many_messages_take_no_memory() {
    let ws = Ws::plain().await;
    let mut client = ws.open("").await;
    let batch = client_frame(TEXT, b"{\"type\":\"delta\",\"n\":12345}").repeat(500);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", ws.sidecar.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    client.wire.send(&batch).await;
    ws.origin
        .until("the first", |origin| origin.frames().len() == 500)
        .await;
    let before = resident();
    for _ in 0..9 {
        client.wire.send(&batch).await;
    }
    ws.origin
        .until("all", |origin| origin.frames().len() == 5000)
        .await;
    let after = resident();
    assert!(
        after < before + 4096,
        "{before} KiB before, {after} KiB after"
    );
    client.bye().await;
}

/// A WebSocket in a stream of HTTP/2 (RFC 8441), where the origin gets an ordinary one.
struct Stream {
    send: h2::SendStream<bytes::Bytes>,
    recv: h2::RecvStream,
    buf: Vec<u8>,
}

impl Stream {
    async fn ask(ws: &Ws, fields: &[(&str, &str)]) -> Result<Self, (u16, Value)> {
        let client = ws.sidecar.h2(&format!("{NAME}:{}", ws.origin.port())).await;
        let mut sender = client.sender.clone().ready().await.unwrap();
        // It may ask so only once it was told that it may.
        crate::harness::until("the setting", || {
            sender.is_extended_connect_protocol_enabled()
        })
        .await;
        let mut request = client
            .request("CONNECT", "/chat?room=1")
            .header("sec-websocket-version", "13");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        request
            .extensions_mut()
            .insert(h2::ext::Protocol::from_static("websocket"));
        let (response, send) = sender.send_request(request, false).unwrap();
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        let status = response.status().as_u16();
        let mut recv = response.into_body();
        if status == 200 {
            return Ok(Self {
                send,
                recv,
                buf: Vec::new(),
            });
        }
        let mut body = Vec::new();
        while let Some(Ok(data)) = recv.data().await {
            body.extend_from_slice(&data);
        }
        Err((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    fn say(&mut self, first: u8, payload: &[u8]) {
        self.send
            .send_data(client_frame(first, payload).into(), false)
            .unwrap();
    }

    async fn hear(&mut self) -> Option<WsFrame> {
        loop {
            if let Some(frame) = take(&mut self.buf) {
                return Some(frame);
            }
            let data = timeout(PATIENCE, self.recv.data()).await.unwrap()?.ok()?;
            self.recv
                .flow_control()
                .release_capacity(data.len())
                .unwrap();
            self.buf.extend_from_slice(&data);
        }
    }
}

#[tokio::test]
async fn over_http2_it_is_carried_and_judged_alike() {
    let ws = Ws::with(WsOptions {
        echo: true,
        lines: DEFLATE.into(),
        ..WsOptions::default()
    })
    .await;
    let offer = [("sec-websocket-extensions", "permessage-deflate")];
    let mut stream = Stream::ask(&ws, &offer).await.unwrap();
    stream.say(TEXT, b"hello");
    assert_eq!(stream.hear().await.unwrap().payload, b"hello");
    stream.say(BINARY | COMPRESSED, &deflated(b"packed"));
    assert_eq!(stream.hear().await.unwrap().payload, b"packed");
    let long = vec![b'.'; 300_000];
    for chunk in client_frame(BINARY, &long).chunks(10_000) {
        stream
            .send
            .send_data(bytes::Bytes::copy_from_slice(chunk), false)
            .unwrap();
    }
    let mut echoed = 0;
    while echoed < long.len() {
        echoed += stream.hear().await.unwrap().payload.len();
    }
    let head = ws.origin.heads().remove(0);
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{head}");
    ws.origin.clear();
    stream.say(0x01, b"the key is AKIAIO");
    stream.say(0x80, b"SFODNN7EXAMPLE");
    let close = loop {
        let frame = stream.hear().await.expect("a close");
        if frame.opcode == 8 {
            break frame;
        }
    };
    assert_eq!(&close.payload[..2], &1008u16.to_be_bytes());
    assert!(stream.hear().await.is_none());
    ws.origin
        .until("the end", |origin| origin.closed() == 1)
        .await;
    assert_eq!(ws.origin.data(), b"");

    let refused = Stream::ask(&ws, &[("x-key", KEY)]).await.err().unwrap();
    assert_eq!(refused.0, 403);
    assert!(
        refused.1["code"]
            .as_str()
            .unwrap()
            .starts_with("credential")
    );
    let no = WsOptions {
        instead: Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_vec()),
        ..WsOptions::default()
    };
    // A 200 would be taken for a yes.
    let refused = Stream::ask(&Ws::with(no).await, &[]).await.err().unwrap();
    assert_eq!(
        (refused.0, &refused.1["code"]),
        (502, &json!("upstream-protocol"))
    );
    let closed = Ws::start(WsOptions::default(), Setup::new(&routes(&[route()]))).await;
    let refused = Stream::ask(&closed, &[]).await.err().unwrap();
    assert_eq!(
        (refused.0, &refused.1["code"]),
        (403, &json!("websocket-not-allowed"))
    );
    assert!(closed.origin.heads().is_empty());
}
