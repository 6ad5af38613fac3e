//! A stream of HTTP/2 as the two directions of a connection, for another protocol inside it (RFC 8441).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes sent at once.
const PIECE: usize = 64 * 1024;

/// What the peer sends, without the ends of its frames.
#[derive(Debug)]
pub struct Receiving {
    stream: RecvStream,
    here: Bytes,
}

impl Receiving {
    pub fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            here: Bytes::new(),
        }
    }
}

impl AsyncRead for Receiving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.here.is_empty() {
            match ready!(self.stream.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => self.here = data.map_err(io::Error::other)?,
            }
        }
        let take = self.here.len().min(buf.remaining());
        buf.put_slice(self.here.get(..take).unwrap_or_default());
        self.here.advance(take);
        // Only what was taken is given back. An error means that the stream has ended, and with it its window.
        let _ended = self.stream.flow_control().release_capacity(take);
        Poll::Ready(Ok(()))
    }
}

/// What the peer is sent, as its windows allow. Dropped before it is shut, the stream is reset.
#[derive(Debug)]
pub struct Sending(SendStream<Bytes>);

impl Sending {
    pub fn new(stream: SendStream<Bytes>) -> Self {
        Self(stream)
    }
}

impl AsyncWrite for Sending {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.0.reserve_capacity(buf.len().min(PIECE));
        while self.0.capacity() == 0 {
            match ready!(self.0.poll_capacity(cx)) {
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Some(granted) => granted.map_err(io::Error::other)?,
            };
        }
        let length = buf.len().min(PIECE).min(self.0.capacity());
        let data = Bytes::copy_from_slice(buf.get(..length).unwrap_or_default());
        self.0.send_data(data, false).map_err(io::Error::other)?;
        Poll::Ready(Ok(length))
    }

    /// The connection's own task writes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(
            self.0
                .send_data(Bytes::new(), true)
                .map_err(io::Error::other),
        )
    }
}
