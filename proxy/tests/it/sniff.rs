//! What may stand inside a CONNECT instead of TLS, and TLS that is none: not one of them becomes a tunnel.

use std::time::Duration;

use fixtures::origin::{Origin, OriginOptions};
use fixtures::pki::Pki;
use fixtures::raw_origin::{RawOrigin, Script, Step as Told};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::harness::{H1, H2, NAME, Setup, Sidecar, Wire, World, route, routes, until};

/// Stands in every case that has room for it, and must not arrive anywhere.
const MARK: &str = "did-this-arrive";

enum Step {
    Send(Vec<u8>),
    /// One byte a write.
    Dribble(Vec<u8>),
    Wait(u64),
    HalfClose,
}
use Step::{Dribble, HalfClose, Send, Wait};

/// How it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With an answer in plain text, which the one who speaks it can read.
    Answer(&'static str),
    /// Without one, but for a TLS alert; the audit says why.
    Silent(&'static str),
    /// Nothing was said, so there is nothing to record.
    Unheard,
}
use End::{Answer, Silent, Unheard};

struct Case {
    what: &'static str,
    steps: Vec<Step>,
    end: End,
}

fn case(what: &'static str, steps: Vec<Step>, end: End) -> Case {
    Case { what, steps, end }
}

fn record(kind: u8, version: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, version[0], version[1]][..], &length, payload].concat()
}

fn long(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap().to_be_bytes()
}

fn extension(number: u16, content: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &long(content.len()), content].concat()
}

fn names(names: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|(kind, name)| [&[*kind][..], &long(name.len()), name].concat())
        .collect();
    extension(0, &[&long(list.len())[..], &list].concat())
}

/// What a client of TLS 1.3 says beside its name.
fn usual() -> Vec<u8> {
    [
        extension(43, &[2, 3, 4]),
        extension(10, &[0, 2, 0, 0x1d]),
        extension(13, &[0, 4, 4, 3, 8, 4]),
        extension(51, &[&[0, 36, 0, 0x1d, 0, 32][..], &[9; 32]].concat()),
    ]
    .concat()
}

struct Hello {
    version: [u8; 2],
    ciphers: Vec<u8>,
    compressions: Vec<u8>,
    extensions: Vec<u8>,
}

impl Hello {
    fn new(extensions: Vec<u8>) -> Self {
        Self {
            version: [3, 3],
            ciphers: vec![0x13, 0x01, 0xc0, 0x2b],
            compressions: vec![0],
            extensions,
        }
    }

    fn message(&self) -> Vec<u8> {
        let body = [
            &self.version[..],
            &[7; 32],
            &[0],
            &long(self.ciphers.len()),
            &self.ciphers,
            &[u8::try_from(self.compressions.len()).unwrap()],
            &self.compressions,
            &long(self.extensions.len()),
            &self.extensions,
        ]
        .concat();
        [&[1, 0][..], &long(body.len()), &body].concat()
    }

    fn wire(&self) -> Vec<u8> {
        record(22, [3, 1], &self.message())
    }
}

/// A whole ClientHello with these names.
fn hello(list: &[(u8, &[u8])]) -> Vec<u8> {
    Hello::new([names(list), usual()].concat()).wire()
}

/// With bytes behind its end, which its length counts.
fn longer(hello: &Hello) -> Vec<u8> {
    let mut message = [&hello.message()[..], MARK.as_bytes()].concat();
    let length = long(message.len() - 4);
    message[2..4].copy_from_slice(&length);
    message
}

