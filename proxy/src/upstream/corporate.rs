//! An HTTP proxy between the sidecar and the internet, by configuration (`upstream.proxy`).
//!
//! What goes through it is resolved by it, so the checks of addresses are then its own; address literals and names of
//! this machine are still refused here. TLS goes through it untouched and is verified as ever.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::BytesMut;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config;
use crate::h1::parse;
use crate::host::{Authority, Host, HostError, HostPattern};
use crate::limits;
use crate::secrets::{Secret, Secrets};
use crate::verdict::Cause;

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("upstream.proxy.address: {0}")]
    Address(HostError),
    #[error("upstream.proxy: username and password_ref belong together")]
    HalfCredentials,
    #[error("upstream.proxy: the environment variable {0} is not set or empty")]
    Password(String),
    #[error("upstream.proxy: a username holds no colon and no control character")]
    Username,
    #[error("upstream.proxy.direct: {pattern}: {source}")]
    Direct { pattern: String, source: HostError },
}

#[derive(Debug)]
pub struct CorporateProxy {
    pub address: Authority,
    /// `user:password` in base64.
    credentials: Option<Secret>,
    /// Reached without it.
    direct: Vec<HostPattern>,
}

impl CorporateProxy {
    pub fn parse(typed: &config::CorporateProxy, secrets: &Secrets) -> Result<Self, ProxyError> {
        let address = Authority::parse(&typed.address, 3128).map_err(ProxyError::Address)?;
        let credentials = match (&typed.username, &typed.password_ref) {
            (None, None) => None,
            (Some(username), Some(name)) => {
                if username.contains(|c: char| c == ':' || c.is_control()) {
                    return Err(ProxyError::Username);
                }
                let password = secrets
                    .value(name)
                    .ok_or_else(|| ProxyError::Password(name.clone()))?;
                let pair = format!("{username}:{}", password.expose());
                Some(Secret::new(BASE64_STANDARD.encode(pair)))
            }
            _ => return Err(ProxyError::HalfCredentials),
        };
        let direct = typed
            .direct
            .iter()
            .map(|pattern| {
                pattern.parse().map_err(|source| ProxyError::Direct {
                    pattern: pattern.clone(),
                    source,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            address,
            credentials,
            direct,
        })
    }

    pub fn is_for(&self, host: &Host) -> bool {
        !self.direct.iter().any(|pattern| pattern.matches(host))
    }

    /// Asks for a tunnel to `authority` on a connection to the proxy.
    pub async fn tunnel(
        &self,
        mut stream: TcpStream,
        authority: &Authority,
    ) -> Result<TcpStream, Cause> {
        match timeout(limits::DIAL, self.ask(&mut stream, authority)).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(why)) => Err(Cause::UpstreamProxy(why)),
            Err(_) => Err(Cause::UpstreamProxy("it did not answer in time".into())),
        }
    }

    async fn ask(&self, stream: &mut TcpStream, authority: &Authority) -> Result<(), String> {
        let credentials = match &self.credentials {
            Some(pair) => format!("Proxy-Authorization: Basic {}\r\n", pair.expose()),
            None => String::new(),
        };
        let head =
            format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{credentials}\r\n");
        let failed = |error: std::io::Error| error.to_string();
        stream.write_all(head.as_bytes()).await.map_err(failed)?;
        let mut answer = BytesMut::new();
        let mut informational = 0;
        loop {
            let parsed =
                parse::response(&mut answer, &Method::CONNECT).map_err(|why| why.to_string())?;
            match parsed.map(|response| response.head.status) {
                Some(status) if status.is_informational() && status != 101 => {
                    informational += 1;
                    if informational > limits::INFORMATIONAL {
                        return Err("it has only informational answers".into());
                    }
                    continue;
                }
                // Whatever it says about a body, a tunnel begins here (RFC 9110 §9.3.6).
                Some(status) if status.is_success() => {
                    return if answer.is_empty() {
                        Ok(())
                    } else {
                        Err("it spoke before it was asked".into())
                    };
                }
                Some(status) if status == 407 => {
                    return Err("it does not take our credentials (407)".into());
                }
                Some(status) => return Err(format!("it answered {}", status.as_u16())),
                None => {}
            }
            if stream.read_buf(&mut answer).await.map_err(failed)? == 0 {
                return Err("it closed the connection".into());
            }
        }
    }
}
