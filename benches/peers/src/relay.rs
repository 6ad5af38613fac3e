//! The floor of the job with the crypto library that most peers have, aws-lc-rs: `relay AUTHORITY CERTIFICATE [h2]`, as
//! `hudsucker`. CONNECT, a certificate signed for each host with one key, TLS on both sides, and the bytes copied unread.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use hudsucker::rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ProducesTickets;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const BUFFER: usize = 64 * 1024;

struct Minter {
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    tickets: Arc<dyn ProducesTickets>,
    provider: Arc<CryptoProvider>,
    protocol: Vec<u8>,
    made: Mutex<HashMap<String, Arc<rustls::ServerConfig>>>,
}

impl Minter {
    fn server_config(&self, host: &str) -> Arc<rustls::ServerConfig> {
        let mut made = self.made.lock().expect("no panic before");
        if let Some(config) = made.get(host) {
            return Arc::clone(config);
        }
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&self.key, &self.issuer).expect("a certificate");
        let certified = CertifiedKey::new(vec![leaf.into()], Arc::clone(&self.signing));
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![self.protocol.clone()];
        config.ticketer = Arc::clone(&self.tickets);
        config.send_tls13_tickets = 1;
        let config = Arc::new(config);
        made.insert(host.to_owned(), Arc::clone(&config));
        config
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (authority, certificate, protocol) = match arguments.as_slice() {
        [authority, certificate] => (authority, certificate, "http/1.1"),
        [authority, certificate, h2] if h2 == "h2" => (authority, certificate, "h2"),
        _ => panic!("relay AUTHORITY CERTIFICATE [h2]"),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());

    let own_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "relay");
    let own = params.self_signed(&own_key).expect("a certificate");
    std::fs::write(certificate, own.pem()).expect("a file for it");
    let key = KeyPair::generate().expect("a key");
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let minter = Arc::new(Minter {
        issuer: Issuer::new(params, own_key),
        signing: provider.key_provider.load_private_key(der).expect("a key"),
        key,
        tickets: aws_lc_rs::Ticketer::new().expect("a key"),
        provider: Arc::clone(&provider),
        protocol: protocol.into(),
        made: Mutex::default(),
    });

    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(authority).expect("an authority") {
        roots.add(root.expect("a certificate")).expect("a root");
    }
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.into()];
    let connector = TlsConnector::from(Arc::new(tls));

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let mut out = std::io::stdout();
    writeln!(out, "{port}").and_then(|()| out.flush()).expect("standard output");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (minter, connector) = (Arc::clone(&minter), connector.clone());
        tokio::spawn(async move {
            // Whoever goes away in the midst of it is counted by the load.
            let _gone = serve(stream, &minter, &connector).await;
        });
    }
}

async fn serve(mut stream: TcpStream, minter: &Minter, connector: &TlsConnector) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head);
    let authority = text.split(' ').nth(1).unwrap_or_default();
    let (host, port) = authority.rsplit_once(':').ok_or_else(|| std::io::Error::other("no port"))?;
    let port: u16 = port.parse().map_err(std::io::Error::other)?;
    let acceptor = TlsAcceptor::from(minter.server_config(host));
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    let agent = async {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        acceptor.accept(stream).await
    };
    let there = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        connector.connect(name, stream).await
    };
    let (mut agent, mut there) = tokio::try_join!(agent, there)?;
    agent.get_mut().1.set_buffer_limit(Some(BUFFER));
    there.get_mut().1.set_buffer_limit(Some(BUFFER));
    let (agent_read, agent_write) = tokio::io::split(agent);
    let (there_read, there_write) = tokio::io::split(there);
    tokio::join!(copy(agent_read, there_write), copy(there_read, agent_write));
    Ok(())
}

async fn copy<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(mut from: R, mut to: W) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                let _gone = to.shutdown().await;
                return;
            }
            Ok(read) => {
                if to.write_all(&buffer[..read]).await.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
        }
    }
}
