//! From a name to the address that is dialled, with a DNS server of our own, and by way of a proxy of the operator's.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fixtures::dns::{Dns, Reply};
use fixtures::origin::{Origin, OriginOptions};
use fixtures::pki::{BadCert, Pki};
use fixtures::raw_origin::{RawOrigin, Script, Step};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::{H1, KEY, NAME, Setup, Sidecar, Wire, World, route, routes};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn loopback(from: u8, count: u8) -> Vec<IpAddr> {
    (from..from + count)
        .map(|last| IpAddr::from([127, 0, 0, last]))
        .collect()
}

struct Net {
    origin: Origin,
    dns: Dns,
    sidecar: Sidecar,
    _dir: TempDir,
}

impl Net {
    async fn start(names: Vec<(&'static str, Reply)>, more: Value, list: &[Value]) -> Self {
        let pki = Pki::new();
        let origin = Origin::start(&pki, &["*.wild.test", "localhost"], OriginOptions::HTTP1).await;
        let dns = Dns::start(names).await;
        let dir = tempfile::tempdir().unwrap();
        let mut upstream =
            json!({"ca_files": [pki.write_ca(dir.path())], "nameservers": [dns.addr()]});
        for (key, value) in more.as_object().unwrap() {
            upstream[key] = value.clone();
        }
        let setup = Setup::new(&routes(list))
            .with("upstream", upstream)
            .env("CORPORATE_PASSWORD", "only-for-the-corporate-proxy");
        let sidecar = Sidecar::start(&pki, origin.port(), setup).await;
        Self {
            origin,
            dns,
            sidecar,
            _dir: dir,
        }
    }

    fn at(&self, host: &str) -> String {
        format!("{host}:{}", self.origin.port())
    }

    /// The status of a request, or the code with which the tunnel was refused.
    async fn get(&self, host: &str) -> String {
        let authority = self.at(host);
        let (answer, wire) = self.sidecar.tunnel(&authority).await;
        if answer.status != 200 {
            return answer.code();
        }
        let mut wire = Wire::new(self.sidecar.handshake(wire.io, host, H1).await.unwrap());
        wire.send(format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes())
            .await;
        wire.answer().await.unwrap().status.to_string()
    }

    fn asked(&self, name: &str) -> usize {
        self.dns
            .asked()
            .iter()
            .filter(|asked| asked.name == name)
            .count()
    }
}

fn private() -> Value {
    json!({"host": "*.wild.test:PORT", "allow_private": true})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_answer() {
    let mut many = loopback(2, 4);
    many.extend(loopback(1, 1));
    many.extend(loopback(6, 40));
    let net = Net::start(
        vec![
            ("good.wild.test", Reply::Addresses(loopback(1, 1))),
            (
                "alias.wild.test",
                Reply::Alias(
                    vec!["a.elsewhere.test", "b.elsewhere.test", "c.elsewhere.test"],
                    loopback(1, 1),
                ),
            ),
            ("large.wild.test", Reply::Truncated(loopback(1, 1))),
            ("many.wild.test", Reply::Addresses(many)),
            ("too-many.wild.test", Reply::Addresses(loopback(1, 80))),
            (
                "both.wild.test",
                Reply::Addresses(vec![ip("::1"), ip("127.0.0.1")]),
            ),
            ("gone.wild.test", Reply::NoSuchName),
            ("empty.wild.test", Reply::Addresses(vec![])),
            ("broken.wild.test", Reply::ServerFailure),
            ("garbage.wild.test", Reply::Garbage),
            ("silent.wild.test", Reply::Silence),
            (
                "circle.wild.test",
                Reply::Alias(vec!["circle.wild.test"], vec![]),
            ),
        ],
        json!({}),
        &[private()],
    )
    .await;
    for (host, outcome) in [
        ("good.wild.test", "200"),
        ("alias.wild.test", "200"),
        ("large.wild.test", "200"),
        ("many.wild.test", "200"),
        ("both.wild.test", "200"),
        ("too-many.wild.test", "upstream-resolve"),
        ("gone.wild.test", "upstream-resolve"),
        ("empty.wild.test", "upstream-resolve"),
        ("unknown.wild.test", "upstream-resolve"),
        ("broken.wild.test", "upstream-resolve"),
        ("garbage.wild.test", "upstream-resolve"),
        ("silent.wild.test", "upstream-resolve"),
        ("circle.wild.test", "upstream-resolve"),
    ] {
        assert_eq!(net.get(host).await, outcome, "{host}");
    }
    let asked = net.dns.asked();
    assert!(
        asked
            .iter()
            .any(|asked| asked.name == "large.wild.test" && asked.tcp),
        "{asked:?}"
    );
    // Below no search domain, whatever this machine has.
    assert!(
        asked.iter().all(|asked| asked.name.ends_with(".test")),
        "{asked:?}"
    );
}

/// A private address anywhere in an answer condemns it, and nothing is dialled.
#[tokio::test]
async fn private_answers_are_not_dialled() {
    let public = ip("9.9.9.9");
    let mut names = vec![
        (
            "mixed.wild.test",
            Reply::Addresses(vec![public, ip("127.0.0.1")]),
        ),
        (
            "alias.wild.test",
            Reply::Alias(vec!["localhost"], loopback(1, 1)),
        ),
    ];
    let addresses = [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.2.1",
        "203.0.113.1",
        "240.0.0.1",
        "168.63.129.16",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "2002:7f00:1::",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
    ];
    let hosts: Vec<&'static str> = (0..addresses.len())
        .map(|at| -> &'static str { Box::leak(format!("a{at}.wild.test").into_boxed_str()) })
        .collect();
    for (host, address) in hosts.iter().zip(addresses) {
        names.push((*host, Reply::Addresses(vec![ip(address)])));
    }
    let net = Net::start(names, json!({}), &[json!({"host": "*.wild.test:PORT"})]).await;
    for (host, address) in hosts.iter().zip(addresses) {
        assert_eq!(net.get(host).await, "upstream-private-address", "{address}");
    }
    for host in ["mixed.wild.test", "alias.wild.test"] {
        assert_eq!(net.get(host).await, "upstream-private-address", "{host}");
    }
    assert_eq!(net.origin.connections(), 0);
}

/// Asked once for each connection; the address that was checked is the one that is dialled.
#[tokio::test]
async fn a_name_that_is_bound_again_gains_nothing() {
    let turns = Reply::InTurn(vec![
        Reply::Addresses(loopback(1, 1)),
        Reply::Addresses(loopback(9, 1)),
    ]);
    let net = Net::start(vec![("turns.wild.test", turns)], json!({}), &[private()]).await;
    assert_eq!(net.get("turns.wild.test").await, "200");
    // Once for each of the two address types.
    assert_eq!(net.asked("turns.wild.test"), 2);
    assert_eq!(net.get("turns.wild.test").await, "upstream-connect");
    assert_eq!(net.asked("turns.wild.test"), 4);
}

/// A question is a way out of its own.
#[tokio::test]
async fn what_is_refused_is_never_asked_for() {
    let net = Net::start(vec![], json!({}), &[private()]).await;
    for host in [
        format!("{KEY}.wild.test"),
        "evil.test".into(),
        "wild.test".into(),
        "a b.wild.test".into(),
    ] {
        let mut wire = net.sidecar.connect().await;
        wire.send(crate::harness::connect_head(&net.at(&host)).as_bytes())
            .await;
        assert!(
            matches!(wire.answer().await.unwrap().status, 400 | 403),
            "{host}"
        );
    }
    assert_eq!(net.dns.asked(), []);
}

/// What stands in the hosts file is not asked for, and private all the same.
#[tokio::test]
async fn the_hosts_file_comes_first() {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    if !fixtures::require::require("localhost in /etc/hosts", hosts.contains("localhost")) {
        return;
    }
    let net = Net::start(
        vec![],
        json!({}),
        &[json!({"host": "localhost:PORT", "allow_private": true})],
    )
    .await;
    assert_eq!(net.get("localhost").await, "200");
    let net = Net::start(vec![], json!({}), &[json!({"host": "localhost:PORT"})]).await;
    assert_eq!(net.get("localhost").await, "upstream-private-address");
    assert_eq!(net.dns.asked(), []);
}

/// What the proxy of a company does when it is asked for a tunnel.
#[derive(Clone)]
enum Corporate {
    /// Leads everything to this port of ours.
    Tunnel(u16),
    Answer(&'static [u8]),
}

/// Every head that it was sent.
async fn corporate(what: Corporate) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (seen, what) = (Arc::clone(&seen), what.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                seen.lock().unwrap().push(String::from_utf8(head).unwrap());
                match what {
                    Corporate::Answer(answer) => {
                        let _ = stream.write_all(answer).await;
                        let _ = stream.shutdown().await;
                    }
                    Corporate::Tunnel(port) => {
                        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 Connection established\r\nContent-Length: 7\r\nVia: corporate\r\n\r\n";
                        stream.write_all(answer).await.unwrap();
                        let mut on = fixtures::client::connect(([127, 0, 0, 1], port).into()).await;
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut on).await;
                    }
                }
            });
        }
    });
    (addr, heads)
}

