//! Unicode dressing: full-width and mathematical letters, accents, look-alikes, invisible characters.
//!
//! The result is for engines that look for ASCII, so characters without an ASCII reading stay as they are.
//! One table answers for each code point, since normalising by algorithm runs at 0.08 GB/s.

use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::map::Rewriter;
use crate::finding::Via;

/// The table covers the first two planes; nothing above them has an ASCII reading, except tags.
const PLANES: u32 = 0x2_0000;

/// What becomes of a character.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Reading {
    ascii: [u8; 3],
    /// Characters in `ascii`, or one of the marks below.
    length: u8,
}

const KEEP: Reading = Reading {
    ascii: [0; 3],
    length: 0xFF,
};
const ERASE: Reading = Reading {
    ascii: [0; 3],
    length: 0,
};

pub(super) fn fold(rewriter: &mut Rewriter<'_>) {
    let text = rewriter.source();
    let mut from = 0;
    while let Some(at) = next_non_ascii(text, from) {
        let Some((character, length)) = decode(text.get(at..).unwrap_or_default()) else {
            // Not UTF-8: this byte passes as it is.
            from = at + 1;
            continue;
        };
        from = at + length;
        let reading = read(character);
        if reading != KEEP {
            let ascii = reading
                .ascii
                .get(..usize::from(reading.length))
                .unwrap_or_default();
            rewriter.replace(at..from, ascii, Via::Unicode);
        }
    }
}

