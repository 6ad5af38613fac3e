//! permessage-deflate (RFC 7692): what is agreed on, and inflating messages.
//!
//! Nothing is ever deflated here. A peer that offered it must take plain messages too (RFC 7692 §6), so both sides
//! may compress what they send us and get plain messages from us.

use bytes::{Buf, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

use super::frame::Violation;
use crate::limits;
use crate::message::Headers;

pub const EXTENSIONS: &str = "sec-websocket-extensions";
const NAME: &[u8] = b"permessage-deflate";

/// One set of parameters, in an offer or in the answer to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    pub server_no_context_takeover: bool,
    pub client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<Bits>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    /// Without a value: in an offer only, "I can do that".
    Any,
    Of(u8),
}

/// The offers of permessage-deflate in the agent's list; every other extension is left out, and is so not asked for.
/// `Err` where the list is malformed.
pub fn offers(headers: &Headers) -> Result<Vec<Parameters>, &'static str> {
    let mut offers = Vec::new();
    for extension in elements(headers) {
        // An offer with a parameter that is unknown or has a wrong value is one that nobody may accept (§5.1).
        if let (NAME, parameters) = extension?
            && let Some(offer) = Parameters::parse(&parameters)
        {
            offers.push(offer);
        }
    }
    Ok(offers)
}

/// What the origin chose. `Err` where it chose something that was not offered.
pub fn answer(
    headers: &Headers,
    offers: &[Parameters],
) -> Result<Option<Parameters>, &'static str> {
    let mut chosen = None;
    for extension in elements(headers) {
        let (NAME, parameters) = extension? else {
            return Err("it chose an extension that was not offered");
        };
        let parameters = Parameters::parse(&parameters)
            .filter(|answer| answer.client_max_window_bits != Some(Bits::Any))
            .ok_or("it chose parameters of permessage-deflate that are not valid")?;
        if chosen.replace(parameters).is_some() {
            return Err("it chose permessage-deflate twice");
        }
    }
    match chosen {
        Some(answer) if !offers.iter().any(|offer| answer.answers(offer)) => {
            Err("it chose parameters of permessage-deflate that were not offered")
        }
        chosen => Ok(chosen),
    }
}

impl Parameters {
    fn parse(list: &[(&[u8], Option<&[u8]>)]) -> Option<Self> {
        let mut own = Self::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        for (name, value) in list {
            if seen.contains(name) {
                return None;
            }
            seen.push(name);
            match (*name, value) {
                (b"server_no_context_takeover", None) => own.server_no_context_takeover = true,
                (b"client_no_context_takeover", None) => own.client_no_context_takeover = true,
                (b"server_max_window_bits", Some(value)) => {
                    own.server_max_window_bits = Some(bits(value)?);
                }
                (b"client_max_window_bits", None) => own.client_max_window_bits = Some(Bits::Any),
                (b"client_max_window_bits", Some(value)) => {
                    own.client_max_window_bits = Some(Bits::Of(bits(value)?));
                }
                _ => return None,
            }
        }
        Some(own)
    }

    /// Whether it can be the answer to `offer` (RFC 7692 §7.1).
    fn answers(&self, offer: &Self) -> bool {
        let server_bits = match (self.server_max_window_bits, offer.server_max_window_bits) {
            (_, None) => true,
            (Some(own), Some(limit)) => own <= limit,
            (None, Some(_)) => false,
        };
        let client_bits = match (self.client_max_window_bits, offer.client_max_window_bits) {
            (None, _) | (_, Some(Bits::Any)) => true,
            (Some(Bits::Of(own)), Some(Bits::Of(limit))) => own <= limit,
            (Some(_), _) => false,
        };
        let server_takeover = self.server_no_context_takeover || !offer.server_no_context_takeover;
        server_bits && client_bits && server_takeover
    }

    pub fn to_header(self) -> String {
        let mut text = String::from("permessage-deflate");
        if self.server_no_context_takeover {
            text.push_str("; server_no_context_takeover");
        }
        if self.client_no_context_takeover {
            text.push_str("; client_no_context_takeover");
        }
        if let Some(bits) = self.server_max_window_bits {
            text.push_str(&format!("; server_max_window_bits={bits}"));
        }
        match self.client_max_window_bits {
            Some(Bits::Any) => text.push_str("; client_max_window_bits"),
            Some(Bits::Of(bits)) => text.push_str(&format!("; client_max_window_bits={bits}")),
            None => {}
        }
        text
    }
}

