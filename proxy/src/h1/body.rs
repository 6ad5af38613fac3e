//! The read side of a connection, and bodies off it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::{Instant, timeout};

use super::parse::{self, Framing, Malformed};
use crate::limits;
use crate::message::{BodyError, Frame, Size};
use crate::pace::Pace;
use crate::patience::{Exhausted, Patience};
use crate::rooms;

/// Why no head came.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the head did not come in time")]
    Timeout,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// The longest TLS record holds so much (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;

thread_local! {
    /// Where heads and small bodies are read into, and copied out of at their size.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes read and not yet used. The buffer is given back while nothing flows, so an idle tunnel holds none.
#[derive(Debug)]
pub struct Reader<R> {
    io: R,
    buf: BytesMut,
    patience: Patience,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(io: R, buf: BytesMut) -> Self {
        Self {
            io,
            buf,
            patience: Patience::default(),
        }
    }

    /// Waits up to `idle` for a first byte, then up to [`limits::HEAD`] for the rest of a head.
    ///
    /// `None` when the peer closed between messages.
    pub async fn head<T>(
        &mut self,
        idle: Duration,
        parse: impl Fn(&mut BytesMut) -> Result<Option<T>, Malformed>,
    ) -> Result<Option<T>, HeadError> {
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
            let read = self
                .patience
                .wait(idle, read_some(&mut self.io, &mut self.buf))
                .await
                .map_err(|Exhausted| HeadError::Timeout)??;
            if read == 0 {
                return Ok(None);
            }
        }
        // Nearly always it came whole.
        if let Some(head) = parse(&mut self.buf)? {
            return Ok(Some(head));
        }
        timeout(limits::HEAD, async {
            let mut fresh = self.buf.len();
            loop {
                if read_some(&mut self.io, &mut self.buf).await? == 0 {
                    return Err(HeadError::Io(io::ErrorKind::UnexpectedEof.into()));
                }
                // Only a line's end can complete a head, or show that there will be none.
                let ended = self
                    .buf
                    .get(fresh..)
                    .is_some_and(|new| new.contains(&b'\n'));
                if (ended || self.buf.len() >= limits::HEAD_BYTES)
                    && let Some(head) = parse(&mut self.buf)?
                {
                    return Ok(Some(head));
                }
                fresh = self.buf.len();
            }
        })
        .await
        .map_err(|_| HeadError::Timeout)?
    }

    pub fn body(&mut self, framing: Framing, idle: Duration) -> Body<'_, R> {
        let state = match framing {
            Framing::Empty => State::Done,
            Framing::Length(left) => State::Length(left),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Body {
            reader: self,
            state,
            size: size(framing),
            idle,
            pace: None,
            turn: 0,
            gathered: Gathered::No,
        }
    }

    /// Reads and throws away what still comes, so that the peer reads our answer and not a reset.
    pub async fn drain(&mut self) {
        let mut left = limits::DRAIN_BYTES;
        let mut sink = vec![0; 4096];
        let _ended = timeout(limits::DRAIN, async {
            while left > 0 {
                match self.io.read(&mut sink).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => left = left.saturating_sub(read),
                }
            }
        })
        .await;
    }

    /// True when bytes wait that belong to no message asked for.
    pub fn has_leftover(&self) -> bool {
        !self.buf.is_empty()
    }

    /// The connection and what was read ahead.
    pub fn into_parts(self) -> (R, BytesMut) {
        (self.io, self.buf)
    }

    /// Takes what was read ahead, where another protocol goes on.
    pub fn take_ahead(&mut self) -> BytesMut {
        std::mem::take(&mut self.buf)
    }

    pub fn io_mut(&mut self) -> &mut R {
        &mut self.io
    }

    /// Reads up to so many bytes into the room that was made for them, or else what is there into what is copied out of at
    /// its size.
    async fn fill(&mut self, idle: Duration, most: Option<usize>) -> Result<usize, BodyError> {
        let read = async {
            match most {
                Some(most) => self.io.read_buf(&mut (&mut self.buf).limit(most)).await,
                None => read_some(&mut self.io, &mut self.buf).await,
            }
        };
        let read = self.patience.wait(idle, read).await;
        Ok(read.map_err(|Exhausted| BodyError::Timeout)??)
    }
}

