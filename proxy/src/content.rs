//! `Content-Encoding`, undone for the scan. What is forwarded stays as it was sent.

use std::io::{self, Read};

use bytes::Bytes;

use crate::limits;
use crate::message::Headers;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The codings of a body, in the order in which they were applied. Empty for a plain body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codings(Vec<Coding>);

impl Codings {
    /// An unknown coding is an error: what cannot be read is not let through.
    pub fn parse(headers: &Headers) -> Result<Self, &'static str> {
        let mut codings = Vec::new();
        for value in headers.all("content-encoding") {
            for token in value.split(|byte| *byte == b',') {
                match token.trim_ascii().to_ascii_lowercase().as_slice() {
                    b"identity" | b"" => {}
                    b"gzip" | b"x-gzip" => codings.push(Coding::Gzip),
                    b"deflate" => codings.push(Coding::Deflate),
                    b"br" => codings.push(Coding::Brotli),
                    b"zstd" => codings.push(Coding::Zstd),
                    _ => return Err("it is not one of gzip, deflate, br, zstd"),
                }
            }
        }
        if codings.len() > limits::DECODE_LAYERS {
            return Err("it has too many layers");
        }
        Ok(Self(codings))
    }

    /// One coding, by the name that gRPC has for it.
    pub fn of_grpc(name: &[u8]) -> Option<Self> {
        match name {
            b"identity" => Some(Self::default()),
            b"gzip" => Some(Self(vec![Coding::Gzip])),
            b"deflate" => Some(Self(vec![Coding::Deflate])),
            _ => None,
        }
    }

    pub fn is_plain(&self) -> bool {
        self.0.is_empty()
    }

    /// The body under each coding, outermost first, as far as none is longer than `most`.
    pub fn layers(&self, body: Bytes, most: u64) -> Layers {
        let bound = (body.len() as u64)
            .saturating_mul(limits::DECODE_RATIO)
            .saturating_add(64 * 1024);
        Layers {
            codings: self.0.clone(),
            last: body,
            bound: bound.min(most),
        }
    }
}

/// Undoes a coding after the other; bounded in size and ratio. Two layers are in memory at a time.
#[derive(Debug)]
pub struct Layers {
    codings: Vec<Coding>,
    last: Bytes,
    bound: u64,
}

impl Iterator for Layers {
    type Item = Result<Bytes, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let coding = self.codings.pop()?;
        let undone = undo(coding, &self.last, self.bound);
        match &undone {
            Ok(_) if self.codings.is_empty() => self.last = Bytes::new(),
            Ok(layer) => self.last = layer.clone(),
            Err(_) => self.codings.clear(),
        }
        Some(undone)
    }
}

fn undo(coding: Coding, input: &[u8], bound: u64) -> Result<Bytes, &'static str> {
    if input.is_empty() {
        return Ok(Bytes::new());
    }
    match coding {
        Coding::Gzip => read(flate2::bufread::MultiGzDecoder::new(input), bound),
        Coding::Deflate => deflate(input, bound),
        Coding::Brotli => brotli(input, bound),
        Coding::Zstd => match zstd::stream::read::Decoder::with_buffer(input) {
            Ok(decoder) => read(decoder, bound),
            Err(_) => Err(Unreadable::Corrupt),
        },
    }
    .map(Bytes::from)
    .map_err(Unreadable::words)
}

/// "deflate" is zlib by RFC 9110 §8.4.1.2 and raw deflate by the habit of some clients. Either is read to the last
/// byte: what follows an end is something that an origin may read and we did not.
fn deflate(input: &[u8], bound: u64) -> Result<Vec<u8>, Unreadable> {
    let mut zlib = flate2::bufread::ZlibDecoder::new(input);
    let (output, used) = match read(&mut zlib, bound) {
        Err(Unreadable::Corrupt) => {
            let mut raw = flate2::bufread::DeflateDecoder::new(input);
            (read(&mut raw, bound)?, raw.total_in())
        }
        other => {
            let output = other?;
            // A body that is both would be two texts, of which the origin reads the one that was not judged; one that is too
            // long to say so may be both.
            match read(flate2::bufread::DeflateDecoder::new(input), bound) {
                Err(Unreadable::Corrupt) => (output, zlib.total_in()),
                Err(Unreadable::Bound) => return Err(Unreadable::Bound),
                Ok(_) => return Err(Unreadable::Corrupt),
            }
        }
    };
    if used != input.len() as u64 {
        return Err(Unreadable::Corrupt);
    }
    Ok(output)
}

