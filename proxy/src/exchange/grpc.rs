//! gRPC: a request that is a sequence of messages, each judged and sent on before the next one comes. A client that
//! waits for an answer between two of them gets it.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};

use super::stream::{Piece, Source};
use super::{After, Exchange, Message, Reply, RequestBody, Window, body_failed, judged_trailers};
use crate::across::Across;
use crate::content::Codings;
use crate::limits;
use crate::message::{Frame, Headers, RequestHead};
use crate::policy::Route;
use crate::verdict::{Cause, Refusal};

/// Compressed or not, and the length.
const PREFIX: usize = 5;
const WHAT: &str = "grpc message";

/// `application/grpc` and `application/grpc+…`; gRPC-Web is framed in other ways and goes as any body does.
pub fn is_asked(head: &RequestHead) -> bool {
    let mut types = head.headers.all("content-type");
    let (Some(value), None) = (types.next(), types.next()) else {
        return false;
    };
    is_grpc(value) && head.method == http::Method::POST
}

pub fn is_grpc(content_type: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    match content_type.split_at_checked(NAME.len()) {
        Some((name, rest)) => {
            name.eq_ignore_ascii_case(NAME)
                && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        }
        None => false,
    }
}

/// What a message with its flag set is compressed with.
#[derive(Debug)]
pub struct Codec(Codings);

impl Codec {
    pub fn parse(headers: &Headers) -> Result<Self, Refusal> {
        let mut names = headers.all("grpc-encoding");
        let name = names.next().map_or(&b"identity"[..], |name| name);
        match (Codings::of_grpc(name), names.next()) {
            (Some(codings), None) => Ok(Self(codings)),
            _ => Err(Cause::ContentEncoding(
                "its grpc-encoding is not one of gzip, deflate, identity",
            )
            .into()),
        }
    }
}

impl<'a> Exchange<'a> {
    pub(super) async fn grpc<B: RequestBody, R: Reply>(
        &mut self,
        route: &'a Route,
        head: &RequestHead,
        codec: Codec,
        body: &mut B,
        reply: &mut R,
    ) -> Result<After, Refusal> {
        body.take_your_time();
        let size = body.size();
        let mut messages = Messages {
            exchange: self.for_messages(),
            route,
            codec,
            body,
            buf: BytesMut::new(),
            begun: None,
            state: State::Between,
            trailers: None,
            across: Across::default(),
        };
        self.carry(route, head, size, &mut messages, reply).await
    }
}

enum State<'a> {
    /// Before a prefix.
    Between,
    Held {
        compressed: bool,
        length: usize,
    },
    /// A message that is too long to hold.
    Streamed {
        window: Box<Window<'a>>,
        fresh: bool,
        left: usize,
    },
}

struct Messages<'a, 'b, B> {
    exchange: Exchange<'a>,
    route: &'a Route,
    codec: Codec,
    body: &'b mut B,
    buf: BytesMut,
    /// When the message that is coming in must have moved on.
    begun: Option<Instant>,
    state: State<'a>,
    trailers: Option<Headers>,
    across: Across<1>,
}

impl<B: RequestBody> Source for Messages<'_, '_, B> {
    async fn next(&mut self) -> Result<Piece, Refusal> {
        loop {
            if let Some(data) = self.advance().await? {
                return Ok(Piece::Data(data));
            }
            let frame = match self.begun {
                None => self.body.frame().await,
                Some(deadline) => timeout_at(deadline, self.body.frame())
                    .await
                    .map_err(|_| Cause::AgentTimeout)?,
            };
            match frame.map_err(body_failed)? {
                Some(Frame::Data(data)) => self.buf.extend_from_slice(&data),
                Some(Frame::Trailers(fields)) => {
                    self.trailers = judged_trailers(self.exchange.ruling, self.route, fields)?;
                }
                None if self.buf.is_empty() && matches!(self.state, State::Between) => {
                    return Ok(Piece::End(self.trailers.take()));
                }
                None => return Err(malformed("a gRPC message that is cut off")),
            }
            let between = self.buf.is_empty() && matches!(self.state, State::Between);
            let idle: Duration = limits::BODY_IDLE;
            self.begun = (!between).then(|| Instant::now() + idle);
        }
    }
}

