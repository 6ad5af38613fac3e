//! hudsucker, a library of this kind in Rust, as its users would run it: `hudsucker relay|scan AUTHORITY CERTIFICATE [h2]`.
//!
//! It trusts origins by the certificates in the file AUTHORITY, writes its own authority's to CERTIFICATE, and prints the
//! port that it listens on. `scan` is the plain scan: fifteen rules and the secrets in `BENCH_SECRETS`, each in eleven
//! writings, over the address, the headers and the whole body. Every name leads to 127.0.0.1.

use std::future::{Ready, ready};
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use http_body_util::{BodyExt as _, Full};
use hudsucker::certificate_authority::RcgenAuthority;
use hudsucker::hyper::{Method, Request, Response};
use hudsucker::rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use hudsucker::{Body, HttpContext, HttpHandler, Proxy, RequestOrResponse};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use regex::bytes::{RegexSet, RegexSetBuilder};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

const RULES: [&str; 15] = [
    r"AKIA[0-9A-Z]{16}",
    r"ASIA[0-9A-Z]{16}",
    r"gh[pousr]_[A-Za-z0-9]{36,255}",
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"glpat-[A-Za-z0-9_\-]{20,}",
    r"sk-ant-[A-Za-z0-9_\-]{24,}",
    r"sk-proj-[A-Za-z0-9_\-]{24,}",
    r"sk-[A-Za-z0-9]{32,}",
    r"xox[abprs]-[A-Za-z0-9\-]{10,}",
    r"AIza[0-9A-Za-z_\-]{35}",
    r"sk_live_[0-9A-Za-z]{24,}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_\-]{50,}",
    r"eyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}",
    r"-----BEGIN (?:RSA |EC |OPENSSH |DSA )?PRIVATE KEY-----",
];

#[derive(Clone)]
struct Handler(Option<Arc<(RegexSet, AhoCorasick)>>);

impl HttpHandler for Handler {
    async fn handle_request(&mut self, _: &HttpContext, request: Request<Body>) -> RequestOrResponse {
        let Some(scan) = self.0.clone().filter(|_| request.method() != Method::CONNECT) else {
            return request.into();
        };
        let answer = |status: u16, words: &'static str| {
            let body = Body::from(words);
            Response::builder().status(status).body(body).expect("an answer").into()
        };
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return answer(400, "the body broke off");
        };
        let body = body.to_bytes();
        let hit = |text: &[u8]| scan.0.is_match(text) || scan.1.is_match(text);
        if hit(head.uri.to_string().as_bytes())
            || head.headers.values().any(|value| hit(value.as_bytes()))
            || hit(&body)
        {
            return answer(403, "blocked");
        }
        Request::from_parts(head, Body::from(Full::new(body))).into()
    }
}

fn writings(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let hex = |prefix: &str, upper: bool| {
        let each = bytes.iter().map(|byte| match upper {
            true => format!("{prefix}{byte:02X}"),
            false => format!("{prefix}{byte:02x}"),
        });
        each.collect::<String>().into_bytes()
    };
    let mut all = vec![
        bytes.to_vec(),
        bytes.iter().rev().copied().collect(),
        hex("", false),
        hex("", true),
        hex("%", true),
    ];
    for engine in [BASE64_STANDARD, BASE64_URL_SAFE] {
        for before in 0..3 {
            let encoded = engine.encode([&[0; 2][..before], bytes].concat());
            let from = [0, 2, 3][before];
            all.push(encoded[from..encoded.len() - 4].into());
        }
    }
    all
}

/// Every name is an origin of the measurement's.
#[derive(Clone)]
struct Local;

impl tower_service::Service<Name> for Local {
    type Response = std::iter::Once<SocketAddr>;
    type Error = std::io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(std::iter::once(([127, 0, 0, 1], 0).into())))
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mode, authority, certificate, h2) = match arguments.as_slice() {
        [mode, authority, certificate] => (mode, authority, certificate, false),
        [mode, authority, certificate, h2] if h2 == "h2" => (mode, authority, certificate, true),
        _ => panic!("hudsucker relay|scan AUTHORITY CERTIFICATE [h2]"),
    };
    let provider = aws_lc_rs::default_provider();

    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "hudsucker");
    let own = params.self_signed(&key).expect("a certificate");
    std::fs::write(certificate, own.pem()).expect("a file for it");
    let ca = RcgenAuthority::new(Issuer::new(params, key), 10_000, provider.clone());

    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(authority).expect("an authority") {
        roots.add(root.expect("a certificate")).expect("a root");
    }
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new_with_resolver(Local);
    http.enforce_http(false);
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let connector = match h2 {
        true => connector.enable_http1().enable_http2().wrap_connector(http),
        false => connector.enable_http1().wrap_connector(http),
    };

    let scan = (mode == "scan").then(|| {
        let secrets = std::env::var("BENCH_SECRETS").expect("secrets");
        let all: Vec<Vec<u8>> = secrets.lines().flat_map(writings).collect();
        let rules = RegexSetBuilder::new(RULES).unicode(false).build();
        Arc::new((rules.expect("rules"), AhoCorasick::new(all).expect("secrets")))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let proxy = Proxy::builder()
        .with_listener(listener)
        .with_ca(ca)
        .with_http_connector(connector)
        .with_http_handler(Handler(scan))
        .build()
        .expect("a proxy");
    let mut out = std::io::stdout().lock();
    writeln!(out, "{port}").and_then(|()| out.flush()).expect("standard output");
    drop(out);
    proxy.start().await.expect("a proxy");
}