#[tokio::test]
async fn origins_are_reached_through_the_operators_proxy() {
    let pki = Pki::new();
    let origin = Origin::start(&pki, &["*.wild.test"], OriginOptions::DEFAULT).await;
    let expired = Origin::start(&pki, &["*.wild.test"], OriginOptions::bad(BadCert::Expired)).await;
    let dns = Dns::start([("direct.wild.test", Reply::Addresses(loopback(1, 1)))]).await;
    let dir = tempfile::tempdir().unwrap();
    for (port, outcome) in [
        (origin.port(), "200"),
        (expired.port(), "upstream-tls-expired"),
    ] {
        let (proxy, heads) = corporate(Corporate::Tunnel(port)).await;
        let upstream = json!({
            "ca_files": [pki.write_ca(dir.path())],
            "nameservers": [dns.addr()],
            "proxy": {"address": proxy.to_string(), "username": "me", "password_ref": "CORPORATE_PASSWORD", "direct": ["direct.wild.test"]},
        });
        let setup = Setup::new(&routes(&[
            json!({"host": "*.wild.test:PORT"}),
            json!({"host": "127.0.0.1:PORT"}),
            json!({"host": "localhost:PORT"}),
            json!({"host": "[::ffff:10.0.0.1]:PORT"}),
        ]))
        .with("upstream", upstream)
        .env("CORPORATE_PASSWORD", "only-for-the-corporate-proxy");
        let sidecar = Sidecar::start(&pki, port, setup).await;
        let authority = format!("far.wild.test:{port}");
        let (answer, wire) = sidecar.tunnel(&authority).await;
        if answer.status == 200 {
            let mut wire = Wire::new(
                sidecar
                    .handshake(wire.io, "far.wild.test", H1)
                    .await
                    .unwrap(),
            );
            wire.send(format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes())
                .await;
            assert_eq!(wire.answer().await.unwrap().status.to_string(), outcome);
        } else {
            assert_eq!(answer.code(), outcome);
        }
        let credentials = BASE64_STANDARD.encode("me:only-for-the-corporate-proxy");
        let head = format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Basic {credentials}\r\n\r\n"
        );
        assert!(
            heads.lock().unwrap().iter().all(|own| *own == head),
            "{heads:?}"
        );
        // Neither this machine nor its network is reached by way of it.
        let before = heads.lock().unwrap().len();
        for host in ["127.0.0.1", "localhost", "10.0.0.1"] {
            let (answer, _) = sidecar.tunnel(&format!("{host}:{port}")).await;
            assert_eq!(answer.code(), "upstream-private-address", "{host}");
        }
        // What is reached without it is checked as ever.
        let (answer, _) = sidecar.tunnel(&format!("direct.wild.test:{port}")).await;
        assert_eq!(answer.code(), "upstream-private-address");
        assert_eq!(heads.lock().unwrap().len(), before);
        assert!(
            dns.asked()
                .iter()
                .all(|asked| asked.name == "direct.wild.test"),
            "{:?}",
            dns.asked()
        );
        for text in [sidecar.stderr(), sidecar.audit_text()] {
            assert!(
                !text.contains("only-for-the-corporate") && !text.contains(&credentials),
                "{text}"
            );
        }
    }
}

