//! Decoders that take compressed data in pieces and give their output in pieces, so that neither has to be held whole.

use std::fmt;

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, HeapAlloc, HuffmanCode};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as Zstd, InBuffer, Operation, OutBuffer};

use super::inflate::Format;

/// Output that is asked for at once.
const ROOM: usize = 16 * 1024;

/// The window of zstd, as a power of two: RFC 8878 recommends that decoders support 8 MiB, and no less.
const ZSTD_WINDOW: u32 = 23;

/// What a piece of input led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All of it was read, and more is to come.
    More,
    /// As much output came as was asked for.
    Full,
    /// The data has ended; what is left of the input is something else.
    End,
    /// This is no such data.
    Failed,
}

/// One stream of compressed data.
pub(super) struct Decoder {
    head: Head,
    body: Body,
}

enum Body {
    Deflate(Box<Decompress>),
    Zstd(Box<Zstd<'static>>),
    Brotli(Box<Brotli>),
    /// The decoder could not be made.
    None,
}

type Brotli = BrotliState<HeapAlloc<u8>, HeapAlloc<u32>, HeapAlloc<HuffmanCode>>;

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its state holds the end of what came out.
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    pub(super) fn new(format: Format) -> Self {
        let deflate = || Body::Deflate(Box::new(Decompress::new(false)));
        let (head, body) = match format {
            Format::Gzip => (Head::Gzip(Gzip::default()), deflate()),
            // The check at the end is not asked for: a reader may look away from it, too.
            Format::Zlib => (Head::Skip(2), deflate()),
            Format::Zip(length) => (Head::Skip(length), deflate()),
            Format::Deflate => (Head::Skip(0), deflate()),
            Format::Zstd => (Head::Skip(0), zstd().map_or(Body::None, Body::Zstd)),
            Format::Brotli => (
                Head::Skip(0),
                Body::Brotli(Box::new(Brotli::new_strict(
                    HeapAlloc::default(),
                    HeapAlloc::default(),
                    HeapAlloc::default(),
                ))),
            ),
        };
        Self { head, body }
    }

    /// Reads of `input`, which is cut, and adds to `output` at most `room` bytes. After [`Step::Full`] it must be asked again,
    /// though there may be no input left.
    pub(super) fn push(
        &mut self,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        mut room: usize,
    ) -> Step {
        match self.head.push(input) {
            Step::End => {}
            other => return other,
        }
        while room > 0 {
            let from = output.len();
            let asked = room.min(ROOM);
            output.resize(from + asked, 0);
            let (read, written, step) = self
                .body
                .run(input, output.get_mut(from..).unwrap_or_default());
            output.truncate(from + written);
            *input = input.get(read..).unwrap_or_default();
            room -= written.min(room);
            match step {
                Step::More if written == asked => {}
                // Nothing moves although there is input: it never would.
                Step::More if read == 0 && written == 0 && !input.is_empty() => {
                    return Step::Failed;
                }
                Step::More if input.is_empty() => return Step::More,
                Step::More | Step::Full => {}
                Step::End | Step::Failed => return step,
            }
        }
        Step::Full
    }
}

impl Body {
    /// Bytes read, bytes written, and whether that was the end.
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> (usize, usize, Step) {
        match self {
            Self::Deflate(inflater) => {
                let before = (inflater.total_in(), inflater.total_out());
                let result = inflater.decompress(input, output, FlushDecompress::None);
                let read = (inflater.total_in() - before.0) as usize;
                let written = (inflater.total_out() - before.1) as usize;
                let step = match result {
                    Ok(Status::StreamEnd) => Step::End,
                    Ok(Status::Ok | Status::BufError) => Step::More,
                    Err(_) => Step::Failed,
                };
                (read, written, step)
            }
            Self::Zstd(decoder) => {
                let mut from = InBuffer::around(input);
                let mut to = OutBuffer::around(output);
                let step = match decoder.run(&mut from, &mut to) {
                    Ok(0) => Step::End,
                    Ok(_) => Step::More,
                    Err(_) => Step::Failed,
                };
                (from.pos(), to.pos(), step)
            }
            Self::Brotli(state) => {
                let (mut left, mut read) = (input.len(), 0);
                let (mut room, mut written, mut total) = (output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left,
                    &mut read,
                    input,
                    &mut room,
                    &mut written,
                    output,
                    &mut total,
                    state,
                );
                let step = match result {
                    BrotliResult::ResultSuccess => Step::End,
                    BrotliResult::NeedsMoreInput => Step::More,
                    BrotliResult::NeedsMoreOutput => Step::Full,
                    BrotliResult::ResultFailure => Step::Failed,
                };
                (read, written, step)
            }
            Self::None => (0, 0, Step::Failed),
        }
    }
}

