//! From bytes to heads. Every ambiguity is a [`Malformed`], named.

use std::mem::MaybeUninit;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};

use crate::limits;
use crate::message::{Headers, RequestHead, ResponseHead};

/// A head that is refused, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the head is larger than {} bytes", limits::HEAD_BYTES)]
    TooLarge,
    #[error("the head has more than {} fields", limits::HEADERS)]
    TooMany,
    #[error("{0}")]
    Syntax(&'static str),
}

/// How a message's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Empty,
    Length(u64),
    Chunked,
    /// Responses only: the body ends with the connection.
    UntilClose,
}

/// What stands in a request line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/path?query`.
    Origin(Bytes),
    /// `http://authority/path?query`.
    Absolute { authority: Bytes, target: Bytes },
    /// `CONNECT authority`.
    Authority(Bytes),
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub target: Target,
    pub http10: bool,
    pub headers: Headers,
    pub host: Option<Bytes>,
    pub framing: Framing,
    pub keep_alive: bool,
}

impl Request {
    /// The head for the exchange, once the target's form was dealt with.
    pub fn into_head(self, target: Bytes) -> RequestHead {
        let has = |name: &str, token: &[u8]| {
            self.headers.all(name).any(|value| {
                value
                    .split(|byte| *byte == b',')
                    .any(|own| own.trim_ascii().eq_ignore_ascii_case(token))
            })
        };
        RequestHead {
            method: self.method,
            target,
            expects_continue: !self.http10 && has("expect", b"100-continue"),
            takes_trailers: has("te", b"trailers"),
            headers: self.headers,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Response {
    pub head: ResponseHead,
    pub framing: Framing,
    pub keep_alive: bool,
}

/// Takes a request's head off the front of `buf` once it is there whole.
pub fn request(buf: &mut BytesMut) -> Result<Option<Request>, Malformed> {
    let Some(head) = take_head(buf)? else {
        return Ok(None);
    };
    let mut fields = [const { MaybeUninit::uninit() }; limits::HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&head, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Malformed::Syntax("the head is incomplete")),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooMany),
        Err(_) => return Err(Malformed::Syntax("the head is not valid HTTP/1.1")),
    }
    let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Malformed::Syntax("the request line is incomplete"));
    };
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| Malformed::Syntax("the method is not a token"))?;
    let http10 = version == 0;
    let target = target(&method, head.slice_ref(path.as_bytes()))?;
    let headers = collect(&head, parsed.headers)?;

    let host = headers.first("host").cloned();
    if headers.all("host").nth(1).is_some() {
        return Err(Malformed::Syntax("more than one Host"));
    }
    if host.is_none() && !http10 {
        return Err(Malformed::Syntax("HTTP/1.1 without Host"));
    }
    if headers.imitates_framing() {
        return Err(Malformed::Syntax(
            "a field that some software takes for Content-Length or Transfer-Encoding",
        ));
    }
    let framing = match declared_framing(&headers, http10)? {
        Some(framing) => framing,
        None => Framing::Empty,
    };
    if method == Method::CONNECT && framing != Framing::Empty {
        return Err(Malformed::Syntax("CONNECT with a body"));
    }
    let understood = |value: &Bytes| value.eq_ignore_ascii_case(b"100-continue");
    if !headers.all("expect").all(understood) || headers.all("expect").nth(1).is_some() {
        return Err(Malformed::Syntax("an Expect other than 100-continue"));
    }
    let keep_alive = keep_alive(&headers, http10);
    Ok(Some(Request {
        method,
        target,
        http10,
        headers,
        host,
        framing,
        keep_alive,
    }))
}

/// Takes a response's head off the front of `buf` once it is there whole.
pub fn response(buf: &mut BytesMut, to: &Method) -> Result<Option<Response>, Malformed> {
    let Some(head) = take_head(buf)? else {
        return Ok(None);
    };
    let mut fields = [const { MaybeUninit::uninit() }; limits::HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, &head, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Malformed::Syntax("the head is incomplete")),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooMany),
        Err(_) => return Err(Malformed::Syntax("the head is not valid HTTP/1.1")),
    }
    let (Some(code), Some(version)) = (parsed.code, parsed.version) else {
        return Err(Malformed::Syntax("the status line is incomplete"));
    };
    let status = StatusCode::from_u16(code)
        .map_err(|_| Malformed::Syntax("the status is not a number from 100 to 999"))?;
    let headers = collect(&head, parsed.headers)?;
    let http10 = version == 0;
    let declared = declared_framing(&headers, http10)?;
    let bodiless = *to == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let framing = match (bodiless, declared) {
        (true, _) => Framing::Empty,
        (false, Some(framing)) => framing,
        (false, None) => Framing::UntilClose,
    };
    let keep_alive = framing != Framing::UntilClose && keep_alive(&headers, http10);
    Ok(Some(Response {
        head: ResponseHead { status, headers },
        framing,
        keep_alive,
    }))
}

