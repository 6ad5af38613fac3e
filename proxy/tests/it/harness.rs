//! A sidecar as a child process, an origin beside it, and an agent that can say anything.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fixtures::origin::{Origin, OriginOptions};
use fixtures::pki::{Pki, provider};
use http::{HeaderMap, Request};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name under which the agent knows the origin.
pub const NAME: &str = "origin.test";
pub const KEY: &str = "AKIAIOSFODNN7EXAMPLE"; // gitleaks:allow
/// Of `EGRESS_TOKEN_X`, a known secret that no token rule would recognise.
pub const KNOWN: &str = "correct-horse+battery/staple=Zq9"; // gitleaks:allow
pub const H1: &[&[u8]] = &[b"http/1.1"];
pub const H2: &[&[u8]] = &[b"h2"];
pub const USER: &str = "bottle";
pub const PASSWORD: &str = "only-for-this-test"; // gitleaks:allow
/// Nothing that is waited for takes this long, on however slow a machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a test changes of a sidecar's file and environment.
pub struct Setup {
    pub file: Value,
    pub environment: Vec<(String, String)>,
    /// Files that it may have open.
    descriptors: Option<u32>,
    /// A command that runs the sidecar in its place.
    pub wrapper: Vec<String>,
}

impl Setup {
    /// `PORT` in `egress` stands for the origin's.
    pub fn new(egress: &Value) -> Self {
        let file = json!({
            "bottle": "test",
            "listen": ["127.0.0.1:0"],
            "proxy_auth": {"basic": {"username": USER, "password_ref": "PROXY_PASSWORD"}},
            "explain": "launcher why {id}",
            "egress": egress,
        });
        Self {
            file,
            environment: vec![
                ("PROXY_PASSWORD".into(), PASSWORD.into()),
                ("EGRESS_TOKEN_X".into(), KNOWN.into()),
            ],
            descriptors: None,
            wrapper: Vec::new(),
        }
    }

    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.file[key] = value;
        self
    }

    pub fn descriptors(mut self, count: u32) -> Self {
        self.descriptors = Some(count);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

/// A route to the origin, whose port is still to be filled in.
pub fn route() -> Value {
    json!({"host": "origin.test:PORT", "allow_private": true})
}

pub fn routes(routes: &[Value]) -> Value {
    json!({"log": 2, "routes": routes})
}

/// A route with the given `dlp` section.
pub fn dlp(dlp: Value) -> Value {
    let mut route = route();
    route["dlp"] = dlp;
    routes(&[route])
}

/// An origin and a sidecar that lets the agent reach it.
pub struct World {
    pub origin: Origin,
    pub sidecar: Sidecar,
}

impl World {
    pub async fn plain() -> Self {
        Self::start(OriginOptions::DEFAULT, Setup::new(&routes(&[route()]))).await
    }

    pub async fn policy(egress: &Value) -> Self {
        Self::start(OriginOptions::DEFAULT, Setup::new(egress)).await
    }

    pub async fn start(options: OriginOptions, setup: Setup) -> Self {
        let pki = Pki::new();
        let origin = Origin::start(&pki, &[NAME, "*.wild.test", "127.0.0.1"], options).await;
        let sidecar = Sidecar::start(&pki, origin.port(), setup).await;
        Self { origin, sidecar }
    }

    pub fn authority(&self) -> String {
        format!("{NAME}:{}", self.origin.port())
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority())
    }

    /// HTTP/1.1 inside a tunnel to the origin.
    pub async fn h1(&self) -> Wire<TlsStream<TcpStream>> {
        Wire::new(self.sidecar.tls(&self.authority(), NAME, H1).await.unwrap())
    }

    pub async fn h2(&self) -> H2Client {
        self.sidecar.h2(&self.authority()).await
    }

    /// Sends bytes inside a tunnel and reads one answer; `HOST` stands for the authority.
    pub async fn raw(&self, request: &[u8]) -> Option<Answer> {
        let mut wire = self.h1().await;
        wire.send(&self.fill(request)).await;
        wire.answer().await
    }

    pub fn fill(&self, request: &[u8]) -> Vec<u8> {
        replace(request, b"HOST", self.authority().as_bytes())
    }

    /// Nothing of a request arrived: not even its first byte.
    #[track_caller]
    pub fn assert_untouched(&self, what: &str) {
        let requests = self.origin.requests();
        assert!(requests.is_empty(), "{what}: the origin saw {requests:#?}");
        let raw = self.origin.raw();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        // An HTTP/2 connection is opened, preface and settings, before a request is there to judge.
        assert!(
            raw.is_empty() || raw.starts_with(preface),
            "{what}: {}",
            raw.escape_ascii()
        );
    }
}

