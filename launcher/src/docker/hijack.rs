//! The raw streams of attach and exec: a request that the engine answers by making the connection a pipe.
//!
//! The client library has these too, and takes the first bytes of a terminal's output for a header where they look like
//! one, which an agent can see to. So whether a stream has headers is said here, not guessed.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::engine::Engine;

pub type Reader = ReadHalf<TokioIo<Upgraded>>;
pub type Writer = WriteHalf<TokioIo<Upgraded>>;

/// An engine cuts its frames at 32 KiB.
const MAX_FRAME: usize = 1024 * 1024;
const MAX_ANSWER: usize = 64 * 1024;

/// `POST path`, and both directions of what the connection becomes. Must run on the engine's thread.
pub async fn open(engine: &Engine, path: &str, body: Bytes) -> io::Result<(Reader, Writer)> {
    let patience = engine.patience();
    timeout(patience, dial(engine, path, body))
        .await
        .map_err(|_| late(patience))?
}

fn late(patience: Duration) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("the engine did not answer within {} s", patience.as_secs()),
    )
}

async fn dial(engine: &Engine, path: &str, body: Bytes) -> io::Result<(Reader, Writer)> {
    let stream = UnixStream::connect(&engine.socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    let version = engine.api_version();
    let request = Request::post(format!(
        "/v{}.{}{path}",
        version.major_version, version.minor_version
    ))
    .header(HOST, "docker")
    .header(CONNECTION, "Upgrade")
    .header(UPGRADE, "tcp")
    .header(CONTENT_TYPE, "application/json")
    .body(Full::new(body))
    .map_err(io::Error::other)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(io::Error::other)?
            .to_bytes();
        let message = serde_json::from_slice::<serde_json::Value>(&answer)
            .ok()
            .and_then(|answer| Some(answer.get("message")?.as_str()?.to_owned()))
            .unwrap_or_else(|| String::from_utf8_lossy(&answer).into_owned());
        return Err(io::Error::other(format!(
            "the engine answers {status}: {}",
            crate::escape::Escaped(message.trim())
        )));
    }
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(io::Error::other)?;
    Ok(tokio::io::split(TokioIo::new(upgraded)))
}

/// Which of a program's streams a piece came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Out,
    Err,
}

/// The next piece of a stream with headers; `None` at its end.
pub async fn next(reader: &mut Reader) -> io::Result<Option<(Source, Vec<u8>)>> {
    let mut header = [0u8; 8];
    match reader.read_exact(&mut header).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let [kind, _, _, _, a, b, c, d] = header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(io::Error::other)?;
    if length > MAX_FRAME {
        return Err(io::Error::other("a piece of output is too long"));
    }
    let mut piece = vec![0; length];
    reader.read_exact(&mut piece).await?;
    let source = if kind == 2 { Source::Err } else { Source::Out };
    Ok(Some((source, piece)))
}
