//! HTTP/2 frames that no client library would send, and peers that do not read.

use std::time::{Duration, Instant};

use fixtures::pki::Pki;
use fixtures::raw_origin::{RawOrigin, Script};
use fixtures::require::{python, require};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{self, H1, NAME, PATIENCE, Setup, Sidecar, World, route, routes};

/// Writes frames by hand and says how the connection ended, and after how many of them.
const FRAMES: &str = r#"
import base64, json, socket, ssl, sys, time
from urllib.parse import urlsplit
from hpack import Encoder
from hyperframe import frame as f
what, proxy, ca, authority = sys.argv[1:]
p, (host, port) = urlsplit(proxy), authority.split(":")
sock = socket.create_connection((p.hostname, p.port), 20)
auth = base64.b64encode(f"{p.username}:{p.password}".encode()).decode()
sock.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Basic {auth}\r\n\r\n".encode())
answer = b""
while b"\r\n\r\n" not in answer: answer += sock.recv(4096)
context = ssl.create_default_context(cafile=ca)
context.set_alpn_protocols(["h2"])
tls = context.wrap_socket(sock, server_hostname=host)
assert tls.selected_alpn_protocol() == "h2"
tls.settimeout(20)
encoder = Encoder()
def head(stream, path="/", more=(), method="GET", end=True, protocol=None):
    fields = [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]
    if protocol: fields.append((":protocol", protocol))
    frame = f.HeadersFrame(stream, encoder.encode(fields + list(more)))
    frame.flags.add("END_HEADERS")
    if end: frame.flags.add("END_STREAM")
    return frame.serialize()
tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + f.SettingsFrame(0).serialize())
got, out = b"", {"statuses": [], "resets": 0, "goaway": None, "closed": False, "pings": 0}
from hpack import Decoder
decoder = Decoder()
def read(wait):
    global got
    tls.settimeout(wait)
    try:
        while True:
            data = tls.recv(65536)
            if not data:
                out["closed"] = True
                break
            got += data
            while len(got) >= 9:
                frame, length = f.Frame.parse_frame_header(memoryview(got[:9]))
                if len(got) < 9 + length: break
                frame.parse_body(memoryview(got[9:9 + length]))
                got = got[9 + length:]
                if isinstance(frame, f.HeadersFrame):
                    fields = dict(decoder.decode(frame.data))
                    out["statuses"].append(fields.get(":status"))
                    out.setdefault("verdicts", []).append(fields.get("x-bottle-verdict"))
                elif isinstance(frame, f.DataFrame): out.setdefault("body", []).append(frame.data.decode("latin-1"))
                elif isinstance(frame, f.RstStreamFrame): out["resets"] += 1
                elif isinstance(frame, f.GoAwayFrame): out["goaway"] = frame.error_code
                elif isinstance(frame, f.PingFrame): out["pings"] += 1
    except (TimeoutError, socket.timeout): pass
    except OSError: out["closed"] = True
def flood(frames, wait=5):
    sent = 0
    try:
        for frame in frames:
            tls.sendall(frame)
            sent += 1
    except OSError:
        out["closed"] = True
    out["sent"] = sent
    read(wait)
begun = time.time()
if what == "reset":
    reset = lambda n: f.RstStreamFrame(n, error_code=8).serialize()
    flood(head(n) + reset(n) for n in range(1, 20001, 2))
elif what == "reset with bodies":
    flood(head(n, method="POST", end=False) + f.RstStreamFrame(n, error_code=8).serialize() for n in range(1, 20001, 2))
elif what == "ping": flood(f.PingFrame(0, b"12345678").serialize() for _ in range(10000))
elif what == "settings": flood(f.SettingsFrame(0, settings={3: 100}).serialize() for _ in range(10000))
elif what == "priority": flood(f.PriorityFrame(1 + 2 * n, depends_on=0, stream_weight=1).serialize() for n in range(10000))
elif what == "empty data":
    flood([head(1, method="POST", end=False)] + [f.DataFrame(1, b"").serialize()] * 10000)
