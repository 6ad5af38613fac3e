//! One test for each way around the scanner that was ever found.

#![expect(
    clippy::unwrap_used,
    reason = "a failed expectation ends the test that it helps"
)]

use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use detectors::{KnownSecret, Location, Scanner};

const SECRET: &str = "Zk3vQ9xT7mLw2RbN8sYc4HdJ6pGf1Ae"; // gitleaks:allow
const KEY: &str = "AKIAQ7T3ZP5W2MHXK4LD"; // gitleaks:allow

fn found(input: &[u8]) -> bool {
    static SCANNER: LazyLock<Scanner> = LazyLock::new(|| {
        let secret = KnownSecret::new("EGRESS_TOKEN_X", SECRET.as_bytes()).unwrap();
        Scanner::builder()
            .token_patterns(true)
            .known_secrets(vec![secret])
            .build()
            .unwrap()
    });
    !SCANNER.scan(&Location::Body, input).is_empty()
}

/// What a reader drops pushed the characters so far apart that no window held them all.
#[test]
fn a_token_stretched_by_what_is_dropped() {
    for (what, filler) in [
        ("soft line breaks", "=\r\n".repeat(300)),
        ("continued lines", "\\\n".repeat(500)),
        ("zero-width spaces", "\u{200b}".repeat(300)),
    ] {
        for token in [KEY, SECRET] {
            let stretched: String = token
                .chars()
                .flat_map(|c| [c.to_string(), filler.clone()])
                .collect();
            for offset in [0, 100, 65_472, 65_530] {
                let body = [vec![b'.'; offset], stretched.as_bytes().to_vec()].concat();
                assert!(found(&body), "{what} at {offset}");
            }
        }
    }
}

/// The last line of a wrapped encoding may be as short as one character.
#[test]
fn wrapped_encodings_with_a_short_last_line() {
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    let base64 = BASE64_STANDARD.encode(SECRET);
    for encoded in [hex, base64] {
        for width in 16..encoded.len() {
            let lines: Vec<&str> = encoded
                .as_bytes()
                .chunks(width)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            assert!(found(lines.join("\n").as_bytes()), "{width} columns");
        }
    }
}

/// Many beginnings of tokens in pieces used up what may be put together, and the finding of that lay outside of what its
/// window reports.
#[test]
fn a_bound_is_reported_wherever_its_window_lies() {
    let decoys = "glpat-a\",\"b\",\"c\", ".repeat(3_500);
    let token = format!("glpat-{}\" + \"{}", "A".repeat(9), "b3".repeat(8));
    for offset in [0, 66_000, 200_000] {
        let body = [
            vec![b'.'; offset],
            decoys.as_bytes().to_vec(),
            token.clone().into_bytes(),
        ]
        .concat();
        assert!(found(&body), "at {offset}");
    }
}

/// Only the first so many magic numbers were looked at, and nothing said so.
#[test]
fn a_member_behind_many_false_ones() {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(format!("key {KEY} is the one").as_bytes())
        .unwrap();
    let member = gzip.finish().unwrap();
    for false_ones in [0, 1, 63, 64, 65, 1_000] {
        let body = [b"\x1F\x8B\x08\xFF\x01 ".repeat(false_ones), member.clone()].concat();
        assert!(found(&body), "{false_ones} false ones");
    }
}

/// Numbers with a percent sign between were taken for escapes alone.
#[test]
fn numbers_between_percent_signs() {
    for separator in ["%", "=", "&"] {
        for token in [KEY, SECRET] {
            let list: Vec<String> = token.bytes().map(|byte| byte.to_string()).collect();
            assert!(found(list.join(separator).as_bytes()), "{separator}");
        }
    }
}

/// What was nested deeper than is read passed without a word.
#[test]
fn a_nesting_deeper_than_is_read_is_a_finding() {
    let mut nested = format!("the key is {KEY}, and that is all of it");
    for depth in 1..12 {
        nested = BASE64_STANDARD.encode(&nested);
        assert!(found(nested.as_bytes()), "{depth} deep");
    }
}

/// Base 85 beside a long row of small letters did not look like base 85.
#[test]
fn base85_beside_letters() {
    // `ascii85` of `key ` and the key above, padded to a whole group.
    let text = format!("the first key of all is {KEY}, the rest is not one");
    let ascii85: Vec<u8> = text
        .as_bytes()
        .chunks_exact(4)
        .flat_map(|four| {
            let mut number = u32::from_be_bytes([four[0], four[1], four[2], four[3]]);
            let mut five = [0; 5];
            for digit in five.iter_mut().rev() {
                *digit = b'!' + (number % 85) as u8;
                number /= 85;
            }
            five
        })
        .collect();
    for letters in [0, 5, 100, 2_000] {
        let body = [b"a".repeat(letters), ascii85.clone(), b"a".repeat(letters)].concat();
        assert!(found(&body), "{letters} letters");
    }
}

