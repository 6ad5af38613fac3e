//! `multipart/form-data` and its kin (RFC 2046 §5.1, RFC 7578): parts between delimiter lines.

use std::ops::Range;

use memchr::memmem::Finder;

use super::Places;
use super::names::{Judge, Named};
use super::rewrite::{Rewriter, character};
use crate::finding::Field;
use crate::redact::MASK;

/// A delimiter may be this long (RFC 2046 §5.1.1).
const MAX_BOUNDARY: usize = 70;

/// The boundary among the parameters of a `Content-Type`.
pub(super) fn boundary(parameters: &[u8]) -> Option<Box<[u8]>> {
    let mut found = None;
    for (name, value) in Parameters::new(parameters) {
        if name.eq_ignore_ascii_case(b"boundary") {
            // Of two nobody knows which one is meant.
            if found.is_some() {
                return None;
            }
            found = Some(value);
        }
    }
    let boundary = parameters.get(found?)?;
    // No asterisk: what is put in for a credential must not make a delimiter.
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    let fits = (1..=MAX_BOUNDARY).contains(&boundary.len()) && boundary.last() != Some(&b' ');
    (fits && boundary.iter().all(allowed)).then(|| boundary.into())
}

/// Whether `input` is parts from the first delimiter to the closing one, each with a head that can be read.
pub(super) fn is_whole(input: &[u8], boundary: &[u8]) -> bool {
    let mut parts = Parts::new(input, boundary);
    let mut count = 0;
    for piece in parts.by_ref() {
        match piece {
            Piece::Part(part) => {
                count += 1;
                if fields(input, &part).any(|field| field.is_none()) {
                    return false;
                }
            }
            Piece::Around(_) => {}
        }
    }
    count > 0 && parts.closed
}

pub(super) fn locate(places: &mut Places<'_>, boundary: &[u8]) {
    let input = places.input;
    let mut from = 0;
    for piece in Parts::new(input, boundary) {
        match piece {
            Piece::Part(part) => {
                let whole = part.head.start..part.content.end;
                places.name_flat(
                    &mut from,
                    &whole,
                    u8::is_ascii_whitespace,
                    |places, judge| named(places, judge, &part),
                );
            }
            Piece::Around(range) => {
                places.name_flat(&mut from, &range, u8::is_ascii_whitespace, |_, _| None);
            }
        }
    }
}

fn named(places: &Places<'_>, judge: &Judge<'_>, part: &Part) -> Option<Named> {
    let input = places.input;
    let (mut name, mut file) = (None, None);
    for field in fields(input, part).flatten() {
        if !is(input, &field.name, b"content-disposition") {
            continue;
        }
        let value = input.get(field.value.clone())?;
        for (parameter, range) in Parameters::new(value) {
            let slot = match parameter.to_ascii_lowercase().as_slice() {
                b"name" => &mut name,
                b"filename" => &mut file,
                _ => continue,
            };
            // The name that one reader takes is not the one that another takes.
            if slot.is_some() {
                return None;
            }
            let range = field.value.start + range.start..field.value.start + range.end;
            let raw = input.get(range.clone())?;
            let text = String::from_utf8_lossy(raw).replace("\\\"", "\"");
            *slot = Some(judge.shown(&text, places.touches(&range)).to_owned());
        }
    }
    let names = name.iter().chain(&file).cloned().collect();
    Some(Named {
        field: Field::Part {
            name: name?.into(),
            file: file.map(Into::into),
        },
        names,
    })
}

/// `None` if a part that states its length would have another.
pub(super) fn redact(rewriter: &mut Rewriter<'_>, boundary: &[u8]) -> Option<()> {
    let input = rewriter.input;
    for piece in Parts::new(input, boundary) {
        let part = match piece {
            Piece::Part(part) => part,
            Piece::Around(range) => {
                rewriter.parts(range, character, MASK.as_bytes());
                continue;
            }
        };
        let mut has_length = false;
        for field in fields(input, &part).flatten() {
            has_length |= is(input, &field.name, b"content-length");
            for word in words(input, field.name.start..field.value.end) {
                let known = input
                    .get(word.clone())
                    .is_some_and(|word| SYNTAX.iter().any(|own| word.eq_ignore_ascii_case(own)));
                if !known {
                    rewriter.parts(word, character, MASK.as_bytes());
                }
            }
        }
        if rewriter.parts(part.content, character, MASK.as_bytes()) && has_length {
            return None;
        }
    }
    Some(())
}

/// Words of a part's head that everybody writes: they carry nothing, and without them there is no part.
const SYNTAX: [&[u8]; 8] = [
    b"content-disposition",
    b"content-type",
    b"content-transfer-encoding",
    b"content-length",
    b"form-data",
    b"attachment",
    b"name",
    b"filename",
];

/// What of a head is no syntax, so that a credential can be in it.
fn words(input: &[u8], range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let rest = input.get(at..range.end)?;
        let skip = rest.iter().position(|byte| !is_syntax(*byte))?;
        let rest = rest.get(skip..)?;
        let length = rest
            .iter()
            .position(|byte| is_syntax(*byte))
            .unwrap_or(rest.len());
        let start = at + skip;
        at = start + length;
        Some(start..at)
    })
}

fn is_syntax(byte: u8) -> bool {
    byte.is_ascii_control() || b" \";:=,\\".contains(&byte)
}

fn is(input: &[u8], range: &Range<usize>, name: &[u8]) -> bool {
    input
        .get(range.clone())
        .is_some_and(|own| own.eq_ignore_ascii_case(name))
}

enum Piece {
    Part(Part),
    /// Before the first delimiter, or behind the last.
    Around(Range<usize>),
}

