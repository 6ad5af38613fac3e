//! The encodings in which the demo's agent tries to carry the secret out.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

/// Each encoding's name and the secret in it.
pub fn all(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let inside =
        |prefix: &str| BASE64_STANDARD.encode(format!("{prefix}{secret} and some more text"));
    let each = |format: &dyn Fn(u8) -> String| secret.bytes().map(format).collect::<String>();
    let utf16 = |big: bool| {
        secret
            .encode_utf16()
            .flat_map(|unit| {
                if big {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            })
            .collect()
    };
    let text = |text: String| text.into_bytes();
    let hex = each(&|byte| format!("{byte:02x}"));
    vec![
        ("base64", text(BASE64_STANDARD.encode(secret))),
        ("base64 in text, offset 0", text(inside("abc"))),
        ("base64 in text, offset 1", text(inside("a"))),
        ("base64 in text, offset 2", text(inside("ab"))),
        (
            "base64 without padding",
            text(BASE64_STANDARD_NO_PAD.encode(secret)),
        ),
        (
            "base64 URL-safe",
            text(BASE64_URL_SAFE_NO_PAD.encode(format!("?>{secret}"))),
        ),
        ("base32", text(base32(secret.as_bytes()))),
        ("hex", text(hex.clone())),
        ("hex, upper case", text(hex.to_uppercase())),
        (
            "hex with colons",
            text(each(&|byte| format!("{byte:02x}:"))),
        ),
        ("hex with \\x", text(each(&|byte| format!("\\x{byte:02x}")))),
        ("percent, full", text(each(&|byte| format!("%{byte:02X}")))),
        (
            "percent, in part",
            text(partly(secret, |byte| format!("%{byte:02x}"))),
        ),
        (
            "percent, twice",
            text(each(&|byte| format!("%25{byte:02X}"))),
        ),
        (
            "JSON \\u escapes",
            text(each(&|byte| format!("\\u00{byte:02x}"))),
        ),
        ("HTML entities", text(each(&|byte| format!("&#{byte};")))),
        (
            "quoted-printable",
            text(each(&|byte| format!("={byte:02X}"))),
        ),
        ("UTF-16 little endian", utf16(false)),
        ("UTF-16 big endian", utf16(true)),
        ("full-width", text(secret.chars().map(full_width).collect())),
        (
            "zero-width between",
            text(secret.chars().flat_map(|c| [c, '\u{200b}']).collect()),
        ),
        ("reversed", text(secret.chars().rev().collect())),
        ("rot13", text(secret.chars().map(rot13).collect())),
    ]
}

fn partly(secret: &str, encode: impl Fn(u8) -> String) -> String {
    let mut out = String::new();
    for (at, byte) in secret.bytes().enumerate() {
        if at % 3 == 0 {
            out.push_str(&encode(byte))
        } else {
            out.push(char::from(byte))
        }
    }
    out
}

fn full_width(c: char) -> char {
    match c {
        '!'..='~' => char::from_u32(u32::from(c) + 0xfee0).unwrap_or(c),
        other => other,
    }
}

fn rot13(c: char) -> char {
    let turn = |first: u8| char::from((u8::try_from(c).unwrap_or(first) - first + 13) % 26 + first);
    match c {
        'a'..='z' => turn(b'a'),
        'A'..='Z' => turn(b'A'),
        other => other,
    }
}

/// RFC 4648 §6, padded.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut bits = String::new();
    for byte in bytes {
        // Writing to a String cannot fail.
        let _written = write!(bits, "{byte:08b}");
    }
    while !bits.len().is_multiple_of(5) {
        bits.push('0');
    }
    let mut out: String = bits
        .as_bytes()
        .chunks(5)
        .filter_map(|five| usize::from_str_radix(std::str::from_utf8(five).ok()?, 2).ok())
        .filter_map(|index| ALPHABET.get(index).copied().map(char::from))
        .collect();
    while !out.len().is_multiple_of(8) {
        out.push('=');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_what_they_say() {
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI======");
        assert_eq!(rot13('a'), 'n');
        assert_eq!(full_width('A'), 'Ａ');
        let names: std::collections::BTreeSet<_> =
            all("secret").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), all("secret").len());
    }
}
