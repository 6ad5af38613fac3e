//! A connection for one exchange, and sending a request over it.

use std::io;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, ReadHalf, WriteHalf};

use super::pool::{Pool, RouteKey};
use super::response::Pending;
use crate::h1::body::Reader;
use crate::h1::write;
use crate::h2side;
use crate::limits;
use crate::message::{Headers, RequestHead, Size};
use crate::net::{Origin, write_both};
use crate::patience::{Exhausted, within};
use crate::verdict::Cause;

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
    /// Whose requests it carried.
    pub route: Option<RouteKey>,
}

impl H1 {
    pub(super) fn new(stream: Origin) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: Reader::new(reader, BytesMut::new()),
            writer,
            reused: false,
            route: None,
        }
    }

    /// For another protocol than HTTP, once the origin switched to it.
    pub fn into_parts(self) -> (Reader<ReadHalf<Origin>>, WriteHalf<Origin>) {
        (self.reader, self.writer)
    }

    /// False where the origin closed, or said something that it was not asked for.
    pub(super) fn is_quiet(&mut self) -> bool {
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
        let size = write::size(body, trailers);
        match self {
            Self::H1(connection) => {
                let mut out = BytesMut::with_capacity(1024);
                // Head and body in one write: one record, one system call, one wake-up of the origin.
                let sent = if trailers.is_none() {
                    write::request(&mut out, head, pool.host_header(), size);
                    timed(write_both(&mut connection.writer, &out, body)).await
                } else {
                    write::whole(&mut out, head, pool.host_header(), body, trailers);
                    write_all(&mut connection.writer, &out).await
                };
                if let Err(error) = &sent {
                    // The origin may have answered without wanting the rest; the response decides.
                    tracing::debug!(%error, "a request was not taken");
                }
                let reader = &mut connection.reader;
                Ok(Pending::H1 {
                    reader,
                    method: head.method.clone(),
                    taken: sent.is_ok(),
                    may_switch: false,
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
                write::request(&mut out, head, pool.host_header(), size);
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
                        may_switch: false,
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
        .authority(pool.host_header())
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

async fn write_all(writer: &mut WriteHalf<Origin>, bytes: &[u8]) -> io::Result<()> {
    timed(write_both(writer, bytes, &[])).await
}

async fn timed(write: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    within(limits::WRITE, write)
        .await
        .map_err(|Exhausted| io::Error::from(io::ErrorKind::TimedOut))?
}
