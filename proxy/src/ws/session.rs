//! A WebSocket that is open: what the agent says is judged before the origin hears it, what the origin says is passed
//! on as it comes.
//!
//! A message up to the hold limit is held until its last fragment was judged; of a longer one goes on what the scanner
//! has released, in fragments of ours. Each direction is a pump; when one ends the other is stopped between two frames,
//! so that a close never lands inside of one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::deflate::{Inflater, Parameters};
use super::frame::{self, Opcode, Peer, Violation};
use super::message::{Decoder, Kind, Piece};
use crate::across::Across;
use crate::content::Codings;
use crate::exchange::{self, Exchange, Message, Window};
use crate::limits;
use crate::policy::Route;
use crate::upstream::lane::H1;
use crate::verdict::{self, Cause, Refusal};

/// What the handshake agreed on.
#[derive(Debug)]
pub struct Open<'a> {
    pub route: &'a Route,
    pub deflate: Option<Parameters>,
    pub connection: H1,
}

/// One end of the connection.
#[derive(Debug)]
pub struct Side<'a, R, W> {
    reader: &'a mut R,
    ahead: BytesMut,
    writer: &'a mut W,
}

impl<'a, R, W> Side<'a, R, W> {
    /// `ahead`: what was read already.
    pub fn new(reader: &'a mut R, ahead: BytesMut, writer: &'a mut W) -> Self {
        Self {
            reader,
            ahead,
            writer,
        }
    }
}

/// Why a direction ended.
#[derive(Debug)]
enum End {
    /// A close was passed on.
    Closed,
    /// The other direction ended first.
    Stopped,
    /// The connection is gone, or takes no more.
    Gone,
    Refused(Refusal),
    /// The peer that is read from broke the protocol.
    Violated(Violation),
    Quiet,
    Leaving,
}

/// What both directions know of each other.
#[derive(Debug)]
struct Shared {
    /// Directions in which a close was passed on.
    closed: AtomicUsize,
    stop: CancellationToken,
    leaving: CancellationToken,
    began: Instant,
    /// Milliseconds after `began` at which something was last read.
    read: AtomicU64,
}

/// Runs an open WebSocket to its end, both sides closed.
pub async fn run<R, W>(exchange: Exchange<'_>, open: Open<'_>, agent: Side<'_, R, W>)
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    let (mut origin_reader, mut origin_writer) = open.connection.into_parts();
    let origin_ahead = origin_reader.take_ahead();
    let shared = Shared {
        closed: AtomicUsize::new(0),
        stop: CancellationToken::new(),
        leaving: exchange.stopping(),
        began: Instant::now(),
        read: AtomicU64::new(0),
    };
    let inflater = |forgets: fn(&Parameters) -> bool| {
        let parameters = open.deflate.as_ref()?;
        Some(Inflater::new(forgets(parameters)))
    };
    let from_agent = Decoder::new(
        Peer::Client,
        inflater(|agreed| agreed.client_no_context_takeover),
    );
    let from_origin = Decoder::new(
        Peer::Server,
        inflater(|agreed| agreed.server_no_context_takeover),
    );
    let judge = exchange.inbound(open.route);
    let mut outbound = Outbound {
        exchange,
        route: open.route,
        input: Input::new(agent.reader, agent.ahead, from_agent),
        out: Out::new(&mut origin_writer, Peer::Client),
        across: Across::default(),
    };
    let mut inbound = Inbound {
        judge,
        input: Input::new(origin_reader.io_mut(), origin_ahead, from_origin),
        out: Out::new(agent.writer, Peer::Server),
    };
    let (up, down) = {
        let up = async {
            let end = outbound.pump(&shared).await;
            shared.ended(&end).await;
            end
        };
        let down = async {
            let end = inbound.pump(&shared).await;
            shared.ended(&end).await;
            end
        };
        tokio::join!(Box::pin(up), Box::pin(down))
    };
    finish(&mut outbound, &mut inbound, up, down).await;
}

