//! Forward encoders, for values that sit at any place of a longer text.

use std::fmt::Write as _;

use zeroize::Zeroizing;

/// Encoded bytes of a secret: as secret as it.
pub(super) type Encoded = Zeroizing<Vec<u8>>;

pub(super) const BASE64: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
pub(super) const BASE64_URL: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
pub(super) const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
pub(super) const BASE32_HEX: &[u8; 32] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// Adobe and btoa.
pub(super) const ASCII85: &[u8; 85] =
    b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstu";
/// RFC 1924, git and Python's `b85encode`.
pub(super) const BASE85: &[u8; 85] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
/// ZeroMQ RFC 32.
pub(super) const Z85: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// `value` in an alphabet of 2^n digits, where `before` bytes precede it in the encoder's group.
///
/// The digits that hold a bit of a neighbour are left out: what remains is the same in every longer text.
pub(super) fn radix(value: &[u8], before: usize, alphabet: &[u8]) -> Encoded {
    let width = alphabet.len().trailing_zeros() as usize;
    let first = (8 * before).div_ceil(width);
    let end = 8 * (before + value.len()) / width;
    let bit = |at: usize| {
        let byte = (at / 8)
            .checked_sub(before)
            .and_then(|index| value.get(index))
            .copied()
            .unwrap_or(0);
        usize::from(byte >> (7 - at % 8) & 1)
    };
    (first..end)
        .map(|digit| {
            let index =
                (digit * width..(digit + 1) * width).fold(0, |index, at| index << 1 | bit(at));
            alphabet.get(index).copied().unwrap_or_default()
        })
        .collect::<Vec<u8>>()
        .into()
}

/// The groups of four bytes of `value` that lie wholly inside it, as five digits of base 85 each.
pub(super) fn base85(value: &[u8], before: usize, alphabet: &[u8; 85]) -> Encoded {
    let own = value.get((4 - before) % 4..).unwrap_or_default();
    let mut digits = Vec::new();
    for group in own.chunks_exact(4) {
        let mut number = group
            .iter()
            .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let mut five = [0; 5];
        for digit in five.iter_mut().rev() {
            *digit = alphabet
                .get(number as usize % 85)
                .copied()
                .unwrap_or_default();
            number /= 85;
        }
        digits.extend_from_slice(&five);
    }
    digits.into()
}

/// `value` as one number in Bitcoin's alphabet, which is quadratic, so for short values only.
pub(super) fn base58(value: &[u8]) -> Encoded {
    let mut digits: Zeroizing<Vec<u8>> = Vec::new().into();
    for byte in value {
        let mut carry = u32::from(*byte);
        for digit in digits.iter_mut() {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58) as u8;
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58) as u8);
            carry /= 58;
        }
    }
    let zeros = value.iter().take_while(|byte| **byte == 0).count();
    std::iter::repeat_n(0, zeros)
        .chain(digits.iter().rev().copied())
        .map(|digit| BASE58.get(usize::from(digit)).copied().unwrap_or_default())
        .collect::<Vec<u8>>()
        .into()
}

/// Each byte by `format`, with `separator` between them.
pub(super) fn joined(value: &[u8], separator: &str, format: impl Fn(u8, &mut String)) -> Encoded {
    let mut text = String::with_capacity(value.len() * (separator.len() + 8));
    for (index, byte) in value.iter().enumerate() {
        if index > 0 {
            text.push_str(separator);
        }
        format(*byte, &mut text);
    }
    text.into_bytes().into()
}

/// A byte's digits as `joined` wants them. Writing to a `String` cannot fail.
pub(super) fn hex(byte: u8, text: &mut String) {
    let _ = write!(text, "{byte:02x}");
}

pub(super) fn prefixed_hex(byte: u8, text: &mut String) {
    let _ = write!(text, "0x{byte:02x}");
}

pub(super) fn decimal(byte: u8, text: &mut String) {
    let _ = write!(text, "{byte}");
}

pub(super) fn octal(byte: u8, text: &mut String) {
    let _ = write!(text, "{byte:03o}");
}

/// What a JSON string or a shell's `$'...'` makes of `value`.
pub(super) fn json(value: &[u8]) -> Encoded {
    let mut escaped = Vec::with_capacity(value.len() * 2);
    for byte in value {
        match byte {
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' => escaped.extend_from_slice(b"\\r"),
            b'\t' => escaped.extend_from_slice(b"\\t"),
            b'"' | b'\\' => escaped.extend_from_slice(&[b'\\', *byte]),
            _ => escaped.push(*byte),
        }
    }
    escaped.into()
}

pub(super) fn reversed(value: &[u8]) -> Encoded {
    value.iter().rev().copied().collect::<Vec<u8>>().into()
}

/// The Caesar shift by 13, of letters alone.
pub(super) fn rot13(value: &[u8]) -> Encoded {
    value
        .iter()
        .map(|byte| match byte {
            b'a'..=b'm' | b'A'..=b'M' => byte + 13,
            b'n'..=b'z' | b'N'..=b'Z' => byte - 13,
            _ => *byte,
        })
        .collect::<Vec<u8>>()
        .into()
}

/// The alphabet backwards, for letters alone.
pub(super) fn atbash(value: &[u8]) -> Encoded {
    value
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' => b'a' + b'z' - byte,
            b'A'..=b'Z' => b'A' + b'Z' - byte,
            _ => *byte,
        })
        .collect::<Vec<u8>>()
        .into()
}

/// The shift by 47 of all that is printed.
pub(super) fn rot47(value: &[u8]) -> Encoded {
    value
        .iter()
        .map(|byte| match byte {
            33..=126 => 33 + (byte - 33 + 47) % 94,
            _ => *byte,
        })
        .collect::<Vec<u8>>()
        .into()
}

/// `value`, one byte a code unit of `width` bytes, in little- or big-endian order.
pub(super) fn wide(value: &[u8], width: usize, little: bool) -> Encoded {
    let mut units = Vec::with_capacity(value.len() * width);
    for byte in value {
        let at = units.len() + if little { 0 } else { width - 1 };
        units.resize(units.len() + width, 0);
        if let Some(unit) = units.get_mut(at) {
            *unit = *byte;
        }
    }
    units.into()
}
