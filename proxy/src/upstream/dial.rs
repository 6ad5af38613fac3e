//! Opening a connection to an origin. The only place that dials.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::Resolver;
use crate::host::{Authority, Host};
use crate::limits;
use crate::tls;
use crate::verdict::Cause;

/// Resolves, checks and connects; the addresses are tried in their order.
pub async fn tcp(
    resolver: &Resolver,
    authority: &Authority,
    allow_private: bool,
) -> Result<TcpStream, Cause> {
    let addresses = resolver.resolve(authority, allow_private).await?;
    let mut last = Cause::Connect("no address".into());
    for address in addresses {
        match timeout(limits::DIAL, connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Cause::Connect(error.to_string()),
            Err(_) => last = Cause::Connect("it did not answer in time".into()),
        }
    }
    Err(last)
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    let stream = socket.connect(address).await?;
    // Nagle meets delayed acknowledgement: 40 ms on every small request.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The TLS handshake, verified for the authority's host. Says whether the origin chose h2.
pub async fn tls(
    config: &Arc<rustls::ClientConfig>,
    authority: &Authority,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, bool), Cause> {
    let name = match &authority.host {
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned()).map_err(|_| {
            Cause::UpstreamTls(
                "upstream-tls-name",
                "the host is not a name that TLS can verify".into(),
            )
        })?,
        Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
    };
    let connector = TlsConnector::from(Arc::clone(config));
    match timeout(limits::HANDSHAKE, connector.connect(name, stream)).await {
        Err(_) => Err(Cause::UpstreamTls(
            "upstream-tls-timeout",
            "the handshake took too long".into(),
        )),
        Ok(Err(error)) => {
            let inner = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>());
            Err(match inner {
                Some(error) => {
                    let (code, words) = tls::explain(error);
                    Cause::UpstreamTls(code, words)
                }
                None => Cause::UpstreamTls("upstream-tls-closed", error.to_string()),
            })
        }
        Ok(Ok(stream)) => {
            let h2 = stream.get_ref().1.alpn_protocol() == Some(tls::H2);
            Ok((stream, h2))
        }
    }
}