pub fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// A running `sidecar`. Dropping it kills it.
pub struct Sidecar {
    child: Child,
    pub addr: SocketAddr,
    pub ready: Value,
    dir: TempDir,
    port: u16,
    file: Value,
}

impl Sidecar {
    pub async fn start(pki: &Pki, port: u16, setup: Setup) -> Self {
        match Self::try_start(pki, port, setup).await {
            Ok(sidecar) => sidecar,
            Err((status, said)) => panic!("the sidecar did not start ({status}): {said}"),
        }
    }

    pub async fn try_start(
        pki: &Pki,
        port: u16,
        setup: Setup,
    ) -> Result<Self, (ExitStatus, String)> {
        let dir = tempfile::tempdir().unwrap();
        let config = write_file(dir.path(), pki, port, &setup);
        let stderr = std::fs::File::create(dir.path().join("stderr")).unwrap();
        let sidecar = env!("CARGO_BIN_EXE_sidecar");
        let mut command = match (setup.descriptors, setup.wrapper.split_first()) {
            (None, None) => Command::new(sidecar),
            (None, Some((program, arguments))) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(sidecar);
                command
            }
            (Some(count), _) => {
                let mut shell = Command::new("/bin/sh");
                shell.args([
                    "-c",
                    &format!("ulimit -n {count}; exec \"$0\" \"$@\""),
                    sidecar,
                ]);
                shell
            }
        };
        let mut child = command
            .args(["run", "--config"])
            .arg(&config)
            .env_clear()
            .envs(setup.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        timeout(PATIENCE, out.read_line(&mut line))
            .await
            .expect("ready or gone")
            .unwrap();
        if line.is_empty() {
            let status = child.wait().await.unwrap();
            return Err((
                status,
                std::fs::read_to_string(dir.path().join("stderr")).unwrap(),
            ));
        }
        let ready: Value = serde_json::from_str(&line).unwrap();
        let addr = ready["listen"][0].as_str().unwrap().parse().unwrap();
        Ok(Self {
            child,
            addr,
            ready,
            dir,
            port,
            file: setup.file,
        })
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub async fn wait(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("the sidecar ends")
            .unwrap()
    }

    /// Puts a new `egress` section in force, or another text in place of the file.
    pub fn rewrite(&self, egress: &Value) {
        let mut file = self.file.clone();
        file["egress"] = egress.clone();
        write_config(self.dir.path(), &with_port(&file, self.port));
    }

    pub fn rewrite_text(&self, text: &str) {
        std::fs::write(self.dir.path().join("sidecar.yaml"), text).unwrap();
    }

    pub async fn reload(&self, expected: &str) {
        let before = self.stderr().matches(expected).count();
        self.signal(rustix::process::Signal::HUP);
        until(expected, || {
            self.stderr().matches(expected).count() > before
        })
        .await;
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    pub fn audit_text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap_or_default()
    }

    /// The audit's records so far; every line must be a record.
    pub fn audit(&self) -> Vec<Value> {
        let text = self.audit_text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }

    /// The records of one event, once there is one.
    pub async fn event(&self, event: &str) -> Vec<Value> {
        let of = || -> Vec<Value> {
            self.audit()
                .into_iter()
                .filter(|record| record["event"] == event)
                .collect()
        };
        until(&format!("{event} in the audit"), || !of().is_empty()).await;
        of()
    }

    /// `http://user:password@address`, for the clients' settings.
    pub fn proxy_url(&self) -> String {
        format!("http://{USER}:{PASSWORD}@{}", self.addr)
    }

    pub async fn connect(&self) -> Wire<TcpStream> {
        Wire::new(fixtures::client::connect(self.addr).await)
    }

    /// The answer to a CONNECT, and the connection that may be a tunnel now.
    pub async fn tunnel(&self, authority: &str) -> (Answer, Wire<TcpStream>) {
        let mut wire = self.connect().await;
        wire.send(connect_head(authority).as_bytes()).await;
        let answer = wire.connect_answer().await;
        (answer, wire)
    }

    /// TLS inside a tunnel, trusting the sidecar's own authority and nothing else.
    pub async fn tls(
        &self,
        authority: &str,
        sni: &str,
        alpn: &[&[u8]],
    ) -> io::Result<TlsStream<TcpStream>> {
        let (answer, wire) = self.tunnel(authority).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.handshake(wire.io, sni, alpn).await
    }

    pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
        sni: &str,
        alpn: &[&[u8]],
    ) -> io::Result<TlsStream<S>> {
        let connector = TlsConnector::from(self.client_config(alpn, true));
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        timeout(PATIENCE, connector.connect(name, io))
            .await
            .expect("a handshake in time")
    }

