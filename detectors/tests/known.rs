//! Known secrets in every encoding, each written by an encoder that is not the scanner's own.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers: a broken one must stop the test"
)]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use common::{BLOCK, scan_cut, scan_every_way};
use detectors::{Finding, KnownSecret, Location, Scanner, redact};
use proptest::prelude::*;

const SECRET: &str = "EGRESS-7f3kQ9zLmXw2~vBn"; // gitleaks:allow

fn scanner_of(values: &[(&str, &[u8])]) -> Scanner {
    let secrets = values
        .iter()
        .map(|(name, value)| KnownSecret::new(name, value).unwrap())
        .collect();
    Scanner::builder()
        .token_patterns(true)
        .known_secrets(secrets)
        .build()
        .unwrap()
}

fn scanner() -> Scanner {
    scanner_of(&[
        ("EGRESS_TOKEN_A", SECRET.as_bytes()),
        ("EGRESS_TOKEN_B", b"another0secret1value2"),
    ])
}

fn base32(input: &[u8], alphabet: &[u8]) -> String {
    let mut text = String::new();
    for group in input.chunks(5) {
        let mut five = [0_u8; 8];
        five[3..3 + group.len()].copy_from_slice(group);
        let number = u64::from_be_bytes(five);
        for digit in 0..(group.len() * 8).div_ceil(5) {
            text.push(alphabet[(number >> (35 - 5 * digit)) as usize % 32] as char);
        }
    }
    text
}

fn base85(input: &[u8], alphabet: &[u8]) -> String {
    let mut text = String::new();
    for group in input.chunks(4) {
        let mut four = [0; 4];
        four[..group.len()].copy_from_slice(group);
        let number = u32::from_be_bytes(four);
        for power in (0..5).rev().take(group.len() + 1) {
            text.push(alphabet[(number / 85_u32.pow(power)) as usize % 85] as char);
        }
    }
    text
}

/// By repeated long division, least digit first.
fn base58(input: &[u8]) -> String {
    let alphabet = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut number = input.to_vec();
    let mut text = Vec::new();
    while number.iter().any(|digit| *digit > 0) {
        let mut rest = 0_u32;
        for digit in &mut number {
            rest = rest * 256 + u32::from(*digit);
            *digit = (rest / 58) as u8;
            rest %= 58;
        }
        text.push(alphabet[rest as usize]);
    }
    text.reverse();
    String::from_utf8(text).unwrap()
}

fn each(value: &[u8], separator: &str, format: impl Fn(u8) -> String) -> String {
    value
        .iter()
        .map(|byte| format(*byte))
        .collect::<Vec<_>>()
        .join(separator)
}

