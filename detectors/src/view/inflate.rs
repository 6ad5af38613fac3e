//! Compressed data that does not say so outside: gzip, zstd and zip members anywhere, zlib, deflate and brotli at the
//! beginning of a text.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::decoder::{Decoder, Step};
use crate::kernel::BLOCK;

/// A member shorter than this holds no credential.
const LEAST: usize = 12;

/// Inflated bytes from which on data that breaks off was compressed and not random.
pub(super) const SURE: usize = 64;

/// Bytes of the check and the length behind a gzip member.
const GZIP_TRAILER: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Zlib,
    Deflate,
    /// Deflate data of a zip member: the number of bytes before it.
    Zip(usize),
    Zstd,
    Brotli,
}

impl Format {
    /// Whether no magic number tells the format.
    pub(super) fn is_guessed(self) -> bool {
        matches!(self, Self::Zlib | Self::Deflate | Self::Brotli)
    }

    /// Whether a decoder may need megabytes of what came out before.
    pub(super) fn is_wide(self) -> bool {
        matches!(self, Self::Zstd | Self::Brotli)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) at: usize,
    pub(super) format: Format,
}

pub(super) enum Outcome {
    /// Not compressed data after all.
    Nothing,
    /// What came out, and how long it was.
    Whole(Vec<u8>, usize),
    /// The same, where what follows is no such data: it may never have been a whole.
    Cut(Vec<u8>, usize),
    /// The same, where a bound was reached.
    Bound(Vec<u8>, usize),
    /// The same, where the data goes on behind the text.
    Open(Vec<u8>, usize),
    /// It refers further back than anything is kept.
    TooWide,
}

/// What compressed data with a magic number begins with.
static MAGICS: LazyLock<[(Finder<'static>, Format); 3]> = LazyLock::new(|| {
    [
        (&b"\x1F\x8B\x08"[..], Format::Gzip),
        (b"\x28\xB5\x2F\xFD", Format::Zstd),
        (b"PK\x03\x04", Format::Zip(0)),
    ]
    .map(|(magic, format)| (Finder::new(magic), format))
});

/// Whether compressed data with a magic number is in `text`, or such without begins it.
pub(super) fn is_compressed(text: &[u8], headless_too: bool) -> bool {
    text.len() >= LEAST
        && (MAGICS.iter().any(|(magic, _)| magic.find(text).is_some())
            || headless_too && headless(text, text.len(), 1).is_some())
}

/// Whether a text of `whole` bytes that begins with `text` begins with compressed data, as far as that tells.
pub(super) fn begins_compressed(text: &[u8], whole: usize) -> bool {
    text.len() >= LEAST
        && (MAGICS
            .iter()
            .any(|(magic, _)| text.starts_with(magic.needle()))
            || headless(text, whole, 1).is_some())
}

/// Where compressed data may begin in `text[..swept]`: at its beginning, if nothing stands before the text, or with a magic number in one of `blocks`, each of
/// [`BLOCK`] bytes.
pub(super) fn starts(
    text: &[u8],
    swept: usize,
    depth: u8,
    is_continued: bool,
    blocks: impl Iterator<Item = usize>,
) -> Vec<Start> {
    let mut starts = Vec::new();
    let near = text.get(..swept).unwrap_or(text);
    if near.len() < LEAST {
        return starts;
    }
    for number in blocks {
        let begin = number * BLOCK;
        let here = near
            .get(begin..near.len().min(begin + BLOCK + MAGIC - 1))
            .unwrap_or_default();
        for (magic, kind) in MAGICS.iter() {
            for at in magic.find_iter(here).map(|at| begin + at) {
                let format = match kind {
                    Format::Zip(_) => match zip_header(&text[at..]) {
                        Some(length) => Format::Zip(length),
                        None => continue,
                    },
                    kind => *kind,
                };
                starts.push(Start { at, format });
            }
        }
    }
    starts.sort_by_key(|start| start.at);
    starts.dedup_by_key(|start| start.at);
    if is_continued {
        return starts;
    }
    if starts.first().is_none_or(|start| start.at > 0) {
        let format = headless(near, text.len(), depth)
            .filter(|format| *format != Format::Deflate || !breaks_off_early(text));
        starts.extend(format.map(|format| Start { at: 0, format }));
    }
    // A view of escapes begins with the word that they are in: `v=x%9C...`.
    if depth > 0 {
        let behind = near.windows(3).take(WORD).enumerate();
        let zlib = behind
            // The two bytes alone are in any list of numbers; an attempt is for what goes on like it.
            .filter(|(at, three)| {
                three[0].is_ascii()
                    && !three[0].is_ascii_alphanumeric()
                    && is_zlib(&three[1..])
                    && is_deflate(&near[at + 3..])
            })
            .map(|(at, _)| Start {
                at: at + 1,
                format: Format::Zlib,
            });
        starts.extend(zlib);
    }
    starts
}

