//! Frames of a WebSocket: read alike however they come, what is written of them is read as the same, and another library
//! reads what we take as what we take it for.

#![no_main]

use std::io::{self, Read, Write};

use libfuzzer_sys::fuzz_target;
use proxy::fuzzing::{Said, framed, said};
use proxy_fuzz::stepped;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

fuzz_target!(|input: &[u8]| {
    let Some((step, [mode, wire @ ..])) = stepped(input) else {
        return;
    };
    let by_client = mode & 1 == 0;
    let compression = match mode >> 1 & 3 {
        0 | 1 => None,
        2 => Some(false),
        _ => Some(true),
    };
    let (whole, good) = said(wire, by_client, compression, usize::MAX);
    assert_eq!(
        said(wire, by_client, compression, step),
        (whole.clone(), good),
        "{step} bytes at a time"
    );
    let mask = by_client.then_some([0x12, 0x34, 0x56, 0x78]);
    assert_eq!(
        said(&framed(&whole, mask), by_client, None, usize::MAX),
        (whole.clone(), true)
    );
    if compression.is_none() {
        assert_eq!(by_another(wire, by_client, whole.len()), whole);
    }
});

/// As tungstenite reads them: so many messages.
fn by_another(wire: &[u8], by_client: bool, count: usize) -> Vec<Said> {
    let role = if by_client {
        Role::Server
    } else {
        Role::Client
    };
    let mut socket = WebSocket::from_raw_socket(Wire(wire), role, None);
    let mut read = Vec::new();
    while read.len() < count {
        read.push(match socket.read() {
            Ok(Message::Text(text)) => Said::Text(text.as_bytes().to_vec()),
            Ok(Message::Binary(data)) => Said::Binary(data.to_vec()),
            Ok(Message::Ping(data)) => Said::Ping(data.to_vec()),
            Ok(Message::Pong(data)) => Said::Pong(data.to_vec()),
            Ok(Message::Close(None)) => Said::Close(Vec::new()),
            Ok(Message::Close(Some(frame))) => {
                let mut payload = u16::from(frame.code).to_be_bytes().to_vec();
                payload.extend_from_slice(frame.reason.as_bytes());
                Said::Close(payload)
            }
            Ok(Message::Frame(_)) => unreachable!("none is read raw"),
            Err(Error::Io(_)) => return read,
            Err(error) => panic!("{error} behind {read:?}"),
        });
    }
    read
}

/// What is written is of no interest.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
