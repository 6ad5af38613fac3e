//! The TLS that the agent meets, tried by a library that can say what others cannot (tlslite-ng), and many requests of
//! many streams (h2load).
//!
//! Run by `.ci/slow`, which installs both.

use std::process::Stdio;
use std::time::Duration;

use fixtures::origin::OriginOptions;
use fixtures::require::{program, python, require};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::harness::{Setup, World, connect_head, route, routes, run};

/// Prints a line for each case: what was tried, what came of it, what should have.
const SCRIPT: &str = r#"
import socket, sys
from tlslite.api import TLSConnection, HandshakeSettings
from tlslite.errors import BaseTLSException

host, port, authority, credentials = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
name = authority.split(":")[0]

def tunnel():
    s = socket.create_connection((host, port), timeout=15)
    s.sendall(("CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: %s\r\n\r\n" % (authority, authority, credentials)).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        data = s.recv(1)
        assert data, head
        head += data
    assert head.startswith(b"HTTP/1.1 200"), head
    return s

def get(c):
    c.sendall(("GET /tls HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % authority).encode())
    data = b""
    while b"\r\n\r\nok" not in data:
        more = c.recv(4096)
        if not more:
            break
        data += bytes(more)
    return "200" if data.startswith(b"HTTP/1.1 200") and data.endswith(b"ok") else repr(data)

def shake(change=None, server=name, session=None, alpn=None, after=get):
    settings = HandshakeSettings()
    if change:
        change(settings)
    c = TLSConnection(tunnel())
    try:
        c.handshakeClientCert(settings=settings, serverName=server, session=session, alpn=alpn)
        return after(c), c
    except (BaseTLSException, ConnectionError, socket.timeout) as error:
        return ("silent" if isinstance(error, socket.timeout) else "refused"), None
    finally:
        c.sock.close()

def versions(low, high):
    def change(s):
        s.minVersion, s.maxVersion = low, high
        s.versions = [v for v in [(3, 4), (3, 3), (3, 2), (3, 1)] if low <= v <= high]
        if low == (3, 4):
            s.eccCurves = ["x25519", "secp256r1", "secp384r1"]
            s.dhGroups = []
            s.keyShares = ["x25519"]
    return change

def ciphers(version, names, macs=None):
    def change(s):
        versions(version, version)(s)
        s.cipherNames = names
        if macs:
            s.macNames = macs
    return change

def keys(version, names):
    def change(s):
        versions(version, version)(s)
        s.keyExchangeNames = names
    return change

def groups(version, names, shares=None):
    def change(s):
        versions(version, version)(s)
        s.eccCurves = names
        s.dhGroups = []
        s.keyShares = shares if shares is not None else names[:1]
    return change

def show(what, got, wanted):
    print("%s\t%s\t%s" % (what, got, wanted))

T12, T13 = (3, 3), (3, 4)
for what, change, wanted in [
    ("TLS 1.3", versions(T13, T13), "200"),
    ("TLS 1.2", versions(T12, T12), "200"),
    ("TLS 1.2 or 1.3", versions(T12, T13), "200"),
    ("TLS 1.1", versions((3, 2), (3, 2)), "refused"),
    ("TLS 1.0", versions((3, 1), (3, 1)), "refused"),
    ("1.2 with AES-128-GCM", ciphers(T12, ["aes128gcm"], ["aead"]), "200"),
    ("1.2 with AES-256-GCM", ciphers(T12, ["aes256gcm"], ["aead"]), "200"),
    ("1.2 with ChaCha20", ciphers(T12, ["chacha20-poly1305"], ["aead"]), "200"),
    ("1.2 with AES-CBC and SHA-1", ciphers(T12, ["aes128", "aes256"], ["sha"]), "refused"),
    ("1.2 with AES-CBC and SHA-256", ciphers(T12, ["aes128", "aes256"], ["sha256", "sha384"]), "refused"),
    ("1.2 with AES-CCM", ciphers(T12, ["aes128ccm", "aes256ccm"], ["aead"]), "refused"),
    ("1.2 with 3DES", ciphers(T12, ["3des"], ["sha"]), "refused"),
    ("1.2 with RC4", ciphers(T12, ["rc4"], ["sha", "md5"]), "refused"),
    ("1.2 with no encryption", ciphers(T12, ["null"], ["sha"]), "refused"),
    ("1.3 with AES-128-GCM", ciphers(T13, ["aes128gcm"]), "200"),
    ("1.3 with AES-256-GCM", ciphers(T13, ["aes256gcm"]), "200"),
    ("1.3 with ChaCha20", ciphers(T13, ["chacha20-poly1305"]), "200"),
    ("1.3 with AES-CCM", ciphers(T13, ["aes128ccm"]), "refused"),
    ("1.2 with RSA key exchange", keys(T12, ["rsa"]), "refused"),
    ("1.2 with finite-field Diffie-Hellman", keys(T12, ["dhe_rsa"]), "refused"),
    ("1.2 with an anonymous exchange", keys(T12, ["ecdh_anon", "dh_anon"]), "refused"),
    ("1.3 with X25519", groups(T13, ["x25519"]), "200"),
    ("1.3 with P-256", groups(T13, ["secp256r1"]), "200"),
    ("1.3 with P-384", groups(T13, ["secp384r1"]), "200"),
    ("1.3 with P-521 alone", groups(T13, ["secp521r1"]), "refused"),
    ("1.3 with X448 alone", groups(T13, ["x448"]), "refused"),
    ("1.3 with a share that is asked for again", groups(T13, ["secp521r1", "x25519"], ["secp521r1"]), "200"),
    ("1.3 with no share at first", groups(T13, ["x25519"], []), "200"),
    ("1.2 with P-521 alone", groups(T12, ["secp521r1"]), "refused"),
]:
    show(what, shake(change)[0], wanted)

show("another name", shake(server="other.test")[0], "refused")
show("no name", shake(server=None)[0], "refused")
show("a name within a name", shake(server="a." + name)[0], "refused")
show("ALPN of nobody", shake(alpn=[bytearray(b"spdy/3")])[0], "refused")
show("ALPN http/1.1", shake(alpn=[bytearray(b"http/1.1")])[0], "200")

def resumed(change):
    first = shake(change)[1]
    second = shake(change, session=first.session)
    return "resumed, " + second[0] if second[1] and second[1].resumed else "anew, " + second[0]

show("1.3 resumed", resumed(versions(T13, T13)), "resumed, 200")
show("1.2 resumed", resumed(versions(T12, T12)), "resumed, 200")

def elsewhere():
    first = shake(versions(T13, T13))[1]
    first.session.serverName = "other.test"
    got, c = shake(versions(T13, T13), server="other.test", session=first.session)
    return got
show("a ticket for another name", elsewhere(), "refused")

def in_clear(data):
    s = tunnel()
    try:
        s.sendall(data)
        got = b""
        while True:
            more = s.recv(4096)
            if not more:
                break
            got += more
        return "refused" if b"HTTP/1.1 200" not in got and len(got) < 4096 else repr(got)
    except ConnectionError:
        return "refused"
    except socket.timeout:
        return "silent"
    finally:
        s.close()

hello = b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"
for what, data in [
    ("an empty ClientHello", hello),
    ("a record longer than may be", b"\x16\x03\x01\xff\xff" + b"\0" * 70000),
    ("an alert before a hello", b"\x15\x03\x01\x00\x02\x02\x28"),
    ("data before a hello", b"\x17\x03\x03\x00\x05hello"),
    ("an SSL 2 hello", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x07\x00\xc0" * 7 + b"x" * 16),
    ("a hello of noise", b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03" + bytes(range(250))),
    ("empty records without end", b"\x16\x03\x01\x00\x00" * 5000),
]:
    show(what, in_clear(data), "refused")

def damaged(c):
    c.sendall(b"GET /tls HT")
    c.sock.sendall(b"\x17\x03\x03\x00\x20" + b"\xaa" * 32)
    try:
        return repr(bytes(c.recv(4096)))
    except (BaseTLSException, ConnectionError):
        return "refused"
for version in (T12, T13):
    show("a record that was tampered with", shake(versions(version, version), after=damaged)[0], "refused")

def heartbeat(c):
    c.sock.sendall(b"\x18\x03\x03\x00\x03\x01\x40\x00")
    try:
        data = bytes(c.recv(4096))
        return "refused" if not data else repr(data)
    except (BaseTLSException, ConnectionError):
        return "refused"
show("a heartbeat that asks for more than it sent", shake(versions(T12, T12), after=heartbeat)[0], "refused")
"#;

#[tokio::test]
#[ignore = "slow: run .ci/slow"]
async fn tls_is_what_it_should_be_and_nothing_else() {
    let python = python().filter(|python| {
        std::process::Command::new(python)
            .args(["-c", "import tlslite"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    let Some(python) = python else {
        require("tlslite-ng", false);
        return;
    };
    let options = OriginOptions::HTTP1;
    let world = World::start(options, Setup::new(&routes(&[route()]))).await;
    let head = connect_head(&world.authority());
    let credentials = head.split("Proxy-Authorization: ").nth(1).unwrap();
    let mut command = Command::new(python);
    command
        .args(["-c", SCRIPT])
        .arg(world.sidecar.addr.ip().to_string())
        .arg(world.sidecar.addr.port().to_string())
        .arg(world.authority())
        .arg(credentials.trim_end());
    let (status, out, error) = run(&mut command).await;
    assert!(status.success(), "{error}");
    let out = String::from_utf8(out).unwrap();
    let cases: Vec<Vec<&str>> = out.lines().map(|line| line.split('\t').collect()).collect();
    let wrong: Vec<_> = cases.iter().filter(|case| case[1] != case[2]).collect();
    println!("{} cases of TLS, {} wrong", cases.len(), wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cases.len() >= 45, "{}", cases.len());
    // Only the requests inside TLS that was let in.
    let good = cases.iter().filter(|case| case[1].ends_with("200")).count();
    let first_halves = 3;
    assert_eq!(world.origin.requests().len(), good + first_halves);
}

/// h2load knows no proxy that it would have to ask with CONNECT: a relay asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run .ci/slow"]
async fn h2load_is_served_to_the_last_stream() {
    let Some(tool) = program("h2load") else {
        require("h2load", false);
        return;
    };
    let options = OriginOptions {
        record: false,
        ..OriginOptions::DEFAULT
    };
    let world = World::start(options, Setup::new(&routes(&[route()]))).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (proxy, head) = (world.sidecar.addr, connect_head(&world.authority()));
    let relay = tokio::spawn(async move {
        loop {
            let (mut agent, _) = listener.accept().await.unwrap();
            agent.set_nodelay(true).unwrap();
            let head = head.clone();
            tokio::spawn(async move {
                let stream = fixtures::client::connect(proxy).await;
                stream.set_nodelay(true).unwrap();
                let mut tunnel = crate::harness::Wire::new(stream);
                tunnel.send(head.as_bytes()).await;
                let answer = tunnel.line().await.unwrap();
                assert!(answer.contains(" 200 "), "{answer}");
                tunnel.fields().await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut agent, &mut tunnel.io).await;
                let _closed = agent.shutdown().await;
            });
        }
    });
    for (clients, streams, requests) in [(1, 1, 2_000), (8, 16, 20_000), (50, 32, 20_000)] {
        let mut command = Command::new(&tool);
        command
            .args(["--clients", &clients.to_string()])
            .args(["--max-concurrent-streams", &streams.to_string()])
            .args(["--requests", &requests.to_string()])
            .args(["--connect-to", &format!("127.0.0.1:{port}")])
            .arg(world.url("/load"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(180), command.output());
        let output = output.await.expect("h2load ends").unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let line = |start: &str| {
            said.lines()
                .find(|line| line.starts_with(start))
                .unwrap_or("")
        };
        println!(
            "h2load, {clients} clients of {streams} streams: {} | {}",
            line("finished in"),
            line("requests:")
        );
        assert!(line("Application protocol").contains("h2"), "{said}");
        let all = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&all), "{said}");
        assert!(said.contains(&format!("{requests} 2xx")), "{said}");
    }
    relay.abort();
}
