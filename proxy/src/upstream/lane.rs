//! The connections of one tunnel to its origin, and sending a request over one.
//!
//! A pool belongs to one tunnel: nothing of one agent's connection is ever used by another. An HTTP/1.1 connection
//! goes back only after a request and a response that both ended properly.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::address::{self, Resolver};
use super::dial;
use crate::h1::body::{Body, HeadError, Reader};
use crate::h1::parse::{self, Framing};
use crate::h1::write;
use crate::h2side;
use crate::host::{Authority, Scheme};
use crate::limits;
use crate::message::{BodyError, Frame, Headers, RequestHead, ResponseHead, Size};
use crate::net::Origin;
use crate::tls;
use crate::verdict::Cause;

/// How a tunnel reaches its origin.
#[derive(Debug)]
pub struct Pool {
    resolver: Resolver,
    tls: tls::Upstream,
    pub scheme: Scheme,
    pub authority: Authority,
    allow_private: bool,
    idle: Mutex<Vec<H1>>,
    h2: AsyncMutex<Option<SendRequest<Bytes>>>,
    drivers: Mutex<Vec<JoinHandle<()>>>,
    speaks_h2: bool,
    /// An address that was dialled and is not public.
    private: OnceLock<IpAddr>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        for driver in self
            .drivers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            driver.abort();
        }
    }
}

impl Pool {
    /// Dials and verifies before the agent is told anything, so that no leaf is made for an origin that fails.
    pub async fn open(
        resolver: Resolver,
        tls: tls::Upstream,
        scheme: Scheme,
        authority: Authority,
        allow_private: bool,
        offer_h2: bool,
    ) -> Result<Self, Cause> {
        let mut pool = Self {
            resolver,
            tls,
            scheme,
            authority,
            allow_private,
            idle: Mutex::default(),
            h2: AsyncMutex::default(),
            drivers: Mutex::default(),
            speaks_h2: false,
            private: OnceLock::new(),
        };
        let (stream, h2) = match pool.dial(offer_h2).await {
            // It speaks HTTP/2 only; an agent that does not is translated for.
            Err(Cause::UpstreamTls(tls::NO_ALPN, _)) if !offer_h2 => pool.dial(true).await?,
            other => other?,
        };
        if h2 {
            let sender = pool.handshake(stream).await?;
            pool.h2 = AsyncMutex::new(Some(sender));
            pool.speaks_h2 = true;
        } else {
            pool.park(H1::new(stream));
        }
        Ok(pool)
    }

    pub fn speaks_h2(&self) -> bool {
        self.speaks_h2
    }

    pub fn private_address(&self) -> Option<IpAddr> {
        self.private.get().copied()
    }

    /// A connection that can take a request now.
    pub async fn lane(&self) -> Result<Lane, Cause> {
        if self.speaks_h2 {
            return self.h2_lane().await.map(Lane::H2);
        }
        loop {
            let Some(mut connection) = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
            else {
                break;
            };
            if connection.is_quiet() {
                connection.reused = true;
                return Ok(Lane::H1(Box::new(connection)));
            }
        }
        self.fresh_h1().await
    }

    /// A connection that nothing was sent on yet.
    pub async fn fresh_h1(&self) -> Result<Lane, Cause> {
        let (stream, _) = self.dial(false).await?;
        Ok(Lane::H1(Box::new(H1::new(stream))))
    }

    pub fn park(&self, connection: H1) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < 8 {
            idle.push(connection);
        }
    }

    async fn h2_lane(&self) -> Result<SendRequest<Bytes>, Cause> {
        let mut slot = self.h2.lock().await;
        if let Some(sender) = slot.clone()
            && let Ok(Ok(sender)) = timeout(limits::WRITE, sender.ready()).await
        {
            return Ok(sender);
        }
        let (stream, h2) = self.dial(true).await?;
        if !h2 {
            return Err(Cause::UpstreamProtocol(
                "it spoke HTTP/2 before and does not any more".into(),
            ));
        }
        let sender = self.handshake(stream).await?;
        *slot = Some(sender.clone());
        sender
            .ready()
            .await
            .map_err(|error| Cause::UpstreamProtocol(error.to_string()))
    }

    async fn dial(&self, offer_h2: bool) -> Result<(Origin, bool), Cause> {
        let stream = dial::tcp(&self.resolver, &self.authority, self.allow_private).await?;
        let address = stream
            .peer_addr()
            .map_err(|error| Cause::Connect(error.to_string()))?
            .ip();
        if !address::is_public(address) {
            self.private.get_or_init(|| address);
        }
        match self.scheme {
            Scheme::Http => Ok((Origin::Plain(stream), false)),
            Scheme::Https => {
                let config = if offer_h2 {
                    &self.tls.both
                } else {
                    &self.tls.http1
                };
                let (stream, h2) = dial::tls(config, &self.authority, stream).await?;
                Ok((Origin::Tls(Box::new(stream)), h2))
            }
        }
    }

    async fn handshake(&self, stream: Origin) -> Result<SendRequest<Bytes>, Cause> {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(limits::H2_STREAM_WINDOW)
            .initial_connection_window_size(limits::H2_CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(limits::HEAD_BYTES).unwrap_or(u32::MAX))
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(|error| Cause::UpstreamProtocol(error.to_string()))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an origin's connection ended");
            }
        });
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|driver| !driver.is_finished());
        drivers.push(driver);
        drop(drivers);
        Ok(sender)
    }
}