/// Tells both sides why it is over, as far as they do not know.
async fn finish<R, W, OR, OW>(
    outbound: &mut Outbound<'_, '_, R, OW>,
    inbound: &mut Inbound<'_, OR, W>,
    up: End,
    down: End,
) where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
    OR: AsyncRead + Send + Unpin,
    OW: AsyncWrite + Send + Unpin,
{
    let orderly = matches!((&up, &down), (End::Closed, End::Closed));
    let close = match (up, down) {
        (End::Refused(refusal), _) => {
            let refusal = outbound.exchange.explained(refusal);
            outbound.exchange.record(&refusal).await;
            Some((
                refusal_code(&refusal),
                outbound.exchange.short_reason(&refusal),
            ))
        }
        (_, End::Refused(refusal)) => {
            outbound.exchange.record(&refusal).await;
            Some((
                refusal_code(&refusal),
                outbound.exchange.short_reason(&refusal),
            ))
        }
        (End::Violated(violation), _) => {
            // What cannot be understood is a refusal too, and is on record as one.
            let refusal = Cause::Malformed(violation.to_string()).into();
            outbound.exchange.record(&refusal).await;
            Some((violation.close_code(), violation.to_string()))
        }
        (_, End::Violated(violation)) => {
            let why = format!("in its WebSocket: {violation}");
            outbound
                .exchange
                .record(&Cause::UpstreamProtocol(why).into())
                .await;
            Some((violation.close_code(), violation.to_string()))
        }
        (End::Leaving, _) | (_, End::Leaving) => Some((1001, "the sidecar is stopping".into())),
        (End::Quiet, _) | (_, End::Quiet) => Some((1001, "nothing was said for too long".into())),
        _ => None,
    };
    outbound.exchange.remark(&inbound.judge).await;
    if let Some((code, reason)) = close {
        let payload = close_payload(code, &reason);
        let (_gone, _also) =
            tokio::join!(outbound.out.close(&payload), inbound.out.close(&payload));
    }
    // A connection that is closed over unread bytes is reset, and the reset may overtake the close.
    let agent = async {
        inbound.out.shut().await;
        outbound.input.drain().await;
    };
    // After two closes it is the server's to end the connection (RFC 6455 §7.1.1).
    let origin = async {
        if orderly {
            inbound.input.drain().await;
        }
        outbound.out.shut().await;
    };
    tokio::join!(agent, origin);
}

fn refusal_code(refusal: &Refusal) -> u16 {
    match (&refusal.cause, refusal.cause.kind()) {
        (Cause::Oversize { .. }, _) => 1009,
        (Cause::Stopping, _) => 1001,
        (_, verdict::Kind::Error) => 1011,
        _ => 1008,
    }
}

fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    let mut end = reason.len().min(frame::CONTROL_BYTES - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    payload.extend_from_slice(reason.as_bytes().get(..end).unwrap_or_default());
    payload
}

impl Shared {
    /// A close is answered by the other side, anything else is the end of both.
    async fn ended(&self, end: &End) {
        if matches!(end, End::Closed) && self.closed.fetch_add(1, Ordering::Relaxed) == 0 {
            let _answered = timeout(limits::CLOSE, self.stop.cancelled()).await;
        }
        self.stop.cancel();
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What is read from one side.
#[derive(Debug)]
struct Input<'a, R> {
    reader: &'a mut R,
    buf: BytesMut,
    decoder: Decoder,
}

impl<'a, R: AsyncRead + Unpin> Input<'a, R> {
    fn new(reader: &'a mut R, buf: BytesMut, decoder: Decoder) -> Self {
        Self {
            reader,
            buf,
            decoder,
        }
    }

    async fn next(&mut self, shared: &Shared) -> Result<Piece, End> {
        loop {
            if let Some(piece) = self.decoder.next(&mut self.buf).map_err(End::Violated)? {
                return Ok(piece);
            }
            let inside = self.decoder.is_held_up();
            let limit = if inside {
                limits::BODY_IDLE
            } else {
                limits::IDLE
            };
            let read = tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Err(End::Stopped),
                () = shared.leaving.cancelled() => return Err(End::Leaving),
                read = timeout(limit, more(self.reader, &mut self.buf)) => read,
            };
            match read {
                Ok(Ok(1..)) => shared.read.store(shared.now(), Ordering::Relaxed),
                Ok(Ok(0) | Err(_)) => return Err(End::Gone),
                Err(_) if inside => return Err(End::Quiet),
                // The other direction may have been busy.
                Err(_) => {
                    let quiet = shared
                        .now()
                        .saturating_sub(shared.read.load(Ordering::Relaxed));
                    if Duration::from_millis(quiet) >= limits::IDLE {
                        return Err(End::Quiet);
                    }
                }
            }
        }
    }