/// Bytes at the beginning of a view in which zlib data is looked for after a sign. Decoys use up the window's attempts, which
/// is reported.
const WORD: usize = 512;

/// RFC 1950: deflate, and a check of the two bytes.
fn is_zlib(text: &[u8]) -> bool {
    match *text {
        [first, second, ..] => {
            first & 0x0F == 8
                && first >> 4 <= 7
                && (u16::from(first) << 8 | u16::from(second)) % 31 == 0
                && second & 0x20 == 0
        }
        _ => false,
    }
}

/// The first two bytes of zlib, gzip or zstd.
fn begins_data(first: u8, second: u8) -> bool {
    is_zlib(&[first, second]) || matches!((first, second), (0x1f, 0x8b) | (0x28, 0xb5))
}

/// Bytes of the longest magic number.
const MAGIC: usize = 4;

/// A format without a magic number that a text of `whole` bytes is in, as far as its first bytes tell, which are `text`.
fn headless(text: &[u8], whole: usize, depth: u8) -> Option<Format> {
    if is_zlib(text) {
        return Some(Format::Zlib);
    }
    // Plain text begins with a graphic character or white space, which says nothing; of what was decoded from digits
    // text need not be tried either.
    let printed = text
        .iter()
        .take(8)
        .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    if printed
        || depth == 0
            && text
                .iter()
                .take(8)
                .filter(|byte| byte.is_ascii_graphic())
                .count()
                > 6
    {
        return None;
    }
    // Compressed data has hardly a zero byte.
    if text.iter().take(16).filter(|byte| **byte == 0).count() > 5 {
        return None;
    }
    if is_deflate(text) {
        return Some(Format::Deflate);
    }
    is_brotli(text, whole).then_some(Format::Brotli)
}

/// RFC 1951: whether a block's head and first symbols make sense.
fn is_deflate(text: &[u8]) -> bool {
    let mut bits = Bits { text, at: 0 };
    let (Some(_last), Some(kind)) = (bits.take(1), bits.take(2)) else {
        return false;
    };
    match kind {
        0 => match text {
            [_, a, b, c, d, ..] => a ^ c == 0xFF && b ^ d == 0xFF && (*a, *b) != (0, 0),
            _ => false,
        },
        1 => {
            // Fixed codes: the first symbols are bytes, or repeat what was there.
            let mut bytes = 0;
            // Or they are compressed data once more.
            let mut ahead = Bits { text, at: bits.at };
            let two = [ahead.fixed_symbol(), ahead.fixed_symbol()];
            if let [Some(Ok(first)), Some(Ok(second))] = two.map(|one| one.map(u8::try_from))
                && begins_data(first, second)
            {
                return true;
            }
            for _ in 0..10 {
                match bits.fixed_symbol() {
                    Some(0..=8 | 14..=31 | 127..=255) | None => return false,
                    Some(256) => return bytes >= 4,
                    Some(257..) => return bytes >= 3,
                    Some(_) => bytes += 1,
                }
            }
            true
        }
        2 => {
            let (Some(literals), Some(distances), Some(lengths)) =
                (bits.take(5), bits.take(5), bits.take(4))
            else {
                return false;
            };
            if literals > 29 || distances > 29 {
                return false;
            }
            // The code of code lengths is complete.
            let mut sum = 0;
            for _ in 0..lengths + 4 {
                match bits.take(3) {
                    Some(0) => {}
                    Some(length) => sum += 128 >> length,
                    None => return false,
                }
            }
            sum == 128
        }
        _ => false,
    }
}

/// Symbols of fixed codes that are read to tell whether there is an end to them.
const WALKED: usize = 2048;

/// Whether `text`, all of which is there, is a block of fixed codes that has no end in it, and nothing but bytes. It would
/// be told when it is inflated, too, but rows of one hexadecimal digit are many in any binary file's base64, and only so many
/// attempts are made.
fn breaks_off_early(text: &[u8]) -> bool {
    let mut bits = Bits { text, at: 0 };
    if bits.take(1).is_none() || bits.take(2) != Some(1) {
        return false;
    }
    for _ in 0..WALKED {
        match bits.fixed_symbol() {
            None => return true,
            Some(256..) => return false,
            Some(_) => {}
        }
    }
    false
}

