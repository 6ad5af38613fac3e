//! From heads to bytes. Framing is ours: nothing that was received decides how a message is delimited.

use bytes::{BufMut, BytesMut};
use http::StatusCode;

use crate::message::{Headers, RequestHead, ResponseHead, Size};

/// `host` is the authority that was judged; the agent's own `Host` was compared with it and is written anew.
pub fn request(out: &mut BytesMut, head: &RequestHead, host: &str, size: Size) {
    out.reserve(256 + head.target.len());
    out.put_slice(head.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(&head.target);
    out.put_slice(b" HTTP/1.1\r\nHost: ");
    out.put_slice(host.as_bytes());
    out.put_slice(b"\r\n");
    fields(out, &head.headers, |name| {
        !name.eq_ignore_ascii_case(b"host")
    });
    if head.takes_trailers {
        out.put_slice(b"TE: trailers\r\nConnection: TE\r\n");
    }
    // A method that means a body says so even when it is empty (RFC 9110 §8.6).
    let wants_length = matches!(head.method.as_str(), "POST" | "PUT" | "PATCH");
    framing(out, size, wants_length);
    out.put_slice(b"\r\n");
}

/// What is declared of a body that is held whole.
pub fn size(body: &[u8], trailers: Option<&Headers>) -> Size {
    match (trailers, body.len()) {
        (Some(_), _) => Size::Unknown,
        (None, 0) => Size::Empty,
        (None, length) => Size::Exact(length as u64),
    }
}

/// A request of which everything was judged, as one text.
pub fn whole(
    out: &mut BytesMut,
    head: &RequestHead,
    host: &str,
    body: &[u8],
    trailers: Option<&Headers>,
) {
    request(out, head, host, size(body, trailers));
    match trailers {
        None => out.put_slice(body),
        Some(trailers) => {
            chunk(out, body);
            last_chunk(out, Some(trailers));
        }
    }
}

pub fn response(out: &mut BytesMut, head: &ResponseHead, size: Option<Size>, keep_alive: bool) {
    out.reserve(256);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(head.status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(head.status.canonical_reason().unwrap_or("").as_bytes());
    out.put_slice(b"\r\n");
    fields(out, &head.headers, |_| true);
    // HEAD, 204, 304: no body, and its length is the origin's to say.
    if let Some(size) = size {
        framing(out, size, true);
    }
    if !keep_alive {
        out.put_slice(b"Connection: close\r\n");
    }
    out.put_slice(b"\r\n");
}

pub fn chunk(out: &mut BytesMut, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    out.reserve(data.len() + 20);
    out.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.put_slice(data);
    out.put_slice(b"\r\n");
}

pub fn last_chunk(out: &mut BytesMut, trailers: Option<&Headers>) {
    out.put_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        fields(out, trailers, |_| true);
    }
    out.put_slice(b"\r\n");
}

/// A whole response of our own; `status` may carry a reason phrase of its own, which clients show for CONNECT.
pub fn own(
    status: StatusCode,
    phrase: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    keep_alive: bool,
) -> BytesMut {
    let mut out = BytesMut::with_capacity(512 + body.len());
    out.put_slice(format!("HTTP/1.1 {} ", status.as_str()).as_bytes());
    out.extend(phrase.bytes().map(|byte| {
        if (0x20..0x7f).contains(&byte) {
            byte
        } else {
            b'?'
        }
    }));
    out.put_slice(b"\r\n");
    for (name, value) in headers {
        out.put_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    out.put_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    if !keep_alive {
        out.put_slice(b"connection: close\r\n");
    }
    out.put_slice(b"\r\n");
    out.put_slice(body);
    out
}

fn fields(out: &mut BytesMut, headers: &Headers, keep: impl Fn(&[u8]) -> bool) {
    for (name, value) in headers.iter().filter(|(name, _)| keep(name)) {
        out.reserve(name.len() + value.len() + 4);
        out.put_slice(name);
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    }
}

fn framing(out: &mut BytesMut, size: Size, wants_length: bool) {
    match size {
        Size::Empty if wants_length => out.put_slice(b"Content-Length: 0\r\n"),
        Size::Empty => {}
        Size::Exact(length) => out.put_slice(format!("Content-Length: {length}\r\n").as_bytes()),
        Size::Unknown => out.put_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}
