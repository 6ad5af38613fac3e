//! The agent's side of HTTP/2: a connection's streams, each with a verdict of its own.

use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::exchange::{self, After, Gone, Reply, RequestBody};
use crate::h1::agent::own_headers;
use crate::h2side;
use crate::host::Authority;
use crate::limits;
use crate::message::{BodyError, Frame, Headers, RequestHead, ResponseHead, Size};
use crate::record::Entry;
use crate::sidecar::Sidecar;
use crate::upstream::pool::Pool;
use crate::verdict::{Cause, Refusal};

pub async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    sidecar: &Arc<Sidecar>,
    pool: Arc<Pool>,
    stream: S,
) {
    let handshake = h2::server::Builder::new()
        .initial_window_size(limits::H2_STREAM_WINDOW)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW)
        .max_concurrent_streams(limits::H2_STREAMS)
        .max_header_list_size(u32::try_from(limits::HEAD_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits::H2_RESETS)
        .max_concurrent_reset_streams(limits::H2_RESETS)
        .max_local_error_reset_streams(Some(limits::H2_RESETS))
        .max_send_buffer_size(256 * 1024)
        .handshake::<_, Bytes>(stream);
    let Ok(Ok(mut connection)) = timeout(limits::HANDSHAKE, handshake).await else {
        return;
    };
    let mut streams = JoinSet::new();
    let mut stopping = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = sidecar.stopping.cancelled(), if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
                continue;
            }
            // Reaped as they end; a panic ends its own stream alone.
            Some(ended) = streams.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!("a request ended in a panic; it was not forwarded further");
                }
                continue;
            }
            () = tokio::time::sleep(limits::IDLE), if streams.is_empty() => {
                connection.graceful_shutdown();
                None
            }
        };
        match accepted {
            Some(Ok((request, respond))) => {
                let (sidecar, pool) = (Arc::clone(sidecar), Arc::clone(&pool));
                streams.spawn(async move { one(&sidecar, &pool, request, respond).await });
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "an agent's connection failed");
                return;
            }
            None => return,
        }
    }
}

async fn one(
    sidecar: &Arc<Sidecar>,
    pool: &Pool,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (parts, recv) = request.into_parts();
    let mut reply = StreamReply {
        respond,
        stream: None,
    };
    let mut headers = h2side::from_map(&parts.headers);
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let judged = same_host(parts.uri.scheme_str(), authority, &headers, pool)
        .and_then(|()| plain_target(target));
    if let Err(cause) = judged {
        let entry = Entry::new(sidecar, &sidecar.ruling(), pool.scheme, &pool.authority);
        let refusal = Refusal::from(cause);
        sidecar.record_refusal(&entry, &refusal).await;
        let body = refusal.body(&entry.event, &entry.host, sidecar.fixed.explain.as_deref());
        let _gone = reply.refuse(&refusal, body, false).await;
        return;
    }
    let host = Bytes::copy_from_slice(authority.unwrap_or_default().as_bytes());
    headers.remove("host");
    join_cookies(&mut headers);
    let head = RequestHead {
        method: parts.method,
        target: Bytes::copy_from_slice(target.as_bytes()),
        expects_continue: headers
            .first("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")),
        takes_trailers: true,
        headers,
    };
    let size = if recv.is_end_stream() {
        Size::Empty
    } else {
        // h2 holds the DATA frames to the content-length that was declared.
        let declared = head
            .headers
            .first("content-length")
            .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        declared.map_or(Size::Unknown, Size::Exact)
    };
    let mut body = StreamBody {
        recv,
        size,
        done: size == Size::Empty,
    };
    let after = exchange::run(sidecar, pool, &host, head, &mut body, &mut reply).await;
    if after == After::Broken
        && let Some(stream) = &mut reply.stream
    {
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    }
}

fn same_host(
    scheme: Option<&str>,
    authority: Option<&str>,
    headers: &Headers,
    pool: &Pool,
) -> Result<(), Cause> {
    if scheme != Some(pool.scheme.as_str()) {
        return Err(Cause::Identity(
            "the scheme is not the one that the connection was opened for".into(),
        ));
    }
    let mut hosts = headers.all("host");
    let host = hosts.next().map(|value| std::str::from_utf8(value));
    if hosts.next().is_some() {
        return Err(Cause::Malformed("more than one Host".into()));
    }
    let named = [authority.map(Ok), host].into_iter().flatten();
    let mut any = false;
    for text in named {
        any = true;
        let text = text.map_err(|_| Cause::Malformed("Host is not text".into()))?;
        let named = Authority::parse(text, pool.authority.port).map_err(Cause::Host)?;
        if named != pool.authority {
            return Err(Cause::Identity(
                "the authority is not the host that the connection was opened for".into(),
            ));
        }
    }
    if any {
        Ok(())
    } else {
        Err(Cause::Malformed("neither :authority nor Host".into()))
    }
}

