//! The agent's side of HTTP/2: a connection's streams, each with a verdict of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::exchange::{self, After, Gone, Reply, RequestBody};
use crate::h1::agent::own_headers;
use crate::h2meter::Metered;
use crate::h2side;
use crate::host::Authority;
use crate::limits;
use crate::message::{BodyError, Frame, Headers, RequestHead, ResponseHead, Size};
use crate::pace::Pace;
use crate::record::Entry;
use crate::sidecar::Sidecar;
use crate::upstream::pool::Pool;
use crate::verdict::{Cause, Kind, Refusal};

pub async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    sidecar: &Arc<Sidecar>,
    pool: Arc<Pool>,
    stream: S,
) {
    let stream = Metered::new(stream);
    let flooded = stream.flooded();
    let handshake = h2::server::Builder::new()
        .initial_window_size(limits::H2_STREAM_WINDOW)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW)
        .max_concurrent_streams(limits::H2_STREAMS)
        .max_header_list_size(u32::try_from(limits::HEAD_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits::H2_RESETS)
        .max_concurrent_reset_streams(limits::H2_RESETS)
        .max_local_error_reset_streams(Some(limits::H2_RESETS))
        .max_send_buffer_size(256 * 1024)
        .enable_connect_protocol()
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
            Some(Ok(_)) if streams.len() >= limits::H2_TASKS => {
                return flood(sidecar, &pool).await;
            }
            Some(Ok((request, respond))) => {
                let (sidecar, pool) = (Arc::clone(sidecar), Arc::clone(&pool));
                streams.spawn(async move { one(&sidecar, &pool, request, respond).await });
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "an agent's connection failed");
                if flooded.load(Ordering::Relaxed) {
                    flood(sidecar, &pool).await;
                }
                return;
            }
            None => return,
        }
    }
}

async fn flood(sidecar: &Arc<Sidecar>, pool: &Pool) {
    let entry = Entry::new(sidecar, &sidecar.ruling(), pool.scheme, &pool.authority);
    let why = "a flood of HTTP/2 frames that carry nothing";
    let refusal = Refusal::from(Cause::Malformed(why.into()));
    sidecar.record_refusal(&entry, &refusal).await;
}

async fn refuse(sidecar: &Arc<Sidecar>, pool: &Pool, reply: &mut StreamReply, cause: Cause) {
    let entry = Entry::new(sidecar, &sidecar.ruling(), pool.scheme, &pool.authority);
    let refusal = Refusal::from(cause);
    sidecar.record_refusal(&entry, &refusal).await;
    let body = refusal.body(&entry.event, &entry.host, sidecar.fixed.explain.as_deref());
    let _gone = reply.refuse(&refusal, body, false).await;
}

