//! From frames to what they say, in pieces: fragments joined, masks taken off, messages inflated, text checked.

use bytes::{Buf, Bytes, BytesMut};

use super::deflate::Inflater;
use super::frame::{self, Header, Opcode, Peer, Violation};
use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
}

impl Kind {
    pub fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Some of a message; text may be cut inside a character.
    Data {
        kind: Kind,
        data: Bytes,
        last: bool,
    },
    Ping(Bytes),
    Pong(Bytes),
    /// The payload, empty or code and reason.
    Close(Bytes),
}

/// Reads the frames of one peer.
#[derive(Debug)]
pub struct Decoder {
    from: Peer,
    inflater: Option<Inflater>,
    /// Whether a message that inflates out of all proportion is a violation.
    bounded: bool,
    frame: Option<DataFrame>,
    message: Option<Message>,
    closed: bool,
}

#[derive(Debug)]
struct DataFrame {
    fin: bool,
    mask: Option<[u8; 4]>,
    read: u64,
    left: u64,
}

#[derive(Debug)]
struct Message {
    kind: Kind,
    compressed: bool,
    /// Fragments so far that held nothing.
    empty: usize,
    received: u64,
    inflated: u64,
    text: Utf8,
}

impl Decoder {
    pub fn new(from: Peer, inflater: Option<Inflater>) -> Self {
        Self {
            from,
            inflater,
            bounded: from == Peer::Client,
            frame: None,
            message: None,
            closed: false,
        }
    }

    /// Whether a message of the agent's has begun that is held until it ends. An origin may take its time.
    pub fn is_held_up(&self) -> bool {
        self.message.is_some() && self.from == Peer::Client
    }

    /// The next piece, of at most [`limits::READ_BYTES`]. `None`: more bytes are needed.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Piece>, Violation> {
        loop {
            if let Some(inflated) = self.inflated()? {
                return Ok(Some(inflated));
            }
            if let Some(frame) = &mut self.frame {
                if frame.left > 0 && buf.is_empty() {
                    return Ok(None);
                }
                let most = usize::try_from(frame.left).unwrap_or(usize::MAX);
                let mut data = buf.split_to(most.min(buf.len()).min(limits::READ_BYTES));
                if let Some(key) = frame.mask {
                    frame::mask(&mut data, key, frame.read);
                }
                frame.read += data.len() as u64;
                frame.left -= data.len() as u64;
                let ended = frame.left == 0;
                let last = ended && frame.fin;
                if ended {
                    self.frame = None;
                }
                if let Some(piece) = self.content(data.freeze(), last)? {
                    return Ok(Some(piece));
                }
                continue;
            }
            if self.closed {
                // RFC 6455 §5.5.1: nothing is sent after a close.
                return if buf.is_empty() {
                    Ok(None)
                } else {
                    Err(Violation::Protocol("a frame after a close"))
                };
            }
            let Some((header, used)) = Header::parse(buf, self.from)? else {
                return Ok(None);
            };
            if header.opcode.is_control() {
                // It fits into any buffer.
                let length = usize::try_from(header.length).unwrap_or_default();
                if buf.len() < used + length {
                    return Ok(None);
                }
                buf.advance(used);
                let mut payload = buf.split_to(length);
                if let Some(key) = header.mask {
                    frame::mask(&mut payload, key, 0);
                }
                return self.control(header.opcode, payload.freeze()).map(Some);
            }
            buf.advance(used);
            self.begin(&header)?;
        }
    }

    fn begin(&mut self, header: &Header) -> Result<(), Violation> {
        let kind = match header.opcode {
            Opcode::Text => Some(Kind::Text),
            Opcode::Binary => Some(Kind::Binary),
            _ => None,
        };
        match (&mut self.message, kind) {
            (Some(_), Some(_)) => {
                return Err(Violation::Protocol("a message inside another"));
            }
            (None, None) => {
                return Err(Violation::Protocol("a continuation of nothing"));
            }
            (None, Some(kind)) => {
                if header.rsv1 && self.inflater.is_none() {
                    return Err(Violation::Protocol(
                        "a compressed message where that was not agreed on",
                    ));
                }
                self.message = Some(Message {
                    kind,
                    compressed: header.rsv1,
                    empty: 0,
                    received: 0,
                    inflated: 0,
                    text: Utf8::default(),
                });
            }
            (Some(_), None) if header.rsv1 => {
                return Err(Violation::Protocol("a continuation with a bit of its own"));
            }
            (Some(_), None) => {}
        }
        if let Some(message) = &mut self.message
            && header.length == 0
            && !header.fin
        {
            message.empty += 1;
            if message.empty > limits::EMPTY_FRAGMENTS {
                return Err(Violation::Protocol("too many fragments that hold nothing"));
            }
        }
        self.frame = Some(DataFrame {
            fin: header.fin,
            mask: header.mask,
            read: 0,
            left: header.length,
        });
        Ok(())
    }

    fn content(&mut self, data: Bytes, last: bool) -> Result<Option<Piece>, Violation> {
        let Some(message) = &mut self.message else {
            return Ok(None);
        };
        message.received += data.len() as u64;
        match &mut self.inflater {
            Some(inflater) if message.compressed => {
                inflater.push(&data, last);
                Ok(None)
            }
            _ => self.piece(data, last),
        }
    }

    fn inflated(&mut self) -> Result<Option<Piece>, Violation> {
        loop {
            let (Some(message), Some(inflater)) = (&mut self.message, &mut self.inflater) else {
                return Ok(None);
            };
            if !message.compressed {
                return Ok(None);
            }
            let Some((data, last)) = inflater.next()? else {
                return Ok(None);
            };
            message.inflated += data.len() as u64;
            let most = message
                .received
                .saturating_mul(limits::DECODE_RATIO)
                .saturating_add(limits::INFLATED_BYTES);
            if self.bounded && message.inflated > most {
                return Err(Violation::Inflated);
            }
            if let Some(piece) = self.piece(data, last)? {
                return Ok(Some(piece));
            }
        }
    }

    fn piece(&mut self, data: Bytes, last: bool) -> Result<Option<Piece>, Violation> {
        let Some(message) = &mut self.message else {
            return Ok(None);
        };
        let kind = message.kind;
        if kind == Kind::Text && !message.text.goes_on(&data, last) {
            return Err(Violation::NotText);
        }
        if last {
            self.message = None;
        } else if data.is_empty() {
            return Ok(None);
        }
        Ok(Some(Piece::Data { kind, data, last }))
    }

    fn control(&mut self, opcode: Opcode, payload: Bytes) -> Result<Piece, Violation> {
        match opcode {
            Opcode::Ping => Ok(Piece::Ping(payload)),
            Opcode::Pong => Ok(Piece::Pong(payload)),
            _ => {
                self.closed = true;
                match &payload[..] {
                    [] => {}
                    [_] => return Err(Violation::Protocol("a close with half a code")),
                    [high, low, reason @ ..] => {
                        if !may_be_sent(u16::from_be_bytes([*high, *low])) {
                            return Err(Violation::Protocol("a close code that may not be sent"));
                        }
                        if std::str::from_utf8(reason).is_err() {
                            return Err(Violation::NotText);
                        }
                    }
                }
                Ok(Piece::Close(payload))
            }
        }
    }
}

