//! Messages read, and written as they would be sent on, for tests and fuzz targets: what comes in other pieces must be read
//! alike, and what was written must be read by others as what we read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::Method;
use tokio::io::{AsyncRead, ReadBuf};

use super::body::Reader;
use super::{parse, write};
use crate::message::{BodyError, Frame, Headers, Size};

/// Nothing is waited for: what is read ends where it ends.
const SOON: Duration = Duration::from_secs(1);

/// A request as an origin would get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
    pub written: Vec<u8>,
}

/// The first request of a connection, of which so many bytes come at a time. `None` where it is refused or not complete.
pub async fn forwarded(raw: &[u8], step: usize, authority: &str) -> Option<Forwarded> {
    let mut reader = Reader::new(Pieces { rest: raw, step }, BytesMut::new());
    let request = reader.head(SOON, parse::request).await.ok()??;
    let (body, trailers) = whole(&mut reader, request.framing, step).await?;
    let trailers = trailers.and_then(|mut fields| {
        fields.strip_trailers();
        Some(fields).filter(|fields| !fields.is_empty())
    });
    let target = match request.target.clone() {
        parse::Target::Origin(target) | parse::Target::Absolute { target, .. } => target,
        parse::Target::Authority(_) => return None,
    };
    let mut head = request.into_head(target);
    head.headers.strip_hop_by_hop();
    let mut written = BytesMut::new();
    write::whole(&mut written, &head, authority, &body, trailers.as_ref());
    Some(Forwarded {
        method: head.method.as_str().into(),
        target: head.target.to_vec(),
        fields: pairs(&head.headers),
        body,
        trailers: trailers.as_ref().map(pairs).unwrap_or_default(),
        written: written.to_vec(),
    })
}

/// A response as an agent would get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    pub status: u16,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
    pub written: Vec<u8>,
}

/// The first response on a connection, to a request with this method. `None` where it is refused or not complete.
pub async fn relayed(raw: &[u8], step: usize, method: &Method) -> Option<Relayed> {
    let mut reader = Reader::new(Pieces { rest: raw, step }, BytesMut::new());
    let parse = |buf: &mut BytesMut| parse::response(buf, method);
    let parse::Response {
        mut head, framing, ..
    } = reader.head(SOON, parse).await.ok()??;
    if head.status.is_informational() {
        return None;
    }
    let size = (framing != parse::Framing::Empty).then(|| reader.body(framing, SOON).size());
    let (body, mut trailers) = whole(&mut reader, framing, step).await?;
    head.strip(size.is_some());
    if let Some(fields) = &mut trailers {
        fields.strip_trailers();
    }
    let mut written = BytesMut::new();
    write::response(&mut written, &head, size, true);
    if size == Some(Size::Unknown) {
        write::chunk(&mut written, &body);
        write::last_chunk(&mut written, trailers.as_ref());
    } else {
        written.extend_from_slice(&body);
    }
    Some(Relayed {
        status: head.status.as_u16(),
        fields: pairs(&head.headers),
        body,
        trailers: trailers.as_ref().map(pairs).unwrap_or_default(),
        written: written.to_vec(),
    })
}

async fn whole<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    framing: parse::Framing,
    step: usize,
) -> Option<(Vec<u8>, Option<Headers>)> {
    let mut body = reader.body(framing, SOON);
    // As what is held: in one piece, as far as it is waited for.
    if step > 1 {
        body.gather(step.min(2048), 1 << 20).await.ok()?;
    }
    let (mut data, mut trailers) = (Vec::new(), None);
    loop {
        match body.frame().await {
            Ok(Some(Frame::Data(bytes))) => data.extend_from_slice(&bytes),
            Ok(Some(Frame::Trailers(fields))) => trailers = Some(fields),
            Ok(None) => return Some((data, trailers)),
            Err(error) => {
                let waited = matches!(error, BodyError::Timeout);
                assert!(!waited, "there is nothing to wait for");
                return None;
            }
        }
    }
}

fn pairs(headers: &Headers) -> Vec<(Vec<u8>, Vec<u8>)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

struct Pieces<'a> {
    rest: &'a [u8],
    step: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.rest.len().min(self.step).min(buf.remaining());
        let (piece, rest) = self.rest.split_at(length);
        buf.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn responses_are_read_alike_in_pieces_and_written_as_what_they_are() {
        let get = Method::GET;
        for (raw, method, body, written) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello",
                &get,
                "hello",
                "HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nAlt-Svc: h3\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\nHost: a\r\n\r\n",
                &get,
                "hello",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
            ),
            (
                "HTTP/1.0 200 OK\r\n\r\nhello",
                &get,
                "hello",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                &get,
                "",
                "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                &Method::HEAD,
                "",
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            ),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                &get,
                "",
                "HTTP/1.1 204 No Content\r\n\r\n",
            ),
        ] {
            let whole = relayed(raw.as_bytes(), usize::MAX, method).await.unwrap();
            assert_eq!(whole.body, body.as_bytes(), "{raw}");
            assert_eq!(String::from_utf8_lossy(&whole.written), written);
            for step in 1..raw.len() {
                let pieces = relayed(raw.as_bytes(), step, method).await;
                assert_eq!(pieces.as_ref(), Some(&whole), "{raw} by {step}");
            }
            let again = relayed(&whole.written, 1, method).await.unwrap();
            assert_eq!(
                (again.status, again.fields, again.body, again.trailers),
                (whole.status, whole.fields, whole.body, whole.trailers),
                "{raw}"
            );
        }
    }
}