struct Bits<'a> {
    text: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next `count` bits, at most 25.
    fn take(&mut self, count: usize) -> Option<u32> {
        let from = self.at / 8;
        let word = match self.text.get(from..).and_then(|rest| rest.first_chunk()) {
            Some(four) => u32::from_le_bytes(*four),
            // At the very end the bytes that are missing must not be asked for.
            None if self.at + count <= 8 * self.text.len() => {
                let rest = self.text.get(from..).unwrap_or_default();
                rest.iter()
                    .rev()
                    .fold(0, |word, byte| word << 8 | u32::from(*byte))
            }
            None => return None,
        };
        let number = word >> (self.at % 8) & ((1 << count) - 1);
        self.at += count;
        Some(number)
    }

    /// RFC 1951, section 3.2.6; codes are written with their high bit first.
    fn fixed_symbol(&mut self) -> Option<u32> {
        let mut code = 0;
        for length in 1..=9 {
            code = code << 1 | self.take(1)?;
            match (length, code) {
                (7, 0b000_0000..=0b001_0111) => return Some(256 + code),
                (8, 0b0011_0000..=0b1011_1111) => return Some(code - 0b0011_0000),
                (8, 0b1100_0000..=0b1100_0111) => return Some(280 + code - 0b1100_0000),
                (9, 0b1_1001_0000..=0b1_1111_1111) => return Some(144 + code - 0b1_1001_0000),
                _ => {}
            }
        }
        None
    }
}

/// Bytes of a text that may have been cut at the end of a window, however long it is.
const CUT: usize = 48 * 1024;

/// RFC 7932, section 9: the window bits, and a first meta-block of a likely length.
fn is_brotli(text: &[u8], whole: usize) -> bool {
    let mut bits = Bits { text, at: 0 };
    let read = |bits: &mut Bits<'_>| -> Option<(u32, u32)> {
        // One bit, or four, or seven.
        if bits.take(1)? == 1 && bits.take(3)? == 0 {
            bits.take(3)?;
        }
        let last = bits.take(1)?;
        if last == 1 && bits.take(1)? == 1 {
            return None;
        }
        // Four nibbles, or one or two more, of which the last is not zero.
        let more = bits.take(2)?;
        let mut length = bits.take(16)?;
        for nibble in 0..more {
            let next = bits.take(4)?;
            if nibble + 1 == more && next == 0 {
                return None;
            }
            length |= next << (16 + 4 * nibble);
        }
        Some((more, length + 1))
    };
    let Some((more, length)) = read(&mut bits) else {
        return false;
    };
    let length = length as usize;
    more < 3
        && length >= whole / 2
        && (length <= whole.saturating_mul(20) || whole >= CUT)
        && length >= LEAST
}

/// The length of a zip member's local header, if the member is deflated.
fn zip_header(text: &[u8]) -> Option<usize> {
    let header = text.get(..30)?;
    let number = |at: usize| {
        header
            .get(at..at + 2)
            .map(|two| usize::from(two[0]) | usize::from(two[1]) << 8)
    };
    (number(8)? == 8).then_some(30 + number(26)? + number(28)?)
}

/// Inflates what `text` begins with. `budget` is what may still be inflated; it is reduced.
pub(super) fn inflate(text: &[u8], format: Format, budget: &mut usize) -> Outcome {
    let mut input = text;
    let mut output = Vec::new();
    let step = Decoder::new(format).push(&mut input, &mut output, *budget);
    *budget = budget.saturating_sub(output.len());
    let mut read = text.len() - input.len();
    match step {
        Step::Full => Outcome::Bound(output, read),
        Step::End if output.len() < LEAST => Outcome::Nothing,
        Step::End => {
            if format == Format::Gzip {
                read += GZIP_TRAILER.min(input.len());
            }
            Outcome::Whole(output, read)
        }
        // It goes on behind the text, or breaks off there.
        Step::More
            if format.is_guessed() && (output.len() < SURE || is_verbatim(text, &output)) =>
        {
            Outcome::Nothing
        }
        Step::More => Outcome::Open(output, read),
        // Without a magic number it was hardly compressed data at all.
        Step::Failed if format.is_guessed() => Outcome::Nothing,
        // What follows a member is not one; what was inflated before stands.
        Step::Failed if output.len() >= LEAST => Outcome::Cut(output, read),
        Step::Failed if format == Format::Zstd && is_too_wide(text) => Outcome::TooWide,
        Step::Failed => Outcome::Nothing,
    }
}