/// The fields of a chunked body's trailer section, without its last empty line.
pub fn trailers(section: Bytes) -> Result<Headers, Malformed> {
    check_lines(&section)?;
    let mut fields = [httparse::EMPTY_HEADER; limits::HEADERS];
    match httparse::parse_headers(&section, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => collect(&section, fields),
        Ok(httparse::Status::Partial) => Err(Malformed::Syntax("the trailers are incomplete")),
        Err(httparse::Error::TooManyHeaders) => Err(Malformed::TooMany),
        Err(_) => Err(Malformed::Syntax("the trailers are not valid HTTP/1.1")),
    }
}

/// Of a head. To prepare such a search takes longer than to make it.
static END: LazyLock<memchr::memmem::Finder<'static>> =
    LazyLock::new(|| memchr::memmem::Finder::new(b"\r\n\r\n"));

fn take_head(buf: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    if buf
        .first()
        .is_some_and(|byte| *byte == b'\r' || *byte == b'\n')
    {
        return Err(Malformed::Syntax("an empty line before the start line"));
    }
    let window = buf
        .get(..buf.len().min(limits::HEAD_BYTES + 4))
        .unwrap_or_default();
    let Some(end) = END.find(window) else {
        if buf.len() >= limits::HEAD_BYTES {
            return Err(Malformed::TooLarge);
        }
        // What can never become a head is refused at once and not at the deadline.
        check_lines(buf)?;
        return Ok(None);
    };
    let head = buf.split_to(end + 4).freeze();
    check_lines(&head)?;
    Ok(Some(head))
}

/// Lines end with CRLF and nothing else; no NUL; no folded line.
fn check_lines(head: &[u8]) -> Result<(), Malformed> {
    if matches!(head.first(), Some(b' ' | b'\t')) {
        return Err(Malformed::Syntax("a folded or indented line"));
    }
    let mut lines = 0;
    for at in memchr::memchr3_iter(b'\r', b'\n', 0, head) {
        let before = at.checked_sub(1).and_then(|before| head.get(before));
        match (head.get(at), head.get(at + 1)) {
            (Some(0), _) => return Err(Malformed::Syntax("a NUL byte")),
            (Some(b'\n'), next) => {
                if before != Some(&b'\r') {
                    return Err(Malformed::Syntax("a bare line feed"));
                }
                lines += 1;
                // The start line, the fields, the empty line.
                if lines > limits::HEADERS + 2 {
                    return Err(Malformed::TooMany);
                }
                if matches!(next, Some(b' ' | b'\t')) {
                    return Err(Malformed::Syntax("a folded or indented line"));
                }
            }
            (_, None | Some(b'\n' | 0)) => {}
            _ => return Err(Malformed::Syntax("a bare carriage return")),
        }
    }
    Ok(())
}

fn collect(head: &Bytes, fields: &[httparse::Header<'_>]) -> Result<Headers, Malformed> {
    let mut headers = Headers::with_capacity(fields.len());
    for field in fields {
        if field
            .value
            .iter()
            .any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)
        {
            return Err(Malformed::Syntax("a control character in a field"));
        }
        headers.push(
            head.slice_ref(field.name.as_bytes()),
            head.slice_ref(field.value),
        );
    }
    Ok(headers)
}

fn target(method: &Method, raw: Bytes) -> Result<Target, Malformed> {
    if !raw.iter().all(|byte| (0x21..0x7f).contains(byte)) || raw.contains(&b'#') {
        return Err(Malformed::Syntax(
            "the request target holds what no target may",
        ));
    }
    if *method == Method::CONNECT {
        return Ok(Target::Authority(raw));
    }
    if raw.first() == Some(&b'/') {
        return Ok(Target::Origin(raw));
    }
    let Some(rest) = raw
        .get(..7)
        .filter(|scheme| scheme.eq_ignore_ascii_case(b"http://"))
        .map(|_| raw.slice(7..))
    else {
        return Err(Malformed::Syntax(
            "the request target is neither a path nor http://",
        ));
    };
    let cut = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let authority = rest.slice(..cut);
    let target = match rest.get(cut) {
        None => Bytes::from_static(b"/"),
        Some(b'/') => rest.slice(cut..),
        Some(_) => [b"/", rest.get(cut..).unwrap_or_default()].concat().into(),
    };
    Ok(Target::Absolute { authority, target })
}

