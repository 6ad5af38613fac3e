//! JSON (RFC 8259): a strict lexer, the field of each finding, and replacement that keeps the document one.

mod lexer;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::names::{self, Named};
use super::rewrite::{Rewriter, character, name_mask};
use super::{MAX_SPARE, Places};
use crate::finding::Field;
use crate::redact::MASK;
use lexer::{Lexer, Token};

/// Containers in one another. What is nested deeper is plain text to us; most parsers refuse it.
pub(super) const MAX_DEPTH: usize = 512;

/// How many documents there are, if `input` is nothing but JSON.
pub(super) fn documents(input: &[u8]) -> Option<u64> {
    let text = input.strip_prefix(lexer::BOM).unwrap_or(input);
    let first = text.trim_ascii_start().first()?;
    // A number or a word alone has no fields.
    if !matches!(first, b'{' | b'[' | b'"') || std::str::from_utf8(input).is_err() {
        return None;
    }
    let mut lexer = Lexer::new(input);
    while lexer.next().ok()?.is_some() {}
    Some(lexer.documents())
}

pub(super) fn redact(rewriter: &mut Rewriter<'_>) {
    let mut names = 0;
    let mut lexer = Lexer::new(rewriter.input);
    while let Ok(Some(token)) = lexer.next() {
        match token {
            // The bytes of a credential written as numbers; nothing of a number may stay, and nothing that is none come.
            Token::Number(leaf) => rewriter.whole(leaf, b"0"),
            Token::String(leaf) => {
                rewriter.parts(leaf, unit, MASK.as_bytes());
            }
            Token::Key(leaf) => {
                if rewriter.touches(&leaf) {
                    rewriter.parts(leaf, unit, name_mask(names).as_bytes());
                    names += 1;
                }
            }
            Token::Literal(_) | Token::Open(_) | Token::Close | Token::Next => {}
        }
    }
}

/// The length of what writes one character in a string.
fn unit(input: &[u8], at: usize) -> usize {
    let surrogate = |at: usize, high: bool| match input.get(at..at + 4) {
        Some([b'\\', b'u', b'd' | b'D', third]) => match third {
            b'8' | b'9' | b'a' | b'b' | b'A' | b'B' => high,
            b'c'..=b'f' | b'C'..=b'F' => !high,
            _ => false,
        },
        _ => false,
    };
    match input.get(at..at + 2) {
        Some([b'\\', b'u']) if surrogate(at, true) && surrogate(at + 6, false) => 12,
        Some([b'\\', b'u']) => 6,
        Some([b'\\', _]) => 2,
        _ => character(input, at),
    }
}

/// Names for each finding the innermost value that encloses it.
pub(super) fn locate(places: &mut Places<'_>, documents: u64) {
    let mut walk = Walk {
        documents,
        document: 1,
        begun: 0,
        path: Vec::new(),
        active: BinaryHeap::new(),
        lows: Vec::new(),
        low: usize::MAX,
    };
    let mut lexer = Lexer::new(places.input);
    while let Ok(Some(token)) = lexer.next() {
        walk.document = lexer.documents();
        match token {
            Token::Open(is_object) => walk.path.push(Step {
                object: is_object,
                key: 0..0,
                hidden: false,
                index: 0,
            }),
            Token::Close => {
                walk.path.pop();
                walk.low = walk.low.min(walk.path.len());
            }
            Token::Next => {
                if let Some(step) = walk.path.last_mut() {
                    step.index += 1;
                }
                walk.low = walk.low.min(walk.path.len().saturating_sub(1));
            }
            Token::Key(leaf) => {
                if let Some(step) = walk.path.last_mut() {
                    step.key = leaf.clone();
                    step.hidden = places.touches(&leaf);
                }
                walk.leaf(places, &leaf);
            }
            Token::String(leaf) | Token::Number(leaf) | Token::Literal(leaf) => {
                walk.leaf(places, &leaf);
            }
        }
        if walk.begun == places.order.len() && walk.active.is_empty() {
            break;
        }
    }
}

/// An open container, and what of it is being read.
struct Step {
    object: bool,
    key: Range<usize>,
    hidden: bool,
    index: u64,
}