/// As strict as HTTP/1.1 is read: what goes on may be HTTP/1.1.
fn plain_target(target: &str) -> Result<(), Cause> {
    if target.starts_with('/')
        && target
            .bytes()
            .all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#')
    {
        return Ok(());
    }
    Err(Cause::Malformed(
        "the request target holds what no target may".into(),
    ))
}

/// Cookie crumbs are one field for an HTTP/1.1 origin, and one value for the scan (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut Headers) {
    let crumbs: Vec<Bytes> = headers.all("cookie").cloned().collect();
    if crumbs.len() > 1 {
        headers.remove("cookie");
        headers.push(&b"cookie"[..], crumbs.join(&b"; "[..]));
    }
}

struct StreamBody {
    recv: RecvStream,
    size: Size,
    done: bool,
}

impl RequestBody for StreamBody {
    fn size(&self) -> Size {
        self.size
    }

    async fn frame(&mut self) -> Result<Option<Frame>, BodyError> {
        if self.done {
            return Ok(None);
        }
        let data = timeout(limits::BODY_IDLE, h2side::receive(&mut self.recv))
            .await
            .map_err(|_| BodyError::Timeout)?;
        if let Some(data) = data {
            return Ok(Some(Frame::Data(data?)));
        }
        self.done = true;
        let trailers = timeout(limits::BODY_IDLE, self.recv.trailers())
            .await
            .map_err(|_| BodyError::Timeout)??;
        Ok(trailers.map(|map| Frame::Trailers(h2side::from_map(&map))))
    }
}

struct StreamReply {
    respond: SendResponse<Bytes>,
    stream: Option<h2::SendStream<Bytes>>,
}

impl StreamReply {
    fn begin(&mut self, response: Response<()>, end: bool) -> Result<(), Gone> {
        self.stream = Some(
            self.respond
                .send_response(response, end)
                .map_err(|_| Gone)?,
        );
        Ok(())
    }

    async fn send(&mut self, data: Bytes, end: bool) -> Result<(), Gone> {
        let stream = self.stream.as_mut().ok_or(Gone)?;
        h2side::send(stream, data, end).await.map_err(|_| Gone)
    }
}

impl Reply for StreamReply {
    async fn proceed(&mut self) -> Result<(), Gone> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::CONTINUE;
        self.respond.send_informational(response).map_err(|_| Gone)
    }

    /// Once its handles are dropped, h2 tells an agent that still sends to stop (RST_STREAM with NO_ERROR, RFC 9113
    /// §8.1), after the answer. An explicit reset would throw away what of the answer is not yet written.
    async fn refuse(
        &mut self,
        refusal: &Refusal,
        body: Vec<u8>,
        _reusable: bool,
    ) -> Result<(), Gone> {
        let mut response = Response::builder().status(refusal.status());
        for (name, value) in own_headers(refusal) {
            response = response.header(name, value);
        }
        self.begin(response.body(()).map_err(|_| Gone)?, false)?;
        self.send(body.into(), true).await
    }

    async fn head(&mut self, head: ResponseHead, size: Option<Size>) -> Result<(), Gone> {
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = h2side::to_map(&head.headers).ok_or(Gone)?;
        if let Some(Size::Exact(length)) = size {
            response
                .headers_mut()
                .insert(http::header::CONTENT_LENGTH, length.into());
        }
        self.begin(response, size.is_none())?;
        if size.is_none() {
            self.stream = None;
        }
        Ok(())
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Gone> {
        self.send(data, false).await
    }

    async fn gone(&mut self) {
        let _reason = std::future::poll_fn(|cx| match &mut self.stream {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        })
        .await;
    }

    async fn end(&mut self, trailers: Option<Headers>) -> Result<(), Gone> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        match trailers {
            None => stream.send_data(Bytes::new(), true).map_err(|_| Gone),
            Some(trailers) => {
                let map = h2side::to_map(&trailers).ok_or(Gone)?;
                stream.send_trailers(map).map_err(|_| Gone)
            }
        }
    }
}