fn next_non_ascii(text: &[u8], from: usize) -> Option<usize> {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    while let Some(eight) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let high = u64::from_le_bytes(*eight) & HIGH;
        if high != 0 {
            return Some(at + high.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    text.get(at..)?
        .iter()
        .position(|byte| *byte >= 0x80)
        .map(|found| at + found)
}

/// The character that `bytes` begin with, and its length. Overlong forms are read too: a lenient reader
/// would.
pub(super) fn decode(bytes: &[u8]) -> Option<(u32, usize)> {
    let (length, mut character) = match bytes.first()? {
        byte @ 0xC0..=0xDF => (2, u32::from(byte & 0x1F)),
        byte @ 0xE0..=0xEF => (3, u32::from(byte & 0x0F)),
        byte @ 0xF0..=0xF7 => (4, u32::from(byte & 0x07)),
        _ => return None,
    };
    for byte in bytes.get(1..length)? {
        if byte & 0xC0 != 0x80 {
            return None;
        }
        character = character << 6 | u32::from(byte & 0x3F);
    }
    Some((character, length))
}

/// Whether the fold changes the character into ASCII, or into nothing.
pub(super) fn changes(character: u32) -> bool {
    read(character) != KEEP
}

/// How `character` reads in ASCII: nothing if it is invisible, and `None` if it has no such reading.
pub(crate) fn ascii_reading(character: char) -> Option<([u8; 3], usize)> {
    let reading = read(character.into());
    (reading != KEEP).then_some((reading.ascii, usize::from(reading.length)))
}

fn read(character: u32) -> Reading {
    match character {
        0..PLANES => TABLE.get(character as usize).copied().unwrap_or(KEEP),
        // Tag characters spell ASCII invisibly; the two that are not letters mark a beginning and an end.
        0xE0020..=0xE007E => ascii(&[(character & 0x7F) as u8]),
        0xE0000..=0xE0FFF => ERASE,
        _ => KEEP,
    }
}

fn ascii(bytes: &[u8]) -> Reading {
    let mut reading = Reading {
        ascii: [0; 3],
        length: bytes.len() as u8,
    };
    reading
        .ascii
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    reading
}

/// 512 KiB, made when the first text with such characters comes, in some milliseconds.
static TABLE: LazyLock<Vec<Reading>> = LazyLock::new(|| {
    let look_alikes: HashMap<char, u8> = LOOK_ALIKES
        .iter()
        .flat_map(|(from, ascii)| from.chars().map(|character| (character, *ascii)))
        .collect();
    (0..PLANES)
        .map(|number| {
            char::from_u32(number).map_or(KEEP, |character| work_out(character, &look_alikes))
        })
        .collect()
});

fn work_out(character: char, look_alikes: &HashMap<char, u8>) -> Reading {
    if character.is_ascii() {
        // Only an overlong form comes here.
        return ascii(&[character as u8]);
    }
    if is_ignorable(character) || is_combining_mark(character) {
        return ERASE;
    }
    if let Some(reading) = look_alikes.get(&character) {
        return ascii(&[*reading]);
    }
    // What is left of its compatibility decomposition without accents.
    let mut bytes = Vec::new();
    for part in std::iter::once(character)
        .nfkd()
        .filter(|part| !is_combining_mark(*part) && !is_ignorable(*part))
    {
        let byte = match look_alikes.get(&part) {
            Some(reading) => *reading,
            None => match u8::try_from(part) {
                Ok(byte) if byte.is_ascii() => byte,
                _ => return KEEP,
            },
        };
        bytes.push(byte);
    }
    // No longer than it was, and hence no view is longer than its source.
    match bytes.len() {
        1..=3 if bytes.len() <= character.len_utf8() => ascii(&bytes),
        _ => KEEP,
    }
}

/// Unicode's `Default_Ignorable_Code_Point`, and what is as invisible: the interlinear marks and the
/// braille blank.
fn is_ignorable(character: char) -> bool {
    matches!(u32::from(character),
        0xAD | 0x34F | 0x61C | 0x115F..=0x1160 | 0x17B4..=0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F
        | 0x202A..=0x202E | 0x2060..=0x206F | 0x2800 | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0
        | 0xFFF0..=0xFFFB | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A)
}

/// Letters of other scripts, and signs, that look like ASCII; Unicode's `confusables.txt` for the characters
/// that credentials are made of. What NFKD reads is not repeated.
const LOOK_ALIKES: &[(&str, u8)] = &[
    ("\u{410}\u{391}\u{13aa}\u{15c5}\u{a4ee}", b'A'),
    ("\u{412}\u{392}\u{13f4}\u{a4d0}\u{299}", b'B'),
    ("\u{421}\u{3f9}\u{13df}\u{a4da}\u{1d04}", b'C'),
    ("\u{13a0}\u{15de}\u{a4d3}\u{1d05}", b'D'),
    ("\u{415}\u{395}\u{13ac}\u{a4f0}\u{1d07}", b'E'),
    ("\u{3dc}\u{a4dd}\u{a730}", b'F'),
    ("\u{50c}\u{13c0}\u{13f3}\u{a4d6}\u{262}", b'G'),
    ("\u{41d}\u{397}\u{13bb}\u{a4e7}\u{29c}", b'H'),
    ("\u{406}\u{399}\u{4c0}\u{a4f2}\u{26a}\u{2160}", b'I'),
    ("\u{408}\u{37f}\u{13ab}\u{a4d9}\u{1d0a}", b'J'),
    ("\u{41a}\u{39a}\u{13e6}\u{a4d7}\u{1d0b}", b'K'),
    ("\u{13de}\u{a4e1}\u{29f}", b'L'),
    ("\u{41c}\u{39c}\u{3fa}\u{13b7}\u{a4df}\u{1d0d}", b'M'),
    ("\u{39d}\u{a4e0}\u{274}", b'N'),
    ("\u{41e}\u{39f}\u{555}\u{a4f3}\u{1d0f}", b'O'),
    ("\u{420}\u{3a1}\u{13e2}\u{a4d1}\u{1d18}", b'P'),
    ("\u{51a}", b'Q'),
    ("\u{13a1}\u{13d2}\u{a4e3}\u{280}", b'R'),
    ("\u{405}\u{54f}\u{13da}\u{a4e2}", b'S'),
    ("\u{422}\u{3a4}\u{13a2}\u{a4d4}\u{1d1b}", b'T'),
    ("\u{54d}\u{a4f4}\u{1d1c}", b'U'),
    ("\u{474}\u{13d9}\u{a4e6}\u{1d20}", b'V'),
    ("\u{51c}\u{13b3}\u{a4ea}\u{1d21}", b'W'),
    ("\u{425}\u{3a7}\u{a4eb}", b'X'),
    ("\u{4ae}\u{3a5}\u{a4ec}\u{28f}", b'Y'),
    ("\u{396}\u{13c3}\u{a4dc}\u{1d22}", b'Z'),
    ("\u{430}\u{3b1}\u{251}", b'a'),
    ("\u{42c}\u{184}\u{13cf}", b'b'),
    ("\u{441}\u{3f2}", b'c'),
    ("\u{501}\u{13e7}", b'd'),
    ("\u{435}\u{4bd}", b'e'),
    ("\u{192}\u{584}", b'f'),
    ("\u{261}\u{581}\u{18d}", b'g'),
    ("\u{4bb}\u{570}\u{13c2}", b'h'),
    ("\u{456}\u{3b9}\u{131}\u{269}\u{4cf}", b'i'),
    ("\u{458}\u{3f3}\u{237}", b'j'),
    ("\u{43a}\u{3ba}\u{138}", b'k'),
    ("\u{2113}\u{1c0}\u{5c0}\u{5d5}", b'l'),
    ("\u{43c}\u{271}", b'm'),
    ("\u{43f}\u{3b7}\u{578}\u{57c}", b'n'),
    ("\u{43e}\u{3bf}\u{3c3}\u{585}\u{1d11}", b'o'),
    ("\u{440}\u{3c1}\u{2374}", b'p'),
    ("\u{51b}\u{563}", b'q'),
    ("\u{433}\u{1d26}", b'r'),
    ("\u{455}\u{a731}", b's'),
    ("\u{442}\u{3c4}", b't'),
    ("\u{3c5}\u{57d}\u{28b}", b'u'),
    ("\u{475}\u{3bd}", b'v'),
    ("\u{51d}\u{461}\u{26f}", b'w'),
    ("\u{445}\u{3c7}\u{d7}", b'x'),
    ("\u{443}\u{4af}\u{3b3}\u{263}", b'y'),
    ("\u{437}\u{290}", b'z'),
    (
        "\u{2010}\u{2011}\u{2012}\u{2013}\u{2014}\u{2015}\u{2043}\u{2212}\u{2796}\u{30fc}",
        b'-',
    ),
    ("\u{2024}\u{3002}\u{6d4}\u{701}\u{702}", b'.'),
    ("\u{2215}\u{2044}\u{29f8}\u{2571}", b'/'),
    ("\u{2cd}\u{ff3f}\u{fe4d}\u{fe4e}\u{fe4f}\u{203f}", b'_'),
    ("\u{2236}\u{a789}\u{589}", b':'),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &[u8]) -> Vec<u8> {
        let mut rewriter = Rewriter::new(text);
        fold(&mut rewriter);
        rewriter.finish().map_or(text.to_vec(), |view| view.text)
    }

    #[test]
    fn dressing_comes_off() {
        for (written, expected) in [
            ("\u{ff47}\u{ff48}\u{ff50}\u{ff3f}", "ghp_"),
            ("g\u{200b}h\u{ad}p\u{fe0f}_\u{feff}", "ghp_"),
            ("g\u{301}\u{302}h\u{334}p_", "ghp_"),
            ("\u{1d420}\u{1d421}\u{1d429}_", "ghp_"),
            ("\u{24d6}\u{24d7}\u{24df}_", "ghp_"),
            ("g\u{4bb}\u{440}_", "ghp_"),
            ("\u{e0067}\u{e0068}\u{e0070}\u{e005f}", "ghp_"),
            ("\u{fb03}", "ffi"),
            ("\u{e9}\u{c5}", "eA"),
            ("\u{4e2d}\u{6587} \u{1f600}", "\u{4e2d}\u{6587} \u{1f600}"),
        ] {
            assert_eq!(folded(written.as_bytes()), expected.as_bytes(), "{written}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_pass() {
        assert_eq!(folded(b"a\xFF\xC3"), b"a\xFF\xC3");
        assert_eq!(folded(b"\xFF\xEF\xBD\x87\xE2\x80"), b"\xFFg\xE2\x80");
        assert_eq!(folded(b"\xC1\xA7hp_"), b"ghp_", "an overlong g");
    }

    #[test]
    fn no_reading_is_longer_than_its_character() {
        for number in 0x80..PLANES {
            let Some(character) = char::from_u32(number) else {
                continue;
            };
            let reading = read(number);
            assert!(reading == KEEP || usize::from(reading.length) <= character.len_utf8());
        }
    }
}