    /// Reads and throws away what still comes.
    async fn drain(&mut self) {
        let mut left = limits::DRAIN_BYTES;
        let mut sink = [0u8; 4096];
        let _ended = timeout(limits::DRAIN, async {
            while let Ok(read @ 1..) = self.reader.read(&mut sink).await {
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
        })
        .await;
    }
}

/// While nothing flows no buffer is held.
async fn more<R: AsyncRead + Unpin>(reader: &mut R, buf: &mut BytesMut) -> std::io::Result<usize> {
    if !buf.is_empty() {
        buf.reserve(limits::READ_BYTES);
        return reader.read_buf(buf).await;
    }
    *buf = BytesMut::new();
    let mut first = [0u8; 2048];
    let read = reader.read(&mut first).await?;
    buf.extend_from_slice(first.get(..read).unwrap_or_default());
    Ok(read)
}

/// What is written to one side.
#[derive(Debug)]
struct Out<'a, W> {
    io: &'a mut W,
    /// As whom we speak there.
    role: Peer,
    /// Fragments of a message were written, and not its last.
    begun: bool,
    /// A frame was written in part, or a close: nothing may follow.
    ended: bool,
}

impl<'a, W: AsyncWrite + Unpin> Out<'a, W> {
    fn new(io: &'a mut W, role: Peer) -> Self {
        Self {
            io,
            role,
            begun: false,
            ended: false,
        }
    }

    async fn data(&mut self, kind: Kind, data: &[u8], last: bool) -> Result<(), End> {
        let opcode = if self.begun {
            Opcode::Continuation
        } else {
            kind.opcode()
        };
        self.begun = !last;
        self.frame(last, opcode, data).await
    }

    async fn close(&mut self, payload: &[u8]) -> Result<(), End> {
        let sent = self.frame(true, Opcode::Close, payload).await;
        self.ended = true;
        sent
    }

    async fn frame(&mut self, fin: bool, opcode: Opcode, payload: &[u8]) -> Result<(), End> {
        if self.ended {
            return Err(End::Gone);
        }
        let key = match self.role {
            Peer::Server => None,
            Peer::Client => {
                let mut key = [0u8; 4];
                if getrandom::fill(&mut key).is_err() {
                    return Err(End::Refused(Cause::Internal.into()));
                }
                Some(key)
            }
        };
        let mut out = BytesMut::new();
        frame::put(&mut out, fin, opcode, payload, key);
        let written = timeout(limits::WRITE, async {
            self.io.write_all(&out).await?;
            self.io.flush().await
        });
        if matches!(written.await, Ok(Ok(()))) {
            return Ok(());
        }
        self.ended = true;
        Err(End::Gone)
    }

    async fn shut(&mut self) {
        let _gone = timeout(limits::DRAIN, self.io.shutdown()).await;
    }
}

/// From the origin to the agent, as it comes.
#[derive(Debug)]
struct Inbound<'a, R, W> {
    judge: exchange::Inbound,
    input: Input<'a, R>,
    out: Out<'a, W>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Inbound<'_, R, W> {
    fn judged(&mut self, data: Bytes, last: bool) -> Result<Bytes, Refusal> {
        let data = self.judge.data(data)?;
        if !last {
            return Ok(data);
        }
        let rest = self.judge.finish()?;
        Ok(if rest.is_empty() {
            data
        } else {
            [data, rest].concat().into()
        })
    }

    async fn pump(&mut self, shared: &Shared) -> End {
        loop {
            let passed = match self.input.next(shared).await {
                Ok(Piece::Data { kind, data, last }) => match self.judged(data, last) {
                    Ok(data) if data.is_empty() && !last => Ok(()),
                    Ok(data) => self.out.data(kind, &data, last).await,
                    Err(refusal) => Err(End::Refused(refusal)),
                },
                Ok(Piece::Ping(payload)) => {
                    let payload = self.judge.scrub(payload);
                    self.out.frame(true, Opcode::Ping, &payload).await
                }
                Ok(Piece::Pong(payload)) => {
                    let payload = self.judge.scrub(payload);
                    self.out.frame(true, Opcode::Pong, &payload).await
                }
                Ok(Piece::Close(payload)) => self
                    .out
                    .close(&self.judge.scrub(payload))
                    .await
                    .err()
                    .map_or(Err(End::Closed), Err),
                Err(end) => Err(end),
            };
            if let Err(end) = passed {
                return end;
            }
        }
    }
}

/// From the agent to the origin, judged.
struct Outbound<'a, 'e, R, W> {
    exchange: Exchange<'e>,
    route: &'e Route,
    input: Input<'a, R>,
    out: Out<'a, W>,
    across: Across<2>,
}

