//! The agent's side of HTTP/1.1.

use std::future::Future;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::body::{Body, HeadError, Reader};
use super::parse::{self, Malformed, Request, Target};
use super::write;
use crate::exchange::{self, After, Gone, Reply, RequestBody};
use crate::host::Authority;
use crate::limits;
use crate::message::{BodyError, Frame, Headers, ResponseHead, Size};
use crate::net::write_both;
use crate::patience::{Exhausted, within};
use crate::record::Entry;
use crate::sidecar::Sidecar;
use crate::upstream::pool::Pool;
use crate::verdict::{Cause, Refusal};
use crate::ws::handshake;

/// Responses up to this size wait for their first bytes, so that head and body are one write.
const JOINED: u64 = 64 * 1024;

/// Serves a tunnel's requests one after the other, each with a verdict of its own.
pub fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(
    sidecar: &Arc<Sidecar>,
    pool: &Pool,
    stream: S,
) -> impl Future<Output = ()> + Send {
    // Here, and not in the task, which would keep the room that the stream had in it.
    let (read, write) = tokio::io::split(stream);
    serve_both(sidecar, pool, read, write)
}

async fn serve_both<S: AsyncRead + AsyncWrite + Send + Unpin>(
    sidecar: &Arc<Sidecar>,
    pool: &Pool,
    read: ReadHalf<S>,
    write: WriteHalf<S>,
) {
    let mut reader = Reader::new(read, BytesMut::new());
    let mut writer = Writer::new(write);
    let mut stopping = std::pin::pin!(sidecar.stopping.cancelled());
    loop {
        let head = tokio::select! {
            head = reader.head(limits::IDLE, parse::request) => head,
            () = &mut stopping => break,
        };
        let request = match head {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(error) => {
                Box::pin(refuse_head(sidecar, pool, &mut writer, error)).await;
                hang_up(&mut reader, &mut writer).await;
                break;
            }
        };
        let keep_alive = request.keep_alive;
        let target = match &request.target {
            Target::Origin(target) => target.clone(),
            Target::Absolute { .. } | Target::Authority(_) => {
                let cause =
                    Cause::Malformed("inside a tunnel only a path is a request target".into());
                Box::pin(refuse(sidecar, pool, &mut writer, cause)).await;
                hang_up(&mut reader, &mut writer).await;
                break;
            }
        };
        let after = one(sidecar, pool, request, target, &mut reader, &mut writer).await;
        match after {
            After::Reusable if keep_alive && writer.keep_alive => {}
            After::Reusable => break,
            After::Unread => {
                hang_up(&mut reader, &mut writer).await;
                break;
            }
            // No close_notify and no last chunk: the agent must not take what it has for a whole response.
            After::Broken => return,
        }
    }
    writer.close().await;
}

/// Says that nothing more is answered, and reads on for a while: a connection that is closed over unread bytes is
/// reset, and the reset may overtake the answer.
pub async fn hang_up<S: AsyncRead + AsyncWrite + Send + Unpin>(
    reader: &mut Reader<ReadHalf<S>>,
    writer: &mut Writer<S>,
) {
    writer.close().await;
    reader.drain().await;
}

/// One request whose head is here, on a connection to a known origin.
pub async fn one<S: AsyncRead + AsyncWrite + Send + Unpin>(
    sidecar: &Arc<Sidecar>,
    pool: &Pool,
    request: Request,
    target: Bytes,
    reader: &mut Reader<ReadHalf<S>>,
    writer: &mut Writer<S>,
) -> After {
    writer.begin(&request);
    let host = request.host.clone().unwrap_or_default();
    if !pool.is_named_by(&host)
        && let Err(cause) = same_host(&host, &pool.authority, request.http10)
    {
        refuse(sidecar, pool, writer, cause).await;
        return After::Unread;
    }
    if handshake::is_asked(&request.headers) {
        let asked = exchange::websocket(sidecar, pool, &host, request, target, reader, writer);
        return Box::pin(asked).await;
    }
    let mut body = reader.body(request.framing, limits::BODY_IDLE).paced();
    let after = exchange::run(
        sidecar,
        pool,
        &host,
        request.into_head(target),
        &mut body,
        writer,
    )
    .await;
    // What was not read to its end cannot be followed by a next request.
    if after == After::Reusable && !body.is_done() {
        After::Unread
    } else {
        after
    }
}

fn same_host(host: &[u8], authority: &Authority, http10: bool) -> Result<(), Cause> {
    if host.is_empty() && http10 {
        return Ok(());
    }
    let text =
        std::str::from_utf8(host).map_err(|_| Cause::Malformed("Host is not text".into()))?;
    // A Host without a port means the port that the tunnel goes to; clients leave it out inside tunnels.
    let named = Authority::parse(text, authority.port).map_err(Cause::Host)?;
    if named == *authority {
        return Ok(());
    }
    Err(Cause::Identity(
        "Host is not the host that the connection was opened for".into(),
    ))
}

async fn refuse_head<S: AsyncWrite + Send + Unpin>(
    sidecar: &Arc<Sidecar>,
    pool: &Pool,
    writer: &mut Writer<S>,
    error: HeadError,
) {
    if let Some(cause) = head_cause(error) {
        refuse(sidecar, pool, writer, cause).await;
    }
}

