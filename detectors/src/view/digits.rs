//! What a run of letters and digits is in the bases that use them.

use std::ops::Range;

use super::map::View;
use crate::finding::Via;
use crate::kernel::{self, BASE64, BLOCK, Level, NO_DIGIT, class};

/// Base58 is one long number, so its length is bounded.
const BASE58: Range<usize> = 20..257;

/// Binary digits, and digits in threes.
const BINARY: usize = 120;
const THREES: usize = 45;

/// One way to read a part of a run.
#[derive(Clone, Debug)]
enum Plan {
    ReversedBase64 { phase: usize },
    Base58,
    Binary { phase: usize },
    Threes { phase: usize, radix: u32 },
}

/// The views of one run, one at a time, in one buffer.
pub(super) struct Views<'a> {
    level: Level,
    run: &'a [u8],
    plans: Vec<Plan>,
    spare: Vec<u8>,
}

/// `any` and `all` are the [classes](kernel::class) that some and all characters of the run have. A group of digits may begin at any
/// phase: letters may be glued to it.
pub(super) fn views(level: Level, run: &[u8], any: u8, all: u8, backwards: bool) -> Views<'_> {
    let mut plans = Vec::new();
    // Names in capitals have signs between their words.
    let both = any & class::UPPER != 0 && any & class::LOWER != 0;
    if both || any & class::UPPER != 0 && any & class::SIGN == 0 {
        if backwards {
            plans.extend((0..4).map(|phase| Plan::ReversedBase64 { phase }));
        }
        if all & class::BASE58 != 0 && BASE58.contains(&run.len()) {
            plans.push(Plan::Base58);
        }
    }
    if any == class::DIGIT | class::HEX | any & (class::BASE32 | class::BASE32_HEX | class::BASE58)
    {
        if run.len() >= BINARY && run.iter().all(|digit| matches!(digit, b'0' | b'1')) {
            plans.extend((0..8).map(|phase| Plan::Binary { phase }));
        } else if run.len() >= THREES {
            for phase in 0..3 {
                plans.push(Plan::Threes { phase, radix: 8 });
                plans.push(Plan::Threes { phase, radix: 10 });
            }
        }
    }
    plans.reverse();
    Views {
        level,
        run,
        plans,
        spare: Vec::new(),
    }
}

impl Views<'_> {
    pub(super) fn give_back(&mut self, view: View) {
        self.spare = view.text;
    }

    pub(super) fn next(&mut self) -> Option<View> {
        let mut text = std::mem::take(&mut self.spare);
        text.clear();
        let run = self.run;
        let view = match self.plans.pop()? {
            Plan::ReversedBase64 { phase } => {
                let reversed: Vec<u8> = run.iter().rev().skip(phase).copied().collect();
                kernel::base64(self.level, &reversed, &mut text);
                View::whole(text, 0..run.len(), Via::Base64)
            }
            Plan::Base58 => {
                base58(run, &mut text);
                View::whole(text, 0..run.len(), Via::Base58)
            }
            Plan::Binary { phase } => {
                let bytes = run.get(phase..)?.chunks_exact(8);
                text.extend(bytes.map(|eight| {
                    eight
                        .iter()
                        .fold(0_u8, |byte, digit| byte << 1 | (digit & 1))
                }));
                View::digits(text, phase, 8, 1, Via::Binary)
            }
            Plan::Threes { phase, radix } => {
                let numbers = run.get(phase..)?.chunks_exact(3);
                text.extend(numbers.map(|three| {
                    let number = three.iter().fold(0_u32, |number, digit| {
                        number * radix + u32::from(digit & 15)
                    });
                    u8::try_from(number).unwrap_or(0)
                }));
                View::digits(
                    text,
                    phase,
                    3,
                    1,
                    if radix == 8 { Via::Octal } else { Via::Decimal },
                )
            }
        };
        Some(view)
    }
}

fn base64_value(digit: u8) -> u8 {
    BASE64.get(usize::from(digit)).copied().unwrap_or(NO_DIGIT)
}

