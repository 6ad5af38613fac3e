//! Origins whose TLS must not be accepted: each is refused for a reason of its own, and the agent never sees a leaf.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;

use fixtures::pki::{BadCert, Flaw, Pki};
use fixtures::raw_origin::{RawOrigin, Script, Step};
use fixtures::require::{program, require};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::harness::{H1, NAME, PATIENCE, Setup, Sidecar, Wire, routes};

/// An origin with a flaw, and the code of the refusal that it must meet.
struct Flawed {
    what: String,
    code: String,
    host: &'static str,
    config: Arc<ServerConfig>,
    roots: Vec<String>,
}

/// A sidecar that may go to `host`, trusting `roots`.
async fn sidecar(pki: &Pki, host: &str, port: u16, roots: &[String]) -> Sidecar {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("roots.pem");
    std::fs::write(&file, roots.concat()).unwrap();
    let upstream = json!({"ca_files": [file], "hosts": {NAME: "127.0.0.1"}});
    let setup = Setup::new(&routes(&[
        json!({"host": format!("{host}:PORT"), "allow_private": true}),
    ]))
    .with("upstream", upstream);
    Sidecar::start(pki, port, setup).await
}

/// The reason for which CONNECT is refused.
async fn refused(sidecar: &Sidecar, what: &str, host: &str, port: u16) -> String {
    let (answer, wire) = sidecar.tunnel(&format!("{host}:{port}")).await;
    assert_eq!(
        (answer.status, answer.verdict()),
        (502, Some("error")),
        "{what}: {answer:?}"
    );
    let body: Value = answer.json();
    let code = answer.code();
    assert!(code.starts_with("upstream-tls-"), "{what}: {body}");
    let reason = body["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("the origin's TLS was not accepted: "),
        "{what}: {reason}"
    );
    // Most clients show nothing but the reason phrase.
    assert!(
        answer.reason.contains(reason.get(..40).unwrap()),
        "{what}: {}",
        answer.reason
    );
    let event = body["event"].as_str().unwrap();
    assert_eq!(sidecar.event(event).await[0]["code"], code, "{what}");
    // There is no tunnel behind the refusal, and so no leaf.
    let mut wire: Wire<tokio::net::TcpStream> = wire;
    wire.send(b"\x16\x03\x01\0\x05\x01\0\0\x01\0").await;
    let rest = wire.rest().await;
    assert!(!rest.starts_with(&[22]), "{what}: a handshake");
    println!("{what:<28} {code:<40} {reason}");
    format!("{code} {reason}")
}

/// `openssl s_server`, for what rustls does not serve.
async fn s_server(arguments: &[&str]) -> (Child, u16) {
    let mut child = Command::new("openssl")
        .args(["s_server", "-www", "-accept", "127.0.0.1:0"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = tokio::time::timeout(PATIENCE, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it listens");
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                return address.rsplit(':').next().unwrap().parse().unwrap();
            }
        }
    });
    let port = port.await.expect("openssl starts");
    // Its talk is read to its end, or it would block.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, port)
}