struct Part {
    /// From behind the delimiter's line to the empty line.
    head: Range<usize>,
    content: Range<usize>,
}

/// The pieces of a body, until one cannot be read.
struct Parts<'a> {
    input: &'a [u8],
    finder: Finder<'a>,
    boundary: &'a [u8],
    at: usize,
    state: State,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    Parts,
    Epilogue,
    End,
}

/// A delimiter line: where what is before ends, where what is behind begins, and whether it is the closing one.
struct Delimiter {
    start: usize,
    end: usize,
    closes: bool,
}

impl<'a> Parts<'a> {
    fn new(input: &'a [u8], boundary: &'a [u8]) -> Self {
        Self {
            input,
            finder: Finder::new(boundary),
            boundary,
            at: 0,
            state: State::Preamble,
            closed: false,
        }
    }

    /// The next place where the boundary begins a line behind two dashes. What then is no line of its own is an error:
    /// to some readers it is a delimiter, and to some it is not.
    fn delimiter(&self, from: usize) -> Option<Delimiter> {
        let mut search = from;
        loop {
            let found = search + self.finder.find(self.input.get(search..)?)?;
            search = found + 1;
            let dashes = found.checked_sub(2)?;
            if self.input.get(dashes..found) != Some(b"--") {
                continue;
            }
            let start = match dashes.checked_sub(2) {
                _ if dashes == 0 => 0,
                Some(start) if start >= from && self.input.get(start..dashes) == Some(b"\r\n") => {
                    start
                }
                // A line that another reader would take to have ended.
                _ if matches!(self.input.get(dashes.wrapping_sub(1)), Some(b'\n' | b'\r')) => {
                    return None;
                }
                _ => continue,
            };
            let behind = found + self.boundary.len();
            let rest = self.input.get(behind..)?;
            let closes = rest.starts_with(b"--");
            let line = if closes { rest.get(2..)? } else { rest };
            let padding = line
                .iter()
                .take_while(|byte| matches!(byte, b' ' | b'\t'))
                .count();
            let line_end = behind + if closes { 2 } else { 0 } + padding;
            let end = match line.get(padding..)? {
                [b'\r', b'\n', ..] => line_end + 2,
                [] if closes => line_end,
                _ => return None,
            };
            return Some(Delimiter { start, end, closes });
        }
    }
}

impl Iterator for Parts<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        match self.state {
            State::Preamble => {
                self.state = State::End;
                let first = self.delimiter(0)?;
                self.at = first.end;
                if !first.closes {
                    self.state = State::Parts;
                }
                Some(Piece::Around(0..first.start))
            }
            State::Parts => {
                self.state = State::End;
                // The empty line that ends the head may be the first, and its break may be a delimiter's.
                let rest = self.input.get(self.at..)?;
                let head = if rest.starts_with(b"\r\n") {
                    self.at..self.at
                } else {
                    let length = memchr::memmem::find(rest, b"\r\n\r\n")?;
                    self.at..self.at + length + 2
                };
                let content = head.end + 2;
                let delimiter = self.delimiter(head.end)?;
                if delimiter.start + 2 < content {
                    return None;
                }
                self.at = delimiter.end;
                self.closed = delimiter.closes;
                self.state = if delimiter.closes {
                    State::Epilogue
                } else {
                    State::Parts
                };
                Some(Piece::Part(Part {
                    head,
                    content: content..delimiter.start.max(content),
                }))
            }
            State::Epilogue => {
                self.state = State::End;
                Some(Piece::Around(self.at..self.input.len()))
            }
            State::End => None,
        }
    }
}

struct HeadField {
    name: Range<usize>,
    value: Range<usize>,
}

/// The fields of a part's head; `None` for a line that is none.
fn fields<'a>(input: &'a [u8], part: &Part) -> impl Iterator<Item = Option<HeadField>> + 'a {
    let head = part.head.clone();
    let mut at = head.start;
    std::iter::from_fn(move || {
        let rest = input.get(at..head.end).filter(|rest| !rest.is_empty())?;
        let length = memchr::memmem::find(rest, b"\r\n").unwrap_or(rest.len());
        let start = at;
        at = start + length + 2;
        let line = rest.get(..length)?;
        let is_token =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let colon = memchr::memchr(b':', line).unwrap_or(0);
        let name = line.get(..colon).unwrap_or_default();
        let good = colon > 0
            && name.iter().all(is_token)
            && !line
                .iter()
                .any(|byte| byte.is_ascii_control() && *byte != b'\t');
        Some(good.then_some(HeadField {
            name: start..start + colon,
            value: start + colon + 1..start + length,
        }))
    })
}

/// `; name=value` and `; name="value"`, with the range of the bytes of each value.
struct Parameters<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Parameters<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a [u8], Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at + memchr::memchr(b';', self.text.get(self.at..)?)? + 1;
        let rest = self.text.get(start..)?;
        let equals = memchr::memchr2(b'=', b';', rest)?;
        let name = rest.get(..equals)?.trim_ascii();
        let value = start + equals + 1;
        if rest.get(equals) == Some(&b';') {
            self.at = start + equals;
            return Some((name, start + equals..start + equals));
        }
        if self.text.get(value) == Some(&b'"') {
            let mut end = value + 1;
            loop {
                match self.text.get(end)? {
                    b'"' => break,
                    b'\\' => end += 2,
                    _ => end += 1,
                }
            }
            self.at = end + 1;
            return Some((name, value + 1..end));
        }
        let rest = self.text.get(value..)?;
        let length = memchr::memchr(b';', rest).unwrap_or(rest.len());
        self.at = value + length;
        let token = rest.get(..length)?.trim_ascii_end().len();
        Some((name, value..value + token))
    }
}