/// RFC 6455 §7.4: the registered codes that stand in frames, and the ranges for libraries and applications.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Checks text that comes in pieces.
#[derive(Debug, Default)]
struct Utf8 {
    /// The beginning of a character whose end has not come.
    begun: Vec<u8>,
}

impl Utf8 {
    /// False as soon as no continuation could make it valid.
    fn goes_on(&mut self, mut data: &[u8], last: bool) -> bool {
        while let (false, [byte, rest @ ..]) = (self.begun.is_empty(), data) {
            self.begun.push(*byte);
            data = rest;
            match std::str::from_utf8(&self.begun) {
                Ok(_) => self.begun.clear(),
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        if self.begun.is_empty()
            && let Err(error) = std::str::from_utf8(data)
        {
            if error.error_len().is_some() {
                return false;
            }
            self.begun = data.get(error.valid_up_to()..).unwrap_or_default().to_vec();
        }
        !last || self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 4] = [9, 8, 7, 6];

    fn read(decoder: &mut Decoder, wire: &[u8], step: usize) -> Result<Vec<Piece>, Violation> {
        let (mut pieces, mut buf) = (Vec::new(), BytesMut::new());
        for chunk in wire.chunks(step) {
            buf.extend_from_slice(chunk);
            while let Some(piece) = decoder.next(&mut buf)? {
                pieces.push(piece);
            }
        }
        Ok(pieces)
    }

    fn frames(list: &[(bool, Opcode, &[u8])]) -> Vec<u8> {
        let mut out = BytesMut::new();
        for (fin, opcode, payload) in list {
            frame::put(&mut out, *fin, *opcode, payload, Some(KEY));
        }
        out.to_vec()
    }

    fn judge(list: &[(bool, Opcode, &[u8])]) -> Result<Vec<Piece>, Violation> {
        read(
            &mut Decoder::new(Peer::Client, None),
            &frames(list),
            usize::MAX,
        )
    }

    #[test]
    fn fragments_with_a_ping_between_them() {
        let list = [
            (false, Opcode::Text, "h\u{e9}".as_bytes()),
            (true, Opcode::Ping, b"p"),
            (true, Opcode::Continuation, b"llo"),
            (true, Opcode::Close, b"\x03\xe8bye"),
        ];
        for step in 1..20 {
            let pieces = read(&mut Decoder::new(Peer::Client, None), &frames(&list), step).unwrap();
            let mut text = Vec::new();
            let mut controls = Vec::new();
            for piece in pieces {
                match piece {
                    Piece::Data { data, .. } => text.extend_from_slice(&data),
                    other => controls.push(other),
                }
            }
            assert_eq!(text, "h\u{e9}llo".as_bytes());
            assert_eq!(
                controls,
                [
                    Piece::Ping("p".into()),
                    Piece::Close(Bytes::from_static(b"\x03\xe8bye"))
                ]
            );
        }
    }

    #[test]
    fn what_is_refused() {
        use Opcode::{Binary, Close, Continuation, Ping, Text};
        let protocol = |list: &[(bool, Opcode, &[u8])]| {
            assert!(
                matches!(judge(list), Err(Violation::Protocol(_))),
                "{list:?}"
            );
        };
        protocol(&[(true, Continuation, b"")]);
        protocol(&[(false, Text, b"a"), (true, Text, b"b")]);
        protocol(&[(false, Text, b"a"), (true, Binary, b"b")]);
        protocol(&[(true, Close, b"\x03")]);
        protocol(&[(true, Close, b""), (true, Ping, b"")]);
        for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            protocol(&[(true, Close, &code.to_be_bytes())]);
        }
        for code in [1000u16, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
            assert!(
                judge(&[(true, Close, &code.to_be_bytes())]).is_ok(),
                "{code}"
            );
        }
        for text in [
            &b"\xff"[..],
            b"\xc3",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"a\xc3(",
        ] {
            assert_eq!(judge(&[(true, Text, text)]), Err(Violation::NotText));
        }
        assert_eq!(
            judge(&[(true, Close, b"\x03\xe8\xff")]),
            Err(Violation::NotText)
        );
        // At once, not at the message's end.
        assert_eq!(judge(&[(false, Text, b"a\xff")]), Err(Violation::NotText));
        let empty = vec![(false, Continuation, &b""[..]); limits::EMPTY_FRAGMENTS];
        let mut list = vec![(false, Text, &b""[..])];
        list.extend(empty);
        protocol(&list);
        list.truncate(limits::EMPTY_FRAGMENTS);
        assert_eq!(judge(&list), Ok(Vec::new()));
    }

    #[test]
    fn compressed_where_it_was_not_agreed_on() {
        let mut wire = frames(&[(true, Opcode::Text, b"a")]);
        wire[0] |= 0x40;
        let agreed = |yes: bool| yes.then(|| Inflater::new(false));
        assert!(read(&mut Decoder::new(Peer::Client, agreed(false)), &wire, 99).is_err());
        let mut continued = frames(&[
            (false, Opcode::Text, b"a"),
            (true, Opcode::Continuation, b"b"),
        ]);
        let second = continued.len() / 2;
        continued[second] |= 0x40;
        assert!(
            read(
                &mut Decoder::new(Peer::Client, agreed(true)),
                &continued,
                99
            )
            .is_err()
        );
    }

    #[test]
    fn a_bomb_is_bounded_before_it_is_in_memory() {
        let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
        let mut bomb = Vec::with_capacity(1 << 20);
        compress
            .compress_vec(&vec![0u8; 64 << 20], &mut bomb, flate2::FlushCompress::Sync)
            .unwrap();
        bomb.truncate(bomb.len() - 4);
        let mut wire = frames(&[(true, Opcode::Binary, &bomb)]);
        wire[0] |= 0x40;
        let mut decoder = Decoder::new(Peer::Client, Some(Inflater::new(false)));
        let mut buf = BytesMut::from(&wire[..]);
        let mut seen = 0;
        let ended = loop {
            match decoder.next(&mut buf) {
                Ok(Some(Piece::Data { data, .. })) => seen += data.len(),
                other => break other,
            }
        };
        assert_eq!(ended, Err(Violation::Inflated));
        assert!(seen < 32 << 20, "{seen}");
    }

    proptest! {
        /// Text is judged alike however it is cut.
        #[test]
        fn cuts_do_not_change_what_is_text(text in any::<Vec<u8>>(), cut in 0usize..64) {
            let at = cut.min(text.len());
            let mut pieces = Utf8::default();
            let valid = pieces.goes_on(&text[..at], false) && pieces.goes_on(&text[at..], true);
            prop_assert_eq!(valid, std::str::from_utf8(&text).is_ok());
        }

        /// Nothing that a peer sends makes the decoder panic or hold more than it was given.
        #[test]
        fn any_bytes(wire in any::<Vec<u8>>(), step in 1usize..9) {
            for from in [Peer::Client, Peer::Server] {
                let mut decoder = Decoder::new(from, Some(Inflater::new(true)));
                let _outcome = read(&mut decoder, &wire, step);
            }
        }
    }
}
