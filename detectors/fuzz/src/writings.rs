//! Texts made of pieces: credentials in plain, dressed up and encoded, and whatever stands between them.

use arbitrary::{Result, Unstructured};
use data_encoding::{BASE32, BASE64, HEXLOWER};

use crate::credentials;
use crate::scanners::BLOCK;

/// Bytes of one text, at most: two seams between windows, and enough behind the second.
const MAX_LENGTH: usize = 2 * BLOCK + BLOCK / 2;

/// Pieces that mean something to a decoder, and halves of such.
const MARKS: &[&str] = &[
    "%",
    "%2",
    "%25",
    "%u00",
    "\\",
    "\\\\",
    "\\u",
    "\\u00",
    "\\ud83d",
    "\\x4",
    "\\0",
    "\\n",
    "\\r\\n",
    "\\\n",
    "&#",
    "&#x",
    "&amp;",
    "&shy;",
    "=",
    "=\r\n",
    "=3D",
    "\0",
    "\0\0\0",
    "\r\n",
    "\n",
    "\n    ",
    "\u{200b}",
    "\u{332}",
    "\u{feff}",
    "\u{e0067}",
    "\u{ff47}",
    "\u{4e2d}",
    "\"",
    "\" + \"",
    "\", \"",
    "********",
    "begin 644 x\n",
    "end\n",
    "<~",
    "~>",
    "\x1f\u{8b}\x08",
    "PK\x03\x04",
    "-----BEGIN PRIVATE KEY-----\n",
    "://",
    "@",
    ":",
    "0x",
    ", ",
];

/// A text that `u` describes from its first byte on.
pub fn text(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    while !u.is_empty() && text.len() < MAX_LENGTH {
        match u.int_in_range(0..=7_u8)? {
            0 => {
                let length = u.int_in_range(0..=31_usize)?.min(u.len());
                text.extend_from_slice(u.bytes(length)?);
            }
            1 => text.extend_from_slice(u.choose(MARKS)?.as_bytes()),
            2 => text.extend_from_slice(credentials::any(u)?.as_bytes()),
            3 | 4 => dressed(credentials::any(u)?, &mut text, u)?,
            5 => encoded(credentials::any(u)?, &mut text, u)?,
            6 => {
                let byte = u.arbitrary()?;
                let length = text.len() + usize::from(u.arbitrary::<u8>()?);
                text.resize(length, byte);
            }
            _ => {
                // Up to a little before the next seam.
                let byte = u.arbitrary()?;
                let seam = (text.len() / BLOCK + 1) * BLOCK;
                let length = seam.saturating_sub(usize::from(u.arbitrary::<u8>()?));
                text.resize(length.max(text.len()), byte);
            }
        }
    }
    text.truncate(MAX_LENGTH);
    Ok(text)
}

/// `credential`, every character in one dress, or each in one of its own.
fn dressed(credential: &str, text: &mut Vec<u8>, u: &mut Unstructured<'_>) -> Result<()> {
    let dress = u.int_in_range(0..=DRESSES)?;
    for byte in credential.bytes() {
        let dress = if dress == DRESSES {
            u.int_in_range(0..=DRESSES - 1)?
        } else {
            dress
        };
        match dress {
            0 => text.push(byte),
            1 => text.extend(format!("%{byte:02x}").bytes()),
            2 => text.extend(format!("%25{byte:02X}").bytes()),
            3 => text.extend(format!("\\u{byte:04x}").bytes()),
            4 => text.extend(format!("\\\\u{byte:04X}").bytes()),
            5 => text.extend(format!("\\x{byte:02x}").bytes()),
            6 => text.extend(format!("\\{byte:03o}").bytes()),
            7 => text.extend(format!("&#{byte};").bytes()),
            8 => text.extend(format!("&#x{byte:x}").bytes()),
            9 => text.extend(format!("={byte:02X}").bytes()),
            10 => text.extend(character(u32::from(byte) + 0xFEE0).bytes()),
            11 => text.extend(character(u32::from(byte) + 0xE0000).bytes()),
            // Overlong.
            12 => text.extend_from_slice(&[0xC0 | byte >> 6, 0x80 | byte & 0x3F]),
            13 => text.extend(format!("{}\u{200b}", char::from(byte)).bytes()),
            14 => text.extend(format!("{}\u{332}", char::from(byte)).bytes()),
            15 => text.extend_from_slice(&[byte, 0]),
            16 => text.extend_from_slice(&[0, byte]),
            17 => text.extend_from_slice(&[byte, 0, 0, 0]),
            18 => text.extend(format!("{}=\r\n", char::from(byte)).bytes()),
            19 => text.extend(format!("{}\\\n", char::from(byte)).bytes()),
            20 => text.extend_from_slice(&[byte, b'\n']),
            21 => text.extend_from_slice(&[byte, b' ']),
            22 => text.extend(format!("{}\",\"", char::from(byte)).bytes()),
            23 => text.extend(format!("{byte}, ").bytes()),
            24 => text.extend(format!("0x{byte:02x},").bytes()),
            25 => text.extend(format!("{byte:08b} ").bytes()),
            26 => text.extend(format!("{byte:03o}").bytes()),
            27 => text.push(byte ^ if byte.is_ascii_alphabetic() { 0x20 } else { 0 }),
            28 => text.extend(format!("{}\" + \"", char::from(byte)).bytes()),
            _ => {
                text.push(byte);
                for _ in 0..u.int_in_range(0..=40_u8)? {
                    text.extend("\u{ad}".bytes());
                }
            }
        }
    }
    Ok(())
}

const DRESSES: u8 = 30;

fn character(number: u32) -> String {
    char::from_u32(number).map(String::from).unwrap_or_default()
}

/// `credential` after up to eight other bytes, in digits, and those perhaps in lines.
fn encoded(credential: &str, text: &mut Vec<u8>, u: &mut Unstructured<'_>) -> Result<()> {
    let mut plain = vec![b'#'; u.int_in_range(0..=8_usize)?];
    plain.extend_from_slice(credential.as_bytes());
    let digits = match u.int_in_range(0..=4_u8)? {
        0 => BASE64.encode(&plain),
        1 => BASE64.encode(BASE64.encode(&plain).as_bytes()),
        2 => HEXLOWER.encode(&plain),
        3 => BASE32.encode(&plain),
        _ => BASE64.encode(&plain).chars().rev().collect(),
    };
    let columns = *u.choose(&[usize::MAX, 16, 24, 64])?;
    for line in digits.as_bytes().chunks(columns) {
        text.extend_from_slice(line);
        if columns != usize::MAX {
            text.push(b'\n');
        }
    }
    Ok(())
}