/// RFC 9112 §6, with every case that two parsers were ever seen to read differently refused.
fn declared_framing(headers: &Headers, http10: bool) -> Result<Option<Framing>, Malformed> {
    let mut encodings = headers.all("transfer-encoding");
    let mut lengths = headers.all("content-length");
    match (encodings.next(), lengths.next()) {
        (Some(_), Some(_)) => Err(Malformed::Syntax(
            "both Transfer-Encoding and Content-Length",
        )),
        (Some(_), None) if http10 => Err(Malformed::Syntax("Transfer-Encoding in HTTP/1.0")),
        (Some(encoding), None) => {
            if encodings.next().is_some() || !encoding.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::Syntax(
                    "a Transfer-Encoding other than exactly chunked",
                ));
            }
            Ok(Some(Framing::Chunked))
        }
        (None, Some(length)) => {
            if lengths.next().is_some() {
                return Err(Malformed::Syntax("more than one Content-Length"));
            }
            match decimal(length) {
                Some(0) => Ok(Some(Framing::Empty)),
                Some(length) => Ok(Some(Framing::Length(length))),
                None => Err(Malformed::Syntax(
                    "a Content-Length that is not a plain number",
                )),
            }
        }
        (None, None) => Ok(None),
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn keep_alive(headers: &Headers, http10: bool) -> bool {
    let says = |token: &[u8]| {
        headers.all("connection").any(|value| {
            value
                .split(|byte| *byte == b',')
                .any(|own| own.trim_ascii().eq_ignore_ascii_case(token))
        })
    };
    // An HTTP/1.0 peer is never kept: its reading of framing is older than the rules above.
    !http10 && !says(b"close")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Request>, Malformed> {
        request(&mut BytesMut::from(text.as_bytes()))
    }

    #[test]
    fn plain_requests() {
        let get = parse("GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(get.target, Target::Origin(Bytes::from_static(b"/a?b=c")));
        assert_eq!(get.framing, Framing::Empty);
        let post = parse("POST / HTTP/1.1\r\nHost: h\r\ncontent-length: 12\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(post.framing, Framing::Length(12));
        let chunked = parse("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(chunked.framing, Framing::Chunked);
        let absolute = parse("GET http://a.test:81?x HTTP/1.1\r\nHost: a.test:81\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(
            absolute.target,
            Target::Absolute {
                authority: Bytes::from_static(b"a.test:81"),
                target: Bytes::from_static(b"/?x")
            }
        );
        assert!(parse("GET / HTTP/1.1\r\nHost: h\r\n").unwrap().is_none());
    }

    #[test]
    fn every_ambiguity_is_refused() {
        for (case, text) in [
            (
                "cl and te",
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                "two cl",
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            ),
            (
                "list cl",
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\n",
            ),
            (
                "signed cl",
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n",
            ),
            (
                "hex cl",
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n\r\n",
            ),
            (
                "huge cl",
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
            ),
            (
                "empty cl",
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\n",
            ),
            (
                "te list",
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            ),
            (
                "te comma",
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked,\r\n\r\n",
            ),
            (
                "te identity",
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n",
            ),
            (
                "te vertical tab",
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            ),
            (
                "te twice",
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                "te in 1.0",
                "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            ("bare lf", "GET / HTTP/1.1\nHost: h\r\n\r\n"),
            ("bare lf at the end", "GET / HTTP/1.1\r\nHost: h\n\n"),
            ("bare cr", "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n"),
            ("folded", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n"),
            ("nul", "GET / HTTP/1.1\r\nHost: h\0\r\n\r\n"),
            ("space before colon", "GET / HTTP/1.1\r\nHost : h\r\n\r\n"),
            ("no host", "GET / HTTP/1.1\r\n\r\n"),
            ("two hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
            ("empty line first", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
            ("fragment", "GET /#a HTTP/1.1\r\nHost: h\r\n\r\n"),
            ("not ascii", "GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n"),
            ("space in target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
            (
                "https in absolute form",
                "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("star", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"),
            ("http/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            (
                "connect with a body",
                "CONNECT h:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n",
            ),
            (
                "expectation",
                "GET / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n",
            ),
            ("version", "GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
        ] {
            assert!(parse(text).is_err(), "{case}");
        }
    }

    #[test]
    fn bounds() {
        let many = format!(
            "GET / HTTP/1.1\r\nHost: h\r\n{}\r\n",
            "a: b\r\n".repeat(limits::HEADERS)
        );
        assert_eq!(parse(&many).unwrap_err(), Malformed::TooMany);
        let large = format!("GET /{} HTTP/1.1\r\n", "a".repeat(limits::HEAD_BYTES));
        assert_eq!(parse(&large).unwrap_err(), Malformed::TooLarge);
    }

    #[test]
    fn responses() {
        let parse = |text: &str, to| {
            response(&mut BytesMut::from(text.as_bytes()), &to)
                .unwrap()
                .unwrap()
                .framing
        };
        assert_eq!(
            parse("HTTP/1.1 200 OK\r\n\r\n", Method::GET),
            Framing::UntilClose
        );
        assert_eq!(
            parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Method::HEAD),
            Framing::Empty
        );
        assert_eq!(
            parse("HTTP/1.1 204 OK\r\n\r\n", Method::GET),
            Framing::Empty
        );
        assert_eq!(
            parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Method::GET),
            Framing::Length(3)
        );
    }
}
