//! The opening handshake (RFC 6455 §4), once with the agent and once with the origin.
//!
//! The origin is asked with a key of our own and with what we understand of the offers; the agent's key would carry
//! sixteen bytes past the scan, and an extension that we do not know would be bytes that we cannot read.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use sha1::{Digest, Sha1};

use super::deflate::{self, Parameters};
use crate::message::{Headers, RequestHead, ResponseHead};

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const PROTOCOL: &str = "sec-websocket-protocol";
const OURS: [&str; 5] = [
    "sec-websocket-accept",
    deflate::EXTENSIONS,
    "sec-websocket-key",
    PROTOCOL,
    "sec-websocket-version",
];

/// Whether a request asks for a WebSocket; whether it asks rightly is for [`Asked::parse`] to say.
pub fn is_asked(headers: &Headers) -> bool {
    headers
        .first("upgrade")
        .is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
}

/// The agent's side of the handshake.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `None` in HTTP/2, where nothing needs proving.
    key: Option<Bytes>,
    offers: Vec<Parameters>,
}

impl Asked {
    pub fn parse(head: &RequestHead) -> Result<Self, &'static str> {
        if head.method != Method::GET {
            return Err("a WebSocket is asked for with GET");
        }
        let headers = &head.headers;
        one(headers, "upgrade", "a WebSocket needs one Upgrade")?;
        let connection = headers.all("connection").any(|value| {
            value
                .split(|byte| *byte == b',')
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        });
        if !connection {
            return Err("a WebSocket needs Connection: Upgrade");
        }
        if one(
            headers,
            "sec-websocket-version",
            "a WebSocket needs one Sec-WebSocket-Version",
        )? != "13"
        {
            return Err("the WebSocket's version is not 13");
        }
        let key = one(
            headers,
            "sec-websocket-key",
            "a WebSocket needs one Sec-WebSocket-Key",
        )?;
        if BASE64_STANDARD.decode(key).map_or(0, |key| key.len()) != 16 {
            return Err("the Sec-WebSocket-Key is not sixteen bytes in base64");
        }
        Ok(Self {
            key: Some(key.clone()),
            offers: deflate::offers(headers)?,
        })
    }

    /// An extended CONNECT with `:protocol` `websocket` (RFC 8441 §5).
    pub fn over_h2(head: &RequestHead) -> Result<Self, &'static str> {
        let missing = "a WebSocket needs one Sec-WebSocket-Version";
        if one(&head.headers, "sec-websocket-version", missing)? != "13" {
            return Err("the WebSocket's version is not 13");
        }
        Ok(Self {
            key: None,
            offers: deflate::offers(&head.headers)?,
        })
    }

    pub fn is_over_h2(&self) -> bool {
        self.key.is_none()
    }
}

fn one<'h>(
    headers: &'h Headers,
    name: &'static str,
    missing: &'static str,
) -> Result<&'h Bytes, &'static str> {
    let mut all = headers.all(name);
    match (all.next(), all.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(missing),
    }
}

/// What the origin is asked for.
#[derive(Clone, Debug)]
pub struct Asking {
    key: String,
    offers: Vec<Parameters>,
    protocols: Vec<Bytes>,
}

impl Asking {
    /// Turns a head, without what is for one hop only, into the request to the origin.
    pub fn write(asked: &Asked, head: &mut RequestHead) -> Result<Self, &'static str> {
        let mut protocols = Vec::new();
        for value in head.headers.all(PROTOCOL) {
            for name in value.split(|byte| *byte == b',') {
                let name = name.trim_ascii();
                if !deflate::token(name) {
                    return Err("Sec-WebSocket-Protocol is malformed");
                }
                protocols.push(value.slice_ref(name));
            }
        }
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(|_| "the system has no randomness")?;
        let key = BASE64_STANDARD.encode(random);
        OURS.iter().for_each(|name| head.headers.remove(name));
        let mut push = |name: &'static str, value: Bytes| head.headers.push(name, value);
        push("connection", Bytes::from_static(b"Upgrade"));
        push("upgrade", Bytes::from_static(b"websocket"));
        push("sec-websocket-version", Bytes::from_static(b"13"));
        push("sec-websocket-key", key.clone().into());
        if !protocols.is_empty() {
            push(PROTOCOL, protocols.join(&b", "[..]).into());
        }
        let offers: Vec<String> = asked.offers.iter().map(|offer| offer.to_header()).collect();
        if !offers.is_empty() {
            push(deflate::EXTENSIONS, offers.join(", ").into());
        }
        head.takes_trailers = false;
        head.expects_continue = false;
        Ok(Self {
            key,
            offers: asked.offers.clone(),
            protocols,
        })
    }

    /// Judges a 101. What it agreed on, and the answer for the agent.
    pub fn answered(
        &self,
        asked: &Asked,
        mut head: ResponseHead,
    ) -> Result<(Option<Parameters>, ResponseHead), &'static str> {
        let headers = &head.headers.clone();
        if !is_asked(headers) {
            return Err("it switched to something else than a WebSocket");
        }
        let mut accepts = headers.all("sec-websocket-accept");
        match (accepts.next(), accepts.next()) {
            (Some(own), None) if own == accept(self.key.as_bytes()).as_bytes() => {}
            _ => return Err("its Sec-WebSocket-Accept is not the answer to the key"),
        }
        let mut chosen = headers.all(PROTOCOL);
        let protocol = match (chosen.next(), chosen.next()) {
            (None, _) => None,
            (Some(name), None) if self.protocols.contains(name) => Some(name.clone()),
            _ => return Err("it chose a subprotocol that was not offered"),
        };
        let deflate = deflate::answer(headers, &self.offers)?;

        head.headers.strip_hop_by_hop();
        OURS.iter().for_each(|name| head.headers.remove(name));
        head.headers.remove("x-bottle-verdict");
        head.headers.remove("alt-svc");
        let mut push = |name: &'static str, value: Bytes| head.headers.push(name, value);
        if let Some(key) = &asked.key {
            push("Connection", Bytes::from_static(b"Upgrade"));
            push("Upgrade", Bytes::from_static(b"websocket"));
            push("Sec-WebSocket-Accept", accept(key).into());
        }
        if let Some(protocol) = protocol {
            push("Sec-WebSocket-Protocol", protocol);
        }
        if let Some(parameters) = deflate {
            push("Sec-WebSocket-Extensions", parameters.to_header().into());
        }
        head.status = match &asked.key {
            Some(_) => StatusCode::SWITCHING_PROTOCOLS,
            None => StatusCode::OK,
        };
        Ok((deflate, head))
    }
}

