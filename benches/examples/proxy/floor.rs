//! The floor: what every proxy that ends TLS has to do, and nothing else.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use fixtures::pki::Minter;

use super::origin::{println, runtime};

/// Of a read, and of what TLS holds of what was written.
const BUFFER: usize = 64 * 1024;

/// Arguments: where to write its own authority, the origin's authority, the origin's port, and the protocol that is
/// spoken on both sides. Prints its port.
pub fn main(arguments: &[OsString]) {
    let [own, authority, port, protocol] = arguments else {
        panic!("its own authority, the origin's, a port and a protocol");
    };
    let protocol = protocol.to_str().expect("a protocol");
    let minter = Arc::new(Minter::new(&[protocol.as_bytes()]));
    std::fs::write(own, minter.pki().ca_pem()).expect("its authority can be written");
    let connector = TlsConnector::from(client_config(Path::new(authority), protocol));
    let origin: u16 = port
        .to_str()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println(listener.local_addr().expect("a port").port());
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let (minter, connector) = (Arc::clone(&minter), connector.clone());
            tokio::spawn(async move {
                // Whoever goes away in the midst of it is counted by the load.
                let _gone = serve(stream, &minter, &connector, origin).await;
            });
        }
    });
}

pub fn client_config(authority: &Path, protocol: &str) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).expect("an authority") {
        roots
            .add(certificate.expect("a certificate"))
            .expect("a root");
    }
    let mut config = rustls::ClientConfig::builder_with_provider(fixtures::pki::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    Arc::new(config)
}

async fn serve(
    mut stream: TcpStream,
    minter: &Minter,
    connector: &TlsConnector,
    origin: u16,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head);
    let host = text.split([' ', ':']).nth(1).unwrap_or_default().to_owned();
    let acceptor = TlsAcceptor::from(minter.server_config(&host));
    let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
    let agent = async {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        acceptor.accept(stream).await
    };
    let there = async {
        let stream = fixtures::client::connect(([127, 0, 0, 1], origin).into()).await;
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