#[tokio::test]
async fn bad_certificates_are_refused_for_a_reason_each() {
    let pki = Pki::new();
    let ca = pki.ca_pem();
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut served: Vec<Flawed> = Vec::new();
    let mut serve = |what: String, code: &str, host, config, roots: &[&String]| {
        served.push(Flawed {
            what,
            code: code.to_owned(),
            host,
            config,
            roots: roots.iter().copied().cloned().collect(),
        });
    };
    for bad in BadCert::ALL {
        let config = pki.bad_server_config(bad, &[NAME], H1);
        serve(format!("{bad:?}"), code_of_bad(bad), NAME, config, &[&ca]);
    }
    for flaw in Flaw::ALL {
        let host = if flaw == Flaw::WrongAddress {
            "127.0.0.1"
        } else {
            NAME
        };
        let config = pki.flawed(flaw, NAME, H1);
        serve(format!("{flaw:?}"), code_of(flaw), host, config, &[&ca]);
    }
    let dir = tempfile::tempdir().unwrap();
    let openssl = require("openssl", program("openssl").is_some());
    if openssl {
        for digest in ["sha1", "md5"] {
            let (config, root) = fixtures::pki::signed_with(digest, NAME, dir.path(), H1)
                .unwrap_or_else(|| panic!("openssl signs with {digest}"));
            let code = format!("upstream-tls-{digest}");
            serve(digest.into(), &code, NAME, config, &[&ca, &root]);
        }
    }
    // The same as above but for its ALPN, so that nothing else is wrong.
    let other = pki.server_config(&[NAME], &[b"acme-tls/1"]);
    serve("ALPN".into(), "upstream-tls-alpn", NAME, other, &[&ca]);

    for Flawed {
        what,
        code,
        host,
        config,
        roots,
    } in served
    {
        let origin = RawOrigin::start(Some(config), Script::silent()).await;
        let sidecar = sidecar(&pki, host, origin.port(), &roots).await;
        let reason = refused(&sidecar, &what, host, origin.port()).await;
        assert!(reason.starts_with(&format!("{code} ")), "{what}: {reason}");
        assert_eq!(origin.raw(), b"", "{what}");
        reasons.entry(reason).or_default().push(what);
    }

    if openssl {
        let file = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let (certificate, key) = (file("good.pem"), file("good.key"));
        pki.write_leaf(&[NAME], certificate.as_ref(), key.as_ref());
        let (weak, weak_key) = (file("weak.pem"), file("weak.key"));
        assert!(pki.write_weak(NAME, weak.as_ref(), weak_key.as_ref()));
        for (what, code, arguments) in [
            (
                "RSA of 1024 bits",
                "weak-key",
                vec![
                    "-cert",
                    &weak,
                    "-key",
                    &weak_key,
                    "-cipher",
                    "DEFAULT:@SECLEVEL=0",
                ],
            ),
            (
                "RSA of 1024 bits, TLS 1.2",
                "weak-key",
                vec![
                    "-cert",
                    &weak,
                    "-key",
                    &weak_key,
                    "-cipher",
                    "DEFAULT:@SECLEVEL=0",
                    "-tls1_2",
                ],
            ),
            (
                "TLS 1.0",
                "version",
                vec![
                    "-cert",
                    &certificate,
                    "-key",
                    &key,
                    "-tls1",
                    "-cipher",
                    "ALL:@SECLEVEL=0",
                ],
            ),
            (
                "TLS 1.1",
                "version",
                vec![
                    "-cert",
                    &certificate,
                    "-key",
                    &key,
                    "-tls1_1",
                    "-cipher",
                    "ALL:@SECLEVEL=0",
                ],
            ),
            (
                "CBC only",
                "cipher",
                vec![
                    "-cert",
                    &certificate,
                    "-key",
                    &key,
                    "-tls1_2",
                    "-cipher",
                    "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0",
                ],
            ),
            (
                "a client certificate",
                "cipher",
                vec![
                    "-cert",
                    &certificate,
                    "-key",
                    &key,
                    "-tls1_2",
                    "-Verify",
                    "1",
                    "-verify_return_error",
                ],
            ),
        ] {
            let (mut child, port) = s_server(&arguments).await;
            let sidecar = sidecar(&pki, NAME, port, std::slice::from_ref(&ca)).await;
            let reason = refused(&sidecar, what, NAME, port).await;
            assert!(
                reason.starts_with(&format!("upstream-tls-{code} ")),
                "{what}: {reason}"
            );
            reasons.entry(reason).or_default().push(what.into());
            child.kill().await.unwrap();
        }
    }
    for (what, code, script) in [
        (
            "plain HTTP",
            "not-tls",
            Script::new([
                Step::WaitForBytes(1),
                Step::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
            ]),
        ),
        (
            "mail",
            "not-tls",
            Script::new([
                Step::Send(b"220 mail ready\r\n".to_vec()),
                Step::WaitForBytes(usize::MAX),
            ]),
        ),
        (
            "closed in the handshake",
            "closed",
            Script::new([Step::WaitForBytes(1), Step::Abort]),
        ),
        (
            "ended in the handshake",
            "closed",
            Script::new([Step::WaitForBytes(1), Step::Finish]),
        ),
        (
            "an alert",
            "unknown-name",
            Script::new([
                Step::WaitForBytes(1),
                Step::Send(vec![21, 3, 3, 0, 2, 2, 112]),
            ]),
        ),
        (
            "another alert",
            "alert",
            Script::new([
                Step::WaitForBytes(1),
                Step::Send(vec![21, 3, 3, 0, 2, 2, 80]),
            ]),
        ),
        ("silence", "timeout", Script::silent()),
    ] {
        let origin = RawOrigin::start(None, script).await;
        let sidecar = sidecar(&pki, NAME, origin.port(), std::slice::from_ref(&ca)).await;
        let reason = refused(&sidecar, what, NAME, origin.port()).await;
        assert!(
            reason.starts_with(&format!("upstream-tls-{code} ")),
            "{what}: {reason}"
        );
        reasons.entry(reason).or_default().push(what.into());
    }
    let cases: usize = reasons.values().map(Vec::len).sum();
    fixtures::tell!("{cases} bad origins, {} distinct reasons", reasons.len());
    if openssl {
        assert!(reasons.len() >= 25, "{reasons:#?}");
    }
}

fn code_of_bad(bad: BadCert) -> &'static str {
    match bad {
        BadCert::Expired => "upstream-tls-expired",
        BadCert::NotYetValid => "upstream-tls-not-yet-valid",
        BadCert::WrongHost => "upstream-tls-wrong-host",
        BadCert::SelfSigned => "upstream-tls-self-signed",
        BadCert::UnknownIssuer => "upstream-tls-unknown-issuer",
    }
}

fn code_of(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::WrongUsage => "upstream-tls-wrong-usage",
        Flaw::CaAsLeaf => "upstream-tls-ca-as-leaf",
        Flaw::LeafAsCa => "upstream-tls-leaf-as-ca",
        Flaw::MissingIntermediate => "upstream-tls-missing-intermediate",
        Flaw::IntermediateExpired => "upstream-tls-intermediate-expired",
        Flaw::IntermediateNotYetValid => "upstream-tls-intermediate-not-yet-valid",
        Flaw::NameConstraints => "upstream-tls-name-constraints",
        Flaw::PathLength => "upstream-tls-path-length",
        Flaw::NoSubjectAltName => "upstream-tls-no-san",
        Flaw::WildcardInLabel | Flaw::WildcardOnTop | Flaw::WildcardAlone => {
            "upstream-tls-wildcard"
        }
        Flaw::WrongAddress => "upstream-tls-wrong-address",
        Flaw::BadSignature => "upstream-tls-bad-signature",
        Flaw::CriticalExtension => "upstream-tls-critical-extension",
        Flaw::Version1 => "upstream-tls-certificate-version",
        Flaw::Garbage => "upstream-tls-certificate-encoding",
        Flaw::KeyMismatch => "upstream-tls-key-mismatch",
        Flaw::Empty => "upstream-tls-no-certificate",
    }
}