/// Adds what is there, up to a TLS record. Nothing is held for it while it is waited for.
async fn read_some<R: AsyncRead + Unpin>(io: &mut R, buf: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(RECORD, 0);
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut read))?;
            let read = read.filled();
            if buf.capacity() - buf.len() < read.len() {
                // Into a buffer of its own, twice as long as what is there: one that parts were split off from would become
                // twice as long as it once was, time and again.
                let mut own = BytesMut::with_capacity(2 * buf.len() + read.len());
                own.extend_from_slice(buf);
                *buf = own;
            }
            buf.extend_from_slice(read);
            Poll::Ready(Ok(read.len()))
        })
    })
    .await
}

fn size(framing: Framing) -> Size {
    match framing {
        Framing::Empty => Size::Empty,
        Framing::Length(length) => Size::Exact(length),
        Framing::Chunked | Framing::UntilClose => Size::Unknown,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

/// One message's body. Dropped before its end, the connection is of no further use ([`Body::is_done`]).
#[derive(Debug)]
pub struct Body<'a, R> {
    reader: &'a mut Reader<R>,
    state: State,
    size: Size,
    idle: Duration,
    pace: Option<Pace>,
    /// Bytes that were read since others had their turn.
    turn: usize,
    gathered: Gathered,
}

/// Where the first part of a body is that was waited for.
#[derive(Debug)]
enum Gathered {
    No,
    /// In a buffer that was made for it.
    Apart,
    /// In one of [`rooms`].
    InRoom(rooms::Key),
}

impl<R: AsyncRead + Unpin> Body<'_, R> {
    /// Holds the sender to a rate, in place of a time between two reads.
    pub fn paced(mut self) -> Self {
        self.pace = Some(Pace::new());
        self
    }

    async fn more(&mut self, most: Option<usize>) -> Result<usize, BodyError> {
        // A sender that is as fast as we are always has more: its task would go on for milliseconds.
        if self.turn >= limits::TURN_BYTES {
            self.turn = 0;
            tokio::task::yield_now().await;
        }
        let read = match &mut self.pace {
            None => self.reader.fill(self.idle, most).await?,
            Some(pace) => {
                let begun = Instant::now();
                let read = self.reader.fill(pace.patience(), most).await?;
                pace.came(begun.elapsed(), read);
                read
            }
        };
        self.turn += read;
        Ok(read)
    }

    pub fn size(&self) -> Size {
        self.size
    }

    /// Reads on until so many bytes of the body are here, so that its next frame is not shorter; room is made for `all`
    /// at once. Where it comes in chunks, does nothing.
    pub async fn gather(&mut self, bytes: usize, all: usize) -> Result<(), BodyError> {
        let State::Length(left) = self.state else {
            return Ok(());
        };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let buf = &mut self.reader.buf;
        if all > RECORD && matches!(self.gathered, Gathered::No) {
            let whole = left.min(all);
            if let Some((mut room, key)) = rooms::take(whole.max(buf.len())) {
                room.extend_from_slice(buf);
                *buf = room;
                self.gathered = Gathered::InRoom(key);
            } else {
                // What is not written to yet takes no memory.
                buf.reserve(whole.saturating_sub(buf.len()));
                self.gathered = Gathered::Apart;
            }
        }
        // No further than was asked for: what is read has a room that was paid for.
        loop {
            let missing = left.min(bytes).saturating_sub(self.reader.buf.len());
            if missing == 0 {
                break;
            }
            if self.more(Some(missing)).await? == 0 {
                return Err(BodyError::Truncated);
            }
        }
        Ok(())
    }

    /// Returns once the peer has closed its sending side. Before the body's end, and where more comes than a head of a
    /// next message, that is not looked for.
    pub async fn closed(&mut self) {
        while self.state == State::Done && self.reader.buf.len() < limits::HEAD_BYTES {
            self.reader.buf.reserve(1024);
            if !matches!(self.reader.io.read_buf(&mut self.reader.buf).await, Ok(1..)) {
                return;
            }
        }
        std::future::pending().await
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub async fn frame(&mut self) -> Result<Option<Frame>, BodyError> {
        loop {
            match self.state {
                State::Done => return Ok(None),
                State::Length(left) => {
                    let data = self.data(left).await?;
                    let left = left.saturating_sub(data.len() as u64);
                    self.state = if left == 0 {
                        State::Done
                    } else {
                        State::Length(left)
                    };
                    return Ok(Some(Frame::Data(data)));
                }
                State::Chunk(left) => {
                    let data = self.data(left).await?;
                    let left = left.saturating_sub(data.len() as u64);
                    self.state = if left == 0 {
                        State::ChunkEnd
                    } else {
                        State::Chunk(left)
                    };
                    return Ok(Some(Frame::Data(data)));
                }
                State::ChunkSize => {
                    let line = self.line(limits::CHUNK_LINE_BYTES).await?;
                    self.state = match chunk_size(&line)? {
                        0 => State::Trailers,
                        size => State::Chunk(size),
                    };
                }
                State::ChunkEnd => {
                    if !self.line(2).await?.is_empty() {
                        return Err(BodyError::Malformed("a chunk is longer than its size"));
                    }
                    self.state = State::ChunkSize;
                }
                State::Trailers => {
                    let trailers = self.trailers().await?;
                    self.state = State::Done;
                    if let Some(trailers) = trailers {
                        return Ok(Some(Frame::Trailers(trailers)));
                    }
                }
                State::UntilClose => {
                    if self.reader.buf.is_empty() && self.more(None).await? == 0 {
                        self.state = State::Done;
                        return Ok(None);
                    }
                    return Ok(Some(Frame::Data(self.reader.buf.split().freeze())));
                }
            }
        }
    }

    async fn data(&mut self, left: u64) -> Result<Bytes, BodyError> {
        if self.reader.buf.is_empty() && self.more(None).await? == 0 {
            return Err(BodyError::Truncated);
        }
        let take = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(self.reader.buf.len());
        let data = self.reader.buf.split_to(take);
        if matches!(self.gathered, Gathered::No) {
            return Ok(data.freeze());
        }
        // What came behind it must not keep its room.
        self.reader.buf = BytesMut::from(&self.reader.buf[..]);
        Ok(match std::mem::replace(&mut self.gathered, Gathered::No) {
            Gathered::InRoom(key) => key.lend(data),
            Gathered::Apart | Gathered::No => data.freeze(),
        })
    }

    /// A line without its CRLF.
    async fn line(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        loop {
            if let Some(at) = self.reader.buf.iter().position(|byte| *byte == b'\n') {
                let line = self.reader.buf.split_to(at).freeze();
                self.reader.buf.advance(1);
                return match line.split_last() {
                    Some((b'\r', rest)) if !rest.contains(&b'\r') => Ok(line.slice_ref(rest)),
                    _ => Err(BodyError::Malformed("a line without CRLF")),
                };
            }
            if self.reader.buf.len() > limit {
                return Err(BodyError::Malformed("a line is too long"));
            }
            if self.more(None).await? == 0 {
                return Err(BodyError::Truncated);
            }
        }
    }

    async fn trailers(&mut self) -> Result<Option<crate::message::Headers>, BodyError> {
        let mut section = BytesMut::new();
        loop {
            let line = self.line(limits::HEAD_BYTES).await?;
            if line.is_empty() {
                break;
            }
            section.extend_from_slice(&line);
            section.extend_from_slice(b"\r\n");
            if section.len() > limits::HEAD_BYTES {
                return Err(BodyError::Malformed("the trailers are too large"));
            }
        }
        if section.is_empty() {
            return Ok(None);
        }
        section.extend_from_slice(b"\r\n");
        match parse::trailers(section.freeze()) {
            Ok(trailers) => Ok(Some(trailers)),
            Err(_) => Err(BodyError::Malformed("the trailers are not valid")),
        }
    }
}

/// RFC 9112 §7.1: hexadecimal digits only; an extension is read over and never forwarded.
fn chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let bad = BodyError::Malformed("a chunk size that is not a plain hexadecimal number");
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(bad);
    }
    if line.len() > limits::CHUNK_LINE_BYTES
        || line.iter().any(|byte| *byte < 0x20 || *byte >= 0x7f)
    {
        return Err(BodyError::Malformed(
            "a chunk extension that no one should send",
        ));
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or an agent makes each of its connections hold a body's room with one byte behind a body.
    #[tokio::test]
    async fn what_came_behind_a_body_does_not_keep_its_room() {
        for length in [20 * 1024, 100 * 1024, 1024 * 1024, 3 * 1024 * 1024] {
            let raw = [vec![b'a'; length], vec![b'b'; 1024 * 1024]].concat();
            let mut reader = Reader::new(&raw[..], BytesMut::new());
            let mut body = reader.body(Framing::Length(length as u64), Duration::from_secs(1));
            // Nor is more read than was asked for.
            body.gather(length / 2, length).await.unwrap();
            assert_eq!(body.reader.buf.len(), length / 2);
            body.gather(length, length).await.unwrap();
            let Some(Frame::Data(data)) = body.frame().await.unwrap() else {
                panic!("no body of {length}");
            };
            assert!(data == raw[..length]);
            assert!(body.is_done());
            assert!(reader.buf.is_empty());
            assert!(reader.buf.capacity() < 1024, "{}", reader.buf.capacity());
        }
    }

    async fn read(text: &[u8], framing: Framing) -> Result<(Vec<u8>, usize), BodyError> {
        let mut reader = Reader::new(text, BytesMut::new());
        let mut body = reader.body(framing, Duration::from_secs(1));
        let (mut data, mut trailers) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await? {
            match frame {
                Frame::Data(bytes) => data.extend_from_slice(&bytes),
                Frame::Trailers(headers) => trailers += headers.len(),
            }
        }
        Ok((data, trailers))
    }

    #[tokio::test]
    async fn chunked() {
        let (data, trailers) = read(
            b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX: y\r\n\r\n",
            Framing::Chunked,
        )
        .await
        .unwrap();
        assert_eq!((data.as_slice(), trailers), (b"hello world".as_slice(), 1));
    }

    #[tokio::test]
    async fn chunks_that_are_refused() {
        for text in [
            &b"+5\r\nhello\r\n0\r\n\r\n"[..],
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"4\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n folded: x\r\n\r\n",
            b"5\r\rhello\r\n0\r\n\r\n",
        ] {
            assert!(
                read(text, Framing::Chunked).await.is_err(),
                "{}",
                text.escape_ascii()
            );
        }
        let long = [b"5;".as_slice(), &[b'a'; 300], b"\r\nhello\r\n0\r\n\r\n"].concat();
        assert!(read(&long, Framing::Chunked).await.is_err());
    }

    /// One byte a second for ever: ended after the grace, in whatever framing.
    #[tokio::test(start_paused = true)]
    async fn a_trickle_ends() {
        use tokio::io::AsyncWriteExt as _;
        for framing in [Framing::Length(1_000_000), Framing::Chunked] {
            let (mut agent, ours) = tokio::io::duplex(64);
            let trickle = tokio::spawn(async move {
                let _gone = agent.write_all(b"ffff\r\n").await;
                while agent.write_all(b"a").await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
            let begun = Instant::now();
            let mut reader = Reader::new(ours, BytesMut::new());
            let mut body = reader.body(framing, limits::BODY_IDLE).paced();
            let ended = loop {
                match body.frame().await {
                    Ok(Some(_)) => {}
                    ended => break ended,
                }
            };
            assert!(matches!(ended, Err(BodyError::Timeout)), "{ended:?}");
            let took = begun.elapsed();
            let grace = limits::BODY_GRACE;
            assert!(
                took >= grace && took < grace + Duration::from_secs(5),
                "{took:?}"
            );
            trickle.abort();
        }
    }

    #[tokio::test]
    async fn lengths() {
        assert_eq!(
            read(b"hello rest", Framing::Length(5)).await.unwrap().0,
            b"hello"
        );
        assert!(matches!(
            read(b"hell", Framing::Length(5)).await,
            Err(BodyError::Truncated)
        ));
        assert_eq!(
            read(b"to the end", Framing::UntilClose).await.unwrap().0,
            b"to the end"
        );
    }
}
