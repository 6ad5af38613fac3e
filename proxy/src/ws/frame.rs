//! Frames (RFC 6455 §5): reading a header, writing a whole frame.

use bytes::{BufMut, BytesMut};

/// A payload of a control frame is no longer (RFC 6455 §5.5).
pub const CONTROL_BYTES: usize = 125;

/// Why a peer's frames are not understood; it is told so with a close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("{0}")]
    Protocol(&'static str),
    #[error("a text that is not UTF-8")]
    NotText,
    #[error("a message that inflates to more than is inspected")]
    Inflated,
}

impl Violation {
    /// RFC 6455 §7.4.1.
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotText => 1007,
            Self::Inflated => 1009,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn parse(nibble: u8) -> Option<Self> {
        Some(match nibble {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn nibble(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Whose frames are read. A client masks every frame, a server none (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub fin: bool,
    /// The first reserved bit; what it means is the extension's to say.
    pub rsv1: bool,
    pub opcode: Opcode,
    pub length: u64,
    pub mask: Option<[u8; 4]>,
}

impl Header {
    /// The header that `bytes` begin with, and its length, once it is there whole.
    pub fn parse(bytes: &[u8], from: Peer) -> Result<Option<(Self, usize)>, Violation> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0x30 != 0 {
            return Err(Violation::Protocol("a reserved bit that nothing defines"));
        }
        let Some(opcode) = Opcode::parse(first & 0x0f) else {
            return Err(Violation::Protocol("an unknown opcode"));
        };
        let (fin, rsv1) = (first & 0x80 != 0, first & 0x40 != 0);
        let masked = second & 0x80 != 0;
        match (from, masked) {
            (Peer::Client, false) => return Err(Violation::Protocol("a client's frame unmasked")),
            (Peer::Server, true) => return Err(Violation::Protocol("a server's frame masked")),
            _ => {}
        }
        let short = second & 0x7f;
        if opcode.is_control() {
            if !fin {
                return Err(Violation::Protocol("a control frame in fragments"));
            }
            if usize::from(short) > CONTROL_BYTES {
                return Err(Violation::Protocol("a control frame that is too long"));
            }
            if rsv1 {
                return Err(Violation::Protocol("a control frame that is compressed"));
            }
        }
        let (length, used) = match (short, rest) {
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8)
            }
            (126 | 127, _) => return Ok(None),
            (short, _) => (u64::from(short), 0),
        };
        let shortest = match used {
            0 => true,
            2 => length > 125,
            _ => length > 0xffff,
        };
        if !shortest || length >> 63 != 0 {
            return Err(Violation::Protocol(
                "a length that is not written as it must be",
            ));
        }
        let mut mask = None;
        if masked {
            let Some([a, b, c, d]) = rest.get(used..used + 4) else {
                return Ok(None);
            };
            mask = Some([*a, *b, *c, *d]);
        }
        let header = Self {
            fin,
            rsv1,
            opcode,
            length,
            mask,
        };
        Ok(Some((header, 2 + used + if masked { 4 } else { 0 })))
    }
}

/// Masks and unmasks; `at` is how many bytes of the frame's payload went before.
pub fn mask(payload: &mut [u8], key: [u8; 4], at: u64) {
    let mut key = key;
    key.rotate_left((at % 4) as usize);
    let wide = u32::from_ne_bytes(key);
    let mut chunks = payload.chunks_exact_mut(4);
    for chunk in &mut chunks {
        if let [a, b, c, d] = chunk {
            let masked = (u32::from_ne_bytes([*a, *b, *c, *d]) ^ wide).to_ne_bytes();
            [*a, *b, *c, *d] = masked;
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// Writes one frame; with `key` where a client writes it.
pub fn put(out: &mut BytesMut, fin: bool, opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) {
    out.reserve(14 + payload.len());
    out.put_u8(if fin { 0x80 } else { 0 } | opcode.nibble());
    let masked = if key.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => out.put_u8(masked | length),
        (_, Ok(length)) => {
            out.put_u8(masked | 126);
            out.put_u16(length);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(payload.len() as u64);
        }
    }
    let Some(key) = key else {
        return out.put_slice(payload);
    };
    out.put_slice(&key);
    let begins = out.len();
    out.put_slice(payload);
    mask(out.get_mut(begins..).unwrap_or_default(), key, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(bytes: &[u8], from: Peer) -> Result<Option<Header>, Violation> {
        Ok(Header::parse(bytes, from)?.map(|(header, _)| header))
    }

    /// RFC 6455 §5.7: "Hello", masked.
    #[test]
    fn the_example_of_the_rfc() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let wire = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let mut out = BytesMut::new();
        put(&mut out, true, Opcode::Text, b"Hello", Some(key));
        assert_eq!(out, &wire[..]);
        let (header, used) = Header::parse(&out, Peer::Client).unwrap().unwrap();
        let mut out = out.split_off(used);
        assert_eq!((header.length, header.mask), (5, Some(key)));
        mask(&mut out[..2], key, 0);
        mask(&mut out[2..], key, 2);
        assert_eq!(out, &b"Hello"[..]);
    }

    #[test]
    fn every_length_is_read_as_it_was_written() {
        for length in [0, 1, 125, 126, 127, 65535, 65536, 70000] {
            for key in [None, Some([1, 2, 3, 4])] {
                let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
                let mut out = BytesMut::new();
                put(&mut out, false, Opcode::Binary, &payload, key);
                let from = if key.is_some() {
                    Peer::Client
                } else {
                    Peer::Server
                };
                for cut in 0..14.min(out.len() - length) {
                    assert_eq!(take(&out[..cut], from), Ok(None), "{length} cut at {cut}");
                }
                let (header, used) = Header::parse(&out, from).unwrap().unwrap();
                let mut out = out.split_off(used);
                assert_eq!((header.length, header.fin), (length as u64, false));
                if let Some(key) = key {
                    mask(&mut out, key, 0);
                }
                assert!(out == payload[..]);
            }
        }
    }

    #[test]
    fn what_no_peer_may_send_is_refused() {
        for (what, bytes, from) in [
            ("rsv2", &[0xa1, 0x80][..], Peer::Client),
            ("rsv3", &[0x91, 0x80], Peer::Client),
            ("opcode 3", &[0x83, 0x80], Peer::Client),
            ("opcode 11", &[0x8b, 0x80], Peer::Client),
            ("unmasked", &[0x81, 0x05], Peer::Client),
            ("masked", &[0x81, 0x85], Peer::Server),
            ("ping in fragments", &[0x09, 0x80], Peer::Client),
            ("long ping", &[0x89, 0xfe], Peer::Client),
            ("long close", &[0x88, 0xff], Peer::Client),
            ("compressed pong", &[0xca, 0x80], Peer::Client),
            ("125 in 16 bits", &[0x82, 126, 0, 125], Peer::Server),
            (
                "65535 in 64 bits",
                &[0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255],
                Peer::Server,
            ),
            (
                "the highest bit",
                &[0x82, 127, 128, 0, 0, 0, 0, 1, 0, 0],
                Peer::Server,
            ),
        ] {
            assert!(take(bytes, from).is_err(), "{what}");
        }
    }
}
