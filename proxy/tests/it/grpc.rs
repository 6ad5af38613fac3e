//! gRPC: each message has a verdict of its own, and both sides talk at the same time.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use fixtures::origin::OriginOptions;
use fixtures::pki::Pki;
use fixtures::require::{python, require};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{self, KEY, KNOWN, NAME, PATIENCE, Setup, Sidecar, World, dlp, route, routes};
use crate::supervise::{control, supervised};

/// A server of every kind of call, without generated code; what it got is printed at the end.
const SERVER: &str = r#"
import json, sys, grpc
from concurrent import futures
key, cert = (open(path, "rb").read() for path in sys.argv[1:3])
got = []
def seen(message):
    got.append(message.decode("latin-1"))
    return message
def unary(request, context):
    seen(request)
    if request == b"fail":
        context.set_trailing_metadata((("x-why", "asked"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as it was asked \u00e9")
    context.send_initial_metadata((("x-head", "1"),))
    context.set_trailing_metadata((("x-trailer", "2"), ("x-bin-bin", b"\x00\x01")))
    return b"re: " + request
def down(request, context):
    for n in range(int(seen(request))):
        yield b"%d" % n
def up(requests, context):
    return b"%d" % sum(len(seen(r)) for r in requests)
def both(requests, context):
    for request in requests:
        yield b"re: " + seen(request)
h = grpc.method_handlers_generic_handler("t.T", {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
})
server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
server.add_generic_rpc_handlers((h,))
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
server.start()
print(port, flush=True)
sys.stdin.read()
server.stop(None)
print(json.dumps(got), flush=True)
"#;

const CLIENT: &str = r#"
import grpc, json, queue, sys, time
target, proxy, ca, key, known = sys.argv[1:]
channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(open(ca, "rb").read()), options=[
    ("grpc.http_proxy", proxy), ("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)])
unary, down = channel.unary_unary("/t.T/Unary"), channel.unary_stream("/t.T/Down")
up, both = channel.stream_unary("/t.T/Up"), channel.stream_stream("/t.T/Both")
out = {}
def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details(), "trailers": {k: str(v) for k, v in error.trailing_metadata() or ()}}
reply, call = unary.with_call(b"hello", timeout=20)
out["unary"] = reply.decode()
out["head"] = dict(call.initial_metadata()).get("x-head")
out["trailers"] = {k: str(v) for k, v in call.trailing_metadata()}
out["gzip"] = unary(b"hello " * 1000, compression=grpc.Compression.Gzip, timeout=20).count(b"hello")
out["deflate"] = unary(b"hello " * 1000, compression=grpc.Compression.Deflate, timeout=20).count(b"hello")
out["long"] = len(unary(b"a line of text\n" * 200000, timeout=60))
out["fail"] = failure(lambda: unary(b"fail", timeout=20))
out["down"] = [r.decode() for r in down(b"50", timeout=20)]
out["up"] = up((b"x" * n for n in range(100)), timeout=20).decode()
# Each question is asked after the answer to the one before.
questions = queue.Queue()
answers = both(iter(questions.get, None), timeout=30)
pong = []
slowest = 0
for n in range(20):
    begun = time.time()
    questions.put(b"ping %d" % n)
    pong.append(next(answers).decode())
    slowest = max(slowest, time.time() - begun)
questions.put(None)
out["rest"] = len(list(answers))
out["pong"], out["slowest"] = pong, slowest
# Blocked: alone, compressed, between others, after answers, in two pieces.
secret = b"the key is " + key.encode() + b" ok"
out["blocked"] = failure(lambda: unary(secret, timeout=20))
out["blocked_gzip"] = failure(lambda: unary(secret, compression=grpc.Compression.Gzip, timeout=20))
out["blocked_header"] = failure(lambda: unary(b"x", metadata=(("x-key", key),), timeout=20))
out["blocked_up"] = failure(lambda: up(iter([b"one", b"two", secret, b"three"]), timeout=20))
questions = queue.Queue()
answers = both(iter(questions.get, None), timeout=20)
questions.put(b"first")
assert next(answers) == b"re: first"
questions.put(secret)
out["blocked_both"] = failure(lambda: next(answers))
field = lambda text: b"\x0a" + bytes([len(text)]) + text
half = known.encode()[:10], known.encode()[10:]
out["blocked_split"] = failure(lambda: up(iter([field(half[0]), field(half[1])]), timeout=20))
out["denied"] = failure(lambda: channel.unary_unary("/other.T/Unary")(b"x", timeout=20))
print(json.dumps(out))
"#;

#[tokio::test]
async fn every_kind_of_call_of_a_real_client_and_server() {
    let Some(python) = python() else {
        assert!(!require("python with grpcio", false));
        return;
    };
    let pki = Pki::new();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = pki.write_server(dir.path(), &[NAME]);
    let mut server = Command::new(&python)
        .args(["-c", SERVER])
        .args([&key, &cert])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut out = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    timeout(PATIENCE, out.read_line(&mut line))
        .await
        .unwrap()
        .unwrap();
    let port: u16 = line.trim().parse().unwrap();
    let mut only = route();
    only["matches"] = json!([{"methods": ["POST"], "paths": [{"prefix": "/t.T"}]}]);
    let sidecar = Sidecar::start(&pki, port, Setup::new(&routes(&[only]))).await;

    let mut client = Command::new(&python);
    client
        .args([
            "-c",
            CLIENT,
            &format!("{NAME}:{port}"),
            &sidecar.proxy_url(),
        ])
        .arg(sidecar.ca())
        .args([KEY, KNOWN]);
    let (status, printed, error) = harness::run(&mut client).await;
    assert!(status.success(), "{error}");
    let said: Value = serde_json::from_slice(&printed).unwrap();
    assert_eq!(said["unary"], "re: hello");
    assert_eq!(said["head"], "1");
    assert_eq!(said["trailers"]["x-trailer"], "2");
    assert_eq!(said["trailers"]["x-bin-bin"], r"b'\x00\x01'");
    assert_eq!(
        (&said["gzip"], &said["deflate"]),
        (&json!(1000), &json!(1000))
    );
    assert_eq!(said["long"], 3_000_004);
    assert_eq!(said["fail"]["code"], "FAILED_PRECONDITION");
    assert_eq!(said["fail"]["details"], "as it was asked \u{e9}");
    assert_eq!(said["fail"]["trailers"]["x-why"], "asked");
    assert_eq!(said["down"].as_array().unwrap().len(), 50);
    assert_eq!(said["up"], "4950");
    assert_eq!(
        (said["pong"].as_array().unwrap().len(), &said["rest"]),
        (20, &json!(0))
    );
    assert!(
        said["slowest"].as_f64().unwrap() < 5.0,
        "{}",
        said["slowest"]
    );
    for (case, code) in [
        ("blocked", "credential-unsupervised"),
        ("blocked_gzip", "credential-unsupervised"),
        ("blocked_header", "credential-unsupervised"),
        ("blocked_up", "credential-unsupervised"),
        ("blocked_both", "credential-unsupervised"),
        ("blocked_split", "credential-unsupervised"),
        ("denied", "request-not-allowed"),
    ] {
        let failure = &said[case];
        assert_eq!(failure["code"], "PERMISSION_DENIED", "{case}: {failure}");
        let details: Value =
            serde_json::from_str(failure["details"].as_str().unwrap()).expect(case);
        assert_eq!(details["code"], code, "{case}");
        assert_eq!(
            failure["trailers"]["x-bottle-verdict"], "blocked",
            "{case}: {failure}"
        );
    }

    drop(server.stdin.take());
    line.clear();
    timeout(PATIENCE, out.read_line(&mut line))
        .await
        .unwrap()
        .unwrap();
    let got: Vec<String> = serde_json::from_str(&line).unwrap();
    assert!(
        !got.iter().any(|message| message.contains("the key is")),
        "{got:?}"
    );
    assert!(!got.iter().any(|message| message.contains(&KNOWN[10..])));
    assert!(got.iter().any(|message| message == "first"));
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn post(client: &harness::H2Client, encoding: Option<&str>) -> http::Request<()> {
    let request = client
        .request("POST", "/t.T/Call")
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers");
    match encoding {
        Some(name) => request.header("grpc-encoding", name),
        None => request,
    }
    .body(())
    .unwrap()
}

/// However the frames of HTTP/2 cut it: of a message that must not leave the origin has no byte.
#[tokio::test]
async fn nothing_of_a_blocked_message_reaches_the_origin() {
    let text = format!("the key is {KEY}, keep it");
    let plain = framed(0, text.as_bytes());
    let packed = framed(1, &gzip(text.as_bytes()));
    let world = World::start(OriginOptions::HTTP2, Setup::new(&routes(&[route()]))).await;
    let mut client = world.h2().await;
    let mut cases = 0;
    for (wire, encoding) in [(&plain, None), (&packed, Some("gzip"))] {
        for cut in 0..=wire.len() {
            let clean = framed(0, b"clean");
            let request = post(&client, encoding);
            let pieces: [&[u8]; 3] = [&clean, &wire[..cut], &wire[cut..]];
            let answer = client.send(request, &pieces, None).await;
            if let Ok(answer) = answer {
                let verdict = answer
                    .trailers
                    .iter()
                    .chain(&answer.headers)
                    .find(|(name, _)| name == "x-bottle-verdict");
                assert_eq!(
                    verdict.map(|(_, value)| value.as_str()),
                    Some("blocked"),
                    "{answer:?}"
                );
                let status = answer
                    .trailers
                    .iter()
                    .chain(&answer.headers)
                    .find(|(name, _)| name == "grpc-status");
                assert_eq!(
                    status.map(|(_, value)| value.as_str()),
                    Some("7"),
                    "{answer:?}"
                );
            }
            cases += 1;
        }
    }
    assert!(!world.origin.saw(b"the key is"));
    assert!(!world.origin.saw(&gzip(text.as_bytes())[10..]));
    fixtures::tell!("{cases} gRPC messages with a credential, 0 bytes of them at the origin");
}

/// A message has no place to wait in: an operator is not asked, and nothing of it leaves.
#[tokio::test]
async fn a_message_is_blocked_where_an_operator_could_be_asked_too() {
    let setup = supervised(&routes(&[route()]));
    let world = World::start(OriginOptions::HTTP2, setup).await;
    let mut client = world.h2().await;
    let text = format!("the key is {KEY}, keep it");
    for (wire, encoding) in [
        (framed(0, text.as_bytes()), None),
        (framed(1, &gzip(text.as_bytes())), Some("gzip")),
    ] {
        let request = post(&client, encoding);
        let pieces: [&[u8]; 2] = [&framed(0, b"clean"), &wire];
        if let Ok(answer) = client.send(request, &pieces, None).await {
            let mut fields = answer.trailers.iter().chain(&answer.headers);
            let status = fields.find(|(name, _)| name == "grpc-status");
            let status = status.map(|(_, value)| value.as_str());
            assert_eq!(status, Some("7"), "{answer:?}");
        }
        let asked = control(&world.sidecar, "GET", "/v1/pending", Value::Null).await;
        assert_eq!(asked.json(), json!([]));
    }
    assert!(!world.origin.saw(b"the key is"));
    assert!(!world.origin.saw(&gzip(text.as_bytes())[10..]));
}

#[tokio::test]
async fn what_is_no_grpc_is_refused() {
    let world = World::start(OriginOptions::HTTP2, Setup::new(&routes(&[route()]))).await;
    let mut client = world.h2().await;
    let bomb = framed(1, &gzip(&vec![0u8; 80 << 20]));
    for (what, encoding, body, status) in [
        ("an unknown coding", Some("snappy"), framed(1, b"x"), "7"),
        ("compressed with nothing", None, framed(1, b"x"), "3"),
        (
            "compressed with identity",
            Some("identity"),
            framed(1, b"x"),
            "3",
        ),
        ("an unknown flag", None, framed(2, b"x"), "3"),
        (
            "cut off in a message",
            None,
            framed(0, b"hello")[..7].to_vec(),
            "3",
        ),
        ("cut off in a prefix", None, vec![0, 0, 0], "3"),
        (
            "what does not inflate",
            Some("gzip"),
            framed(1, b"not gzip"),
            "7",
        ),
        ("a bomb", Some("gzip"), bomb, "7"),
        (
            "a key in a prefix that lies",
            None,
            [&[0, 0, 0, 0, 2][..], KEY.as_bytes()].concat(),
            "3",
        ),
    ] {
        let request = post(&client, encoding);
        match client.send(request, &[&body], None).await {
            Ok(answer) => {
                let own = answer
                    .trailers
                    .iter()
                    .chain(&answer.headers)
                    .find(|(name, _)| name == "grpc-status");
                assert_eq!(
                    own.map(|(_, value)| value.as_str()),
                    Some(status),
                    "{what}: {answer:?}"
                );
            }
            Err(error) => assert!(error.is_reset(), "{what}: {error}"),
        }
        assert!(!world.origin.saw(&KEY.as_bytes()[2..]), "{what}");
    }
}

/// A message that is longer than what is held flows, and a hit in it cuts it off; one over the route's limit is not
/// begun.
#[tokio::test]
async fn long_messages() {
    let world = World::start(
        OriginOptions::HTTP2,
        Setup::new(&dlp(json!({"max_request_bytes": 4 << 20}))),
    )
    .await;
    let mut client = world.h2().await;
    let line = b"a line of a log that says nothing much, 0123456789\n";
    let mut long: Vec<u8> = line.iter().copied().cycle().take(3 << 20).collect();
    let request = post(&client, None);
    let body = [framed(0, b"short"), framed(0, &long), framed(0, b"short")].concat();
    let answer = client.send(request, &[&body], None).await.unwrap();
    assert_eq!(answer.status, 200);
    let [request] = world.origin.wait_for_requests(1).await.try_into().unwrap();
    assert!(request.body == body);

    world.origin.clear();
    let at = 2 << 20;
    long.splice(at..at, format!(" {KEY} ").into_bytes());
    let request = post(&client, None);
    let _reset = client.send(request, &[&framed(0, &long)], None).await;
    assert!(!world.origin.saw(KEY.as_bytes()));
    world.origin.clear();
    let request = post(&client, None);
    let answer = client
        .send(request, &[&framed(0, &vec![b'.'; 5 << 20])[..100]], None)
        .await
        .unwrap();
    let all: Vec<_> = answer.headers.iter().chain(&answer.trailers).collect();
    assert!(
        all.iter()
            .any(|(name, value)| name == "grpc-status" && value == "7"),
        "{answer:?}"
    );
}

/// The head goes at once, and each message before the next one comes.
#[tokio::test]
async fn nothing_waits_for_the_end_of_the_request() {
    let world = World::start(OriginOptions::HTTP2, Setup::new(&routes(&[route()]))).await;
    let client = world.h2().await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (response, mut stream) = sender.send_request(post(&client, None), false).unwrap();
    harness::until("the head", || world.origin.requests().len() == 1).await;
    for n in 0..5 {
        let message = framed(0, format!("message {n}").as_bytes());
        stream.send_data(Bytes::from(message), false).unwrap();
        let text = format!("message {n}");
        harness::until(&text, || world.origin.saw(text.as_bytes())).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(
        timeout(PATIENCE, response).await.unwrap().unwrap().status(),
        200
    );
}