/// Whether base64 digits begin with text in characters of more than one byte, as far as the first ones tell.
pub(super) fn is_not_ascii_text(digits: &[u8]) -> bool {
    // Most runs are told by their first digit: a byte that continues a character, or a control character.
    let first = digits
        .first()
        .map_or(NO_DIGIT, |digit| base64_value(*digit));
    if !matches!(first, 2 | 3 | 8..32 | 0x30..=0x3D) {
        return false;
    }
    let byte = |number: usize| {
        let at = number / 3 * 4;
        let value = |offset: usize| digits.get(at + offset).map(|digit| base64_value(*digit));
        Some(match number % 3 {
            0 => value(0)? << 2 | value(1)? >> 4,
            1 => value(1)? << 4 | value(2)? >> 2,
            _ => value(2)? << 6 | value(3)?,
        })
    };
    let (mut at, mut long) = (0, false);
    while let Some(first) = byte(at).filter(|_| at < UTF8) {
        let more = match first {
            b'\t' | b'\n' | b'\r' | 0x20..0x7F => 0,
            0xC2..=0xDF => 1,
            0xE0..=0xEF => 2,
            0xF0..=0xF4 => 3,
            _ => return false,
        };
        long |= more > 0;
        for next in 1..=more {
            match byte(at + next) {
                Some(0x80..=0xBF) => {}
                Some(_) => return false,
                None => return long && at >= kernel::READABLE,
            }
        }
        at += 1 + more;
    }
    long && at >= kernel::READABLE
}

/// Bytes at the beginning of a run that tell whether it is text.
const UTF8: usize = 28;

/// Whether hexadecimal digits, in pairs from `phase` on, may stand for text or begin with compressed data.
pub(super) fn is_hex_of_text(digits: &[u8], phase: usize) -> bool {
    let mut row = 0;
    let mut pairs = digits.get(phase..).unwrap_or_default().chunks_exact(2);
    // Fourteen bytes in a row that are ASCII.
    if pairs.any(|pair| {
        row = if pair[0] < b'8' { row + 1 } else { 0 };
        row == kernel::READABLE
    }) {
        return true;
    }
    let head = hex(
        digits
            .get(..digits.len().min(2 * BLOCK))
            .unwrap_or_default(),
        phase,
        Vec::new(),
    );
    super::is_utf8(&head.text) || super::inflate::begins_compressed(&head.text, digits.len() / 2)
}

/// What a run of hexadecimal digits stands for, if its first pair begins at `phase`.
pub(super) fn hex(run: &[u8], phase: usize, mut text: Vec<u8>) -> View {
    text.clear();
    let value = |digit: u8| (digit & 15) + 9 * (digit >> 6);
    text.extend(
        run.get(phase..)
            .unwrap_or_default()
            .chunks_exact(2)
            .map(|pair| value(pair[0]) << 4 | value(pair[1])),
    );
    View::digits(text, phase, 2, 1, Via::Hex)
}

/// What a run of letters of one case and digits stands for in base32 and in its alphabet that begins with digits, at each of
/// the eight phases: letters may be glued to it.
pub(super) fn base32(level: Level, run: &[u8]) -> Vec<View> {
    let (any, all) = kernel::summary(level, run);
    let mut views = Vec::new();
    if any & (class::UPPER | class::LOWER) == 0 || all & class::HEX != 0 {
        return views;
    }
    for hex in [false, true] {
        let value = |digit: &u8| match digit {
            b'0'..=b'9' if hex => Some(digit - b'0'),
            b'2'..=b'7' if !hex => Some(digit - b'2' + 26),
            b'A'..=b'Z' | b'a'..=b'z' => {
                Some((digit | 0x20) - b'a' + if hex { 10 } else { 0 }).filter(|value| *value < 32)
            }
            _ => None,
        };
        // The longest row of digits of this alphabet: what is glued to it may have others.
        let mut start = 0;
        for part in run.split(|digit| value(digit).is_none()) {
            let at = start;
            start += part.len() + 1;
            if part.len() < BASE32 {
                continue;
            }
            let phases = base32_phases(part, &value);
            for phase in (0..8).filter(|phase| phases >> phase & 1 == 1) {
                let text = base32_text(part.get(phase..).unwrap_or_default(), &value);
                views.push(View::digits(text, at + phase, 8, 5, Via::Base32));
            }
        }
    }
    views
}