/// A connection for one exchange.
#[derive(Debug)]
pub enum Lane {
    H1(Box<H1>),
    H2(SendRequest<Bytes>),
}

/// An HTTP/1.1 connection to an origin.
#[derive(Debug)]
pub struct H1 {
    reader: Reader<ReadHalf<Origin>>,
    writer: WriteHalf<Origin>,
    pub reused: bool,
}

impl H1 {
    fn new(stream: Origin) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: Reader::new(reader, BytesMut::new()),
            writer,
            reused: false,
        }
    }

    /// False where the origin closed, or said something that it was not asked for.
    fn is_quiet(&mut self) -> bool {
        if self.reader.has_leftover() {
            return false;
        }
        let mut byte = [0u8; 1];
        let mut read = std::pin::pin!(self.reader.io_mut().read(&mut byte));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        read.as_mut().poll(&mut cx).is_pending()
    }
}

/// Why no response came.
#[derive(Debug)]
pub enum SendFailure {
    /// The connection was dead before anything of a response came: another one may be tried.
    Dead(String),
    Failed(Cause),
}

impl Lane {
    /// Sends a request of which everything was judged.
    pub async fn send_whole(
        &mut self,
        pool: &Pool,
        head: &RequestHead,
        body: &Bytes,
        trailers: Option<&Headers>,
    ) -> Result<Pending<'_>, SendFailure> {
        let size = match (trailers, body.len()) {
            (Some(_), _) => Size::Unknown,
            (None, 0) => Size::Empty,
            (None, length) => Size::Exact(length as u64),
        };
        match self {
            Self::H1(connection) => {
                let mut out = BytesMut::with_capacity(1024 + body.len());
                write::request(&mut out, head, &pool.authority.to_header(pool.scheme), size);
                match trailers {
                    None => out.extend_from_slice(body),
                    Some(trailers) => {
                        write::chunk(&mut out, body);
                        write::last_chunk(&mut out, Some(trailers));
                    }
                }
                // Head and body in one write: one record, one system call, one wake-up of the origin.
                let sent = write_all(&mut connection.writer, &out).await;
                if let Err(error) = &sent {
                    // The origin may have answered without wanting the rest; the response decides.
                    tracing::debug!(%error, "a request was not taken");
                }
                let reader = &mut connection.reader;
                Ok(Pending::H1 {
                    reader,
                    method: head.method.clone(),
                    taken: sent.is_ok(),
                })
            }
            Self::H2(sender) => {
                let end = size == Size::Empty;
                let request = h2_request(pool, head, size)?;
                let (response, mut stream) = sender
                    .send_request(request, end)
                    .map_err(|error| SendFailure::Dead(error.to_string()))?;
                if !end {
                    let sent = async {
                        h2side::send(&mut stream, body.clone(), trailers.is_none()).await?;
                        if let Some(trailers) = trailers {
                            stream.send_trailers(h2side::to_map(trailers).unwrap_or_default())?;
                        }
                        Ok::<_, h2side::SendError>(())
                    };
                    if let Err(error) = sent.await {
                        // The origin may have answered without wanting the rest; the response decides.
                        tracing::debug!(%error, "a request body was not taken");
                    }
                }
                Ok(Pending::H2 {
                    response,
                    method: head.method.clone(),
                })
            }
        }
    }

    /// Sends the head of a request whose body follows as it is judged.
    pub async fn start(
        &mut self,
        pool: &Pool,
        head: &RequestHead,
        size: Size,
    ) -> Result<(Sink<'_>, Pending<'_>), SendFailure> {
        match self {
            Self::H1(connection) => {
                let mut out = BytesMut::new();
                write::request(&mut out, head, &pool.authority.to_header(pool.scheme), size);
                write_all(&mut connection.writer, &out)
                    .await
                    .map_err(|error| SendFailure::Dead(error.to_string()))?;
                let sink = Sink::H1 {
                    writer: &mut connection.writer,
                    chunked: size == Size::Unknown,
                };
                let reader = &mut connection.reader;
                Ok((
                    sink,
                    Pending::H1 {
                        reader,
                        method: head.method.clone(),
                        taken: true,
                    },
                ))
            }
            Self::H2(sender) => {
                let request = h2_request(pool, head, size)?;
                let (response, stream) = sender
                    .send_request(request, false)
                    .map_err(|error| SendFailure::Dead(error.to_string()))?;
                Ok((
                    Sink::H2(stream),
                    Pending::H2 {
                        response,
                        method: head.method.clone(),
                    },
                ))
            }
        }
    }
}

