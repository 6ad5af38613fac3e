//! `application/x-www-form-urlencoded`: `name=value` pairs between `&`.

use std::borrow::Cow;
use std::ops::Range;

use super::Places;
use super::names::Named;
use super::rewrite::{Rewriter, character, name_mask};
use crate::finding::Field;
use crate::redact::MASK;

/// Whether it can be one: text of one line. What somebody sends as a form because his tool says so of everything is none.
pub(super) fn is_form(input: &[u8]) -> bool {
    !input.iter().any(u8::is_ascii_control)
}

pub(super) fn locate(places: &mut Places<'_>) {
    let input = places.input;
    let mut from = 0;
    for pair in pairs(input) {
        let between = |byte: &u8| matches!(byte, b'&' | b'=');
        places.name_flat(&mut from, &pair.whole(), between, |places, judge| {
            // Text without a value is not known to be a name.
            let name = pair.value.as_ref().map(|_| &pair.name)?;
            let decoded = decode(input.get(name.clone())?);
            let text = String::from_utf8_lossy(&decoded);
            let name = judge.shown(&text, places.touches(name));
            Some(Named {
                field: Field::Form { name: name.into() },
                names: vec![name.into()],
            })
        });
    }
}

pub(super) fn redact(rewriter: &mut Rewriter<'_>) {
    let mut names = 0;
    for pair in pairs(rewriter.input) {
        let mask = match pair.value {
            Some(_) => name_mask(names),
            None => MASK.to_owned(),
        };
        if rewriter.parts(pair.name, unit, mask.as_bytes()) {
            names += 1;
        }
        if let Some(value) = pair.value {
            rewriter.parts(value, unit, MASK.as_bytes());
        }
    }
}

struct Pair {
    name: Range<usize>,
    value: Option<Range<usize>>,
}

impl Pair {
    fn whole(&self) -> Range<usize> {
        let end = self.value.as_ref().map_or(self.name.end, |value| value.end);
        self.name.start..end
    }
}

fn pairs(input: &[u8]) -> impl Iterator<Item = Pair> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next?;
        let rest = input.get(start..)?;
        let length = memchr::memchr(b'&', rest).unwrap_or(rest.len());
        let end = start + length;
        next = (end < input.len()).then_some(end + 1);
        let pair = rest.get(..length)?;
        Some(match memchr::memchr(b'=', pair) {
            Some(at) => Pair {
                name: start..start + at,
                value: Some(start + at + 1..end),
            },
            None => Pair {
                name: start..end,
                value: None,
            },
        })
    })
}

/// An escape, or all those that write one character beyond ASCII.
fn unit(input: &[u8], at: usize) -> usize {
    let escape = |at: usize| {
        let digits = match input.get(at..at + 3) {
            Some([b'%', high, low]) => [*high, *low],
            _ => return None,
        };
        hex(digits)
    };
    match escape(at) {
        Some(0xC0..) => {
            let continues = |more: &usize| matches!(escape(at + 3 * more), Some(0x80..0xC0));
            3 + 3 * (1..=3).take_while(continues).count()
        }
        Some(_) => 3,
        None => character(input, at),
    }
}

fn hex([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn decode(name: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', name).is_none() {
        return name.into();
    }
    let mut decoded = Vec::with_capacity(name.len());
    let mut at = 0;
    while let Some(byte) = name.get(at) {
        let escaped = match name.get(at..at + 3) {
            Some([b'%', high, low]) => hex([*high, *low]),
            _ => None,
        };
        at += if escaped.is_some() { 3 } else { 1 };
        decoded.push(match byte {
            b'+' => b' ',
            byte => escaped.unwrap_or(*byte),
        });
    }
    decoded.into()
}