/// The decoder does not say how much it used. A stream that is whole without its last byte has bytes after its end,
/// and those were not read.
fn brotli(input: &[u8], bound: u64) -> Result<Vec<u8>, Unreadable> {
    let whole = |input: &[u8]| read(brotli::Decompressor::new(input, 4096), bound);
    let output = whole(input)?;
    match input.split_last() {
        Some((_, short)) if !short.is_empty() && whole(short).is_ok() => Err(Unreadable::Corrupt),
        _ => Ok(output),
    }
}

/// What is said of a body of which a layer is too long.
pub const TOO_MUCH: &str = "it decodes to more than is inspected";

#[derive(Clone, Copy, Debug)]
enum Unreadable {
    Bound,
    Corrupt,
}

impl Unreadable {
    fn words(self) -> &'static str {
        match self {
            Self::Bound => TOO_MUCH,
            Self::Corrupt => "it does not decode",
        }
    }
}

/// Room for all that may come is taken at once, and what was not needed is given back. A buffer that grew would be copied under the
/// allocator's lock, which others would wait for while this thread waits for the processor.
fn read(decoder: impl Read, bound: u64) -> Result<Vec<u8>, Unreadable> {
    let room = usize::try_from(bound).map_err(|_| Unreadable::Bound)?;
    let mut output = Vec::new();
    output
        .try_reserve_exact(room.saturating_add(1))
        .map_err(|_| Unreadable::Bound)?;
    match decoder.take(bound + 1).read_to_end(&mut output) {
        Ok(_) if output.len() as u64 > bound => Err(Unreadable::Bound),
        Ok(_) => {
            output.shrink_to_fit();
            Ok(output)
        }
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Err(Unreadable::Bound),
        Err(_) => Err(Unreadable::Corrupt),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn codings(value: &'static str) -> Result<Codings, &'static str> {
        let mut headers = Headers::default();
        headers.push("content-encoding".as_bytes(), value.as_bytes());
        Codings::parse(&headers)
    }

    fn undone(value: &'static str, body: Vec<u8>) -> Result<Bytes, &'static str> {
        within(value, body, limits::DECODE_BYTES)
    }

    fn within(value: &'static str, body: Vec<u8>, most: u64) -> Result<Bytes, &'static str> {
        let layers = codings(value).unwrap().layers(body.into(), most);
        layers.last().unwrap()
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// A layer may wait for its turn to be scanned, as many of them as there are connections.
    #[test]
    fn a_layer_keeps_no_more_room_than_it_needs() {
        for text in [&b"short"[..], &vec![b'a'; 300_000]] {
            let body = gzip(text);
            for bound in [limits::DECODE_SHORT * 2, limits::DECODE_BYTES] {
                let decoder = flate2::bufread::MultiGzDecoder::new(&body[..]);
                let layer = read(decoder, bound).unwrap();
                assert_eq!(layer, text);
                assert!(layer.capacity() <= text.len() + 64, "{}", layer.capacity());
            }
        }
    }

    #[test]
    fn known_codings_and_their_nestings() {
        let plain = b"the plain text".to_vec();
        let zlib = {
            let mut encoder =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&plain).unwrap();
            encoder.finish().unwrap()
        };
        let raw = {
            let mut encoder =
                flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&plain).unwrap();
            encoder.finish().unwrap()
        };
        let brotli = {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
            encoder.write_all(&plain).unwrap();
            encoder.into_inner()
        };
        let zstd = zstd::encode_all(plain.as_slice(), 3).unwrap();
        let twice = gzip(&zstd);
        for (value, body) in [
            ("gzip", gzip(&plain)),
            ("deflate", zlib),
            ("deflate", raw),
            ("br", brotli),
            ("zstd", zstd),
            ("zstd, gzip", twice),
        ] {
            assert_eq!(undone(value, body), Ok(plain.clone().into()), "{value}");
        }
    }

    /// One body, two texts: zlib reads a stored block of dots, raw inflate reads the secret.
    #[test]
    fn a_body_that_is_zlib_and_raw_deflate_is_refused() {
        let (body, text) = two_texts(b"the secret");
        assert_eq!(
            read(flate2::bufread::ZlibDecoder::new(&body[..]), 1 << 20).unwrap(),
            text
        );
        let raw = read(flate2::bufread::DeflateDecoder::new(&body[..]), 1 << 20).unwrap();
        assert!(raw.windows(10).any(|window| window == b"the secret"));
        assert!(undone("deflate", body).is_err());
        // Where the second text is longer than what is looked at, the first is not let through for it.
        let (body, text) = two_texts(&vec![b'a'; 1 << 20]);
        assert_eq!(
            read(flate2::bufread::ZlibDecoder::new(&body[..]), 1 << 17).unwrap(),
            text
        );
        assert_eq!(within("deflate", body, 1 << 17), Err(TOO_MUCH));
    }

    /// A body, and what zlib reads in it; raw inflate reads what is hidden.
    fn two_texts(hidden: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let hidden = {
            let mut encoder =
                flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(hidden).unwrap();
            encoder.finish().unwrap()
        };
        // The second header byte is also the low byte of raw deflate's stored length.
        let length = (64..=255u8)
            .find(|low| (0x78 * 256 + u32::from(*low)) % 31 == 0 && low & 0x20 == 0)
            .unwrap();
        let shown = u16::from_le_bytes([!length, 0xff]);
        let check = (!shown).to_le_bytes();
        let mut text = vec![b'.'; usize::from(length) - 2];
        text.extend_from_slice(&hidden);
        text.resize(usize::from(shown), b'.');
        let mut body = vec![0x78, length, 0x00];
        body.extend_from_slice(&shown.to_le_bytes());
        body.extend_from_slice(&check);
        body.extend_from_slice(&text);
        body.extend_from_slice(&[0x01, 0x00, 0x00, 0xff, 0xff]);
        let (mut low, mut high) = (1u32, 0u32);
        for byte in &text {
            low = (low + u32::from(*byte)) % 65521;
            high = (high + low) % 65521;
        }
        body.extend_from_slice(&(high << 16 | low).to_be_bytes());
        (body, text)
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(codings("compress").is_err());
        assert!(codings("gzip, aes").is_err());
        assert!(codings("gzip,gzip,gzip,gzip,gzip").is_err());
        assert!(undone("gzip", b"not gzip".to_vec()).is_err());
        let bomb = gzip(&vec![0u8; 64 << 20]);
        assert_eq!(undone("gzip", bomb), Err(TOO_MUCH));
    }

    #[test]
    fn a_layer_that_is_too_long_is_told_from_one_that_is_broken() {
        let text = vec![b'a'; 1000];
        for (value, body) in [("gzip", gzip(&text)), ("gzip, gzip", gzip(&gzip(&text)))] {
            let whole = within(value, body.clone(), 1000);
            assert_eq!(whole, Ok(text.clone().into()), "{value}");
            assert_eq!(within(value, body.clone(), 999), Err(TOO_MUCH));
            let broken = within(value, body[..body.len() - 1].to_vec(), 1000);
            assert!(broken.is_err_and(|why| why != TOO_MUCH), "{value}");
        }
    }

    #[test]
    fn bytes_after_the_end_are_not_skipped() {
        for value in ["gzip", "deflate", "zstd", "br"] {
            let mut body = match value {
                "gzip" => gzip(b"x"),
                "br" => {
                    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
                    encoder.write_all(b"x").unwrap();
                    encoder.into_inner()
                }
                "zstd" => zstd::encode_all(&b"x"[..], 3).unwrap(),
                _ => {
                    let mut encoder =
                        flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                    encoder.write_all(b"x").unwrap();
                    encoder.finish().unwrap()
                }
            };
            body.extend_from_slice(b"trailing bytes that no decoder read");
            // The raw body is scanned too, so what follows is never unseen; still it must not decode as clean.
            assert!(undone(value, body).is_err(), "{value}");
        }
    }
}
