//! Archives as tools make them, and as nobody else does.

use std::io::{Read, Write};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// Deterministic (xorshift64*), so that a failure is the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

pub struct Coding {
    pub name: &'static str,
    pub pack: fn(&[u8]) -> Vec<u8>,
    /// What comes out of a beginning.
    pub read: fn(&[u8]) -> Vec<u8>,
}

pub const CODINGS: &[Coding] = &[
    Coding {
        name: "gzip",
        pack: gzip,
        read: gunzip,
    },
    Coding {
        name: "zlib",
        pack: |text| {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        },
        read: |bytes| all(flate2::read::ZlibDecoder::new(bytes)),
    },
    Coding {
        name: "deflate",
        pack: deflate,
        read: inflated,
    },
    Coding {
        name: "zip",
        pack: |text| zip(text, false),
        read: |bytes| inflated(bytes.get(34..).unwrap_or_default()),
    },
    Coding {
        name: "zip with a descriptor",
        pack: |text| zip(text, true),
        read: |bytes| inflated(bytes.get(34..).unwrap_or_default()),
    },
    Coding {
        name: "zstd",
        pack: |text| zstd::encode_all(text, 3).unwrap(),
        read: |bytes| {
            zstd::stream::read::Decoder::new(bytes)
                .map(all)
                .unwrap_or_default()
        },
    },
    Coding {
        name: "brotli",
        pack: |text| {
            let mut packed = Vec::new();
            brotli::CompressorWriter::new(&mut packed, 4096, 4, 22)
                .write_all(text)
                .unwrap();
            packed
        },
        read: |bytes| all(brotli::Decompressor::new(bytes, 4096)),
    },
];

pub struct Writing {
    pub name: &'static str,
    pub write: fn(&[u8]) -> Vec<u8>,
    pub read: fn(&[u8]) -> Vec<u8>,
}

pub const WRITINGS: &[Writing] = &[
    Writing {
        name: "plain",
        write: <[u8]>::to_vec,
        read: <[u8]>::to_vec,
    },
    Writing {
        name: "base64 in JSON",
        write: |bytes| {
            format!(
                "{{\"_attachments\": {{\"a-1.0.0.tgz\": {{\"data\": \"{}\", \"length\": 1}}}}}}",
                BASE64_STANDARD.encode(bytes)
            )
            .into()
        },
        read: |text| unbase64(text.get(43..).unwrap_or_default()),
    },
    Writing {
        name: "base64url",
        write: |bytes| format!("data={}", BASE64_URL_SAFE_NO_PAD.encode(bytes)).into(),
        read: |text| unbase64(text.get(5..).unwrap_or_default()),
    },
    Writing {
        name: "wrapped base64",
        write: |bytes| {
            format!(
                "Content-Transfer-Encoding: base64\r\n\r\n{}\r\n",
                lines(bytes, "\r\n")
            )
            .into()
        },
        read: |text| unbase64(text.get(37..).unwrap_or_default()),
    },
    Writing {
        name: "wrapped base64 in JSON",
        write: |bytes| {
            format!(
                "{{\"content\":\"{}\\n\",\"encoding\":\"base64\"}}",
                lines(bytes, "\\n")
            )
            .into()
        },
        read: |text| {
            unbase64(
                &String::from_utf8_lossy(text.get(12..).unwrap_or_default())
                    .replace("\\n", "")
                    .into_bytes(),
            )
        },
    },
    Writing {
        name: "base64 in a form",
        write: |bytes| {
            format!(
                "a=1&file={}&b=2",
                BASE64_STANDARD
                    .encode(bytes)
                    .replace('+', "%2B")
                    .replace('/', "%2F")
                    .replace('=', "%3D")
            )
            .into()
        },
        read: |text| {
            unbase64(
                &String::from_utf8_lossy(text.get(9..).unwrap_or_default())
                    .replace("%2B", "+")
                    .replace("%2F", "/")
                    .into_bytes(),
            )
        },
    },
    Writing {
        name: "base64 with escaped slashes",
        write: |bytes| {
            format!(
                "{{\"data\":\"{}\"}}",
                BASE64_STANDARD.encode(bytes).replace('/', "\\/")
            )
            .into()
        },
        read: |text| {
            unbase64(
                &String::from_utf8_lossy(text.get(9..).unwrap_or_default())
                    .replace("\\/", "/")
                    .into_bytes(),
            )
        },
    },
];

fn lines(bytes: &[u8], ending: &str) -> String {
    let digits = BASE64_STANDARD.encode(bytes);
    let lines: Vec<&str> = digits
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    lines.join(ending)
}

fn unbase64(text: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = text
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        .collect();
    BASE64_STANDARD
        .decode(&digits[..digits.len() / 4 * 4])
        .unwrap_or_default()
}

fn all(mut from: impl Read) -> Vec<u8> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        text.extend_from_slice(&piece[..count]);
    }
    text
}

