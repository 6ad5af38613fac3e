//! Opening a connection to an origin. The only place that dials.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::{self, Resolver};
use super::corporate::CorporateProxy;
use crate::host::{Authority, Host};
use crate::limits;
use crate::tls;
use crate::verdict::Cause;

/// How origins are reached: straight, or through a proxy of the operator's.
#[derive(Debug)]
pub struct Dialer {
    resolver: Resolver,
    proxy: Option<CorporateProxy>,
}

/// A connection, and the address that it goes to where we chose it ourselves.
#[derive(Debug)]
pub struct Dialled {
    pub stream: TcpStream,
    pub address: Option<IpAddr>,
}

impl Dialer {
    pub fn new(resolver: Resolver, proxy: Option<CorporateProxy>) -> Self {
        Self { resolver, proxy }
    }

    /// No route leads to this port of the host itself, whatever it allows: the operator's side is there.
    pub fn forbid(&self, port: u16) {
        self.resolver.forbid(port);
    }

    /// Resolves, checks and connects.
    pub async fn tcp(&self, authority: &Authority, allow_private: bool) -> Result<Dialled, Cause> {
        let host = &authority.host;
        if let Some(proxy) = &self.proxy
            && proxy.is_for(host)
            && !self.resolver.is_fixed(host)
        {
            let local = match host {
                Host::Ip(ip) => !address::is_public(*ip),
                Host::Name(name) => {
                    let name = name.as_str();
                    name == "localhost" || name.ends_with(".localhost")
                }
            };
            if local && !allow_private {
                return Err(Cause::PrivateAddress(host.to_string()));
            }
            // The operator named it, wherever it is.
            let addresses = self.resolver.resolve(&proxy.address, true).await?;
            let stream = race(&interleaved(addresses)).await?;
            let stream = proxy.tunnel(stream, authority).await?;
            return Ok(Dialled {
                stream,
                address: None,
            });
        }
        let addresses = self.resolver.resolve(authority, allow_private).await?;
        let stream = race(&interleaved(addresses)).await?;
        let address = stream
            .peer_addr()
            .map_err(|error| Cause::Connect(error.to_string()))?
            .ip();
        Ok(Dialled {
            stream,
            address: Some(address),
        })
    }
}

/// One family after the other, IPv6 first (RFC 8305 §4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut order = Vec::new();
    loop {
        match (six.next(), four.next()) {
            (None, None) => return order,
            (first, second) => order.extend([first, second].into_iter().flatten()),
        }
    }
}

/// The first connection of all; the next address is tried when the one before has failed or has not answered for a
/// while (RFC 8305 §5). Addresses beyond [`limits::ATTEMPTS`] are not tried.
async fn race(addresses: &[SocketAddr]) -> Result<TcpStream, Cause> {
    let too_slow = || Cause::Connect("it did not answer in time".into());
    // Against nobody; a task of its own would be one too many.
    if let [only] = addresses {
        return match timeout(limits::DIAL, connect(*only)).await {
            Ok(outcome) => outcome.map_err(|error| Cause::Connect(error.to_string())),
            Err(_) => Err(too_slow()),
        };
    }
    let mut left = addresses.iter().copied().take(limits::ATTEMPTS).peekable();
    let mut attempts = JoinSet::new();
    let mut last = Cause::Connect("no address".into());
    let race = async {
        loop {
            if let Some(address) = left.next() {
                attempts.spawn(connect(address));
            } else if attempts.is_empty() {
                return Err(last);
            }
            // Until the next attempt is due, or for good where there is none.
            let due = async {
                match left.peek() {
                    Some(_) => sleep(limits::STAGGER).await,
                    None => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                ended = attempts.join_next() => ended,
                () = due => continue,
            };
            match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => last = Cause::Connect(error.to_string()),
                Some(Err(error)) => last = Cause::Connect(error.to_string()),
                None => {}
            }
        }
    };
    match timeout(limits::DIAL, race).await {
        Ok(outcome) => outcome,
        Err(_) => Err(too_slow()),
    }
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
                None => Cause::UpstreamTls(
                    "upstream-tls-closed",
                    format!("it closed the connection in the handshake ({error})"),
                ),
            })
        }
        Ok(Ok(stream)) => {
            let h2 = stream.get_ref().1.alpn_protocol() == Some(tls::H2);
            Ok((stream, h2))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn families_take_turns() {
        let list = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|one| one.parse().unwrap()).collect()
        };
        assert_eq!(
            interleaved(list("1.1.1.1:1 2.2.2.2:1 3.3.3.3:1 [2::1]:1 [2::2]:1")),
            list("[2::1]:1 1.1.1.1:1 [2::2]:1 2.2.2.2:1 3.3.3.3:1")
        );
    }

    /// A listener whose queue is full answers nothing, as an address behind a silent firewall.
    #[tokio::test]
    async fn an_address_that_is_silent_holds_up_the_next_by_the_stagger_only() {
        let full = TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = full.local_addr().unwrap();
        let full = full.listen(1).unwrap();
        let mut fill = JoinSet::new();
        for _ in 0..8 {
            fill.spawn(connect(silent));
        }
        sleep(Duration::from_millis(200)).await;
        let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good_address = good.local_addr().unwrap();
        let begun = Instant::now();
        let stream = race(&[silent, good_address]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good_address);
        let took = begun.elapsed();
        assert!(
            took >= limits::STAGGER && took < limits::STAGGER * 8,
            "{took:?}"
        );
        drop(full);
        // What is refused at once does not even cost that.
        let gone = good_address;
        drop(good);
        let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let begun = Instant::now();
        race(&[gone, good.local_addr().unwrap()]).await.unwrap();
        assert!(begun.elapsed() < limits::STAGGER, "{:?}", begun.elapsed());
        assert!(race(&[gone]).await.is_err());
        assert!(race(&[]).await.is_err());
    }
}