elif what == "continuation":
    frame = f.HeadersFrame(1, encoder.encode([(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", "/")]))
    block = encoder.encode([("x-%d" % n, "v" * 50) for n in range(250)])[:16000]
    flood([frame.serialize()] + [f.ContinuationFrame(1, block).serialize()] * 640)
elif what == "empty continuation":
    frame = f.HeadersFrame(1, encoder.encode([(":method", "GET")]))
    flood([frame.serialize()] + [f.ContinuationFrame(1, b"").serialize()] * 20000)
elif what == "fields":
    more = [("x-%d" % n, "v") for n in range(1500)]
    block = encoder.encode([(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", "/")] + more)
    first = f.HeadersFrame(1, block[:16000]); first.flags.add("END_STREAM")
    frames, rest = [first], block[16000:]
    while rest:
        frames.append(f.ContinuationFrame(1, rest[:16000])); rest = rest[16000:]
    frames[-1].flags.add("END_HEADERS")
    flood([b"".join(x.serialize() for x in frames)], 2)
elif what == "ten thousand fields":
    block = encoder.encode([(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", "/")] + [("x-%d" % n, "v") for n in range(10000)])
    first = f.HeadersFrame(1, block[:16000]); first.flags.add("END_STREAM")
    frames, rest = [first], block[16000:]
    while rest:
        frames.append(f.ContinuationFrame(1, rest[:16000])); rest = rest[16000:]
    frames[-1].flags.add("END_HEADERS")
    flood((x.serialize() for x in frames), 2)
elif what == "streams":
    flood([b"".join(head(n, method="POST", end=False) for n in range(1, 801, 2))], 2)
elif what == "window overflow":
    flood([f.WindowUpdateFrame(0, window_increment=2**31 - 1).serialize()] * 2, 2)
elif what == "extended connect":
    flood([head(1, method="CONNECT", end=False, protocol="websocket", more=[("sec-websocket-version", "13")])], 2)
elif what == "good":
    for n in range(1, 41, 2):
        tls.sendall(head(n, "/status/204") + f.PingFrame(0, b"12345678").serialize())
    read(1)
out["seconds"] = time.time() - begun
print(json.dumps(out))
"#;

/// CPU seconds that a process has used.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn floods_are_cut_off() {
    let Some(python) = python() else {
        assert!(!require("python with h2", false));
        return;
    };
    let world = World::plain().await;
    let play = async |what: &str| -> Value {
        let mut command = Command::new(&python);
        command
            .args(["-c", FRAMES, what, &world.sidecar.proxy_url()])
            .arg(world.sidecar.ca())
            .arg(world.authority());
        let (status, out, error) = harness::run(&mut command).await;
        assert!(status.success(), "{what}: {error}");
        serde_json::from_slice(&out).unwrap()
    };
    let good = play("good").await;
    assert_eq!(good["statuses"].as_array().unwrap().len(), 20, "{good}");
    let mut floods = 0;
    for what in [
        "reset",
        "reset with bodies",
        "ping",
        "settings",
        "priority",
        "empty data",
        "continuation",
        "empty continuation",
        "window overflow",
    ] {
        world.origin.clear();
        let (before_cpu, before_memory) = (cpu(world.sidecar.pid()), resident(world.sidecar.pid()));
        let said = play(what).await;
        assert_eq!(said["closed"], true, "{what}: {said}");
        let used = cpu(world.sidecar.pid()) - before_cpu;
        let grown = resident(world.sidecar.pid()).saturating_sub(before_memory);
        fixtures::tell!(
            "{what}: {} of the flood taken, {used:.2} CPU s, {grown} KiB, {said}",
            said["sent"]
        );
        assert!(used < 2.0, "{what}: {used} CPU seconds");
        assert!(grown < 48 * 1024, "{what}: {grown} KiB");
        assert!(
            world.origin.requests().len() <= 600,
            "{what}: {} requests",
            world.origin.requests().len()
        );
        floods += 1;
    }
    for (what, status) in [
        ("fields", "431"),
        ("ten thousand fields", "431"),
        ("extended connect", "403"),
    ] {
        world.origin.clear();
        let said = play(what).await;
        println!("{what}: {said}");
        let statuses = said["statuses"].as_array().unwrap();
        assert!(statuses.iter().any(|own| own == status), "{what}: {said}");
        world.assert_untouched(what);
    }
    // Streams beyond the limit are refused one by one; the rest wait for their bodies.
    let said = play("streams").await;
    assert!(
        said["closed"] == true || said["resets"].as_u64().unwrap() >= 400 - 128,
        "{said}"
    );
    let good = play("good").await;
    assert_eq!(good["statuses"].as_array().unwrap().len(), 20, "{good}");
    fixtures::tell!("{floods} floods cut off");
}

/// What an agent can push towards an origin that does not read is bounded by windows and socket buffers.
#[tokio::test]
async fn an_origin_that_does_not_read_slows_the_agent() {
    const MOST: usize = 24 << 20;
    let pki = Pki::new();
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let tls = pki.server_config(&[NAME], &[protocol]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // It does the handshake, and for HTTP/2 its settings, and reads nothing ever after.
        let h2 = protocol == b"h2";
        let origin = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::clone(&tls));
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    if h2 {
                        let _gone = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
                        let _gone = stream.flush().await;
                    }
                    open.push(stream);
                }
            }
        });
        let sidecar = Sidecar::start(&pki, port, Setup::new(&routes(&[route()]))).await;
        let authority = format!("{NAME}:{port}");
        let before = resident(sidecar.pid());
        let chunk: Vec<u8> = b"a line of a log that says nothing much, 0123456789\n"
            .iter()
            .copied()
            .cycle()
            .take(65536)
            .collect();
        // Over HTTP/1.1 and HTTP/2 from the agent.
        let mut wire = sidecar.tls(&authority, NAME, H1).await.unwrap();
        let head =
            format!("POST / HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 1000000000\r\n\r\n");
        wire.write_all(head.as_bytes()).await.unwrap();
        let mut accepted = 0;
        let begun = Instant::now();
        while accepted < MOST && begun.elapsed() < PATIENCE {
            match timeout(Duration::from_millis(1500), wire.write_all(&chunk)).await {
                Ok(Ok(())) => accepted += chunk.len(),
                _ => break,
            }
        }
        let grown = resident(sidecar.pid()).saturating_sub(before);
        fixtures::tell!(
            "{}: {accepted} bytes taken from the agent, {grown} KiB",
            String::from_utf8_lossy(protocol)
        );
        assert!(accepted < MOST, "{accepted} bytes were taken");
        assert!(grown < 24 * 1024, "{grown} KiB");
        drop(wire);
        if h2 {
            let client = sidecar.h2(&authority).await;
            let request = client.request("POST", "/").body(()).unwrap();
            let mut sender = client.sender.clone().ready().await.unwrap();
            let (_response, mut stream) = sender.send_request(request, false).unwrap();
            let mut accepted = 0;
            while accepted < MOST {
                stream.reserve_capacity(chunk.len());
                let granted = timeout(
                    Duration::from_millis(1500),
                    std::future::poll_fn(|cx| stream.poll_capacity(cx)),
                )
                .await;
                let Ok(Some(Ok(granted))) = granted else {
                    break;
                };
                let now = granted.min(chunk.len());
                stream
                    .send_data(bytes::Bytes::copy_from_slice(&chunk[..now]), false)
                    .unwrap();
                accepted += now;
            }
            println!("h2 from the agent: {accepted} bytes taken");
            assert!(accepted < 6 << 20, "{accepted} bytes were taken");
        }
        origin.abort();
    }
}

/// A slow origin that reads at last gets everything.
#[tokio::test]
async fn a_silent_origin_holds_one_stream_and_no_other() {
    let pki = Pki::new();
    let tls = pki.server_config(&[NAME], &[b"http/1.1"]);
    let origin = RawOrigin::start(Some(tls), Script::silent()).await;
    let sidecar = Sidecar::start(&pki, origin.port(), Setup::new(&routes(&[route()]))).await;
    let authority = format!("{NAME}:{}", origin.port());
    let mut client = sidecar.h2(&authority).await;
    let request = client.request("GET", "/waits").body(()).unwrap();
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (_waiting, _) = sender.send_request(request, true).unwrap();
    origin.wait_for(b"GET /waits").await;
    // A refusal on the same connection comes at once.
    let begun = Instant::now();
    let request = client
        .request("GET", "/")
        .header("x-key", harness::KEY)
        .body(())
        .unwrap();
    assert_eq!(client.send(request, &[], None).await.unwrap().status, 403);
    assert!(begun.elapsed() < Duration::from_secs(5));
}