    pub fn client_config(&self, alpn: &[&[u8]], sni: bool) -> Arc<rustls::ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.ca()).unwrap())
            .unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.enable_sni = sni;
        Arc::new(config)
    }

    pub async fn h2(&self, authority: &str) -> H2Client {
        let name = authority.split(':').next().unwrap();
        let stream = self.tls(authority, name, H2).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        H2Client {
            sender,
            authority: authority.to_owned(),
        }
    }
}

pub fn connect_head(authority: &str) -> String {
    let credentials = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Basic {credentials}\r\n\r\n"
    )
}

pub fn write_file(dir: &Path, pki: &Pki, port: u16, setup: &Setup) -> PathBuf {
    let mut file = with_port(&setup.file, port);
    let roots = dir.join("roots.pem");
    std::fs::write(&roots, pki.ca_pem()).unwrap();
    file["ca"] = json!({"certificate": dir.join("ca.pem")});
    let default = |file: &mut Value, key: &str, value: Value| {
        if file.get(key).is_none() {
            file[key] = value;
        }
    };
    default(&mut file, "audit", json!(dir.join("audit.jsonl")));
    let hosts = json!({NAME: "127.0.0.1", "other.test": "127.0.0.1", "a.wild.test": "127.0.0.1"});
    default(
        &mut file,
        "upstream",
        json!({"ca_files": [roots], "hosts": hosts}),
    );
    write_config(dir, &file)
}

fn with_port(file: &Value, port: u16) -> Value {
    serde_json::from_str(&file.to_string().replace(":PORT", &format!(":{port}"))).unwrap()
}

fn write_config(dir: &Path, file: &Value) -> PathBuf {
    let path = dir.join("sidecar.yaml");
    // What is left out on reload must be what was there at start.
    let mut whole: Value = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_else(|| json!({}));
    for (key, value) in file.as_object().unwrap() {
        whole[key] = value.clone();
    }
    std::fs::write(&path, serde_json::to_string_pretty(&whole).unwrap()).unwrap();
    path
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A response as the agent read it.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub reason: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// It ended where its framing says so.
    pub whole: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn verdict(&self) -> Option<&str> {
        self.header("x-bottle-verdict")
    }

    /// The stable code of one of the sidecar's own answers.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap().to_owned()
    }
}

/// A connection that sends exactly what it is told.
pub struct Wire<S> {
    pub io: S,
    buf: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(io: S) -> Self {
        Self {
            io,
            buf: Vec::new(),
        }
    }

    /// A peer that went away shows in what it answered.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _gone = timeout(PATIENCE, async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        })
        .await
        .expect("the sidecar reads");
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.io.read_buf(&mut self.buf))
            .await
            .expect("the sidecar answers or closes");
        matches!(read, Ok(1..))
    }

    /// Everything up to the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buf)
    }

    pub async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buf.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buf.drain(..length).collect())
    }

    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buf.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buf.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    pub async fn fields(&mut self) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(fields);
            }
            let (name, value) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("no field: {line:?}"));
            fields.push((name.to_owned(), value.to_owned()));
        }
    }

    /// A response's head; informational ones are skipped.
    pub async fn head(&mut self) -> Option<Answer> {
        loop {
            let start = self.line().await?;
            let mut parts = start.splitn(3, ' ');
            assert_eq!(parts.next(), Some("HTTP/1.1"), "{start:?}");
            let status: u16 = parts.next().unwrap().parse().unwrap();
            let reason = parts.next().unwrap_or_default().to_owned();
            let headers = self.fields().await?;
            if status >= 200 {
                return Some(Answer {
                    status,
                    reason,
                    headers,
                    ..Answer::default()
                });
            }
        }
    }

    pub async fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET").await
    }

    pub async fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let mut answer = self.head().await?;
        if method == "HEAD" || matches!(answer.status, 204 | 304) {
            answer.whole = true;
            return Some(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            loop {
                let Some(size) = self.line().await else {
                    return Some(answer);
                };
                let size = usize::from_str_radix(&size, 16).unwrap();
                if size == 0 {
                    answer.whole = match self.fields().await {
                        Some(trailers) => {
                            answer.trailers = trailers;
                            true
                        }
                        None => false,
                    };
                    return Some(answer);
                }
                let Some(data) = self.take(size + 2).await else {
                    return Some(answer);
                };
                answer.body.extend_from_slice(&data[..size]);
            }
        }
        if let Some(length) = answer
            .header("content-length")
            .map(|text| text.parse::<usize>().unwrap())
        {
            match self.take(length).await {
                Some(body) => {
                    answer.body = body;
                    answer.whole = true;
                }
                None => answer.body = std::mem::take(&mut self.buf),
            }
            return Some(answer);
        }
        answer.body = self.rest().await;
        answer.whole = true;
        Some(answer)
    }

    /// To CONNECT: 200 has no body.
    pub async fn connect_answer(&mut self) -> Answer {
        let start = self.line().await.expect("an answer to CONNECT");
        let mut parts = start.splitn(3, ' ');
        let (_, status, reason) = (
            parts.next(),
            parts.next().unwrap(),
            parts.next().unwrap_or_default(),
        );
        let mut answer = Answer {
            status: status.parse().unwrap(),
            reason: reason.to_owned(),
            headers: self.fields().await.unwrap(),
            ..Answer::default()
        };
        if answer.status != 200 {
            let length = answer.header("content-length").unwrap().parse().unwrap();
            answer.body = self.take(length).await.unwrap();
        }
        answer
    }
}

