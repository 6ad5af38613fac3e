//! What the targets of `proxy/fuzz` reach of this crate; there is none of it in any other build.

use bytes::BytesMut;

pub use crate::h1::again::{Forwarded, Relayed, forwarded, relayed};
use crate::ws::deflate::Inflater;
use crate::ws::frame::{self, Opcode, Peer};
use crate::ws::message::{Decoder, Kind, Piece};

/// What one side of a WebSocket says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A code and a reason, or nothing.
    Close(Vec<u8>),
}

/// What is understood of these frames, of which so many bytes come at a time, and whether that was all of them.
/// `compression`: agreed on, with a window that is forgotten behind each message or is not.
pub fn said(
    wire: &[u8],
    by_client: bool,
    compression: Option<bool>,
    step: usize,
) -> (Vec<Said>, bool) {
    let from = if by_client {
        Peer::Client
    } else {
        Peer::Server
    };
    let mut decoder = Decoder::new(from, compression.map(Inflater::new));
    let (mut said, mut begun, mut buf) = (Vec::new(), Vec::new(), BytesMut::new());
    for piece in wire.chunks(step) {
        buf.extend_from_slice(piece);
        loop {
            said.push(match decoder.next(&mut buf) {
                Ok(None) => break,
                Err(_) => return (said, false),
                Ok(Some(Piece::Ping(payload))) => Said::Ping(payload.to_vec()),
                Ok(Some(Piece::Pong(payload))) => Said::Pong(payload.to_vec()),
                Ok(Some(Piece::Close(payload))) => Said::Close(payload.to_vec()),
                Ok(Some(Piece::Data { kind, data, last })) => {
                    begun.extend_from_slice(&data);
                    if !last {
                        continue;
                    }
                    let whole = std::mem::take(&mut begun);
                    match kind {
                        Kind::Text => Said::Text(whole),
                        Kind::Binary => Said::Binary(whole),
                    }
                }
            });
        }
    }
    (said, true)
}

/// The same in frames of our own.
pub fn framed(said: &[Said], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = BytesMut::new();
    for one in said {
        let (opcode, payload) = match one {
            Said::Text(payload) => (Opcode::Text, payload),
            Said::Binary(payload) => (Opcode::Binary, payload),
            Said::Ping(payload) => (Opcode::Ping, payload),
            Said::Pong(payload) => (Opcode::Pong, payload),
            Said::Close(payload) => (Opcode::Close, payload),
        };
        frame::put(&mut out, true, opcode, payload, mask);
    }
    out.to_vec()
}