fn bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

type Element<'a> = (&'a [u8], Vec<(&'a [u8], Option<&'a [u8]>)>);

/// `name; a; b=c; d="e"`, separated by commas. A quoted value must be a token inside (RFC 6455 §9.1), so neither
/// comma nor semicolon can hide in it.
fn elements(headers: &Headers) -> impl Iterator<Item = Result<Element<'_>, &'static str>> {
    const BAD: &str = "Sec-WebSocket-Extensions is malformed";
    headers
        .all(EXTENSIONS)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|text| {
            let mut parts = text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().filter(|name| token(name)).ok_or(BAD)?;
            let mut parameters = Vec::new();
            for part in parts {
                let mut sides = part.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
                let name = sides.next().filter(|name| token(name)).ok_or(BAD)?;
                let value = sides.next().map(|value| {
                    let inner = value
                        .strip_prefix(b"\"")
                        .and_then(|rest| rest.strip_suffix(b"\""));
                    inner.unwrap_or(value)
                });
                if value.is_some_and(|value| !token(value)) {
                    return Err(BAD);
                }
                parameters.push((name, value));
            }
            Ok((name, parameters))
        })
}

/// RFC 9110 §5.6.2.
pub fn token(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Inflates the messages of one direction, a piece at a time.
pub struct Inflater {
    state: Decompress,
    /// The next message begins without what the ones before it held.
    forgets: bool,
    input: BytesMut,
    /// All of the message is in `input`, its end mark included.
    ending: bool,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The window holds what the agent sent.
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

impl Inflater {
    pub fn new(forgets: bool) -> Self {
        Self {
            // The largest window reads what was made with any smaller one.
            state: Decompress::new(false),
            forgets,
            input: BytesMut::new(),
            ending: false,
        }
    }

    /// Adds a piece of a message; `last` is the end of it. Only when [`Inflater::next`] said that it wants more.
    pub fn push(&mut self, data: &[u8], last: bool) {
        self.input.extend_from_slice(data);
        if last {
            // What a sender takes away (RFC 7692 §7.2.1).
            self.input.extend_from_slice(&[0, 0, 0xff, 0xff]);
            self.ending = true;
        }
    }

    /// The next piece, at most [`limits::READ_BYTES`] of it, and whether it is the message's last. `None`: push more.
    pub fn next(&mut self) -> Result<Option<(Bytes, bool)>, Violation> {
        if self.input.is_empty() && !self.ending {
            return Ok(None);
        }
        let mut out = vec![0u8; limits::READ_BYTES];
        let mut made = 0;
        // Until nothing moves any more: the decoder may stop short of both ends.
        while let Some(room @ [_, ..]) = out.get_mut(made..) {
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .decompress(&self.input, room, FlushDecompress::Sync);
            let used = (self.state.total_in() - before_in) as usize;
            let fresh = (self.state.total_out() - before_out) as usize;
            self.input.advance(used.min(self.input.len()));
            made += fresh;
            match status {
                // After a final block inflaters differ in how they go on.
                Ok(Status::StreamEnd) => {
                    return Err(Violation::Protocol(
                        "a compressed message with a final block",
                    ));
                }
                Ok(Status::Ok | Status::BufError) => {}
                Err(_) => return Err(Violation::Protocol("a message that does not inflate")),
            }
            if used == 0 && fresh == 0 {
                break;
            }
        }
        out.truncate(made);
        if made == limits::READ_BYTES {
            return Ok(Some((out.into(), false)));
        }
        if !self.input.is_empty() {
            return Err(Violation::Protocol("a message that does not inflate"));
        }
        let last = std::mem::take(&mut self.ending);
        if last && self.forgets {
            self.state.reset(false);
        }
        if made == 0 && !last {
            return Ok(None);
        }
        Ok(Some((out.into(), last)))
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    fn headers(value: &str) -> Headers {
        let mut headers = Headers::default();
        headers.push(EXTENSIONS.as_bytes(), value.as_bytes().to_vec());
        headers
    }

    #[test]
    fn only_well_formed_offers_of_one_extension_go_on() {
        let list = "x-other; a=b, permessage-deflate; client_max_window_bits, permessage-deflate; server_max_window_bits=\"10\"; server_no_context_takeover";
        let offers: Vec<_> = offers(&headers(list))
            .unwrap()
            .into_iter()
            .map(Parameters::to_header)
            .collect();
        assert_eq!(
            offers,
            [
                "permessage-deflate; client_max_window_bits",
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=10"
            ]
        );
        for ignored in [
            "permessage-deflate; what",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-bzip2",
        ] {
            assert_eq!(
                super::offers(&headers(ignored)),
                Ok(Vec::new()),
                "{ignored}"
            );
        }
        for malformed in [
            "",
            "a b",
            "permessage-deflate; x=\"a,b\"",
            "permessage-deflate;;",
        ] {
            assert!(super::offers(&headers(malformed)).is_err(), "{malformed}");
        }
    }

    #[test]
    fn an_answer_must_be_one_to_an_offer() {
        let offered = offers(&headers(
            "permessage-deflate; client_max_window_bits=10; server_no_context_takeover",
        ))
        .unwrap();
        let fits = |text: &str| answer(&headers(text), &offered);
        assert!(
            fits("permessage-deflate; server_no_context_takeover")
                .unwrap()
                .is_some()
        );
        assert!(
            fits("permessage-deflate; server_no_context_takeover; client_max_window_bits=9; server_max_window_bits=8; client_no_context_takeover")
                .is_ok()
        );
        for wrong in [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=11",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover, permessage-deflate; server_no_context_takeover",
            "x-other",
            "permessage-deflate; server_no_context_takeover; x",
        ] {
            assert!(fits(wrong).is_err(), "{wrong}");
        }
        assert_eq!(answer(&Headers::default(), &offered), Ok(None));
        assert!(answer(&headers("permessage-deflate"), &[]).is_err());
    }

    fn deflate(state: &mut Compress, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 1024);
        state
            .compress_vec(text, &mut out, FlushCompress::Sync)
            .unwrap();
        assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
        out
    }

    fn inflate(state: &mut Inflater, wire: &[u8], step: usize) -> Result<Vec<u8>, Violation> {
        let mut text = Vec::new();
        let mut chunks = wire.chunks(step).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            state.push(chunk, chunks.peek().is_none());
            while let Some((piece, last)) = state.next()? {
                assert!(piece.len() <= limits::READ_BYTES);
                text.extend_from_slice(&piece);
                if last {
                    return Ok(text);
                }
            }
        }
    }

    #[test]
    fn messages_that_lean_on_the_ones_before_them() {
        let long: Vec<u8> = (0..300_000u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        for step in [1, 7, 4096, usize::MAX] {
            let mut compress = compress_anew();
            let mut inflater = Inflater::new(false);
            for text in [
                b"hello hello".as_slice(),
                b"hello hello",
                b"",
                &long,
                b"hello",
                &vec![b'a'; 65536],
            ] {
                let wire = deflate(&mut compress, text);
                assert!(
                    inflate(&mut inflater, &wire, step).unwrap() == text,
                    "{step} {}",
                    text.len()
                );
            }
        }
        let mut forgetful = Inflater::new(true);
        for _ in 0..3 {
            let wire = deflate(&mut compress_anew(), b"hello hello hello");
            assert_eq!(
                inflate(&mut forgetful, &wire, 9).unwrap(),
                b"hello hello hello"
            );
        }
    }

    fn compress_anew() -> Compress {
        Compress::new(Compression::default(), false)
    }

    #[test]
    fn what_does_not_inflate() {
        for wire in [
            // RFC 7692 §7.2.3.4: "Hello" in a final block.
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00][..],
            &[0xff, 0xff, 0xff],
        ] {
            let outcome = inflate(&mut Inflater::new(false), wire, 64);
            assert!(outcome.is_err(), "{wire:x?}: {outcome:?}");
        }
        // §7.2.3.1 and §7.2.3.3: in a compressed and in a stored block.
        for wire in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[
                0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
            ],
        ] {
            assert_eq!(
                inflate(&mut Inflater::new(false), wire, 3).unwrap(),
                b"Hello"
            );
        }
    }
}