/// `None` where the agent is gone and reads no answer.
pub fn head_cause(error: HeadError) -> Option<Cause> {
    match error {
        HeadError::Malformed(Malformed::TooLarge | Malformed::TooMany) => Some(Cause::HeadTooLarge),
        HeadError::Malformed(why) => Some(Cause::Malformed(why.to_string())),
        HeadError::Timeout => Some(Cause::AgentTimeout),
        HeadError::Io(_) => None,
    }
}

async fn refuse<S: AsyncWrite + Send + Unpin>(
    sidecar: &Arc<Sidecar>,
    pool: &Pool,
    writer: &mut Writer<S>,
    cause: Cause,
) {
    let entry = Entry::new(sidecar, &sidecar.ruling(), pool.scheme, &pool.authority);
    let refusal = Refusal::from(cause);
    sidecar.record_refusal(&entry, &refusal).await;
    let body = refusal.body(&entry.event, &entry.host, sidecar.fixed.explain.as_deref());
    // The connection closes in any case.
    let _gone = writer.refuse(&refusal, body, false).await;
}

impl<R: AsyncRead + Send + Unpin> RequestBody for Body<'_, R> {
    fn size(&self) -> Size {
        Body::size(self)
    }

    async fn gather(&mut self, bytes: usize, all: usize) -> Result<(), BodyError> {
        Body::gather(self, bytes, all).await
    }

    async fn frame(&mut self) -> Result<Option<Frame>, BodyError> {
        Body::frame(self).await
    }

    /// An agent that closes its sending side while its request waits for an operator counts as gone.
    async fn closed(&mut self) {
        Body::closed(self).await
    }
}

/// The agent's write side, and what is known of the response that is being written.
#[derive(Debug)]
pub struct Writer<S> {
    io: WriteHalf<S>,
    /// Of the response's head, while it waits for the first bytes of the body.
    waiting: BytesMut,
    chunked: bool,
    http10: bool,
    head_only: bool,
    pub keep_alive: bool,
}

impl<S: AsyncWrite + Send + Unpin> Writer<S> {
    pub fn new(io: WriteHalf<S>) -> Self {
        Self {
            io,
            waiting: BytesMut::new(),
            chunked: false,
            http10: false,
            head_only: false,
            keep_alive: true,
        }
    }

    pub fn io_mut(&mut self) -> &mut WriteHalf<S> {
        &mut self.io
    }

    pub fn into_inner(self) -> WriteHalf<S> {
        self.io
    }

    pub fn begin(&mut self, request: &Request) {
        self.http10 = request.http10;
        self.keep_alive = request.keep_alive;
        self.head_only = request.method == http::Method::HEAD;
        self.chunked = false;
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        match within(limits::WRITE, write_both(&mut self.io, bytes, &[])).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(Exhausted) => Err(Gone),
        }
    }

    async fn flush_with(&mut self, more: &[u8]) -> Result<(), Gone> {
        if self.waiting.is_empty() {
            return if more.is_empty() {
                Ok(())
            } else {
                self.write(more).await
            };
        }
        let mut out = std::mem::take(&mut self.waiting);
        out.extend_from_slice(more);
        self.write(&out).await
    }

    /// An orderly end: close_notify inside TLS.
    pub async fn close(&mut self) {
        let _gone = within(limits::DRAIN, self.io.shutdown()).await;
    }
}

/// The headers of every answer of ours.
pub fn own_headers(refusal: &Refusal) -> Vec<(&'static str, &'static str)> {
    let mut headers = vec![
        ("content-type", "application/json"),
        ("x-bottle-verdict", refusal.cause.kind().marker()),
        ("cache-control", "no-store"),
    ];
    if refusal.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        headers.push(("proxy-authenticate", "Basic realm=\"bot-bottle\""));
    }
    headers
}

impl<S: AsyncWrite + Send + Unpin> Reply for Writer<S> {
    async fn proceed(&mut self) -> Result<(), Gone> {
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await
    }

    async fn refuse(
        &mut self,
        refusal: &Refusal,
        mut body: Vec<u8>,
        reusable: bool,
    ) -> Result<(), Gone> {
        self.keep_alive = self.keep_alive && reusable;
        let status = refusal.status();
        if self.head_only {
            body.clear();
        }
        let phrase = status.canonical_reason().unwrap_or("Refused");
        let out = write::own(
            status,
            phrase,
            &own_headers(refusal),
            &body,
            self.keep_alive,
        );
        self.write(&out).await
    }

    async fn head(&mut self, head: ResponseHead, size: Option<Size>) -> Result<(), Gone> {
        let size = match size {
            // An HTTP/1.0 client knows no chunks: the body ends with the connection.
            Some(Size::Unknown) if self.http10 => {
                self.keep_alive = false;
                None
            }
            other => other,
        };
        self.chunked = size == Some(Size::Unknown);
        write::response(&mut self.waiting, &head, size, self.keep_alive);
        match size {
            Some(Size::Exact(length)) if length <= JOINED => Ok(()),
            _ => self.flush_with(&[]).await,
        }
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Gone> {
        if !self.chunked {
            return self.flush_with(&data).await;
        }
        let mut out = BytesMut::new();
        write::chunk(&mut out, &data);
        self.flush_with(&out).await
    }

    /// An agent may close its sending side and read on, so only a failing write tells.
    async fn gone(&mut self) {
        std::future::pending().await
    }

    async fn end(&mut self, trailers: Option<Headers>) -> Result<(), Gone> {
        if !self.chunked {
            return self.flush_with(&[]).await;
        }
        let mut out = BytesMut::new();
        write::last_chunk(&mut out, trailers.as_ref());
        self.flush_with(&out).await
    }
}