fn accept(key: &[u8]) -> String {
    let mut digest = Sha1::new();
    digest.update(key);
    digest.update(GUID);
    BASE64_STANDARD.encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §1.3.
    #[test]
    fn the_accept_of_the_rfc() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    fn head(fields: &[(&'static str, &'static str)]) -> RequestHead {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(*name, *value);
        }
        RequestHead {
            method: Method::GET,
            target: Bytes::from_static(b"/"),
            headers,
            expects_continue: false,
            takes_trailers: true,
        }
    }

    const GOOD: [(&str, &str); 4] = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn what_is_no_handshake() {
        assert!(Asked::parse(&head(&GOOD)).is_ok());
        for (at, (name, _)) in GOOD.iter().enumerate() {
            let mut fields = GOOD.to_vec();
            fields.remove(at);
            assert!(Asked::parse(&head(&fields)).is_err(), "without {name}");
        }
        for (at, value) in [
            (0, "close"),
            (2, "8"),
            (2, "13, 8"),
            (3, "short"),
            (3, "dGhlIHNhbXBsZSBub25jZQ"),
        ] {
            let mut fields = GOOD.to_vec();
            fields[at].1 = value;
            assert!(Asked::parse(&head(&fields)).is_err(), "{value}");
        }
        for again in &GOOD[1..] {
            let mut fields = GOOD.to_vec();
            fields.push(*again);
            assert!(Asked::parse(&head(&fields)).is_err(), "two of {}", again.0);
        }
        let mut post = head(&GOOD);
        post.method = Method::POST;
        assert!(Asked::parse(&post).is_err());
    }

    #[test]
    fn the_agents_key_stays_here_and_so_do_unknown_extensions() {
        let mut fields = GOOD.to_vec();
        fields.push((
            "Sec-WebSocket-Extensions",
            "x-unknown; a, permessage-deflate",
        ));
        fields.push(("Sec-WebSocket-Protocol", "one, two"));
        let mut request = head(&fields);
        let asked = Asked::parse(&request).unwrap();
        request.headers.strip_hop_by_hop();
        let asking = Asking::write(&asked, &mut request).unwrap();
        let sent = |name: &str| {
            let all: Vec<_> = request.headers.all(name).cloned().collect();
            all
        };
        assert_eq!(sent("sec-websocket-key").len(), 1);
        assert_ne!(sent("sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
        assert_eq!(sent("sec-websocket-extensions"), ["permessage-deflate"]);
        assert_eq!(sent("sec-websocket-protocol"), ["one, two"]);

        let right = accept(asking.key.as_bytes());
        let answer = |more: &[(&'static str, &'static str)], accept: &str| {
            let mut headers = head(more).headers;
            headers.push("Upgrade", "websocket");
            headers.push("Connection", "Upgrade");
            headers.push("Sec-WebSocket-Accept", accept.to_owned());
            headers.push("X-Bottle-Verdict", "allowed");
            let status = StatusCode::SWITCHING_PROTOCOLS;
            asking.answered(&asked, ResponseHead { status, headers })
        };
        let (deflate, mut told) = answer(&[("Sec-WebSocket-Protocol", "two")], &right).unwrap();
        assert_eq!(deflate, None);
        assert_eq!(
            told.headers.all("sec-websocket-accept").collect::<Vec<_>>(),
            ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
        );
        told.headers.remove("sec-websocket-accept");
        assert_eq!(told.headers.len(), 3, "{told:?}");
        assert!(
            answer(
                &[("Sec-WebSocket-Extensions", "permessage-deflate")],
                &right
            )
            .unwrap()
            .0
            .is_some()
        );
        assert!(answer(&[], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").is_err());
        assert!(answer(&[("Sec-WebSocket-Protocol", "three")], &right).is_err());
        assert!(
            answer(
                &[
                    ("Sec-WebSocket-Protocol", "one"),
                    ("Sec-WebSocket-Protocol", "two")
                ],
                &right
            )
            .is_err()
        );
        assert!(answer(&[("Sec-WebSocket-Extensions", "x-unknown")], &right).is_err());
        assert!(answer(&[("Sec-WebSocket-Accept", "x")], &right).is_err());
    }
}