fn h2_request(
    pool: &Pool,
    head: &RequestHead,
    size: Size,
) -> Result<http::Request<()>, SendFailure> {
    let failed = || {
        SendFailure::Failed(Cause::Malformed(
            "a header cannot be written in HTTP/2".into(),
        ))
    };
    let uri = http::Uri::builder()
        .scheme(pool.scheme.as_str())
        .authority(pool.authority.to_header(pool.scheme))
        .path_and_query(head.target.as_ref())
        .build()
        .map_err(|_| failed())?;
    let mut map = h2side::to_map(&head.headers).ok_or_else(failed)?;
    map.remove(http::header::HOST);
    if let Size::Exact(length) = size {
        map.insert(http::header::CONTENT_LENGTH, length.into());
    }
    if head.takes_trailers {
        map.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    }
    let mut request = http::Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = map;
    Ok(request)
}

/// Where a streamed body goes. Dropped before [`Sink::end`], the origin has no complete request.
#[derive(Debug)]
pub enum Sink<'a> {
    H1 {
        writer: &'a mut WriteHalf<Origin>,
        chunked: bool,
    },
    H2(h2::SendStream<Bytes>),
}

impl Sink<'_> {
    pub async fn data(&mut self, data: Bytes) -> Result<(), String> {
        match self {
            Self::H1 {
                writer,
                chunked: true,
            } => {
                let mut out = BytesMut::new();
                write::chunk(&mut out, &data);
                write_all(writer, &out)
                    .await
                    .map_err(|error| error.to_string())
            }
            Self::H1 {
                writer,
                chunked: false,
            } => write_all(writer, &data)
                .await
                .map_err(|error| error.to_string()),
            Self::H2(stream) => h2side::send(stream, data, false)
                .await
                .map_err(|error| error.to_string()),
        }
    }

    pub async fn end(&mut self, trailers: Option<&Headers>) -> Result<(), String> {
        match self {
            Self::H1 {
                writer,
                chunked: true,
            } => {
                let mut out = BytesMut::new();
                write::last_chunk(&mut out, trailers);
                write_all(writer, &out)
                    .await
                    .map_err(|error| error.to_string())
            }
            Self::H1 { chunked: false, .. } => Ok(()),
            Self::H2(stream) => match trailers {
                None => stream
                    .send_data(Bytes::new(), true)
                    .map_err(|error| error.to_string()),
                Some(trailers) => stream
                    .send_trailers(h2side::to_map(trailers).unwrap_or_default())
                    .map_err(|error| error.to_string()),
            },
        }
    }

    /// The origin must not take what it has for a request. On HTTP/1.1 the connection is dropped by its owner,
    /// short of its length or its last chunk.
    pub fn abort(&mut self) {
        if let Self::H2(stream) = self {
            stream.send_reset(h2::Reason::CANCEL);
        }
    }
}

/// A response that is on its way.
#[derive(Debug)]
pub enum Pending<'a> {
    /// `taken`: all of the request was written.
    H1 {
        reader: &'a mut Reader<ReadHalf<Origin>>,
        method: Method,
        taken: bool,
    },
    H2 {
        response: h2::client::ResponseFuture,
        method: Method,
    },
}