/// The open containers, and the findings that have begun and may go on.
///
/// The place of a finding is as many steps of the path as did not change from its first leaf to its last. The least
/// length of the path since a finding began grows with the beginning, so that one stack of them, of which only the end
/// changes, serves all findings.
struct Walk {
    documents: u64,
    /// The number of the one that is being read, from 1 on.
    document: u64,
    /// How many findings have begun, in their order.
    begun: usize,
    path: Vec<Step>,
    /// The end of each finding that has begun, and its place in the order; what ends first is first.
    active: BinaryHeap<Reverse<(usize, usize)>>,
    /// For findings from one place in the order on: steps that have not changed since. Both grow.
    lows: Vec<(usize, usize)>,
    /// The least length of what has not changed since the last leaf.
    low: usize,
}

impl Walk {
    fn leaf(&mut self, places: &mut Places<'_>, leaf: &Range<usize>) {
        let low = std::mem::replace(&mut self.low, usize::MAX);
        let mut from = None;
        while let Some((first, _)) = self.lows.pop_if(|(_, kept)| *kept > low) {
            from = Some(first);
        }
        if let Some(first) = from {
            self.lows.push((first, low));
        }
        while let Some(span) = places.at(self.begun)
            && span.start < leaf.end
        {
            let end = trim(places.input, span);
            // Of one that lies between two leaves nothing is known.
            if end > leaf.start {
                self.lows.push((self.begun, self.path.len()));
                self.active.push(Reverse((end, self.begun)));
            }
            self.begun += 1;
        }
        while let Some(Reverse((end, begun))) = self.active.peek().copied()
            && end <= leaf.end
        {
            self.active.pop();
            self.name(places, begun);
        }
        if self.active.is_empty() {
            self.lows.clear();
        }
    }

    fn name(&self, places: &mut Places<'_>, begun: usize) {
        let at = self.lows.partition_point(|(first, _)| *first <= begun);
        let steps = at
            .checked_sub(1)
            .and_then(|at| self.lows.get(at))
            .map_or(0, |(_, low)| *low);
        let Some(path) = self.path.get(..steps).filter(|path| !path.is_empty()) else {
            return;
        };
        places.name(begun, |places, judge| {
            let name = |step: &Step| {
                let raw = places.input.get(step.key.clone()).unwrap_or_default();
                judge.shown(&decode(raw), step.hidden).to_owned()
            };
            let pointer = names::pointer(path.len(), |at| match path.get(at) {
                Some(step) if step.object => name(step),
                Some(step) => step.index.to_string(),
                None => String::new(),
            });
            let names = path.iter().filter(|step| step.object).map(name).collect();
            Some(Named {
                field: Field::Json {
                    pointer: pointer.into(),
                    document: (self.documents > 1).then_some(self.document),
                },
                names,
            })
        });
    }
}

/// The end of a span without what stands between values, so that it ends in a leaf.
fn trim(input: &[u8], span: &Range<usize>) -> usize {
    let bytes = input.get(span.clone()).unwrap_or_default();
    let between = |byte: &&u8| {
        matches!(
            byte,
            b'"' | b',' | b':' | b'[' | b']' | b'{' | b'}' | b' ' | b'\t' | b'\r' | b'\n'
        )
    };
    let spare = bytes
        .iter()
        .skip(1)
        .rev()
        .take(MAX_SPARE)
        .take_while(between)
        .count();
    span.start + bytes.len().max(1) - spare
}

/// What a key means. It is known to be well-formed.
fn decode(raw: &[u8]) -> String {
    let mut units = Vec::new();
    let mut text = String::new();
    let mut at = 0;
    let flush = |units: &mut Vec<u16>, text: &mut String| {
        text.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or('\u{fffd}')));
    };
    while let Some(byte) = raw.get(at) {
        if *byte != b'\\' {
            let length = character(raw, at);
            flush(&mut units, &mut text);
            text.push_str(&String::from_utf8_lossy(
                raw.get(at..at + length).unwrap_or_default(),
            ));
            at += length;
            continue;
        }
        let escaped = raw.get(at + 1).copied().unwrap_or_default();
        let digits = raw
            .get(at + 2..at + 6)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        at += if escaped == b'u' { 6 } else { 2 };
        units.push(match escaped {
            b'u' => digits
                .and_then(|digits| u16::from_str_radix(digits, 16).ok())
                .unwrap_or(0xFFFD),
            b'b' => 8,
            b'f' => 12,
            b'n' => 10,
            b'r' => 13,
            b't' => 9,
            other => u16::from(other),
        });
    }
    flush(&mut units, &mut text);
    text
}