#[tokio::test]
async fn a_proxy_of_the_operators_that_fails_says_why() {
    for (answer, words) in [
        (&b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n"[..], "credentials (407)"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "answered 403"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://login.corp/\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "answered 101"),
        (b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x03", "spoke before it was asked"),
        (b"SSH-2.0-x\r\n\r\n", "not valid"),
        (b"HTTP/1.1 200 OK\nX: y\n\n", "bare line feed"),
        (b"", "closed"),
        (b"HTTP/1.1 200", "closed"),
    ] {
        let (proxy, _) = corporate(Corporate::Answer(answer)).await;
        let upstream = json!({"proxy": {"address": proxy.to_string()}});
        let net = Net::start(vec![], upstream, &[private()]).await;
        let (refused, _) = net.sidecar.tunnel(&net.at("far.wild.test")).await;
        assert_eq!((refused.status, refused.code().as_str()), (502, "upstream-proxy"), "{}", answer.escape_ascii());
        assert!(refused.text().contains(words), "{}: {}", answer.escape_ascii(), refused.text());
    }
}

#[tokio::test]
async fn a_bad_proxy_of_the_operators_ends_the_start() {
    let pki = Pki::new();
    for (proxy, words) in [
        (json!({"address": "a b:1"}), "upstream.proxy.address"),
        (
            json!({"address": "p.test:1", "username": "me"}),
            "belong together",
        ),
        (
            json!({"address": "p.test:1", "password_ref": "X"}),
            "belong together",
        ),
        (
            json!({"address": "p.test:1", "username": "me", "password_ref": "NOT_THERE"}),
            "NOT_THERE",
        ),
        (
            json!({"address": "p.test:1", "username": "a:b", "password_ref": "PROXY_PASSWORD"}),
            "no colon",
        ),
        (
            json!({"address": "p.test:1", "direct": ["*"]}),
            "upstream.proxy.direct",
        ),
        (json!({"address": "p.test:1", "no_proxy": []}), "no_proxy"),
    ] {
        let setup = Setup::new(&routes(&[route()])).with("upstream", json!({"proxy": proxy}));
        let Err((status, said)) = Sidecar::try_start(&pki, 443, setup).await else {
            panic!("{proxy}: it started")
        };
        assert_eq!(status.code(), Some(2), "{proxy}: {said}");
        assert!(said.contains(words), "{proxy}: {said}");
    }
}

/// What one route's credential was sent on carries no request of another route.
#[tokio::test]
async fn connections_are_kept_by_route() {
    for options in [OriginOptions::HTTP1, OriginOptions::HTTP2] {
        let named = |path: &str, token: &str| {
            let mut named = route();
            named["matches"] = json!([{"paths": [{"prefix": path}]}]);
            named["auth"] = json!({"scheme": "Bearer", "token_ref": token});
            named
        };
        let setup = Setup::new(&routes(&[
            named("/a", "EGRESS_TOKEN_A"),
            named("/b", "EGRESS_TOKEN_B"),
        ]))
        .env("EGRESS_TOKEN_A", "the-token-of-route-a")
        .env("EGRESS_TOKEN_B", "the-token-of-route-b");
        let world = World::start(options, setup).await;
        let mut wire = world.h1().await;
        for path in ["/a", "/b", "/a", "/b", "/a"] {
            wire.send(&world.fill(format!("GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n").as_bytes()))
                .await;
            assert_eq!(wire.answer().await.unwrap().status, 200);
        }
        let requests = world.origin.requests();
        for one in &requests {
            for other in &requests {
                let same = one.path == other.path;
                assert_eq!(one.connection == other.connection, same, "{options:?}");
                assert_eq!(
                    one.header("authorization") == other.header("authorization"),
                    same
                );
            }
        }
    }
}

/// Of a request whose answer has begun nobody knows what became of it, so it is not sent again.
#[tokio::test]
async fn an_answer_that_broke_off_is_no_reason_to_ask_again() {
    for begun in [
        &b"HTTP/1.1 2"[..],
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"H",
    ] {
        let script = Script::new([
            Step::WaitFor(b"\r\n\r\n".to_vec()),
            Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
            Step::WaitFor(b"second HTTP/1.1".to_vec()),
            Step::Send(begun.to_vec()),
            Step::Pause(std::time::Duration::from_millis(50)),
            Step::Finish,
        ]);
        let pki = Pki::new();
        let origin = RawOrigin::start(Some(pki.server_config(&[NAME], H1)), script).await;
        let sidecar = Sidecar::start(&pki, origin.port(), Setup::new(&routes(&[route()]))).await;
        let authority = format!("{NAME}:{}", origin.port());
        let mut wire = Wire::new(sidecar.tls(&authority, NAME, H1).await.unwrap());
        for (path, status) in [("/first", 200), ("/second", 502)] {
            wire.send(format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes())
                .await;
            assert_eq!(wire.answer().await.unwrap().status, status, "{path}");
        }
        let seconds = origin
            .raw()
            .windows(7)
            .filter(|window| window == b"/second")
            .count();
        assert_eq!(seconds, 1, "{}", begun.escape_ascii());
    }
}