/// The places modulo 8 at which groups of base32 digits may begin that stand for text, or for what is compressed.
fn base32_phases(part: &[u8], value: &impl Fn(&u8) -> Option<u8>) -> u8 {
    // Of a group's eight digits five have the high bit of a byte. Any fourteen bytes in a row hold two groups.
    let is_low = |digits: &[u8]| {
        let bit = |at: usize, bit: u8| digits.get(at).and_then(value).unwrap_or(0) & bit;
        bit(0, 16) | bit(1, 2) | bit(3, 8) | bit(4, 1) | bit(6, 4) == 0
    };
    let mut phases = 0;
    let mut low = 0_u16;
    for (at, digits) in part.windows(8).enumerate() {
        low = low << 1 | u16::from(is_low(digits));
        if low >> 8 & low & 1 == 1 {
            phases |= 1 << (at % 8);
        }
    }
    // Compressed data begins it, or text in other letters, before which some of these may be glued.
    phases |= 1;
    for phase in 1..8 {
        let head = part
            .get(phase..part.len().min(phase + 48))
            .unwrap_or_default();
        if super::is_utf8(&base32_text(head, value)) {
            phases |= 1 << phase;
        }
    }
    phases
}

fn base32_text(digits: &[u8], value: &impl Fn(&u8) -> Option<u8>) -> Vec<u8> {
    let mut text = Vec::with_capacity(digits.len());
    for eight in digits.chunks(8) {
        let number = eight.iter().fold(0_u64, |number, digit| {
            number << 5 | u64::from(value(digit).unwrap_or(0))
        });
        let number = number << (5 * (8 - eight.len()));
        text.extend_from_slice(&number.to_be_bytes()[3..3 + eight.len() * 5 / 8]);
    }
    text
}

/// Characters of base32 that hold the shortest credential.
const BASE32: usize = 26;

/// Bitcoin's base58, ten digits at a time into 64-bit words.
fn base58(digits: &[u8], text: &mut Vec<u8>) {
    const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    const VALUES: [u8; 128] = {
        let mut table = [0; 128];
        let mut at = 0;
        while at < 58 {
            table[ALPHABET[at] as usize] = at as u8;
            at += 1;
        }
        table
    };
    let mut words = [0_u64; 32];
    let mut used = 0;
    for ten in digits.chunks(10) {
        let mut carry = 0_u64;
        let mut scale = 1_u64;
        for digit in ten {
            carry = carry * 58 + u64::from(VALUES.get(usize::from(*digit)).copied().unwrap_or(0));
            scale *= 58;
        }
        for word in words.iter_mut().take(used) {
            let product = u128::from(*word) * u128::from(scale) + u128::from(carry);
            *word = product as u64;
            carry = (product >> 64) as u64;
        }
        if carry > 0
            && let Some(word) = words.get_mut(used)
        {
            *word = carry;
            used += 1;
        }
    }
    text.extend(digits.iter().take_while(|digit| **digit == b'1').map(|_| 0));
    let bytes = words
        .iter()
        .take(used)
        .rev()
        .flat_map(|word| word.to_be_bytes());
    text.extend(bytes.skip_while(|byte| *byte == 0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(run: &[u8]) -> Vec<Vec<u8>> {
        let (any, all) = kernel::summary(kernel::level(), run);
        let mut views = views(kernel::level(), run, any, all, false);
        let texts: Vec<Vec<u8>> =
            std::iter::from_fn(|| views.next().map(|view| view.text)).collect();
        [
            texts,
            base32(kernel::level(), run)
                .into_iter()
                .map(|view| view.text)
                .collect(),
        ]
        .concat()
    }

    #[test]
    fn each_base_is_read() {
        let text = b"ghp_0123456789abcdefghijklmnopqrstuvwxyz";
        for run in [
            data_encoding::BASE32_NOPAD.encode(text),
            data_encoding::BASE32_NOPAD.encode(text).to_lowercase(),
            data_encoding::BASE32HEX_NOPAD.encode(text),
            // From the reference of base58: computed by repeated division in the test of known secrets, too.
            text.iter().map(|byte| format!("{byte:08b}")).collect(),
            text.iter().map(|byte| format!("{byte:03o}")).collect(),
            text.iter().map(|byte| format!("{byte:03}")).collect(),
        ] {
            assert!(
                texts(run.as_bytes()).iter().any(|read| read == text),
                "{run}"
            );
        }
        let upper: Vec<u8> = text
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect::<String>()
            .into();
        assert_eq!(hex(&upper, 0, Vec::new()).text, text);
    }

    #[test]
    fn base58_reads_known_values() {
        for (written, expected) in [
            ("2NEpo7TZRRrLZSi2U", &b"Hello World!"[..]),
            ("11233QC4", b"\0\0\x28\x7f\xb4\xcd"),
        ] {
            let mut text = Vec::new();
            base58(written.as_bytes(), &mut text);
            assert_eq!(text, expected);
        }
        let mut text = Vec::new();
        base58(&[b'z'; 256], &mut text);
        assert_eq!(text.len(), 188);
    }
}