fn zstd() -> Option<Box<Zstd<'static>>> {
    let mut decoder = Zstd::new().ok()?;
    decoder
        .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))
        .ok()?;
    Some(Box::new(decoder))
}

/// What stands before the data itself.
#[derive(Debug)]
enum Head {
    /// So many bytes more.
    Skip(usize),
    Gzip(Gzip),
}

impl Head {
    /// [`Step::End`] if there is no more of it.
    fn push(&mut self, input: &mut &[u8]) -> Step {
        match self {
            Self::Skip(left) => {
                let now = input.len().min(*left);
                *left -= now;
                *input = input.get(now..).unwrap_or_default();
                if *left > 0 { Step::More } else { Step::End }
            }
            Self::Gzip(gzip) => gzip.push(input),
        }
    }
}

/// RFC 1952, section 2.3.
#[derive(Debug, Default)]
struct Gzip {
    part: Part,
    /// Bytes of the part that were read.
    at: usize,
    flags: u8,
    extra: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    #[default]
    Fixed,
    ExtraLength,
    Extra,
    Name,
    Comment,
    Check,
    Done,
}

impl Gzip {
    fn push(&mut self, input: &mut &[u8]) -> Step {
        loop {
            if matches!(self.part, Part::Done) {
                return Step::End;
            }
            if self.is_absent() {
                self.next();
                continue;
            }
            let Some((byte, rest)) = input.split_first() else {
                return Step::More;
            };
            *input = rest;
            if !self.byte(*byte) {
                return Step::Failed;
            }
        }
    }

    fn is_absent(&self) -> bool {
        match self.part {
            Part::Fixed | Part::Done => false,
            Part::ExtraLength => self.flags & 4 == 0,
            Part::Extra => self.at >= self.extra,
            Part::Name => self.flags & 8 == 0,
            Part::Comment => self.flags & 16 == 0,
            Part::Check => self.flags & 2 == 0,
        }
    }

    fn next(&mut self) {
        self.at = 0;
        self.part = match self.part {
            Part::Fixed => Part::ExtraLength,
            Part::ExtraLength => Part::Extra,
            Part::Extra => Part::Name,
            Part::Name => Part::Comment,
            Part::Comment => Part::Check,
            Part::Check | Part::Done => Part::Done,
        };
    }

    /// Whether the header may go on like this.
    fn byte(&mut self, byte: u8) -> bool {
        let at = self.at;
        self.at += 1;
        let ends = match self.part {
            Part::Fixed => {
                let good = match at {
                    0 => byte == 0x1F,
                    1 => byte == 0x8B,
                    2 => byte == 8,
                    3 => byte & 0xE0 == 0,
                    _ => true,
                };
                if !good {
                    return false;
                }
                if at == 3 {
                    self.flags = byte;
                }
                at == 9
            }
            Part::ExtraLength => {
                self.extra |= usize::from(byte) << (8 * at);
                at == 1
            }
            Part::Extra => at + 1 == self.extra,
            Part::Name | Part::Comment => byte == 0,
            Part::Check => at == 1,
            Part::Done => true,
        };
        if ends {
            self.next();
        }
        true
    }
}