async fn one(
    sidecar: &Arc<Sidecar>,
    pool: &Pool,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (parts, recv) = request.into_parts();
    let mut headers = h2side::from_map(&parts.headers);
    let mut reply = StreamReply {
        respond,
        stream: None,
        waiting: None,
        grpc: headers
            .first("content-type")
            .is_some_and(|value| exchange::is_grpc(value)),
    };
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let judged = same_host(parts.uri.scheme_str(), authority, &headers, pool)
        .and_then(|()| plain_target(target))
        .and_then(|()| few_fields(&headers));
    if let Err(cause) = judged {
        return refuse(sidecar, pool, &mut reply, cause).await;
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
    if let Some(protocol) = parts.extensions.get::<h2::ext::Protocol>() {
        if protocol.as_str() != "websocket" {
            return refuse(sidecar, pool, &mut reply, Cause::Upgrade).await;
        }
        exchange::websocket_over_h2(sidecar, pool, &host, head, recv, &mut reply).await;
        return;
    }
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
        idle: limits::BODY_IDLE,
        pace: Some(Pace::new()),
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

/// Cookies in crumbs are one field.
fn few_fields(headers: &Headers) -> Result<(), Cause> {
    let crumbs = headers.all("cookie").count().saturating_sub(1);
    if headers.len() - crumbs > limits::HEADERS {
        return Err(Cause::HeadTooLarge);
    }
    Ok(())
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
    idle: Duration,
    /// In place of `idle`, until time is to be taken.
    pace: Option<Pace>,
}

impl RequestBody for StreamBody {
    fn size(&self) -> Size {
        self.size
    }

    /// As long as a whole day; a stream that both sides leave open is ended by the side of the origin.
    fn take_your_time(&mut self) {
        self.idle = Duration::from_secs(24 * 60 * 60);
        self.pace = None;
    }

    async fn frame(&mut self) -> Result<Option<Frame>, BodyError> {
        if self.done {
            return Ok(None);
        }
        let patience = self.pace.as_ref().map_or(self.idle, Pace::patience);
        let begun = Instant::now();
        let data = timeout(patience, h2side::receive(&mut self.recv))
            .await
            .map_err(|_| BodyError::Timeout)?;
        if let (Some(pace), Some(Ok(data))) = (&mut self.pace, &data) {
            pace.came(begun.elapsed(), data.len());
        }
        if let Some(data) = data {
            return Ok(Some(Frame::Data(data?)));
        }
        self.done = true;
        let trailers = timeout(self.idle, self.recv.trailers())
            .await
            .map_err(|_| BodyError::Timeout)??;
        Ok(trailers.map(|map| Frame::Trailers(h2side::from_map(&map))))
    }

    /// A stream that was read to its end stays open for the answer; a reset shows in [`Reply::gone`].
    async fn closed(&mut self) {
        std::future::pending().await
    }
}

struct StreamReply {
    respond: SendResponse<Bytes>,
    stream: Option<h2::SendStream<Bytes>>,
    /// A head whose body is empty waits for the end: the stream may end with it, and gRPC tells that from an empty body.
    waiting: Option<Response<()>>,
    /// The agent reads the outcome off trailers.
    grpc: bool,
}

impl StreamReply {
    fn flush(&mut self) -> Result<(), Gone> {
        match self.waiting.take() {
            Some(response) => self.begin(response, false),
            None => Ok(()),
        }
    }

    fn begin(&mut self, response: Response<()>, end: bool) -> Result<(), Gone> {
        self.stream = Some(
            self.respond
                .send_response(response, end)
                .map_err(|_| Gone)?,
        );
        Ok(())
    }

    async fn send(&mut self, data: Bytes, end: bool) -> Result<(), Gone> {
        self.flush()?;
        let stream = self.stream.as_mut().ok_or(Gone)?;
        h2side::send(stream, data, end).await.map_err(|_| Gone)
    }
}

impl exchange::H2Reply for StreamReply {
    fn take_stream(&mut self) -> Option<h2::SendStream<Bytes>> {
        self.stream.take()
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
        if self.grpc {
            // A response that is only trailers, and they are its head.
            let mut response = Response::new(());
            *response.headers_mut() = grpc_status(refusal, &body).ok_or(Gone)?;
            self.begin(response, true)?;
            self.stream = None;
            return Ok(());
        }
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
        let empty = size == Some(Size::Exact(0));
        if let Some(Size::Exact(length)) = size
            && !(empty && self.grpc)
        {
            response
                .headers_mut()
                .insert(http::header::CONTENT_LENGTH, length.into());
        }
        if empty {
            self.waiting = Some(response);
            return Ok(());
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

    async fn cut_off(&mut self, refusal: &Refusal, body: &[u8]) -> Result<(), Gone> {
        if !self.grpc {
            return Err(Gone);
        }
        self.flush()?;
        let mut trailers = grpc_status(refusal, body).ok_or(Gone)?;
        trailers.remove("content-type");
        self.stream
            .as_mut()
            .ok_or(Gone)?
            .send_trailers(trailers)
            .map_err(|_| Gone)
    }

    async fn end(&mut self, trailers: Option<Headers>) -> Result<(), Gone> {
        if trailers.is_none()
            && let Some(response) = self.waiting.take()
        {
            self.begin(response, true)?;
            self.stream = None;
            return Ok(());
        }
        self.flush()?;
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

/// A refusal as gRPC's clients read it: PERMISSION_DENIED, INVALID_ARGUMENT or UNAVAILABLE, and in the message what
/// other agents get as the body.
fn grpc_status(refusal: &Refusal, body: &[u8]) -> Option<HeaderMap> {
    let status = match refusal.cause.kind() {
        Kind::Block => "7",
        Kind::Refuse => "3",
        Kind::Error => "14",
    };
    let mut message = String::new();
    for byte in body.trim_ascii() {
        match byte {
            b'%' | 0..0x20 | 0x7f.. => message.push_str(&format!("%{byte:02X}")),
            byte => message.push(char::from(*byte)),
        }
    }
    let mut headers = HeaderMap::new();
    let own = own_headers(refusal);
    let marker = own.iter().find(|(name, _)| *name == "x-bottle-verdict")?;
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("grpc-status", status),
        ("grpc-message", &message),
        *marker,
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).ok()?,
        );
    }
    Some(headers)
}
