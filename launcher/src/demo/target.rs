//! What the demo's agent aims at, all of it on the host and ours: a TLS origin that records every byte, and canaries
//! that count who reached them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::session::OnGround;

/// Bytes that are kept of what the origin received; the demo sends far fewer.
const KEPT: usize = 16 << 20;

/// The origin that the demo's bottle may speak to.
#[derive(Debug)]
pub struct Origin {
    pub port: u16,
    pub ca_file: PathBuf,
    seen: Arc<Mutex<Vec<u8>>>,
    config: Arc<ServerConfig>,
    _tasks: JoinSet<()>,
}

impl Origin {
    /// `names` may hold a wildcard; its CA is written into `dir`.
    pub async fn start(names: &[&str], dir: &Path) -> anyhow::Result<Self> {
        let (config, ca) = certificates(names).context("certificates for the demo's origin")?;
        let ca_file = dir.join("origin-ca.pem");
        std::fs::write(&ca_file, ca).with_context(|| ca_file.display().to_string())?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("the demo's origin")?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, Arc::clone(&seen)));
        Ok(Self {
            port,
            ca_file,
            seen,
            config,
            _tasks: tasks,
        })
    }

    /// Listens on the host's address that the sidecar sees too, and tells the sidecar that `name` is there.
    pub fn on_ground(&self, name: &'static str) -> OnGround {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let (seen, port) = (Arc::clone(&self.seen), self.port);
        Box::new(move |host, file| {
            file.upstream.hosts.insert(name.into(), host.into());
            if host != Ipv4Addr::LOCALHOST {
                let listener = std::net::TcpListener::bind((host, port))?;
                listener.set_nonblocking(true)?;
                // Ends with the demo's runtime.
                tokio::spawn(serve(TcpListener::from_std(listener)?, acceptor, seen));
            }
            Ok(())
        })
    }

    /// Whether these bytes ever arrived.
    pub fn saw(&self, needle: &[u8]) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        !needle.is_empty() && seen.windows(needle.len()).any(|window| window == needle)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, record: Arc<Mutex<Vec<u8>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, record) = (acceptor.clone(), Arc::clone(&record));
        connections.spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                answer(stream, &record).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Answers whatever comes with `200 ok`, a request at a time, and keeps every byte.
async fn answer(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    record: &Mutex<Vec<u8>>,
) {
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = vec![0u8; 16 * 1024];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        {
            let mut seen = record.lock().unwrap_or_else(PoisonError::into_inner);
            let room = KEPT.saturating_sub(seen.len());
            seen.extend_from_slice(bytes.get(..read.min(room)).unwrap_or_default());
        }
        pending.extend_from_slice(bytes);
        while let Some(length) = whole_request(&pending) {
            pending.drain(..length);
            let response =
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";
            if stream.write_all(response).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

/// The sidecar frames by Content-Length here: the demo's requests are small.
fn whole_request(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(bytes.get(..head)?).to_ascii_lowercase();
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(Some(0), |value| value.trim().parse().ok())?;
    (bytes.len() >= head + length).then_some(head + length)
}

fn certificates(names: &[&str]) -> anyhow::Result<(Arc<ServerConfig>, String)> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), ca_pem))
}

/// Something on the host that must not be reachable from a bottle, over TCP and UDP. It only counts.
#[derive(Debug)]
pub struct Canary {
    pub address: SocketAddr,
    hits: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Canary {
    pub async fn start(ip: Ipv4Addr) -> anyhow::Result<Self> {
        let tcp = TcpListener::bind((ip, 0))
            .await
            .with_context(|| format!("a canary on {ip}"))?;
        let address = tcp.local_addr()?;
        let udp = UdpSocket::bind(address)
            .await
            .with_context(|| format!("a canary on {address}/udp"))?;
        let hits = Arc::new(AtomicUsize::new(0));
        let (over_tcp, over_udp) = (Arc::clone(&hits), Arc::clone(&hits));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while tcp.accept().await.is_ok() {
                over_tcp.fetch_add(1, Ordering::SeqCst);
            }
        });
        tasks.spawn(async move {
            let mut buffer = [0u8; 64];
            while udp.recv_from(&mut buffer).await.is_ok() {
                over_udp.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(Self {
            address,
            hits,
            _tasks: tasks,
        })
    }

    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// The canary works: it hears what the host itself sends. Without this, silence would prove nothing.
    pub async fn hears(&self) -> bool {
        let before = self.hits();
        #[expect(
            clippy::disallowed_methods,
            reason = "to a listener of our own, to prove that it listens"
        )]
        let tcp = tokio::net::TcpStream::connect(self.address).await.is_ok();
        let udp = match UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await {
            Ok(socket) => socket.send_to(b"control", self.address).await.is_ok(),
            Err(_) => false,
        };
        for _ in 0..50 {
            if self.hits() >= before + 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let heard = tcp && udp && self.hits() == before + 2;
        self.hits.store(0, Ordering::SeqCst);
        heard
    }
}
