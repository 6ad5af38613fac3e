//! Percent-encoding, backslash escapes and HTML entities.
//!
//! One step for all three, since they begin with different bytes and hence never get in each other's way.
//! It is more liberal than any one program: what some reader would take for an escape is one. It is also
//! without memory: whether a backslash is itself escaped depends on all those before it, so a run of them
//! counts as one.
//!
//! Escapes of white space and quotes (`\n`, `\"`) stay: every JSON body has them, so taking them off would
//! mean a view of each, and no credential goes on across one. (A known secret that does, such as a PEM key, is
//! also looked for as JSON writes it; wrapped lines are for [`unwrap`](super::unwrap).)

use super::map::Rewriter;
use crate::finding::Via;

/// Backslashes that an escape may begin with: what three layers of JSON make of one. Those before them stay.
const MAX_BACKSLASHES: usize = 8;

/// Digits of a numeric entity: leading zeros are legal, and a flood of them is not worth following.
const MAX_DIGITS: usize = 10;

pub(super) fn unescape(rewriter: &mut Rewriter<'_>) {
    let text = rewriter.source();
    let mut from = 0;
    while let Some(found) = memchr::memchr3(b'%', b'\\', b'&', text.get(from..).unwrap_or_default())
    {
        let at = from + found;
        from = at + 1;
        if text.get(at) == Some(&b'\\') {
            from += text
                .get(from..)
                .unwrap_or_default()
                .iter()
                .take_while(|byte| **byte == b'\\')
                .count();
        }
        let at = at.max(from.saturating_sub(MAX_BACKSLASHES));
        let rest = text.get(from..).unwrap_or_default();
        let (decoded, via) = match text.get(at) {
            Some(b'%') => (percent(rest), Via::Percent),
            Some(b'\\') => (backslash(rest), Via::JsonEscape),
            _ => (entity(rest), Via::HtmlEntity),
        };
        if let Some((written, length)) = decoded {
            from += length;
            rewriter.replace(at..from, written.bytes(), via);
        }
    }
}

/// What one escape that `text` begins with stands for, and its length.
pub(super) fn one(text: &[u8]) -> Option<(Written, usize)> {
    let (first, rest) = text.split_first()?;
    match first {
        b'%' => percent(rest),
        b'\\' => backslash(rest),
        b'&' => entity(rest),
        _ => None,
    }
    .map(|(written, length)| (written, length + 1))
}

/// Percent-encoding alone, for what decodes nothing else: a URL, a header.
pub(super) fn percent_decode(rewriter: &mut Rewriter<'_>) {
    let text = rewriter.source();
    let mut from = 0;
    while let Some(found) = memchr::memchr(b'%', text.get(from..).unwrap_or_default()) {
        let at = from + found;
        from = at + 1;
        if let Some((written, length)) = percent(text.get(from..).unwrap_or_default()) {
            from += length;
            rewriter.replace(at..from, written.bytes(), Via::Percent);
        }
    }
}

/// What an escape stands for: at most four bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Written {
    bytes: [u8; 4],
    length: usize,
}

impl Written {
    fn byte(byte: u8) -> Self {
        Self {
            bytes: [byte, 0, 0, 0],
            length: 1,
        }
    }

