//! One character of the input as its reader sees it, whatever way it was written.

use crate::finding::Via;
use crate::view::ascii_reading;

/// Backslashes that count as one: what three layers of JSON make of it.
const MAX_BACKSLASHES: usize = 8;

/// Digits of a numeric entity.
const MAX_DIGITS: usize = 8;

/// Elements that only change how letters look: they may stand inside a word.
const INLINE: &[&str] = &[
    "b", "i", "u", "s", "em", "strong", "span", "font", "mark", "small", "big", "sub", "sup",
    "wbr", "a", "ins", "del", "code", "tt",
];

/// Bytes of the longest `</strong >`.
const MAX_INLINE: usize = 12;

/// How a character was written, if not as itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dress {
    None,
    /// An invisible character stood here.
    Invisible,
    /// A character that looks like this one.
    LookAlike,
    Json,
    Entity,
    /// Soft hyphens, accents, emphasis: nothing that hides anything.
    Harmless,
}

impl Dress {
    pub(super) fn via(self) -> Option<Via> {
        match self {
            Self::None | Self::Harmless => None,
            Self::Invisible | Self::LookAlike => Some(Via::Unicode),
            Self::Json => Some(Via::JsonEscape),
            Self::Entity => Some(Via::HtmlEntity),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// One to three ASCII characters.
    Text([u8; 3], usize, Dress),
    /// Nothing that is seen.
    Nothing(Dress),
    /// A character without an ASCII reading.
    Foreign,
}

impl Unit {
    fn ascii(byte: u8, dress: Dress) -> Self {
        Self::Text([byte, 0, 0], 1, dress)
    }
}

/// Whether `byte` may stand for something else than itself.
#[inline]
pub(super) fn is_special(byte: u8) -> bool {
    matches!(byte, b'\\' | b'&' | b'<' | b'*' | 0x80..)
}

/// Reads the unit that `rest` begins with, and its length; `None` if more bytes must come first, which `last` rules out.
///
/// At most 32 bytes are looked at. `in_word` says that a letter or digit stood just before.
#[inline]
pub(super) fn read(rest: &[u8], in_word: bool, last: bool) -> Option<(Unit, usize)> {
    let first = *rest.first()?;
    if !is_special(first) {
        return Some((Unit::ascii(first, Dress::None), 1));
    }
    let window = rest.get(..32).unwrap_or(rest);
    let whole = last || window.len() == 32;
    match first {
        b'\\' => backslash(window, whole),
        b'&' => entity(window, whole),
        b'<' => inline_tag(window, whole),
        b'*' if in_word => emphasis(window, whole),
        b'*' => Some((Unit::ascii(b'*', Dress::None), 1)),
        _ => utf8(window, whole),
    }
}

fn utf8(rest: &[u8], whole: bool) -> Option<(Unit, usize)> {
    let length = match rest.first()? {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF7 => 4,
        _ => return Some((Unit::Foreign, 1)),
    };
    let Some(bytes) = rest.get(..length) else {
        return whole.then_some((Unit::Foreign, 1));
    };
    let character = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.chars().next());
    match character {
        Some(character) => Some((fold(character, Dress::LookAlike), length)),
        None => Some((Unit::Foreign, 1)),
    }
}

/// `dress` is what a letter is marked with that needed reading.
fn fold(character: char, dress: Dress) -> Unit {
    match character {
        // Apostrophes and quotes of typography are read as those of ASCII.
        '\u{2018}' | '\u{2019}' | '\u{2bc}' => return Unit::ascii(b'\'', Dress::None),
        '\u{201c}' | '\u{201d}' => return Unit::ascii(b'"', Dress::Harmless),
        // Legitimate inside words and between emoji.
        '\u{ad}' | '\u{fe00}'..='\u{fe0f}' => return Unit::Nothing(Dress::Harmless),
        _ => {}
    }
    let Some((ascii, length)) = ascii_reading(character) else {
        return Unit::Foreign;
    };
    if length == 0 {
        let combining = unicode_normalization::char::is_combining_mark(character);
        return Unit::Nothing(if combining {
            Dress::Harmless
        } else {
            Dress::Invisible
        });
    }
    let tag = ('\u{e0020}'..='\u{e007e}').contains(&character);
    let dress = match character {
        _ if tag => Dress::Invisible,
        // Letters of European languages lose their accents, and hide nothing by it.
        '\u{80}'..='\u{24f}' if dress == Dress::LookAlike => Dress::Harmless,
        _ => dress,
    };
    Unit::Text(ascii, length, dress)
}

fn numbered(number: u32, dress: Dress) -> Unit {
    match char::from_u32(number) {
        Some(character) if character.is_ascii() => Unit::ascii(character as u8, dress),
        Some(character) => fold(character, dress),
        None => Unit::Foreign,
    }
}

fn backslash(rest: &[u8], whole: bool) -> Option<(Unit, usize)> {
    let run = rest
        .iter()
        .take(MAX_BACKSLASHES)
        .take_while(|byte| **byte == b'\\')
        .count();
    let after = rest.get(run..).unwrap_or_default();
    let plain = Some((Unit::ascii(b'\\', Dress::None), run));
    let Some(kind) = after.first() else {
        return if whole { plain } else { None };
    };
    let hex = |from: usize, count: usize| -> Option<u32> {
        let digits = after.get(from..from + count)?;
        digits.iter().try_fold(0_u32, |number, digit| {
            Some(number << 4 | char::from(*digit).to_digit(16)?)
        })
    };
    let unit = match kind {
        b'n' | b'r' | b't' => Some((Unit::ascii(b'\n', Dress::Harmless), 1)),
        b'"' | b'\'' | b'/' => Some((Unit::ascii(*kind, Dress::Harmless), 1)),
        b'\n' => Some((Unit::Nothing(Dress::Harmless), 1)),
        b'x' if after.len() >= 3 || whole => hex(1, 2).map(|n| (numbered(n, Dress::Json), 3)),
        b'u' if after.len() >= 12 || whole => hex(1, 4).map(|first| {
            let second = (after.get(5..7) == Some(b"\\u"))
                .then(|| hex(7, 4))
                .flatten();
            match (first, second) {
                (0xD800..=0xDBFF, Some(second @ 0xDC00..=0xDFFF)) => {
                    let number = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                    (numbered(number, Dress::Json), 11)
                }
                _ => (numbered(first, Dress::Json), 5),
            }
        }),
        b'x' | b'u' => return None,
        _ => None,
    };
    match unit {
        Some((unit, length)) => Some((unit, run + length)),
        None => plain,
    }
}

fn entity(rest: &[u8], whole: bool) -> Option<(Unit, usize)> {
    const NAMED: &[(&str, u32)] = &[
        ("nbsp;", 0x20),
        ("amp;", 0x26),
        ("lt;", 0x3C),
        ("gt;", 0x3E),
        ("quot;", 0x22),
        ("apos;", 0x27),
        ("lowbar;", 0x5F),
        ("period;", 0x2E),
        ("colon;", 0x3A),
        ("NewLine;", 0x0A),
        ("Tab;", 0x09),
        ("shy;", 0xAD),
        ("zwj;", 0x200D),
        ("zwnj;", 0x200C),
        ("ZeroWidthSpace;", 0x200B),
        ("NoBreak;", 0x2060),
    ];
    let plain = Some((Unit::ascii(b'&', Dress::None), 1));
    let after = rest.get(1..).unwrap_or_default();
    if !whole
        && !after
            .iter()
            .take(17)
            .any(|byte| !byte.is_ascii_alphanumeric() && *byte != b'#')
        && after.len() < 17
    {
        return None;
    }
    let (radix, from) = match after {
        [b'#', b'x' | b'X', ..] => (16, 2),
        [b'#', ..] => (10, 1),
        _ => {
            let found = NAMED
                .iter()
                .find(|(name, _)| after.starts_with(name.as_bytes()));
            return found.map_or(plain, |(name, number)| {
                Some((numbered(*number, Dress::Harmless), 1 + name.len()))
            });
        }
    };
    let digits = after.get(from..).unwrap_or_default();
    let (mut number, mut count) = (0_u32, 0);
    while let Some(digit) = digits
        .get(count)
        .filter(|_| count < MAX_DIGITS)
        .and_then(|byte| char::from(*byte).to_digit(radix))
    {
        number = number.saturating_mul(radix).saturating_add(digit);
        count += 1;
    }
    if count == 0 {
        return plain;
    }
    let semicolon = usize::from(digits.get(count) == Some(&b';'));
    Some((
        numbered(number, Dress::Entity),
        1 + from + count + semicolon,
    ))
}

/// `<b>` and `</b>` without attributes are nothing; every other `<` is itself.
fn inline_tag(rest: &[u8], whole: bool) -> Option<(Unit, usize)> {
    let head = rest
        .get(1..MAX_INLINE)
        .unwrap_or(rest.get(1..).unwrap_or_default());
    let name_from = usize::from(head.first() == Some(&b'/'));
    let letters = head
        .get(name_from..)
        .unwrap_or_default()
        .iter()
        .take_while(|byte| byte.is_ascii_alphabetic())
        .count();
    let name = head.get(name_from..name_from + letters).unwrap_or_default();
    let is_inline = || {
        INLINE
            .iter()
            .any(|known| known.as_bytes().eq_ignore_ascii_case(name))
    };
    match head.get(name_from + letters) {
        Some(b'>') if is_inline() => {
            Some((Unit::Nothing(Dress::Harmless), name_from + letters + 2))
        }
        None if !whole && rest.len() < MAX_INLINE => None,
        _ => Some((Unit::ascii(b'<', Dress::None), 1)),
    }
}

/// Stars between two letters.
fn emphasis(rest: &[u8], whole: bool) -> Option<(Unit, usize)> {
    let stars = rest
        .iter()
        .take(3)
        .take_while(|byte| **byte == b'*')
        .count();
    match rest.get(stars) {
        None if !whole => None,
        Some(next) if next.is_ascii_alphanumeric() => Some((Unit::Nothing(Dress::Harmless), stars)),
        _ => Some((Unit::ascii(b'*', Dress::None), 1)),
    }
}
