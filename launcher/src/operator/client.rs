//! A client of the control API: one connection a request, bounded in time and size.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::escape::Escaped;

const PATIENCE: Duration = Duration::from_secs(20);
const MAX_ANSWER: usize = 8 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0:?} is not the address of a control API: unix:/path or 127.0.0.1:PORT")]
    Address(String),
    #[error("its sidecar cannot be reached at {0}: {1}")]
    Unreachable(String, String),
    #[error("its sidecar does not answer")]
    Late,
    #[error("{message}")]
    Refused { status: u16, message: String },
    #[error("its sidecar said what is not understood: {0}")]
    Answer(String),
}

#[derive(Clone, Debug)]
enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

#[derive(Clone)]
pub struct Client {
    address: Address,
    shown: String,
    token: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.shown)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Problem {
    error: String,
}

impl Client {
    pub fn new(address: &str, token: String) -> Result<Self, ClientError> {
        let parsed = match address.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Some(Address::Unix(path.into())),
            Some(_) => None,
            None => address.parse().ok().map(Address::Tcp),
        };
        Ok(Self {
            address: parsed.ok_or_else(|| ClientError::Address(address.to_owned()))?,
            shown: address.to_owned(),
            token,
        })
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::DELETE, path, None).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<T, ClientError> {
        let unreachable =
            |error: std::io::Error| ClientError::Unreachable(self.shown.clone(), error.to_string());
        let asked = async {
            match &self.address {
                Address::Unix(path_) => {
                    let stream = tokio::net::UnixStream::connect(path_)
                        .await
                        .map_err(unreachable)?;
                    self.exchange(stream, method, path, body).await
                }
                Address::Tcp(address) => {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "to the control API on the host's own loopback, from the operator's side"
                    )]
                    let stream = tokio::net::TcpStream::connect(address)
                        .await
                        .map_err(unreachable)?;
                    self.exchange(stream, method, path, body).await
                }
            }
        };
        let (status, answer) = timeout(PATIENCE, asked)
            .await
            .map_err(|_| ClientError::Late)??;
        let wrong =
            |error: serde_json::Error| ClientError::Answer(Escaped(&error.to_string()).to_string());
        if status >= 400 {
            let problem: Problem = serde_json::from_slice(&answer).map_err(wrong)?;
            let message = Escaped(&problem.error).to_string();
            return Err(ClientError::Refused { status, message });
        }
        serde_json::from_slice(&answer).map_err(wrong)
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<(u16, Bytes), ClientError> {
        let failed = |error: hyper::Error| ClientError::Answer(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        let driver = tokio::spawn(connection);
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "control")
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientError::Answer(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let answer = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| ClientError::Answer(error.to_string()))?;
        driver.abort();
        Ok((status, answer.to_bytes()))
    }
}