/// HTTP/2 inside a tunnel.
#[derive(Clone)]
pub struct H2Client {
    pub sender: h2::client::SendRequest<Bytes>,
    authority: String,
}

impl H2Client {
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        let request = self.request("GET", path).body(()).unwrap();
        self.send(request, &[], None).await.unwrap()
    }

    /// Sends a request with a body in the given pieces, and reads its answer.
    pub async fn send(
        &mut self,
        request: Request<()>,
        body: &[&[u8]],
        trailers: Option<HeaderMap>,
    ) -> Result<Answer, h2::Error> {
        let run = async {
            let mut sender = self.sender.clone().ready().await?;
            let bodiless = body.is_empty() && trailers.is_none();
            let (response, mut stream) = sender.send_request(request, bodiless)?;
            let sending = async {
                if bodiless {
                    return;
                }
                for piece in body {
                    let mut rest = Bytes::copy_from_slice(piece);
                    while !rest.is_empty() {
                        stream.reserve_capacity(rest.len());
                        let Some(Ok(granted)) =
                            std::future::poll_fn(|cx| stream.poll_capacity(cx)).await
                        else {
                            return;
                        };
                        let now = rest.split_to(granted.min(rest.len()));
                        if stream.send_data(now, false).is_err() {
                            return;
                        }
                    }
                }
                let _gone = match trailers {
                    Some(trailers) => stream.send_trailers(trailers),
                    None => stream.send_data(Bytes::new(), true),
                };
            };
            let reading = async {
                let response = response.await?;
                let (parts, mut body) = response.into_parts();
                let fields = |map: &HeaderMap| -> Vec<(String, String)> {
                    map.iter()
                        .map(|(name, value)| {
                            (
                                name.to_string(),
                                String::from_utf8_lossy(value.as_bytes()).into_owned(),
                            )
                        })
                        .collect()
                };
                let mut answer = Answer {
                    status: parts.status.as_u16(),
                    headers: fields(&parts.headers),
                    ..Answer::default()
                };
                while let Some(data) = body.data().await {
                    let Ok(data) = data else { return Ok(answer) };
                    let _ended = body.flow_control().release_capacity(data.len());
                    answer.body.extend_from_slice(&data);
                }
                if let Ok(trailers) = body.trailers().await {
                    answer.trailers = trailers.as_ref().map(fields).unwrap_or_default();
                    answer.whole = true;
                }
                Ok(answer)
            };
            let (answer, ()) = tokio::join!(reading, sending);
            answer
        };
        timeout(PATIENCE, run).await.expect("an answer in time")
    }
}

/// Runs a program to its end; stdout as it is, stderr for the failure.
pub async fn run(command: &mut Command) -> (ExitStatus, Vec<u8>, String) {
    let output = timeout(
        PATIENCE * 2,
        command.stdin(Stdio::null()).kill_on_drop(true).output(),
    );
    let output = output.await.expect("the program ends").unwrap();
    (
        output.status,
        output.stdout,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