impl<B: RequestBody> Messages<'_, '_, B> {
    /// What can go on of what is here.
    async fn advance(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            match &mut self.state {
                State::Between => {
                    let [flag, a, b, c, d, ..] = self.buf[..] else {
                        return Ok(None);
                    };
                    self.buf.advance(PREFIX);
                    let compressed = match flag {
                        0 => false,
                        1 if !self.codec.0.is_plain() => true,
                        1 => {
                            return Err(malformed(
                                "a compressed gRPC message without grpc-encoding",
                            ));
                        }
                        _ => return Err(malformed("a gRPC message with an unknown flag")),
                    };
                    let length = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.exchange.check_length(self.route, length)?;
                    if length <= self.exchange.hold_limit() {
                        self.state = State::Held { compressed, length };
                        continue;
                    }
                    if compressed {
                        let why = "a compressed gRPC message is longer than what is held";
                        return Err(Cause::ContentEncoding(why).into());
                    }
                    let mut prefix = BytesMut::with_capacity(PREFIX);
                    put_prefix(&mut prefix, false, length);
                    self.state = State::Streamed {
                        window: Box::new(self.exchange.window(self.route, WHAT)),
                        fresh: true,
                        left: length,
                    };
                    return Ok(Some(prefix.freeze()));
                }
                State::Held { compressed, length } => {
                    let (compressed, length) = (*compressed, *length);
                    self.exchange.hold_more(self.buf.len().min(length)).await?;
                    if self.buf.len() < length {
                        return Ok(None);
                    }
                    let data = self.buf.split_to(length).freeze();
                    self.state = State::Between;
                    return self.held(compressed, data).await.map(Some);
                }
                State::Streamed {
                    window,
                    fresh,
                    left,
                } => {
                    if *left > 0 && self.buf.is_empty() {
                        return Ok(None);
                    }
                    let data = self.buf.split_to((*left).min(self.buf.len())).freeze();
                    *left -= data.len();
                    if std::mem::take(fresh) {
                        self.exchange.scan_across(
                            self.route,
                            WHAT,
                            &self.across,
                            Some(0),
                            &data,
                        )?;
                    }
                    let mut released = window.push(data).await?;
                    if *left == 0 {
                        let rest = window.finish().await?;
                        released = [released, rest].concat().into();
                        self.state = State::Between;
                    }
                    self.across.passed(Some(0), &released);
                    return Ok(Some(released));
                }
            }
        }
    }

    async fn held(&mut self, compressed: bool, data: Bytes) -> Result<Bytes, Refusal> {
        let mut out = BytesMut::with_capacity(PREFIX + data.len());
        put_prefix(&mut out, compressed, data.len());
        let codings = if compressed {
            self.codec.0.clone()
        } else {
            Codings::default()
        };
        let message = Message {
            what: WHAT,
            data,
            codings,
            // The lengths inside of it would not be right any more.
            redactable: false,
            essence,
        };
        let sent = self
            .exchange
            .judge_message(self.route, message, &mut self.across, Some(0))
            .await?;
        self.exchange.let_go();
        out.extend_from_slice(&sent);
        Ok(out.freeze())
    }
}

/// What a protobuf message says, without the numbers around it: pieces of a text in the same field of consecutive
/// messages are next to each other then.
fn essence(message: &[u8]) -> Vec<u8> {
    let mut inner = message;
    // A message that is nothing but another.
    for _ in 0..8 {
        match field(inner) {
            Some((Some(content), [])) => inner = content,
            _ => break,
        }
    }
    let mut texts = Vec::new();
    let mut rest = inner;
    while !rest.is_empty() {
        let Some((content, after)) = field(rest) else {
            return inner.to_vec();
        };
        texts.extend_from_slice(content.unwrap_or_default());
        rest = after;
    }
    texts
}

/// A protobuf field: its content where it has a length, and what comes after it.
fn field(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (tag, rest) = varint(bytes)?;
    match tag & 7 {
        _ if tag >> 3 == 0 => None,
        0 => varint(rest).map(|(_, rest)| (None, rest)),
        1 => rest.get(8..).map(|rest| (None, rest)),
        2 => {
            let (length, rest) = varint(rest)?;
            let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((Some(content), rest))
        }
        5 => rest.get(4..).map(|rest| (None, rest)),
        _ => None,
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at).min(63);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..).unwrap_or_default()));
        }
    }
    None
}

fn put_prefix(out: &mut BytesMut, compressed: bool, length: usize) {
    out.put_u8(u8::from(compressed));
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

fn malformed(why: &str) -> Refusal {
    Cause::Malformed(why.into()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        for yes in [
            "application/grpc",
            "Application/gRPC+proto",
            "application/grpc;x",
            "application/grpc+json",
        ] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in [
            "application/grpc-web",
            "application/grpcx",
            "text/plain",
            "",
            "application/grp\u{e9}",
        ] {
            assert!(!is_grpc(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn what_a_message_says() {
        for (message, said) in [
            (&b"\x0a\x03abc"[..], &b"abc"[..]),
            (b"\x0a\x05\x0a\x03abc", b"abc"),
            (b"\x08\x96\x01\x12\x03abc\x1a\x02de", b"abcde"),
            (
                b"plain text that is no protobuf",
                b"plain text that is no protobuf",
            ),
            (
                b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            ),
            (b"", b""),
        ] {
            assert_eq!(essence(message), said, "{}", message.escape_ascii());
        }
    }
}