/// An archive that a route lets through with a warning made a finding in each window, and these added up to a block.
#[test]
fn a_long_archive_is_one_finding() {
    let member: Vec<u8> = [
        b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\x10\0\0\0\x10\0\0\0\x01\0\0\0a".to_vec(),
        {
            use std::io::Write;
            let mut deflate =
                flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            // More than may be read of so little.
            deflate.write_all(&vec![b' '; 80_000_000]).unwrap();
            deflate.finish().unwrap()
        },
    ]
    .concat();
    let scanner = Scanner::builder()
        .token_patterns(true)
        .undecodable(detectors::Severity::Warn)
        .build()
        .unwrap();
    let findings = scanner.scan(&Location::Body, &member.repeat(12));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].severity, detectors::Severity::Warn);
}

#[test]
fn zlib_behind_a_sign_in_percent_escapes() {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut zlib, b"ghp_0123456789abcdefghijklmnopqrstuvwxyz").unwrap(); // gitleaks:allow
    let escaped: String = zlib
        .finish()
        .unwrap()
        .iter()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(*byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect();
    let scanner = Scanner::builder().token_patterns(true).build().unwrap();
    for before in [" ", "v=", "(", "a: v=", "q=1&v="] {
        let text = format!("{before}{escaped}");
        let found = scanner.scan(&Location::Body, text.as_bytes());
        assert!(
            found
                .iter()
                .any(|finding| finding.rule.0.starts_with("github")),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn numbers_that_are_spread_over_blocks() {
    let scanner = Scanner::builder().token_patterns(true).build().unwrap();
    let token = b"ghp_3KqWz81mRtYxLp0vBnHc5dRt8sQe7UaJ2oXi"; // gitleaks:allow
    let list = |before: &str, write: &dyn Fn(u8) -> String, after: &str| {
        token
            .iter()
            .map(|byte| format!("{before}{}{after}", write(*byte)))
            .collect::<String>()
    };
    let words = |size: usize| {
        token
            .chunks(size)
            .map(|chunk| {
                let digits: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("0x{digits}, ")
            })
            .collect::<String>()
    };
    for padding in 0..130 {
        let before = " ".repeat(padding);
        for text in [
            list("    ", &|byte| byte.to_string(), ",\n"),
            list("        ", &|byte| byte.to_string(), ",\n"),
            list("    ", &|byte| format!("0x{byte:02x}"), ",\n"),
            list("    ", &|byte| format!("0b{byte:08b}"), ",\n"),
            words(4),
            words(8),
            // And a line of digits before a line of words.
            format!(
                "{}\nThe end",
                token
                    .iter()
                    .map(|byte| format!("{byte:03}"))
                    .collect::<String>()
            ),
        ] {
            let found = scanner.scan(&Location::Body, format!("{before}{text}").as_bytes());
            assert!(!found.is_empty(), "{padding} blanks before {text}");
        }
    }
}

/// Lines that look wrapped and begin in the same 64 bytes as a base64 run, behind it, hid it.
#[test]
fn base64_before_a_wrapped_line_is_read() {
    let scanner = Scanner::builder().token_patterns(true).build().unwrap();
    let digits = "Z2hwXzNLcVd6ODFtUnRZeExwMHZCbkhjNWRSdDhzUWU3VWFKMm9YaQ=="; // gitleaks:allow
    for before in 0..64 {
        let text = format!("{}{digits} ABCDEFGHIJKLMNOPqrst\nF", " ".repeat(before));
        let found = scanner.scan(&Location::Body, text.as_bytes());
        assert_eq!(found.len(), 1, "{before} bytes before it");
    }
}

#[test]
fn wrapped_lines_of_a_whole_archive_do_not_break_off() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &[b'a'; 3000]).unwrap();
    // So that the first line alone inflates to something.
    std::io::Write::flush(&mut gzip).unwrap();
    for number in 0..300_u64 {
        let line = format!("{} rows\n", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        std::io::Write::write_all(&mut gzip, line.as_bytes()).unwrap();
    }
    let digits = BASE64_STANDARD.encode(gzip.finish().unwrap());
    let scanner = Scanner::builder().token_patterns(true).build().unwrap();
    for width in [57, 64, 76] {
        for ending in ["\n", "\r\n", "\\n"] {
            let lines: Vec<&str> = digits
                .as_bytes()
                .chunks(width)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            let text = format!("data: {}{ending}", lines.join(ending));
            let found = scanner.scan(&Location::Body, text.as_bytes());
            assert!(found.is_empty(), "{width}, {ending:?}: {found:?}");
        }
    }
}

#[test]
fn findings_of_one_window_are_in_the_order_of_their_places() {
    // Compressed data that breaks off, and a known secret behind its beginning; found by fuzzing.
    let mut text = b"x\x9C\xABV*\xC9\xCFN\xCD.SvVE\xB2RPru\x0Fr\x1F\x8B\x08\0\0\0\0".to_vec();
    text.extend_from_slice(
        BASE64_STANDARD
            .encode(b"a value that nobody else has")
            .as_bytes(),
    );
    text.extend_from_slice(b"\x1F6\n\x02\x03\xABV");
    let known = KnownSecret::new("NAME", b"a value that nobody else has").unwrap();
    let scanner = Scanner::builder()
        .known_secrets(vec![known])
        .build()
        .unwrap();
    let found = scanner.scan(&Location::Body, &text);
    assert!(found.len() >= 2, "{found:?}");
    assert!(
        found.is_sorted_by_key(|finding| finding.span.start),
        "{found:?}"
    );
}

fn zlib(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// The end of an escape was taken for the first digits of what follows it, and compressed data in those is known by its
/// beginning.
#[test]
fn compressed_data_behind_any_escape() {
    let packed = zlib(SECRET);
    let hex: String = packed.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut escapes: Vec<String> = ('a'..='z')
        .chain('A'..='Z')
        .chain('0'..='9')
        .map(|letter| format!("\\{letter}"))
        .collect();
    // A letter or a digit goes on in what follows it for whoever reads it, too.
    for byte in (0..0x80_u8).filter(|byte| !byte.is_ascii_alphanumeric()) {
        escapes.extend([
            format!("%{byte:02x}"),
            format!("%{byte:02X}"),
            format!("={byte:02X}"),
            format!("\\x{byte:02x}"),
            format!("\\u{byte:04x}"),
            format!("\\{byte:03o}"),
            format!("&#{byte};"),
        ]);
    }
    // Signs that are digits, too: paths, and names that something is joined to.
    for before in [
        "/",
        "/p/",
        "GET /api/v1/",
        "https://example.com/",
        "v1-",
        "key_",
        "a+",
        "a/b-c_d+",
    ] {
        escapes.push(before.into());
    }
    let mut missed = Vec::new();
    for digits in [BASE64_STANDARD.encode(&packed), hex.to_uppercase(), hex] {
        for escape in &escapes {
            for text in [
                format!("{escape}{digits}"),
                format!("text, {escape}{digits} more"),
            ] {
                if !found(text.as_bytes()) {
                    missed.push(text);
                }
            }
        }
    }
    assert_eq!(missed, Vec::<String>::new(), "{}", missed.len());
}

/// Compressed data in wrapped lines of base64, in a string of JSON.
#[test]
fn wrapped_lines_of_compressed_data_behind_an_escaped_line_break() {
    let noise: String = (0..400_u32)
        .map(|number| char::from(b'a' + (number.wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
        .collect();
    let digits = BASE64_STANDARD.encode(zlib(&format!("{noise} {SECRET}")));
    for width in [60, 64, 76] {
        for (before, end) in [
            ("\\n", "\\n"),
            ("\\r\\n", "\\r\\n"),
            ("\\\\n", "\\\\n"),
            ("%0A", "%0A"),
            ("\n", "\n"),
        ] {
            let lines: Vec<&str> = digits
                .as_bytes()
                .chunks(width)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            let text = format!(
                "{{\"data\": \"as follows:{before}{}{end}\"}}",
                lines.join(end)
            );
            assert!(found(text.as_bytes()), "{text}");
        }
    }
}

/// What zlib makes of compressed data has no text in it, by which to know it behind a sign.
#[test]
fn compressed_twice_behind_a_sign_in_percent_escapes() {
    use std::io::Write as _;
    let fast = flate2::Compression::fast();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), fast);
    gzip.write_all(SECRET.as_bytes()).unwrap();
    let once = [
        zlib(SECRET),
        gzip.finish().unwrap(),
        zstd::bulk::compress(SECRET.as_bytes(), 3).unwrap(),
    ];
    for inner in once {
        for level in [fast, flate2::Compression::best()] {
            let mut twice = flate2::write::ZlibEncoder::new(Vec::new(), level);
            twice.write_all(&inner).unwrap();
            let bytes = twice.finish().unwrap();
            let escaped: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
            for before in ["", "a ", "v=", "c^# ,"] {
                let text = format!("{before}{escaped} : []");
                assert!(found(text.as_bytes()), "{text}");
            }
        }
    }
}

/// By chance hardly a small letter is in the first half of it; found by fuzzing.
#[test]
fn compressed_data_whose_base64_is_in_capitals() {
    let secret = b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b";
    let known = KnownSecret::new("NAME", secret).unwrap();
    let scanner = Scanner::builder()
        .known_secrets(vec![known])
        .build()
        .unwrap();
    let header = ["eAEF", "eF4F", "eJwF", "eNoF"];
    for header in header {
        let text = format!(
            "  {header}QLENACEIXOW6/8QGVBTHOUX2H8Gs9BHi6t7PjGGLNS8px4whamw7e+rGByj+AgAPc0AM/Q=="
        );
        let found = scanner.scan(&Location::Body, text.as_bytes());
        assert!(!found.is_empty(), "{text}");
    }
}
