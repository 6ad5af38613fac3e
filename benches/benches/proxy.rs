//! The real sidecar, as a process of its own, between a client and a recording-free TLS origin on loopback.
//!
//! Requests per second and bytes per second over keep-alive tunnels, HTTP/1.1, everything on: token rules, four known
//! secrets, policy, audit. Each answer's status is checked, and a request with a secret must be refused.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up must stop"
)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use fixtures::origin::{Origin, OriginOptions};
use fixtures::pki::Pki;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::client::TlsStream;

/// The argument by which this program becomes the sidecar.
const SIDECAR: &str = "__sidecar";
const TUNNELS: usize = 8;
/// Synthetic.
const SECRET: &str = "bench-secret-0123456789abcdef"; // gitleaks:allow

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if std::env::args_os().nth(1) == Some(SIDECAR.into()) {
        return proxy::cli::main(
            std::iter::once(name)
                .chain(arguments.skip(1))
                .collect::<Vec<OsString>>(),
        );
    }
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
    ExitCode::SUCCESS
}

fn bench(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let pki = Pki::new();
    let options = OriginOptions {
        record: false,
        ..OriginOptions::HTTP1
    };
    let origin = runtime.block_on(Origin::start(&pki, &["origin.test"], options));
    let dir = tempfile::tempdir().expect("a directory");
    let sidecar = Sidecar::start(dir.path(), &pki, origin.port());
    let lab = Lab {
        address: sidecar.address,
        port: origin.port(),
        ca: sidecar.client(dir.path()),
    };

    let refused = runtime.block_on(async {
        let mut tunnel = lab.tunnel().await;
        request(
            &mut tunnel,
            &post(&[b"{\"x\":\"".as_slice(), SECRET.as_bytes(), b"\"}"].concat()),
        )
        .await
    });
    assert_eq!(refused, 403, "a request with a secret must be refused");

    let mut group = criterion.benchmark_group("proxy/h1");
    for size in [1 << 10, 64 << 10, 1 << 20, 16 << 20] {
        let message = Arc::new(post(&body(size)));
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(
            BenchmarkId::new("post", size),
            &message,
            |bencher, message| {
                bencher.iter_custom(|count| runtime.block_on(lab.run(count, message)));
            },
        );
    }
    group.finish();
    let mut group = criterion.benchmark_group("proxy/tunnel");
    group.bench_function("connect", |bencher| {
        bencher.iter_custom(|count| {
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..count {
                    let mut tunnel = lab.tunnel().await;
                    assert_eq!(
                        request(&mut tunnel, b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n").await,
                        200
                    );
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

/// JSON such as a model is sent: mostly words.
fn body(size: usize) -> Vec<u8> {
    let words = b"{\"role\":\"user\",\"content\":\"Please read the file and tell me what the function returns.\"},";
    words.iter().copied().cycle().take(size).collect()
}

fn post(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /sink HTTP/1.1\r\nHost: origin.test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

struct Lab {
    address: SocketAddr,
    port: u16,
    ca: Arc<rustls::ClientConfig>,
}

impl Lab {
    async fn tunnel(&self) -> TlsStream<TcpStream> {
        let mut stream = fixtures::client::connect(self.address).await;
        stream.set_nodelay(true).expect("nodelay");
        let connect = format!(
            "CONNECT origin.test:{0} HTTP/1.1\r\nHost: origin.test:{0}\r\n\r\n",
            self.port
        );
        stream.write_all(connect.as_bytes()).await.expect("CONNECT");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer to CONNECT"));
        }
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", head.escape_ascii());
        let name = rustls::pki_types::ServerName::try_from("origin.test").expect("a name");
        tokio_rustls::TlsConnector::from(Arc::clone(&self.ca))
            .connect(name, stream)
            .await
            .expect("TLS")
    }

    /// `count` requests over [`TUNNELS`] tunnels that are open already.
    async fn run(&self, count: u64, message: &Arc<Vec<u8>>) -> Duration {
        let tunnels = TUNNELS
            .min(usize::try_from(count).unwrap_or(TUNNELS))
            .max(1);
        let mut open = Vec::new();
        for _ in 0..tunnels {
            open.push(self.tunnel().await);
        }
        let start = Instant::now();
        let tasks: Vec<_> = open
            .into_iter()
            .enumerate()
            .map(|(at, mut tunnel)| {
                let message = Arc::clone(message);
                let share =
                    count / tunnels as u64 + u64::from((at as u64) < count % tunnels as u64);
                tokio::spawn(async move {
                    for _ in 0..share {
                        assert_eq!(request(&mut tunnel, &message).await, 200);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("a tunnel");
        }
        start.elapsed()
    }
}

/// Sends a request and reads its whole response; the status.
async fn request(tunnel: &mut TlsStream<TcpStream>, message: &[u8]) -> u16 {
    tunnel.write_all(message).await.expect("a request");
    tunnel.flush().await.expect("a request");
    let mut response = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let read = tunnel.read(&mut buffer).await.expect("a response");
        assert_ne!(read, 0, "the tunnel closed before its response was whole");
        response.extend_from_slice(&buffer[..read]);
        let Some(end) = response.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&response[..end]).to_ascii_lowercase();
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map(|value| value.trim().parse().expect("a length"))
            .expect("a response with a length");
        if response.len() >= end + 4 + length {
            return head
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok())
                .expect("a status");
        }
    }
}

struct Sidecar {
    child: Child,
    address: SocketAddr,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Sidecar {
    fn start(dir: &Path, pki: &Pki, port: u16) -> Self {
        let origin_ca = pki.write_ca(dir);
        let config = format!(
            "bottle: bench\nlisten: ['127.0.0.1:0']\nproxy_auth: none\nca: {{certificate: {0}/sidecar-ca.pem}}\n\
             upstream: {{ca_files: [{1}], hosts: {{origin.test: 127.0.0.1}}}}\naudit: {0}/audit.jsonl\n\
             egress: {{routes: [{{host: 'origin.test:{port}', allow_private: true, dlp: {{outbound_on_match: block}}}}]}}\n",
            dir.display(),
            origin_ca.display()
        );
        let path = dir.join("sidecar.yaml");
        std::fs::write(&path, config).expect("a configuration");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args([SIDECAR, "run", "--config"])
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.env("EGRESS_TOKEN_BENCH", SECRET);
        for at in 1..4 {
            command.env(
                format!("EGRESS_TOKEN_{at}"),
                format!("another-{at}-secret-of-the-bench"),
            ); // gitleaks:allow
        }
        let mut child = command.spawn().expect("the sidecar");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("its ready line");
        let (_, rest) = line.split_once("\"listen\":[\"").expect("the listeners");
        let address = rest
            .split('"')
            .next()
            .and_then(|text| text.parse().ok())
            .expect("an address");
        Self { child, address }
    }

    fn client(&self, dir: &Path) -> Arc<rustls::ClientConfig> {
        use rustls::pki_types::pem::PemObject;
        let pem = std::fs::read(dir.join("sidecar-ca.pem")).expect("the sidecar's certificate");
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).expect("PEM"))
            .expect("a root");
        let config = rustls::ClientConfig::builder_with_provider(fixtures::pki::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}