    /// Surrogates and numbers beyond Unicode become U+FFFD, as everywhere.
    fn character(number: u32) -> Self {
        let mut bytes = [0; 4];
        let length = char::from_u32(number)
            .unwrap_or(char::REPLACEMENT_CHARACTER)
            .encode_utf8(&mut bytes)
            .len();
        Self { bytes, length }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// `XX`, and `uXXXX` as JavaScript's `escape` writes it.
fn percent(rest: &[u8]) -> Option<(Written, usize)> {
    match hex_pair(rest) {
        Some(byte) => Some((Written::byte(byte), 2)),
        None if matches!(rest.first(), Some(b'u' | b'U')) => utf16(rest, b'%'),
        None => None,
    }
}

fn backslash(rest: &[u8]) -> Option<(Written, usize)> {
    match rest {
        [b'u' | b'x', b'{', digits @ ..] => {
            let (number, count) = number(digits, 16, 6)?;
            (digits.get(count) == Some(&b'}')).then(|| (Written::character(number), count + 3))
        }
        [b'u', ..] => utf16(rest, b'\\'),
        [b'U', digits @ ..] => match number(digits, 16, 8)? {
            (number, 8) => Some((Written::character(number), 9)),
            _ => None,
        },
        [b'x', digits @ ..] => hex_pair(digits).map(|byte| (Written::byte(byte), 3)),
        [b'0'..=b'7', ..] => match number(rest, 8, 3)? {
            (number, count @ 2..) => Some((Written::byte(u8::try_from(number).ok()?), count)),
            _ => None,
        },
        [b'/', ..] => Some((Written::byte(b'/'), 1)),
        // A line that goes on in the next.
        [b'\r', b'\n', ..] => Some((Written::default(), 2)),
        [b'\n', ..] => Some((Written::default(), 1)),
        _ => None,
    }
}

/// `uXXXX` after `mark`, and its other half if it is the first of a surrogate pair.
fn utf16(rest: &[u8], mark: u8) -> Option<(Written, usize)> {
    let unit = |digits: &[u8]| match number(digits, 16, 4)? {
        (number, 4) => Some(number),
        _ => None,
    };
    let first = unit(rest.get(1..)?)?;
    if let (0xD800..=0xDBFF, [at, b'u' | b'U', digits @ ..]) = (first, rest.get(5..)?)
        && *at == mark
        && let Some(second @ 0xDC00..=0xDFFF) = unit(digits)
    {
        return Some((
            Written::character(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)),
            11,
        ));
    }
    Some((Written::character(first), 5))
}

/// `#NN;`, `#xHH;`, and names of characters that credentials hold or that begin another escape.
/// The semicolon may be missing from numbers, as browsers have it.
fn entity(rest: &[u8]) -> Option<(Written, usize)> {
    let (number, length) = match rest {
        [b'#', b'x' | b'X', digits @ ..] => {
            let (number, count) = number(digits, 16, MAX_DIGITS)?;
            (number, count + 2)
        }
        [b'#', digits @ ..] => {
            let (number, count) = number(digits, 10, MAX_DIGITS)?;
            (number, count + 1)
        }
        _ => {
            let name = NAMED
                .iter()
                .find(|(name, _)| rest.starts_with(name.as_bytes()))?;
            return Some((Written::character(name.1), name.0.len()));
        }
    };
    let semicolon = usize::from(rest.get(length) == Some(&b';'));
    Some((Written::character(number), length + semicolon))
}

/// HTML living standard, "Named character references".
const NAMED: &[(&str, u32)] = &[
    ("amp;", 0x26),
    ("lowbar;", 0x5F),
    ("UnderBar;", 0x5F),
    ("period;", 0x2E),
    ("hyphen;", 0x2D),
    ("dash;", 0x2D),
    ("percnt;", 0x25),
    ("bsol;", 0x5C),
    ("num;", 0x23),
    ("semi;", 0x3B),
    ("colon;", 0x3A),
    ("equals;", 0x3D),
    ("plus;", 0x2B),
    ("sol;", 0x2F),
    ("shy;", 0xAD),
    ("zwj;", 0x200D),
    ("zwnj;", 0x200C),
    ("ZeroWidthSpace;", 0x200B),
    ("NoBreak;", 0x2060),
    ("NewLine;", 0x0A),
    ("Tab;", 0x09),
];

/// The number that up to `max` digits write, and how many there were: at least one.
fn number(digits: &[u8], base: u32, max: usize) -> Option<(u32, usize)> {
    let mut number: u32 = 0;
    let mut count = 0;
    for digit in digits
        .iter()
        .take(max)
        .map_while(|byte| char::from(*byte).to_digit(base))
    {
        number = number.saturating_mul(base).saturating_add(digit);
        count += 1;
    }
    (count > 0).then_some((number, count))
}

pub(super) fn hex_pair(rest: &[u8]) -> Option<u8> {
    let digits = rest.first_chunk::<2>()?;
    let value = |digit: u8| HEX.get(usize::from(digit)).copied().unwrap_or(NO_HEX);
    let (high, low) = (value(digits[0]), value(digits[1]));
    ((high | low) < NO_HEX).then_some(high << 4 | low)
}

const NO_HEX: u8 = 16;

const HEX: [u8; 128] = {
    let mut table = [NO_HEX; 128];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &str) -> String {
        let mut rewriter = Rewriter::new(text.as_bytes());
        unescape(&mut rewriter);
        rewriter.finish().map_or(text.into(), |view| {
            String::from_utf8_lossy(&view.text).into_owned()
        })
    }

    #[test]
    fn escapes_are_taken_off() {
        for (written, expected) in [
            ("%41%zz%4", "A%zz%4"),
            ("%2541", "%41"),
            ("%u0041", "A"),
            (r"\u0041\x41\u{41}\x{41}\U00000041\101", "AAAAAA"),
            (r"\ud83d\ude00 \ud83d", "\u{1f600} \u{fffd}"),
            (r#"a\/b\nc\"d\\ "#, r#"a/b\nc\"d\\ "#),
            (r"\\u0041 \\\\u0041", "A A"),
            ("a\\\nb\\\r\nc", "abc"),
            ("&#65;&#x41;&#x0041&#65 &amp;#65;", "AAAA &#65;"),
            ("a & b \\ c % d &unknown;", "a & b \\ c % d &unknown;"),
            (r"\dapi \q \u00g0", r"\dapi \q \u00g0"),
        ] {
            assert_eq!(unescaped(written), expected, "{written}");
        }
    }
}