/// Whether what comes out is what stands there. So it seems of any bytes after a few that make a head of brotli, and is read
/// as it stands.
fn is_verbatim(text: &[u8], output: &[u8]) -> bool {
    let head = text.get(..2 * SURE).unwrap_or(text);
    output
        .get(..SURE)
        .is_some_and(|some| memchr::memmem::find(head, some).is_some())
}

/// Bytes of a frame by which it is told whether it is one.
const FRAME: usize = 256 * 1024;

/// Whether `text` begins with a frame of zstd (RFC 8878, section 3.1.1) that declares a larger window than is kept: with a
/// smaller one it is read as far as that goes.
fn is_too_wide(text: &[u8]) -> bool {
    const WIDEST: u8 = 13 << 3;
    let mut frame = text.get(..FRAME).unwrap_or(text).to_vec();
    let Some([descriptor, window]) = frame.get_mut(4..6) else {
        return false;
    };
    let descriptor = *descriptor;
    if descriptor & 0x20 == 0 {
        if *window <= WIDEST {
            return false;
        }
        *window = WIDEST;
    } else {
        // A single segment is as wide as its content is long, which stands behind the dictionary's number.
        let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
        let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
        match frame.get_mut(at..at + length) {
            Some(size @ [_, _, _, _, ..]) => {
                size.fill(0);
                size[2] = 0x80;
            }
            _ => return false,
        }
    }
    let mut output = Vec::new();
    Decoder::new(Format::Zstd).push(&mut &frame[..], &mut output, FRAME);
    output.len() >= SURE
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"{\"token\": \"ghp_0123456789abcdefghijklmnopqrstuvwxyz\"}";

    fn compressed() -> Vec<(&'static str, Vec<u8>)> {
        use flate2::Compression;
        use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
        let mut all = Vec::new();
        for level in [1, 6, 9] {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::new(level));
            gzip.write_all(TEXT).unwrap();
            all.push(("gzip", gzip.finish().unwrap()));
            let mut zlib = ZlibEncoder::new(Vec::new(), Compression::new(level));
            zlib.write_all(TEXT).unwrap();
            all.push(("zlib", zlib.finish().unwrap()));
            let mut deflate = DeflateEncoder::new(Vec::new(), Compression::new(level));
            deflate.write_all(&TEXT.repeat(level as usize)).unwrap();
            all.push(("deflate", deflate.finish().unwrap()));
            all.push(("zstd", zstd::encode_all(TEXT, level as i32).unwrap()));
            let mut brotli = Vec::new();
            brotli::CompressorWriter::new(&mut brotli, 4096, level, 22)
                .write_all(TEXT)
                .unwrap();
            all.push(("brotli", brotli));
        }
        all
    }

    #[test]
    fn every_format_is_told_and_inflated() {
        for (name, data) in compressed() {
            let starts = starts(&data, data.len(), 1, false, 0..data.len().div_ceil(BLOCK));
            assert_eq!(starts.len(), 1, "{name}: {starts:?}");
            let mut budget = 10_000;
            let Outcome::Whole(text, length) = inflate(&data, starts[0].format, &mut budget) else {
                panic!("{name}");
            };
            assert!(
                text.starts_with(TEXT) && length <= data.len() && budget < 10_000,
                "{name}"
            );
        }
    }

    #[test]
    fn two_bytes_of_a_list_are_no_zlib() {
        let count = |bytes: &[u8]| starts(bytes, bytes.len(), 1, false, 0..1).len();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(TEXT).unwrap();
        let zlib = zlib.finish().unwrap();
        assert_eq!(count(&[b"v=", &zlib[..]].concat()), 1);
        // However many seem to stand before it.
        assert_eq!(count(&[b" ", &zlib[..], b" "].concat().repeat(6)), 6);
        assert_eq!(count(b"v= \x78\x9C\x9F\xA2 \x18\x95\xA1\xA2 and on"), 0);
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![0; 10_000_000]).unwrap();
        let bomb = gzip.finish().unwrap();
        let mut budget = 100_000;
        assert!(
            matches!(inflate(&bomb, Format::Gzip, &mut budget), Outcome::Bound(text, _) if text.len() == 100_000)
        );
        assert_eq!(budget, 0);
    }

    #[test]
    fn random_bytes_are_hardly_ever_tried() {
        let mut state = 1_u64;
        let mut tried = 0;
        for _ in 0..10_000 {
            let bytes: Vec<u8> = (0..66)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as u8
                })
                .collect();
            tried += starts(&bytes, bytes.len(), 1, false, 0..2).len();
        }
        assert!(tried < 400, "{tried} of 10000");
    }
}