pub fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub fn stored(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    all(flate2::read::GzDecoder::new(bytes))
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn inflated(bytes: &[u8]) -> Vec<u8> {
    all(flate2::read::DeflateDecoder::new(bytes))
}

fn zip(text: &[u8], descriptor: bool) -> Vec<u8> {
    let data = deflate(text);
    let mut head = b"PK\x03\x04\x14\0".to_vec();
    head.extend(if descriptor { 8_u16 } else { 0 }.to_le_bytes());
    head.extend(b"\x08\0\x5a\x63\x79\x5b\x1c\x9e\xd2\x47");
    let (packed, whole) = if descriptor {
        (0, 0)
    } else {
        (data.len() as u32, text.len() as u32)
    };
    head.extend(packed.to_le_bytes());
    head.extend(whole.to_le_bytes());
    head.extend(b"\x04\0\0\0a.js");
    let mut archive = [&head[..], &data].concat();
    if descriptor {
        archive.extend(b"PK\x07\x08\0\0\0\0");
        archive.extend((data.len() as u32).to_le_bytes());
        archive.extend((text.len() as u32).to_le_bytes());
    }
    archive
}

/// Text in which nothing repeats, so that it does not get much shorter.
pub fn noise(random: &mut Random, size: usize) -> Vec<u8> {
    (0..size)
        .map(|_| b"0123456789abcdefghijklmnopqrstuvwxyz .,;:()\n"[random.below(44)])
        .collect()
}

pub fn header(name: &str, size: usize) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[257..263].copy_from_slice(b"ustar\0");
    header
}

/// A tar of sources, as long as asked for or a little longer.
pub fn tar(random: &mut Random, size: usize) -> Vec<u8> {
    let mut tar = Vec::new();
    while tar.len() < size {
        let mut source = String::new();
        for _ in 0..20 + random.below(200) {
            let number = random.below(1 << 20);
            source.push_str(&match random.below(4) {
                0 => format!("    let value_{number:x} = table.get({});\n", number % 911),
                1 => format!(
                    "    // Line {number} of {}: the {} is not empty.\n",
                    number % 77,
                    ["list", "queue", "map", "set"][number % 4]
                ),
                2 => format!(
                    "    if count_{} > {number} {{ return Err(Error::Incomplete({})); }}\n",
                    number % 13,
                    number % 997
                ),
                _ => format!(
                    "\"key {number:o}\": [{}, {}, {}],\n",
                    number % 101,
                    number % 1009,
                    number % 10_007
                ),
            });
        }
        tar.extend(header(
            &format!("package/src/file{}.rs", tar.len()),
            source.len(),
        ));
        tar.extend_from_slice(source.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar
}

/// Where the block of a zstd frame begins that the byte at `at` comes out of: each holds 128 KiB.
pub fn zstd_block(frame: &[u8], at: usize) -> usize {
    // The magic number, the descriptor, and that of the window: the length was not known. RFC 8878, section 3.1.1.2.
    let mut begin = 6;
    for _ in 0..at / (128 * 1024) {
        let head = u32::from_le_bytes([frame[begin], frame[begin + 1], frame[begin + 2], 0]);
        let size = if head >> 1 & 3 == 1 { 1 } else { head >> 3 };
        begin += 3 + size as usize;
    }
    begin
}

struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn bit(&mut self, bit: u32) {
        if self.used.is_multiple_of(8) {
            self.bytes.push(0);
        }
        *self.bytes.last_mut().unwrap() |= (bit as u8) << (self.used % 8);
        self.used += 1;
    }

    /// A Huffman code, its high bit first.
    fn code(&mut self, code: u32, length: u32) {
        (0..length).rev().for_each(|at| self.bit(code >> at & 1));
    }

    fn literals(&mut self, text: &[u8]) {
        self.bit(0);
        self.bit(1);
        self.bit(0);
        for byte in text {
            match byte {
                0..=143 => self.code(0x30 + u32::from(*byte), 8),
                _ => self.code(0x190 + u32::from(*byte) - 144, 9),
            }
        }
        self.code(0, 7);
    }

    fn empty_stored(&mut self) {
        (0..3).for_each(|_| self.bit(0));
        self.used = self.used.next_multiple_of(8);
        self.bytes.extend([0, 0, 0xFF, 0xFF]);
        self.used += 32;
    }

    fn gzip(mut self) -> Vec<u8> {
        self.bit(1);
        self.bit(1);
        self.bit(0);
        self.code(0, 7);
        let mut bytes = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
        bytes.extend(self.bytes);
        bytes.extend([0; 8]);
        bytes
    }
}

/// One byte for a byte, none of which is as it was.
pub fn gzip_of_literals(text: &[u8]) -> Vec<u8> {
    let mut bits = Bits {
        bytes: Vec::new(),
        used: 0,
    };
    bits.literals(text);
    bits.gzip()
}

/// Half of a token, so many blocks with nothing in them, and the other half.
pub fn gzip_with_a_gap(token: &str, half: usize, blocks: usize) -> Vec<u8> {
    let mut bits = Bits {
        bytes: Vec::new(),
        used: 0,
    };
    bits.literals(b"Some text that stands before it, so that there is a beginning: ");
    bits.literals(&token.as_bytes()[..half]);
    (0..blocks).for_each(|_| bits.empty_stored());
    bits.literals(&token.as_bytes()[half..]);
    bits.literals(b" and so on.");
    bits.gzip()
}
