//! Heads and frames, the same for HTTP/1.1 and HTTP/2.

use bytes::Bytes;
use http::{Method, StatusCode};

/// Header fields in the order and spelling in which they came; names are compared without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    list: Vec<(Bytes, Bytes)>,
}

impl Headers {
    pub fn with_capacity(fields: usize) -> Self {
        Self {
            list: Vec::with_capacity(fields),
        }
    }

    pub fn push(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.list.push((name.into(), value.into()));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.list.iter().map(|(name, value)| (name, value))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Bytes, &mut Bytes)> {
        self.list.iter_mut().map(|(name, value)| (&*name, value))
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Bytes> {
        self.list
            .iter()
            .filter(move |(own, _)| own.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    pub fn first(&self, name: &str) -> Option<&Bytes> {
        self.list
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    pub fn remove(&mut self, name: &str) {
        self.list
            .retain(|(own, _)| !own.eq_ignore_ascii_case(name.as_bytes()));
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Removes what is meant for one hop: the fixed list (RFC 9110 §7.6.1) and every name that `Connection` lists.
    ///
    /// Framing is decided before and written anew, so a `Connection: content-length` cannot touch it.
    pub fn strip_hop_by_hop(&mut self) {
        let listed: Vec<Bytes> = self.all("connection").cloned().collect();
        let is_named = |name: &[u8]| {
            listed
                .iter()
                .flat_map(|value| value.split(|byte| *byte == b','))
                .any(|own| own.trim_ascii().eq_ignore_ascii_case(name))
        };
        self.list.retain(|(name, _)| {
            !HOP_BY_HOP.iter().any(|own| own.eq_ignore_ascii_case(name)) && !is_named(name)
        });
    }

    /// True where a name is not `Content-Length` or `Transfer-Encoding` and some software takes it for one: CGI and
    /// WSGI read an underscore as a hyphen, PHP a full stop as an underscore.
    pub fn imitates_framing(&self) -> bool {
        self.list.iter().any(|(name, _)| {
            FRAMING.iter().any(|framing| {
                name.len() == framing.len()
                    && !name.eq_ignore_ascii_case(framing)
                    && name.iter().zip(*framing).all(|(own, other)| {
                        own.eq_ignore_ascii_case(other)
                            || (*other == b'-' && !own.is_ascii_alphanumeric())
                    })
            })
        })
    }

    /// As [`Headers::strip_hop_by_hop`], for a trailer section: what decides how a message is read, who asks or where
    /// it goes has no place there (RFC 9110 §6.5.1), and some origins take trailers for headers.
    pub fn strip_trailers(&mut self) {
        self.strip_hop_by_hop();
        if self.imitates_framing() {
            self.list.clear();
        }
        self.list.retain(|(name, _)| {
            !NOT_IN_TRAILERS
                .iter()
                .any(|own| name.eq_ignore_ascii_case(own))
        });
    }
}

const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];

const NOT_IN_TRAILERS: [&[u8]; 12] = [
    b"alt-svc",
    b"authorization",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"cookie",
    b"host",
    b"location",
    b"set-cookie",
    b"www-authenticate",
    b"x-bottle-verdict",
    b"x-http-method-override",
];

const HOP_BY_HOP: [&[u8]; 11] = [
    b"connection",
    b"content-length",
    b"expect",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// A request as the agent sent it, understood completely.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    /// Path and query; starts with `/`, visible ASCII only.
    pub target: Bytes,
    pub headers: Headers,
    /// The agent waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The agent takes trailers (`TE: trailers`).
    pub takes_trailers: bool,
}

impl RequestHead {
    pub fn path(&self) -> &[u8] {
        match memchr(b'?', &self.target) {
            Some(at) => self.target.get(..at).unwrap_or_default(),
            None => &self.target,
        }
    }

    /// Without its `?`.
    pub fn query(&self) -> Option<&[u8]> {
        memchr(b'?', &self.target).and_then(|at| self.target.get(at + 1..))
    }
}

fn memchr(byte: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|own| *own == byte)
}

/// A response's head, without framing.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: Headers,
}

impl ResponseHead {
    /// Leaves what the agent is to read.
    pub fn strip(&mut self, has_body: bool) {
        // Of a body that is not there (HEAD, 304) only the origin knows the length; a 204 has none (RFC 9110 §8.6).
        let tells = !has_body && self.status != StatusCode::NO_CONTENT;
        let told = tells
            .then(|| self.headers.first("content-length").cloned())
            .flatten();
        self.headers.strip_hop_by_hop();
        // The marker is ours alone, and there is no way out over HTTP/3 to advertise.
        self.headers.remove("x-bottle-verdict");
        self.headers.remove("alt-svc");
        if let Some(length) = told {
            self.headers.push(&b"content-length"[..], length);
        }
    }
}

/// A piece of a body.
#[derive(Clone, Debug)]
pub enum Frame {
    Data(Bytes),
    Trailers(Headers),
}

/// What is known of a body's size before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Empty,
    Exact(u64),
    Unknown,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is malformed: {0}")]
    Malformed(&'static str),
    #[error("the peer sent nothing for too long")]
    Timeout,
    #[error("the peer ended the body early")]
    Truncated,
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("the stream failed: {0}")]
    H2(#[from] h2::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_and_what_connection_names() {
        let mut headers = Headers::default();
        for (name, value) in [
            ("Connection", "x-one, Keep-Alive"),
            ("X-One", "1"),
            ("X-Two", "2"),
            ("TE", "gzip"),
            ("Proxy-Authorization", "Basic x"),
            ("Content-Length", "5"),
        ] {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        headers.strip_hop_by_hop();
        assert_eq!(
            headers
                .iter()
                .map(|(name, _)| name.as_ref())
                .collect::<Vec<_>>(),
            [b"X-Two"]
        );
    }
}