/// The message that is coming in.
enum Coming<'e> {
    Held(BytesMut),
    /// It proved too long to hold.
    Streamed(Box<Window<'e>>),
}

impl<'e, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Outbound<'_, 'e, R, W> {
    async fn pump(&mut self, shared: &Shared) -> End {
        let mut coming = Coming::Held(BytesMut::new());
        loop {
            let piece = match self.input.next(shared).await {
                Ok(piece) => piece,
                Err(end) => return end,
            };
            let passed = match piece {
                Piece::Data { kind, data, last } => self.data(&mut coming, kind, data, last).await,
                Piece::Ping(payload) => self.control(Opcode::Ping, payload).await,
                Piece::Pong(payload) => self.control(Opcode::Pong, payload).await,
                Piece::Close(payload) => self
                    .control(Opcode::Close, payload)
                    .await
                    .err()
                    .map_or(Err(End::Closed), Err),
            };
            if let Err(end) = passed {
                return end;
            }
        }
    }

    async fn control(&mut self, opcode: Opcode, payload: Bytes) -> Result<(), End> {
        let (what, text) = match opcode {
            Opcode::Ping => ("websocket ping", &payload[..]),
            Opcode::Pong => ("websocket pong", &payload[..]),
            _ => (
                "websocket close reason",
                payload.get(2..).unwrap_or_default(),
            ),
        };
        if !text.is_empty() {
            let text = payload.slice_ref(text);
            let message = Message {
                what,
                data: text,
                codings: Codings::default(),
                redactable: false,
                essence: <[u8]>::to_vec,
            };
            self.exchange
                .judge_message(self.route, message, &mut self.across, None)
                .await
                .map_err(End::Refused)?;
        }
        if opcode == Opcode::Close {
            return self.out.close(&payload).await;
        }
        self.out.frame(true, opcode, &payload).await
    }

    async fn data(
        &mut self,
        coming: &mut Coming<'e>,
        kind: Kind,
        data: Bytes,
        last: bool,
    ) -> Result<(), End> {
        let what = match kind {
            Kind::Text => "websocket text message",
            Kind::Binary => "websocket binary message",
        };
        let refused = |cause: Cause| End::Refused(cause.into());
        let group = Some(kind as usize);
        match coming {
            Coming::Held(held) => {
                let length = held.len() + data.len();
                self.exchange
                    .check_length(self.route, length)
                    .map_err(refused)?;
                self.exchange.hold_more(length).await.map_err(refused)?;
                held.extend_from_slice(&data);
                if length > self.exchange.hold_limit() {
                    let held = std::mem::take(held).freeze();
                    let mut window = Box::new(self.exchange.window(self.route, what));
                    self.exchange
                        .scan_across(self.route, what, &self.across, group, &held)
                        .map_err(End::Refused)?;
                    let released = window.push(held).await.map_err(End::Refused)?;
                    self.exchange.let_go();
                    *coming = Coming::Streamed(window);
                    self.release(kind, &released, false).await?;
                    return if last {
                        self.end(coming, kind).await
                    } else {
                        Ok(())
                    };
                }
                if !last {
                    return Ok(());
                }
                let message = Message {
                    what,
                    data: std::mem::take(held).freeze(),
                    codings: Codings::default(),
                    redactable: kind == Kind::Text,
                    essence: <[u8]>::to_vec,
                };
                let sent = self
                    .exchange
                    .judge_message(self.route, message, &mut self.across, group)
                    .await
                    .map_err(End::Refused)?;
                let passed = self.out.data(kind, &sent, true).await;
                self.exchange.let_go();
                passed
            }
            Coming::Streamed(window) => {
                let released = window.push(data).await.map_err(End::Refused)?;
                self.release(kind, &released, false).await?;
                if last {
                    self.end(coming, kind).await
                } else {
                    Ok(())
                }
            }
        }
    }

    async fn end(&mut self, coming: &mut Coming<'e>, kind: Kind) -> Result<(), End> {
        let ended = std::mem::replace(coming, Coming::Held(BytesMut::new()));
        let Coming::Streamed(mut window) = ended else {
            return Ok(());
        };
        let released = window.finish().await.map_err(End::Refused)?;
        self.release(kind, &released, true).await
    }

    async fn release(&mut self, kind: Kind, data: &[u8], last: bool) -> Result<(), End> {
        if data.is_empty() && !last {
            return Ok(());
        }
        self.across.passed(Some(kind as usize), data);
        self.out.data(kind, data, last).await
    }
}
