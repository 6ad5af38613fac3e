//! One test for each way around the scanner that was ever found.

#![expect(
    clippy::unwrap_used,
    reason = "a failed expectation ends the test that it helps"
)]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use detectors::{KnownSecret, Location, Scanner};

const SECRET: &str = "Zk3vQ9xT7mLw2RbN8sYc4HdJ6pGf1Ae"; // gitleaks:allow
const KEY: &str = "AKIAQ7T3ZP5W2MHXK4LD"; // gitleaks:allow

fn found(input: &[u8]) -> bool {
    let secret = KnownSecret::new("EGRESS_TOKEN_X", SECRET.as_bytes()).unwrap();
    let scanner = Scanner::builder()
        .token_patterns(true)
        .known_secrets(vec![secret])
        .build()
        .unwrap();
    !scanner.scan(&Location::Body, input).is_empty()
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
