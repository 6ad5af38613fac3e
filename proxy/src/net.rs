//! The byte streams at both ends, as concrete types.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::limits;

/// An agent's connection.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to an origin.
#[derive(Debug)]
pub enum Origin {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

macro_rules! delegate {
    ($type:ty, $($variant:ident),+) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(io) => Pin::new(io).poll_read(cx, buf)),+ }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(io) => Pin::new(io).poll_write(cx, buf)),+ }
            }

            fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(io) => Pin::new(io).poll_write_vectored(cx, bufs)),+ }
            }

            fn is_write_vectored(&self) -> bool {
                match self { $(Self::$variant(io) => io.is_write_vectored()),+ }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(io) => Pin::new(io).poll_flush(cx)),+ }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(io) => Pin::new(io).poll_shutdown(cx)),+ }
            }
        }
    };
}

delegate!(Socket, Tcp, Unix);
delegate!(Origin, Tls, Plain);

/// Writes both, one behind the other, without copying them together first: over TLS one row of records, and as few
/// calls as there are buffers full. Where they are long, other connections have their turns meanwhile: an origin that is as
/// fast as we are takes a mebibyte at once, which is a millisecond of our time.
pub async fn write_both<W: AsyncWrite + Unpin>(
    writer: &mut W,
    mut one: &[u8],
    mut two: &[u8],
) -> io::Result<()> {
    let mut turn = limits::TURN_BYTES;
    while !one.is_empty() || !two.is_empty() {
        if turn == 0 {
            turn = limits::TURN_BYTES;
            tokio::task::yield_now().await;
        }
        let of_one = one.get(..turn).unwrap_or(one);
        let of_two = two.get(..turn - of_one.len()).unwrap_or(two);
        let slices = [IoSlice::new(of_one), IoSlice::new(of_two)];
        let both = slices
            .get(usize::from(one.is_empty())..)
            .unwrap_or_default();
        let written = poll_fn(|cx| Pin::new(&mut *writer).poll_write_vectored(cx, both)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        turn = turn.saturating_sub(written);
        let of_one = written.min(one.len());
        one = one.get(of_one..).unwrap_or_default();
        two = two.get(written - of_one..).unwrap_or_default();
    }
    poll_fn(|cx| Pin::new(&mut *writer).poll_flush(cx)).await
}

/// A stream of which some bytes were read already.
#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: Bytes,
    io: S,
}

impl<S> Prefixed<S> {
    pub fn new(prefix: Bytes, io: S) -> Self {
        Self { prefix, io }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let take = self.prefix.len().min(buf.remaining());
        buf.put_slice(self.prefix.get(..take).unwrap_or_default());
        self.prefix.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Whatever the writer takes at once, and wherever a turn ends.
    #[tokio::test]
    async fn both_arrive_whole_and_in_order() {
        let text = |length: usize, first: u8| -> Vec<u8> {
            let bytes = (0..length).map(|at| (at % 251) as u8 ^ first);
            bytes.collect()
        };
        let turn = limits::TURN_BYTES;
        for room in [7_000, 4 * turn] {
            for one in [0, 1, turn - 1, turn, turn + 1] {
                for two in [0, 1, turn - 1, turn, 2 * turn + 1] {
                    let (one, two) = (text(one, 0), text(two, 0xFF));
                    let (mut writer, mut reader) = tokio::io::duplex(room);
                    let mut arrived = Vec::new();
                    let (written, read) = tokio::join!(
                        async {
                            let written = write_both(&mut writer, &one, &two).await;
                            drop(writer);
                            written
                        },
                        reader.read_to_end(&mut arrived),
                    );
                    written.unwrap();
                    read.unwrap();
                    assert!(arrived == [one, two].concat(), "{room}");
                }
            }
        }
    }
}