/// `name` is the host of the tunnel, another one for each case.
fn cases(name: &str) -> Vec<Case> {
    let own = name.as_bytes();
    let good = || hello(&[(0, own)]);
    let text = |text: &str| vec![Send(text.replace("MARK", MARK).into_bytes())];
    let bytes = |bytes: &[u8]| vec![Send([bytes, MARK.as_bytes()].concat())];
    let with = |extension: Vec<u8>| {
        vec![Send(
            Hello::new([names(&[(0, own)]), extension, usual()].concat()).wire(),
        )]
    };
    let answer = Answer("unknown-protocol");
    let unknown = Silent("unknown-protocol");
    let (tls, identity, timeout) = (
        Silent("agent-tls"),
        Silent("identity"),
        Silent("agent-timeout"),
    );
    vec![
        // Words.
        case(
            "GET",
            text("GET /MARK HTTP/1.1\r\nHost: origin.test\r\n\r\n"),
            answer,
        ),
        case(
            "POST",
            text("POST / HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 15\r\n\r\nMARK"),
            answer,
        ),
        case(
            "OPTIONS",
            text("OPTIONS * HTTP/1.1\r\nHost: MARK\r\n\r\n"),
            answer,
        ),
        case(
            "a method in lower case",
            text("get /MARK HTTP/1.1\r\n\r\n"),
            unknown,
        ),
        case("HTTP/0.9", text("GET /MARK\r\n"), answer),
        case(
            "CONNECT in CONNECT",
            text("CONNECT MARK:443 HTTP/1.1\r\nHost: MARK:443\r\n\r\n"),
            answer,
        ),
        case("an answer", text("HTTP/1.1 200 OK\r\n\r\nMARK"), answer),
        case(
            "HTTP/2 with prior knowledge",
            text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nMARK"),
            answer,
        ),
        case(
            "HTTP/2 with prior knowledge, byte by byte",
            vec![Dribble(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec())],
            answer,
        ),
        case(
            "HTTP after two seconds",
            vec![Wait(2000), Send(b"POST / HTTP/1.1\r\n\r\n".to_vec())],
            answer,
        ),
        case(
            "HTTP, byte by byte",
            vec![Dribble(b"POST /a HTTP/1.1\r\n".to_vec())],
            answer,
        ),
        case(
            "HTTP behind an empty line",
            text("\r\nGET /MARK HTTP/1.1\r\n\r\n"),
            unknown,
        ),
        case(
            "HTTP behind a space",
            text(" GET /MARK HTTP/1.1\r\n\r\n"),
            unknown,
        ),
        case("SSH", text("SSH-2.0-OpenSSH_9.9 MARK\r\n"), answer),
        case(
            "SSH, byte by byte",
            vec![Dribble(b"SSH-2.0-x\r\n".to_vec())],
            answer,
        ),
        case("SMTP", text("EHLO MARK\r\n"), answer),
        case("SMTP, old", text("helo MARK\r\n"), unknown),
        case("STARTTLS", text("STARTTLS\r\n"), answer),
        case("FTP", text("USER MARK\r\n"), answer),
        case("IMAP", text("a1 LOGIN MARK MARK\r\n"), unknown),
        case("IRC", text("NICK MARK\r\n"), answer),
        case("NNTP", text("MODE READER MARK\r\n"), answer),
        case(
            "Redis",
            text("*2\r\n$4\r\nECHO\r\n$15\r\nMARK\r\n"),
            unknown,
        ),
        case("memcached", text("set MARK 0 0 1\r\na\r\n"), unknown),
        case(
            "git",
            text("0032git-upload-pack /MARK\0host=origin.test\0"),
            unknown,
        ),
        case("finger", text("\r\n"), unknown),
        case(
            "PROXY protocol",
            text("PROXY TCP4 1.2.3.4 5.6.7.8 1 443\r\nMARK"),
            answer,
        ),
        // Bytes.
        case(
            "PROXY protocol 2",
            bytes(
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\x01\xbb",
            ),
            unknown,
        ),
        case(
            "SOCKS 4",
            bytes(b"\x04\x01\x01\xbb\x01\x02\x03\x04\0"),
            unknown,
        ),
        case("SOCKS 5", bytes(b"\x05\x01\0"), unknown),
        case(
            "DNS over TCP",
            bytes(b"\0\x1d\x12\x34\x01\0\0\x01\0\0\0\0\0\0"),
            unknown,
        ),
        case(
            "PostgreSQL asking for TLS",
            bytes(b"\0\0\0\x08\x04\xd2\x16\x2f"),
            unknown,
        ),
        case("MySQL", bytes(b"\x20\0\0\x01\x85\xa6\x3f\x20"), unknown),
        case(
            "MQTT",
            bytes(b"\x10\x1b\0\x04MQTT\x04\x02\0\x3c\0\x0f"),
            unknown,
        ),
        case("AMQP", bytes(b"AMQP\0\0\x09\x01"), answer),
        case(
            "LDAP",
            bytes(b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0"),
            unknown,
        ),
        case(
            "RDP",
            bytes(b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0"),
            unknown,
        ),
        case("SMB", bytes(b"\0\0\0\x54\xffSMB"), unknown),
        case("BitTorrent", bytes(b"\x13BitTorrent protocol"), unknown),
        case("a WebSocket frame", bytes(b"\x81\x8f\0\0\0\0"), unknown),
        case(
            "QUIC",
            bytes(b"\xc0\0\0\0\x01\x08\x01\x02\x03\x04\x05\x06\x07\x08"),
            unknown,
        ),
        case("WireGuard", bytes(b"\x01\0\0\0\x01\x02\x03\x04"), unknown),
        case(
            "OpenVPN",
            bytes(b"\0\x0e\x38\x01\x02\x03\x04\x05\x06\x07\x08"),
            unknown,
        ),
        case("NUL", bytes(b"\0"), unknown),
        case("ones", bytes(b"\xff\xff\xff\xff"), unknown),
        case("UTF-16", bytes(b"\xff\xfeG\0E\0T\0"), unknown),
        // TLS of another time, or of another layer.
        case(
            "SSLv2",
            bytes(b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10"),
            unknown,
        ),
        case(
            "TLS in the framing of SSLv2",
            bytes(b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10"),
            unknown,
        ),
        case(
            "DTLS",
            bytes(b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\0\x0f"),
            unknown,
        ),
        case(
            "DTLS 1.3",
            bytes(b"\x16\xfe\xfc\0\0\0\0\0\0\0\0\0\x0f"),
            unknown,
        ),
        case(
            "TLS of another major version",
            bytes(b"\x16\x04\x01\0\x0f"),
            unknown,
        ),
        case(
            "TLS of an older major version",
            bytes(b"\x16\x02\x01\0\x0f"),
            unknown,
        ),
        case(
            "the first byte of TLS, then a word",
            bytes(b"\x16GET / HTTP/1.1\r\n\r\n"),
            unknown,
        ),
        case(
            "application data first",
            vec![Send(record(23, [3, 3], MARK.as_bytes()))],
            unknown,
        ),
        case(
            "an alert first",
            vec![Send(record(21, [3, 3], &[1, 0]))],
            unknown,
        ),
        case(
            "a cipher change first",
            vec![Send(record(20, [3, 3], &[1]))],
            unknown,
        ),
        case(
            "a heartbeat first",
            vec![Send(record(24, [3, 3], MARK.as_bytes()))],
            unknown,
        ),
        // Handshakes that are none.
        case(
            "an empty record",
            vec![Send(record(22, [3, 1], &[])), HalfClose],
            tls,
        ),
        case(
            "a hundred empty records, then a ClientHello",
            vec![Send([record(22, [3, 1], &[]).repeat(100), good()].concat())],
            tls,
        ),
        case(
            "a record larger than TLS has",
            vec![Send([&[22, 3, 1, 0xff, 0xff][..], &[1; 70_000]].concat())],
            tls,
        ),
        case(
            "a record a little too large",
            vec![Send([&[22, 3, 1, 0x48, 0x01][..], &[1; 0x4801]].concat())],
            tls,
        ),
        case(
            "a ClientHello of 16 MiB",
            vec![
                Send(record(
                    22,
                    [3, 1],
                    &[&[1, 0xff, 0xff, 0xff][..], &[0; 4000]].concat(),
                )),
                HalfClose,
            ],
            tls,
        ),
        case(
            "half a ClientHello, then the end",
            vec![Send(good()[..60].to_vec()), HalfClose],
            tls,
        ),
        case(
            "half a ClientHello, then HTTP",
            vec![Send(
                [
                    &good()[..60],
                    b"POST / HTTP/1.1\r\n\r\n",
                    MARK.as_bytes(),
                    &[b' '; 400],
                ]
                .concat(),
            )],
            tls,
        ),
        case(
            "half a ClientHello, then nothing",
            vec![Send(good()[..60].to_vec())],
            timeout,
        ),
        case(
            "a ClientHello that never ends, a byte a second",
            (0..14u8)
                .flat_map(|at| [Send(vec![good()[usize::from(at)]]), Wait(1000)])
                .collect(),
            timeout,
        ),
        case(
            "a ServerHello",
            vec![Send(record(
                22,
                [3, 1],
                &[&[2, 0, 0, 4][..], &[0; 4]].concat(),
            ))],
            tls,
        ),
        case(
            "a Finished",
            vec![Send(record(
                22,
                [3, 1],
                &[&[20, 0, 0, 12][..], &[0; 12]].concat(),
            ))],
            tls,
        ),
        case(
            "text in a handshake record",
            vec![Send(record(22, [3, 1], MARK.as_bytes()))],
            tls,
        ),
        case(
            "a ClientHello of SSLv3",
            vec![Send(
                Hello {
                    version: [3, 0],
                    ..Hello::new(names(&[(0, own)]))
                }
                .wire(),
            )],
            tls,
        ),
        case(
            "a ClientHello of TLS 1.0",
            vec![Send(
                Hello {
                    version: [3, 1],
                    ..Hello::new(names(&[(0, own)]))
                }
                .wire(),
            )],
            tls,
        ),
        case(
            "a ClientHello of TLS 1.1",
            vec![Send(
                Hello {
                    version: [3, 2],
                    ..Hello::new(names(&[(0, own)]))
                }
                .wire(),
            )],
            tls,
        ),
        case(
            "no cipher of ours",
            vec![Send(
                Hello {
                    ciphers: vec![0, 5, 0, 4],
                    ..Hello::new([names(&[(0, own)]), usual()].concat())
                }
                .wire(),
            )],
            tls,
        ),
        case(
            "no cipher at all",
            vec![Send(
                Hello {
                    ciphers: vec![],
                    ..Hello::new([names(&[(0, own)]), usual()].concat())
                }
                .wire(),
            )],
            tls,
        ),
        case(
            "compression",
            vec![Send(
                Hello {
                    compressions: vec![1],
                    ..Hello::new([names(&[(0, own)]), usual()].concat())
                }
                .wire(),
            )],
            tls,
        ),
        case(
            "a protocol that no one speaks",
            with(extension(16, &[&[0, 4, 3][..], b"ftp"].concat())),
            tls,
        ),
        case(
            "HTTP/3 by ALPN",
            with(extension(16, &[&[0, 3, 2][..], b"h3"].concat())),
            tls,
        ),
        case("an empty ALPN", with(extension(16, &[0, 0])), tls),
        case("a name twice", with(names(&[(0, own)])), tls),
        case(
            "an extension twice",
            with(extension(10, &[0, 2, 0, 0x1d])),
            tls,
        ),
        case(
            "bytes behind the extensions",
            vec![Send(record(
                22,
                [3, 1],
                &longer(&Hello::new([names(&[(0, own)]), usual()].concat())),
            ))],
            tls,
        ),
        // Names.
        case("no name", vec![Send(Hello::new(usual()).wire())], identity),
        case("an empty list of names", vec![Send(hello(&[]))], tls),
        case("an empty name", vec![Send(hello(&[(0, b"")]))], tls),
        case(
            "another host",
            vec![Send(hello(&[(0, b"other.test")]))],
            identity,
        ),
        case(
            "a host below",
            vec![Send(hello(&[(0, b"a.origin.test")]))],
            identity,
        ),
        case(
            "another host behind NUL",
            vec![Send(hello(&[(0, &[own, b"\0.evil.test"].concat())]))],
            tls,
        ),
        case(
            "another host, encrypted, behind a false one",
            vec![Send(
                Hello::new(
                    [
                        names(&[(0, b"public.test")]),
                        usual(),
                        extension(
                            0xfe0d,
                            &[&[0, 0, 1, 0, 1, 7, 0, 32][..], &[3; 32], &[0, 64], &[4; 64]]
                                .concat(),
                        ),
                    ]
                    .concat(),
                )
                .wire(),
            )],
            identity,
        ),
        case(
            "an address for a name",
            vec![Send(hello(&[(0, b"127.0.0.1")]))],
            identity,
        ),
        case(
            "a name of an unknown kind",
            vec![Send(hello(&[(9, own)]))],
            tls,
        ),
        case(
            "two names",
            vec![Send(hello(&[(0, own), (0, b"evil.test")]))],
            tls,
        ),
        case(
            "a name that is no text",
            vec![Send(hello(&[(0, b"\xff\xfe")]))],
            tls,
        ),
        // After a good ClientHello.
        case(
            "a ClientHello, then HTTP",
            vec![
                Send(good()),
                Wait(50),
                Send(format!("POST / HTTP/1.1\r\n\r\n{MARK}").into_bytes()),
            ],
            tls,
        ),
        case(
            "a ClientHello, then application data in clear",
            vec![
                Send(good()),
                Wait(50),
                Send(record(23, [3, 3], MARK.as_bytes())),
            ],
            tls,
        ),
        case(
            "a ClientHello, then a second one",
            vec![Send(good()), Wait(50), Send(good())],
            tls,
        ),
        case(
            "a ClientHello, then the end",
            vec![Send(good()), Wait(50), HalfClose],
            tls,
        ),
        case("a ClientHello, then nothing", vec![Send(good())], timeout),
        case(
            "early data behind a ClientHello",
            vec![
                Send(
                    [
                        Hello::new([names(&[(0, own)]), extension(42, &[]), usual()].concat())
                            .wire(),
                        record(23, [3, 3], MARK.as_bytes()),
                    ]
                    .concat(),
                ),
                Wait(100),
                HalfClose,
            ],
            tls,
        ),
        // Nothing.
        case("the end at once", vec![HalfClose], Unheard),
        case("silence", vec![], timeout),
        case(
            "the first byte of TLS, then silence",
            vec![Send(vec![22])],
            timeout,
        ),
        case(
            "the first two bytes of TLS, then silence",
            vec![Send(vec![22, 3])],
            timeout,
        ),
        case(
            "the first byte of TLS, then the end",
            vec![Send(vec![22]), HalfClose],
            unknown,
        ),
    ]
}

async fn try_one(
    sidecar: &std::net::SocketAddr,
    authority: String,
    case: Case,
) -> Result<(), String> {
    let mut wire = Wire::new(fixtures::client::connect(*sidecar).await);
    wire.io.set_nodelay(true).unwrap();
    wire.send(crate::harness::connect_head(&authority).as_bytes())
        .await;
    let begun = wire.head().await.ok_or("no answer to CONNECT")?;
    if begun.status != 200 {
        return Err(format!("{begun:?}"));
    }
    for step in case.steps {
        match step {
            Send(bytes) => wire.send(&bytes).await,
            Dribble(bytes) => {
                for byte in bytes {
                    wire.send(&[byte]).await;
                    sleep(Duration::from_millis(3)).await;
                }
            }
            Wait(time) => sleep(Duration::from_millis(time)).await,
            HalfClose => {
                let _gone = wire.io.shutdown().await;
            }
        }
    }
    let rest = wire.rest().await;
    let text = String::from_utf8_lossy(&rest);
    let fits = match case.end {
        Answer(code) => {
            text.starts_with("HTTP/1.1 400 ")
                && text.contains("x-bottle-verdict: refused")
                && text.contains(code)
        }
        // Records of TLS: an alert, and before it what a handshake says that was begun.
        Silent(_) | Unheard => rest.is_empty() || matches!(rest[0], 0x14..=0x17) && rest[1] == 3,
    };
    if fits {
        Ok(())
    } else {
        Err(format!("read {}", rest.escape_ascii()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_tls_for_the_right_host_becomes_a_tunnel() {
    let count = cases("x").len();
    let name = |at: usize| format!("s{at}.wild.test");
    let pki = Pki::new();
    let origin = Origin::start(&pki, &["*.wild.test"], OriginOptions::DEFAULT).await;
    let hosts: serde_json::Map<String, Value> = (0..count)
        .map(|at| (name(at), json!("127.0.0.1")))
        .collect();
    let roots = tempfile::tempdir().unwrap();
    let upstream = json!({"ca_files": [pki.write_ca(roots.path())], "hosts": hosts});
    let setup = Setup::new(&routes(&[
        json!({"host": "*.wild.test:PORT", "allow_private": true}),
    ]))
    .with("upstream", upstream);
    let sidecar = Sidecar::start(&pki, origin.port(), setup).await;

    let begun = Instant::now();
    let mut running = JoinSet::new();
    let mut ends = Vec::new();
    for at in 0..count {
        let case = cases(&name(at)).remove(at);
        ends.push((case.what, case.end));
        let authority = format!("{}:{}", name(at), origin.port());
        let addr = sidecar.addr;
        running.spawn(async move { (at, try_one(&addr, authority, case).await) });
    }
    let mut wrong = Vec::new();
    while let Some(done) = running.join_next().await {
        let (at, outcome) = done.unwrap();
        if let Err(why) = outcome {
            wrong.push(format!("{}: {why}", ends[at].0));
        }
    }
    for (at, (what, end)) in ends.iter().enumerate() {
        let of = || -> Vec<String> {
            let host = name(at);
            let audit = sidecar.audit();
            let records = audit.iter().filter(|record| record["host"] == *host);
            records
                .map(|record| record["code"].as_str().unwrap().to_owned())
                .collect()
        };
        match end {
            Unheard if of().is_empty() => {}
            Unheard => wrong.push(format!("{what}: {:?}", of())),
            Answer(code) | Silent(code) => {
                until(what, || !of().is_empty()).await;
                if of() != [*code] {
                    wrong.push(format!("{what}: {:?} and not {code}", of()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let tunnels = origin.requests().len();
    assert!(!origin.saw(MARK.as_bytes()));
    let raw = origin.raw();
    // HTTP/2 connections are opened, preface and settings, before a request is there to judge.
    assert!(
        !raw.windows(4)
            .any(|four| four == b"POST" || four == b"GET "),
        "{}",
        raw.escape_ascii()
    );
    fixtures::tell!(
        "{count} protocols inside CONNECT: {tunnels} tunnels, {:?}",
        begun.elapsed()
    );
    assert!(count >= 60 && tunnels == 0);
    assert!(
        !sidecar.stderr().contains("panicked"),
        "{}",
        sidecar.stderr()
    );
}

/// The positive control: a ClientHello is one however late and in however many pieces it comes, within its deadline.
#[tokio::test]
async fn a_client_hello_may_come_late_and_in_pieces() {
    let world = World::plain().await;
    let (_, wire) = world.sidecar.tunnel(&world.authority()).await;
    sleep(Duration::from_secs(3)).await;
    let mut wire = Wire::new(world.sidecar.handshake(wire.io, NAME, H1).await.unwrap());
    wire.send(&world.fill(b"GET /late HTTP/1.1\r\nHost: HOST\r\n\r\n"))
        .await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    // Two records for one ClientHello, and a name with another case.
    let (_, mut wire) = world.sidecar.tunnel(&world.authority()).await;
    let message = Hello::new([names(&[(0, b"ORIGIN.test")]), usual()].concat()).message();
    let (one, two) = message.split_at(9);
    wire.send(&record(22, [3, 1], one)).await;
    sleep(Duration::from_millis(50)).await;
    wire.send(&record(22, [3, 3], two)).await;
    let first = wire.take(6).await.unwrap();
    assert_eq!(
        (first[0], first[5]),
        (22, 2),
        "a ServerHello, and not {first:?}"
    );
}

/// Of an origin that speaks first, the agent hears nothing before it has asked.
#[tokio::test]
async fn an_origin_that_speaks_first_is_not_heard() {
    let pki = Pki::new();
    for banner in [
        &b"220 mail ready\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
    ] {
        let script = Script::new([Told::Send(banner.to_vec()), Told::WaitForBytes(usize::MAX)]);
        let origin = RawOrigin::start(Some(pki.server_config(&[NAME], H1)), script).await;
        let sidecar = Sidecar::start(&pki, origin.port(), Setup::new(&routes(&[route()]))).await;
        let authority = format!("{NAME}:{}", origin.port());
        let (answer, mut wire) = sidecar.tunnel(&authority).await;
        assert_eq!(answer.status, 200);
        let early = tokio::time::timeout(Duration::from_millis(300), wire.take(1)).await;
        assert!(early.is_err(), "{early:?}");
        let mut wire = Wire::new(sidecar.handshake(wire.io, NAME, H1).await.unwrap());
        let early = tokio::time::timeout(Duration::from_millis(300), wire.take(1)).await;
        assert!(early.is_err(), "{early:?}");
        // What was said unasked is no answer: the request goes to another connection, which says the same.
        wire.send(format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes())
            .await;
        let answer = wire.answer().await.unwrap();
        assert!(!answer.text().contains("mail ready"), "{answer:?}");
        assert!(origin.connections() > 1);
    }
}

/// Inside TLS it is HTTP or nothing.
#[tokio::test]
async fn inside_tls_only_http_is_understood() {
    let world = World::plain().await;
    let name = NAME.as_bytes();
    for (what, bytes) in [
        ("TLS in TLS", hello(&[(0, name)])),
        ("SSH", format!("SSH-2.0-{MARK}\r\n").into_bytes()),
        ("SMTP", format!("EHLO {MARK}\r\n").into_bytes()),
        ("SOCKS", b"\x05\x01\0".to_vec()),
        (
            "PROXY protocol",
            format!("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /{MARK} HTTP/1.1\r\n\r\n").into_bytes(),
        ),
        (
            "HTTP/2 where HTTP/1.1 was agreed",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        ),
        ("NUL", vec![0; 64]),
        ("a WebSocket frame", b"\x81\x05hello".to_vec()),
    ] {
        let mut wire = world.h1().await;
        wire.send(&bytes).await;
        let _half_closed = wire.io.shutdown().await;
        let answer = wire.answer().await;
        assert!(
            answer
                .as_ref()
                .is_none_or(|answer| answer.status == 400 && answer.verdict().is_some()),
            "{what}: {answer:?}"
        );
        world.assert_untouched(what);
    }
    let stream = world
        .sidecar
        .tls(&world.authority(), NAME, H2)
        .await
        .unwrap();
    let mut wire = Wire::new(stream);
    wire.send(&hello(&[(0, name)])).await;
    let _ = wire.io.shutdown().await;
    wire.rest().await;
    world.assert_untouched("TLS where HTTP/2 was agreed");
}