fn wrap(text: &str, columns: usize, end: &str) -> String {
    text.as_bytes()
        .chunks(columns)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect::<Vec<_>>()
        .join(end)
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Encodings that stand for themselves wherever they are.
fn standalone(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let value = secret.as_bytes();
    let rot13 = |text: &str| -> String {
        text.chars()
            .map(|c| match c {
                'a'..='z' => char::from((c as u8 - b'a' + 13) % 26 + b'a'),
                'A'..='Z' => char::from((c as u8 - b'A' + 13) % 26 + b'A'),
                _ => c,
            })
            .collect()
    };
    let reversed = |text: &str| text.chars().rev().collect::<String>();
    let wide = |c: char| match c {
        '!'..='~' => char::from_u32(c as u32 - 0x21 + 0xFF01).unwrap(),
        _ => c,
    };
    let percent = |text: &str| each(text.as_bytes(), "", |b| format!("%{b:02X}"));
    vec![
        ("raw", value.to_vec()),
        ("upper case", secret.to_uppercase().into()),
        ("base58", base58(value).into()),
        ("hex", each(value, "", |b| format!("{b:02x}")).into()),
        ("hex upper", each(value, "", |b| format!("{b:02X}")).into()),
        (
            "hex with colons",
            each(value, ":", |b| format!("{b:02x}")).into(),
        ),
        (
            "hex with spaces",
            each(value, " ", |b| format!("{b:02X}")).into(),
        ),
        (
            "hex with dashes",
            each(value, "-", |b| format!("{b:02x}")).into(),
        ),
        (
            "hex with \\x",
            each(value, "", |b| format!("\\x{b:02x}")).into(),
        ),
        (
            "hex with 0x,",
            each(value, ",", |b| format!("0x{b:02X}")).into(),
        ),
        (
            "hex with 0x, and spaces",
            each(value, ", ", |b| format!("0x{b:02x}")).into(),
        ),
        (
            "hex with 0x",
            each(value, "", |b| format!("0x{b:02x}")).into(),
        ),
        ("decimal list", each(value, ", ", |b| b.to_string()).into()),
        (
            "octal escapes",
            each(value, "", |b| format!("\\{b:03o}")).into(),
        ),
        (
            "octal list",
            each(value, " ", |b| format!("{b:03o}")).into(),
        ),
        ("binary", each(value, " ", |b| format!("{b:08b}")).into()),
        ("percent", percent(secret).into()),
        (
            "percent partial",
            secret.replace('~', "%7e").replace('E', "%45").into(),
        ),
        (
            "percent double",
            each(value, "", |b| format!("%25{b:02x}")).into(),
        ),
        (
            "percent triple",
            each(value, "", |b| format!("%2525{b:02x}")).into(),
        ),
        ("json", each(value, "", |b| format!("\\u{b:04x}")).into()),
        ("json partial", secret.replace('7', "\\u0037").into()),
        (
            "json in json",
            each(value, "", |b| format!("\\\\u{b:04X}")).into(),
        ),
        (
            "html decimal",
            each(value, "", |b| format!("&#{b};")).into(),
        ),
        ("html hex", each(value, "", |b| format!("&#x{b:x};")).into()),
        (
            "quoted-printable",
            each(value, "", |b| format!("={b:02X}")).into(),
        ),
        (
            "quoted-printable soft break",
            [&secret[..7], "=\r\n", &secret[7..]].concat().into(),
        ),
        ("utf-16le", utf16(secret)),
        (
            "utf-16be",
            secret.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        ),
        (
            "utf-32le",
            secret
                .chars()
                .flat_map(|c| (c as u32).to_le_bytes())
                .collect(),
        ),
        (
            "utf-32be",
            secret
                .chars()
                .flat_map(|c| (c as u32).to_be_bytes())
                .collect(),
        ),
        (
            "full-width",
            secret.chars().map(wide).collect::<String>().into(),
        ),
        (
            "zero-width",
            secret
                .chars()
                .map(|c| format!("{c}\u{200b}"))
                .collect::<String>()
                .into(),
        ),
        (
            "combining",
            secret
                .chars()
                .map(|c| format!("{c}\u{332}"))
                .collect::<String>()
                .into(),
        ),
        (
            "look-alikes",
            secret
                .replace('E', "\u{415}")
                .replace('k', "\u{43a}")
                .into(),
        ),
        ("reversed", reversed(secret).into()),
        ("rot13", rot13(secret).into()),
        (
            "hex of base64",
            each(STANDARD.encode(value).as_bytes(), "", |b| {
                format!("{b:02x}")
            })
            .into(),
        ),
        ("percent of base64", percent(&STANDARD.encode(value)).into()),
        (
            "zero-width in json",
            secret
                .chars()
                .map(|c| format!("{c}\\u200b"))
                .collect::<String>()
                .into(),
        ),
    ]
}

/// Encodings in groups of bytes, so what stands before shifts all the digits. The number is of a group's bytes.
type Encoder = fn(&[u8]) -> Vec<u8>;

fn aligned() -> Vec<(&'static str, usize, Encoder)> {
    const BASE32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const BASE32_HEX: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";
    const ASCII85: &[u8] =
        b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstu";
    const BASE85: &[u8] =
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
    const Z85: &[u8] =
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    vec![
        ("base64", 3, |text| STANDARD.encode(text).into()),
        ("base64 unpadded", 3, |text| {
            STANDARD_NO_PAD.encode(text).into()
        }),
        ("base64url", 3, |text| URL_SAFE.encode(text).into()),
        ("base64url unpadded", 3, |text| {
            URL_SAFE_NO_PAD.encode(text).into()
        }),
        ("base64 wrapped at 76, LF", 3, |text| {
            wrap(&STANDARD.encode(text), 76, "\n").into()
        }),
        ("base64 wrapped at 76, CRLF", 3, |text| {
            wrap(&STANDARD.encode(text), 76, "\r\n").into()
        }),
        ("base64 wrapped at 64, LF", 3, |text| {
            wrap(&STANDARD.encode(text), 64, "\n").into()
        }),
        ("base64 wrapped at 64, CRLF", 3, |text| {
            wrap(&STANDARD.encode(text), 64, "\r\n").into()
        }),
        ("base64 wrapped at 16, indented", 3, |text| {
            wrap(&STANDARD.encode(text), 16, "\n      ").into()
        }),
        ("base64 wrapped, in json", 3, |text| {
            wrap(&STANDARD.encode(text), 64, "\\n").into()
        }),
        ("base64 wrapped, crlf in json", 3, |text| {
            wrap(&STANDARD.encode(text), 64, "\\r\\n").into()
        }),
        ("base64 wrapped, line continuation", 3, |text| {
            wrap(&STANDARD.encode(text), 64, "\\\n").into()
        }),
        ("base64 percent-encoded", 3, |text| {
            STANDARD
                .encode(text)
                .replace('+', "%2B")
                .replace('=', "%3D")
                .replace('/', "%2F")
                .into()
        }),
        ("base64 reversed", 3, |text| {
            STANDARD
                .encode(text)
                .chars()
                .rev()
                .collect::<String>()
                .into()
        }),
        ("base64 of base64", 9, |text| {
            STANDARD.encode(STANDARD.encode(text)).into()
        }),
        ("base64 of hex", 3, |text| {
            STANDARD
                .encode(each(text, "", |b| format!("{b:02x}")))
                .into()
        }),
        ("base64 of utf-16", 3, |text| {
            STANDARD
                .encode(text.iter().flat_map(|b| [*b, 0]).collect::<Vec<_>>())
                .into()
        }),
        ("base32", 5, |text| base32(text, BASE32).into()),
        ("base32 lower case", 5, |text| {
            base32(text, BASE32).to_lowercase().into()
        }),
        ("base32hex", 5, |text| base32(text, BASE32_HEX).into()),
        ("base32 of base64", 15, |text| {
            base32(STANDARD.encode(text).as_bytes(), BASE32).into()
        }),
        ("ascii85", 4, |text| base85(text, ASCII85).into()),
        ("base85", 4, |text| base85(text, BASE85).into()),
        ("z85", 4, |text| base85(text, Z85).into()),
    ]
}

fn assert_only_a(found: &[Finding], what: &str) {
    assert!(!found.is_empty(), "{what}: not found");
    for finding in found {
        assert_eq!(
            (finding.rule.0, &*finding.credential),
            ("known-secret", "EGRESS_TOKEN_A"),
            "{what}"
        );
        assert!(!finding.context.contains(SECRET));
    }
}

#[test]
fn every_encoding_is_caught_and_redacted_clean() {
    let scanner = scanner();
    let mut caught = Vec::new();
    for (name, written) in standalone(SECRET) {
        for (before, after) in [("", ""), ("{\"a\": \"", "\"}"), ("xyz", "xyz")] {
            // Digits that touch a number's own are another number.
            if name == "base58" && before == "xyz" {
                continue;
            }
            let input = [before.as_bytes(), &written, after.as_bytes()].concat();
            let found = scan_every_way(&scanner, &input);
            assert_only_a(&found, name);
            let clean = redact(&input, &found);
            assert!(
                scanner.scan(&Location::Body, &clean).is_empty(),
                "{name}: {}",
                clean.escape_ascii()
            );
        }
        caught.push(name.to_owned());
    }
    for (name, group, encode) in aligned() {
        for before in 0..=group * 2 {
            for after in 0..3 {
                let text = [
                    vec![b'#'; before],
                    SECRET.as_bytes().to_vec(),
                    vec![b'.'; after],
                ]
                .concat();
                let input = [b"v=", &encode(&text)[..], b" end"].concat();
                let found = scanner.scan(&Location::Body, &input);
                assert_only_a(
                    &found,
                    &format!("{name} after {before} bytes, before {after}"),
                );
                let clean = redact(&input, &found);
                assert!(scanner.scan(&Location::Body, &clean).is_empty(), "{name}");
            }
        }
        // Where wrapped lines break depends on what stands before.
        for before in 20..100 {
            let text = [vec![b'#'; before], SECRET.as_bytes().to_vec()].concat();
            let input = encode(&text);
            assert_only_a(
                &scanner.scan(&Location::Body, &input),
                &format!("{name} after {before} bytes"),
            );
        }
        assert_only_a(&scan_every_way(&scanner, &encode(SECRET.as_bytes())), name);
        caught.push(format!("{name}, at {group} alignments"));
    }
    fixtures::tell!("known secrets: {} encodings of one caught", caught.len());
    println!(
        "{} encodings of a known secret caught:\n  {}",
        caught.len(),
        caught.join("\n  ")
    );
}

#[test]
fn spans_are_exact() {
    let scanner = scanner();
    for (name, written) in standalone(SECRET) {
        let input = [b"-- ", &written[..], b" --"].concat();
        let found = scanner.scan(&Location::Body, &input);
        let span = found[0].span.start as usize..found[0].span.end as usize;
        // What is taken out between two characters and the end (a NUL, an accent) may stay outside.
        assert!(
            span.start >= 3
                && span.start <= 6
                && span.end <= 3 + written.len()
                && span.end + 6 >= 3 + written.len(),
            "{name}: {span:?}"
        );
        assert_eq!(found[0].matched.expose(), &input[span]);
    }
    let found = scanner.scan(
        &Location::Body,
        STANDARD.encode(format!("#{SECRET}")).as_bytes(),
    );
    assert_eq!(
        found[0].span.start, 2,
        "the first two digits hold bits of `#`"
    );
}

#[test]
fn seams_between_windows_hide_nothing() {
    let scanner = scanner();
    for written in [
        SECRET.to_owned(),
        STANDARD.encode(SECRET),
        each(SECRET.as_bytes(), ", ", |b| format!("0x{b:02x}")),
    ] {
        for at in BLOCK - written.len() - 3..=BLOCK + 3 {
            let input = [&vec![b' '; at][..], written.as_bytes(), &vec![b' '; 1000]].concat();
            let found = scanner.scan(&Location::Body, &input);
            assert_eq!(found.len(), 1, "at {at}");
            assert_eq!(found[0].span.start, at as u64);
        }
    }
}

#[test]
fn canaries_have_their_own_rule() {
    let canary = KnownSecret::canary("SOME_API_KEY", b"canary-0123456789").unwrap();
    let scanner = Scanner::builder()
        .known_secrets(vec![canary])
        .build()
        .unwrap();
    let found = scanner.scan(
        &Location::Query,
        STANDARD.encode("x=canary-0123456789").as_bytes(),
    );
    assert_eq!(found[0].rule.0, "canary");
    assert_eq!(found[0].reason(), "SOME_API_KEY found in query");
}

#[test]
fn short_repetitive_and_long_values_work() {
    let long: Vec<u8> = (0..2000_u32)
        .flat_map(|i| format!("{:x}\n", i * 7919).into_bytes())
        .take(8000)
        .collect();
    let scanner = scanner_of(&[
        ("SHORT", b"8bytes!!"),
        ("SAME", b"aaaaaaaa"),
        ("LONG", &long),
    ]);
    let names = |input: &[u8]| -> Vec<String> {
        scan_cut(&scanner, input, [input.len() / 2])
            .iter()
            .map(|finding| finding.credential.to_string())
            .collect()
    };
    for before in 0..3 {
        let text = [&b"###"[..before], b"8bytes!!", b"##"].concat();
        assert_eq!(names(STANDARD.encode(text).as_bytes()), ["SHORT"]);
    }
    assert_eq!(names(b"baaaaaaaab"), ["SAME"]);
    assert_eq!(names(&long), ["LONG"]);
    assert_eq!(
        names(each(&long, ", ", |b| format!("0x{b:02x}")).as_bytes()),
        ["LONG"]
    );
    assert_eq!(
        names(wrap(&STANDARD.encode(&long), 76, "\r\n").as_bytes()),
        ["LONG"]
    );
    assert!(
        names(&vec![b'a'; 300_000])
            .iter()
            .all(|name| name == "SAME")
    );
    assert!(names(&vec![b'a'; 300_000]).len() < 10);
}

#[test]
fn secrets_in_the_context_of_another_finding_are_masked() {
    let scanner = scanner();
    let input = format!(
        "{SECRET} and another0secret1value2 and {}",
        STANDARD.encode(SECRET)
    );
    let found = scanner.scan(&Location::Body, input.as_bytes());
    assert_eq!(found.len(), 3);
    for finding in &found {
        assert!(
            !finding.context.contains("7f3k")
                && !finding.context.contains("secret1")
                && !finding.context.contains("RUdSRVNT")
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_value_in_any_encoding_is_found_and_cuts_change_nothing(
        value in prop::collection::vec(any::<u8>(), 12..80),
        before in prop::collection::vec(any::<u8>(), 0..40),
        after in prop::collection::vec(any::<u8>(), 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let secret = KnownSecret::new("X", &value).unwrap();
        let scanner = Scanner::builder().known_secrets(vec![secret]).build().unwrap();
        let text = [&before[..], &value, &after].concat();
        let mut inputs = vec![("raw", text.clone())];
        for (name, _, encode) in aligned() {
            inputs.push((name, encode(&text)));
        }
        for (name, format) in [("hex", "%02x"), ("percent", "%%"), ("qp", "=")] {
            inputs.push((name, each(&text, "", |b| match format {
                "%02x" => format!("{b:02x}"),
                "%%" => format!("%{b:02x}"),
                _ => format!("={b:02X}"),
            }).into()));
        }
        for (name, input) in inputs {
            let whole = scanner.scan(&Location::Body, &input);
            // Base85 writes a zero group in one letter in one dialect, and bytes may make it ambiguous.
            prop_assert!(!whole.is_empty(), "{} of {:?} after {:?}", name, value, before);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(scan_cut(&scanner, &input, cuts), whole);
        }
    }
}
