//! Reversible encodings, one over the other.

use std::io::Write;

use arbitrary::{Result, Unstructured};
use data_encoding::{
    BASE32, BASE32_NOPAD, BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXUPPER,
};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// One encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    Base64 { url: bool, padded: bool },
    Hex { upper: bool },
    Base32 { padded: bool, lower: bool },
    Percent,
    Json,
    Gzip,
    Zlib,
}

impl Layer {
    fn any(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match u.int_in_range(0..=12_u8)? {
            0 => Self::Base64 {
                url: false,
                padded: true,
            },
            1 => Self::Base64 {
                url: false,
                padded: false,
            },
            2 => Self::Base64 {
                url: true,
                padded: true,
            },
            3 => Self::Base64 {
                url: true,
                padded: false,
            },
            4 => Self::Hex { upper: false },
            5 => Self::Hex { upper: true },
            6 => Self::Base32 {
                padded: true,
                lower: false,
            },
            7 => Self::Base32 {
                padded: false,
                lower: false,
            },
            8 => Self::Base32 {
                padded: false,
                lower: true,
            },
            9 => Self::Percent,
            10 => Self::Json,
            11 => Self::Gzip,
            _ => Self::Zlib,
        })
    }

    fn is_compression(self) -> bool {
        matches!(self, Self::Gzip | Self::Zlib)
    }

    /// What may stand right before and after what this layer wrote over `inner`, so that a reader could tell where it begins
    /// and ends.
    fn delimiters(self, inner: Option<Self>) -> &'static [&'static str] {
        match self {
            // Compressed data is a file, or all that another layer encodes.
            Self::Gzip | Self::Zlib => &[""],
            // Nothing tells zlib's first byte among digits but that they begin with it.
            _ if inner == Some(Self::Zlib) => &[
                "", " ", "\"", "'", ":", ",", ";", "=", "(", ")", "[", "]", "{", "<", ">", "\t",
            ],
            _ => &[
                "", " ", "\"", "'", ":", ",", ";", "=", "(", ")", "[", "]", "{", "<", ">", "\t",
                "\n", "\r\n", "/", "-", "_", ".",
            ],
        }
    }

    fn write(self, text: &[u8], u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Base64 {
                url: false,
                padded: true,
            } => BASE64.encode(text).into(),
            Self::Base64 {
                url: false,
                padded: false,
            } => BASE64_NOPAD.encode(text).into(),
            Self::Base64 {
                url: true,
                padded: true,
            } => BASE64URL.encode(text).into(),
            Self::Base64 {
                url: true,
                padded: false,
            } => BASE64URL_NOPAD.encode(text).into(),
            Self::Hex { upper: false } => HEXLOWER.encode(text).into(),
            Self::Hex { upper: true } => HEXUPPER.encode(text).into(),
            Self::Base32 { padded: true, .. } => BASE32.encode(text).into(),
            Self::Base32 { lower: false, .. } => BASE32_NOPAD.encode(text).into(),
            Self::Base32 { lower: true, .. } => BASE32_NOPAD.encode(text).to_lowercase().into(),
            Self::Percent => each(
                text,
                u,
                |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte),
                |byte| format!("%{byte:02X}"),
            )?,
            Self::Json => each(
                text,
                u,
                |byte| byte >= b' ' && !b"\"\\".contains(&byte),
                |byte| format!("\\u{byte:04x}"),
            )?,
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level(u)?);
                encoder.write_all(text).expect("to memory");
                encoder.finish().expect("to memory")
            }
            Self::Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level(u)?);
                encoder.write_all(text).expect("to memory");
                encoder.finish().expect("to memory")
            }
        })
    }
}

fn level(u: &mut Unstructured<'_>) -> Result<Compression> {
    Ok(Compression::new(u.int_in_range(1..=9)?))
}

/// `text` with each byte that may not stand as it is escaped, and of the others every one, none, or some.
fn each(
    text: &[u8],
    u: &mut Unstructured<'_>,
    may_stand: fn(u8) -> bool,
    escape: fn(u8) -> String,
) -> Result<Vec<u8>> {
    let one_of = u.int_in_range(0..=4_usize)?;
    let mut written = Vec::new();
    for (at, byte) in text.iter().enumerate() {
        if may_stand(*byte) && (one_of == 0 || at % one_of != 0) {
            written.push(*byte);
        } else {
            written.extend_from_slice(escape(*byte).as_bytes());
        }
    }
    Ok(written)
}

/// `credential` under one to three layers, each in surroundings of its own, and what the layers are, innermost first.
pub fn wrap(credential: &str, u: &mut Unstructured<'_>) -> Result<(Vec<u8>, Vec<Layer>)> {
    let mut layers = Vec::new();
    let mut text = surrounded(
        credential.as_bytes(),
        &[" ", "\"", "'", "=", ":", ",", "\n", ""],
        true,
        u,
    )?;
    for _ in 0..u.int_in_range(1..=3_u8)? {
        let mut layer = Layer::any(u)?;
        if layer == Layer::Json && !text.is_ascii() {
            // JSON holds characters, and these are bytes.
            layer = Layer::Percent;
        }
        text = layer.write(&text, u)?;
        text = surrounded(&text, layer.delimiters(layers.last().copied()), true, u)?;
        layers.push(layer);
    }
    if layers.last().is_some_and(|last| !last.is_compression()) {
        // Outside of all there may be anything.
        text = surrounded(&text, &[" ", "\n", "\"", "\0", ""], false, u)?;
    }
    Ok((text, layers))
}

/// `text` between two delimiters; beyond those is more, unless a delimiter is empty.
fn surrounded(
    text: &[u8],
    delimiters: &[&str],
    readable: bool,
    u: &mut Unstructured<'_>,
) -> Result<Vec<u8>> {
    let more = |u: &mut Unstructured<'_>| -> Result<Vec<u8>> {
        let length = u.int_in_range(0..=40_usize)?.min(u.len());
        let mut bytes = u.bytes(length)?.to_vec();
        if readable {
            bytes
                .iter_mut()
                .for_each(|byte| *byte = b' ' + *byte % (b'~' - b' '));
        }
        Ok(bytes)
    };
    let mut whole = Vec::new();
    let delimiter = u.choose(delimiters)?;
    if !delimiter.is_empty() {
        whole = more(u)?;
        whole.extend_from_slice(delimiter.as_bytes());
    }
    whole.extend_from_slice(text);
    let delimiter = u.choose(delimiters)?;
    if !delimiter.is_empty() {
        whole.extend_from_slice(delimiter.as_bytes());
        whole.extend_from_slice(&more(u)?);
    }
    Ok(whole)
}