impl<'a> Pending<'a> {
    pub async fn response(self) -> Result<Response<'a>, SendFailure> {
        match self {
            Self::H1 {
                reader,
                method,
                taken,
            } => {
                for _ in 0..limits::INFORMATIONAL {
                    let head = reader
                        .head(limits::IDLE, |buf| parse::response(buf, &method))
                        .await;
                    let response = match head {
                        Ok(Some(response)) => response,
                        Ok(None) => {
                            return Err(SendFailure::Dead(
                                "it closed the connection without an answer".into(),
                            ));
                        }
                        Err(HeadError::Io(error)) => {
                            return Err(SendFailure::Dead(error.to_string()));
                        }
                        Err(HeadError::Timeout) => {
                            return Err(SendFailure::Failed(Cause::UpstreamTimeout));
                        }
                        Err(HeadError::Malformed(why)) => {
                            return Err(SendFailure::Failed(Cause::UpstreamProtocol(
                                why.to_string(),
                            )));
                        }
                    };
                    if response.head.status == http::StatusCode::SWITCHING_PROTOCOLS {
                        return Err(SendFailure::Failed(Cause::UpstreamProtocol(
                            "it switched protocols unasked".into(),
                        )));
                    }
                    if response.head.status.is_informational() {
                        continue;
                    }
                    let body = reader.body(response.framing, limits::IDLE);
                    let size = (response.framing != Framing::Empty).then(|| body.size());
                    return Ok(Response {
                        head: response.head,
                        size,
                        keep_alive: response.keep_alive && taken,
                        body: ResponseBody::H1(body),
                    });
                }
                Err(SendFailure::Failed(Cause::UpstreamProtocol(
                    "it has only informational answers".into(),
                )))
            }
            Self::H2 { response, method } => {
                let response = match timeout(limits::IDLE, response).await {
                    Err(_) => return Err(SendFailure::Failed(Cause::UpstreamTimeout)),
                    Ok(Err(error))
                        if error.is_remote()
                            && error.reason() == Some(h2::Reason::REFUSED_STREAM) =>
                    {
                        return Err(SendFailure::Dead(error.to_string()));
                    }
                    Ok(Err(error)) => {
                        return Err(SendFailure::Failed(Cause::UpstreamProtocol(
                            error.to_string(),
                        )));
                    }
                    Ok(Ok(response)) => response,
                };
                let (parts, body) = response.into_parts();
                let mut headers = h2side::from_map(&parts.headers);
                let declared = headers
                    .first("content-length")
                    .and_then(|value| std::str::from_utf8(value).ok())
                    .and_then(|text| text.parse().ok());
                headers.remove("content-length");
                let bodiless = method == Method::HEAD
                    || matches!(
                        parts.status,
                        http::StatusCode::NO_CONTENT | http::StatusCode::NOT_MODIFIED
                    );
                let size = match (body.is_end_stream(), declared) {
                    _ if bodiless => None,
                    (true, Some(1..)) => {
                        return Err(SendFailure::Failed(Cause::UpstreamProtocol(
                            "a body shorter than its length".into(),
                        )));
                    }
                    // No body, where HTTP/1.1 would wait for one to end with the connection.
                    (true, _) => Some(Size::Exact(0)),
                    (false, Some(length)) => Some(Size::Exact(length)),
                    (false, None) => Some(Size::Unknown),
                };
                // A bodiless answer (HEAD, 304) keeps the length that it tells of.
                if let (None, Some(length)) = (size, declared) {
                    headers.push(&b"content-length"[..], length.to_string());
                }
                let head = ResponseHead {
                    status: parts.status,
                    headers,
                };
                Ok(Response {
                    head,
                    size,
                    keep_alive: true,
                    body: ResponseBody::H2(Box::new(body), false),
                })
            }
        }
    }
}

#[derive(Debug)]
pub struct Response<'a> {
    pub head: ResponseHead,
    /// `None`: there is no body at all.
    pub size: Option<Size>,
    pub keep_alive: bool,
    pub body: ResponseBody<'a>,
}

#[derive(Debug)]
pub enum ResponseBody<'a> {
    H1(Body<'a, ReadHalf<Origin>>),
    H2(Box<h2::RecvStream>, bool),
}

impl ResponseBody<'_> {
    pub async fn frame(&mut self) -> Result<Option<Frame>, BodyError> {
        match self {
            Self::H1(body) => body.frame().await,
            Self::H2(_, true) => Ok(None),
            Self::H2(stream, done) => {
                let data = timeout(limits::IDLE, h2side::receive(stream))
                    .await
                    .map_err(|_| BodyError::Timeout)?;
                if let Some(data) = data {
                    return Ok(Some(Frame::Data(data?)));
                }
                *done = true;
                let trailers = timeout(limits::IDLE, stream.trailers())
                    .await
                    .map_err(|_| BodyError::Timeout)??;
                Ok(trailers.map(|map| Frame::Trailers(h2side::from_map(&map))))
            }
        }
    }

    pub fn is_done(&self) -> bool {
        match self {
            Self::H1(body) => body.is_done(),
            Self::H2(_, done) => *done,
        }
    }
}

async fn write_all(writer: &mut WriteHalf<Origin>, bytes: &[u8]) -> io::Result<()> {
    timeout(limits::WRITE, async {
        writer.write_all(bytes).await?;
        writer.flush().await
    })
    .await
    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
