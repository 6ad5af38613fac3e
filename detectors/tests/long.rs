//! Compressed data that goes on for longer than a window: an archive passes, and what is in the midst of it is found before
//! its bytes may leave.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers: a broken one must stop the test"
)]

mod common;
#[path = "long/made.rs"]
mod made;

use std::time::{Duration, Instant};

use common::{BLOCK, scan_cut};
use detectors::{Finding, KnownSecret, Location, Scanner, Severity};
use made::{CODINGS, Coding, Random, WRITINGS, Writing};

const TOKEN: &str = "ghp_3KqWz81mRtYxLp0vBnHc5dRt8sQe7UaJ2oXi"; // gitleaks:allow
const SECRET: &str = "Zk3vQ9xT7mLw2RbN8sYc4HdJ6pGf1Ae"; // gitleaks:allow

fn scanner() -> Scanner {
    let secret = KnownSecret::new("EGRESS_TOKEN_X", SECRET.as_bytes()).unwrap();
    Scanner::builder()
        .token_patterns(true)
        .known_secrets(vec![secret])
        .build()
        .unwrap()
}

/// Scans `input` in one piece and in pieces of random lengths; the findings must be equal.
fn scan(scanner: &Scanner, input: &[u8], random: &mut Random) -> Vec<Finding> {
    let whole = scanner.scan(&Location::Body, input);
    for most in [3 * BLOCK, 20_000] {
        let mut cuts = Vec::new();
        let mut at = 0;
        while at < input.len() {
            cuts.push(at);
            at += 1 + random.below(most);
        }
        assert_eq!(scan_cut(scanner, input, cuts), whole, "pieces of {most}");
    }
    whole
}

/// Streams `input` and checks that of what may leave before the first finding nothing decodes to `token`.
fn is_stopped(
    scanner: &Scanner,
    input: &[u8],
    token: &str,
    read: impl Fn(&[u8]) -> Vec<u8>,
) -> bool {
    let mut stream = scanner.stream(Location::Body);
    let mut released = 0;
    for chunk in input.chunks(7_000) {
        let found = stream.push(chunk);
        if !found.is_empty() {
            break;
        }
        released = stream.released() as usize;
    }
    let left = read(&input[..released]);
    !left
        .windows(token.len())
        .any(|part| part == token.as_bytes())
}

fn each(of: impl Fn(&Coding, &Writing)) {
    for coding in CODINGS {
        for writing in WRITINGS {
            // That it is brotli is told by the length of its first row of digits.
            if coding.name == "brotli"
                && matches!(
                    writing.name,
                    "base64 in a form" | "base64 with escaped slashes"
                )
            {
                continue;
            }
            of(coding, writing);
        }
    }
}

#[test]
fn a_long_archive_of_sources_is_clean() {
    let scanner = scanner();
    let mut random = Random(1);
    let tar = made::tar(&mut random, 2_000_000);
    let mut count = 0;
    for coding in CODINGS {
        let packed = (coding.pack)(&tar);
        assert!(
            packed.len() > 4 * BLOCK,
            "{}: {}",
            coding.name,
            packed.len()
        );
        for writing in WRITINGS {
            let input = (writing.write)(&packed);
            let found = scan(&scanner, &input, &mut random);
            assert_eq!(found, [], "{} {}", coding.name, writing.name);
            count += 1;
        }
    }
    println!("long archives: {count} ways of writing, 3 ways of cutting each");
}

#[test]
fn a_token_anywhere_in_a_long_archive_is_found() {
    let scanner = scanner();
    each(|coding, writing| {
        let mut random = Random(7 + coding.name.len() as u64);
        let tar = made::tar(&mut random, 800_000);
        let tokens = if writing.name == "plain" {
            &[TOKEN, SECRET, TOKEN][..]
        } else {
            &[TOKEN]
        };
        for (number, token) in tokens.iter().enumerate() {
            let at = number * tar.len() / 3 + random.below(tar.len() / tokens.len());
            let held = [&tar[..at], b" ", token.as_bytes(), b" ", &tar[at..]].concat();
            let packed = (coding.pack)(&held);
            let input = (writing.write)(&packed);
            let what = format!(
                "{} {}, at {at} of {}",
                coding.name,
                writing.name,
                held.len()
            );
            let found = scan(&scanner, &input, &mut random);
            let rule = if *token == TOKEN {
                "github-token"
            } else {
                "known-secret"
            };
            assert!(
                found
                    .iter()
                    .any(|found| found.severity == Severity::Block
                        && found.rule.0.contains(&rule[..5])),
                "{what}: {found:?}"
            );
            assert!(
                found.iter().all(|found| found.rule.0 != "undecodable"),
                "{what}: {found:?}"
            );
            let read = |bytes: &[u8]| (coding.read)(&(writing.read)(bytes));
            assert!(is_stopped(&scanner, &input, token, read), "{what}: it left");
        }
    });
}

/// Stored blocks, so that the token's bytes stand where they are put: around the ends of windows and of what they see.
#[test]
fn a_token_across_a_seam_is_found() {
    let scanner = scanner();
    let mut random = Random(3);
    let text = made::noise(&mut random, 400_000);
    let mut count = 0;
    for seam in [
        BLOCK,
        BLOCK + 16 * 1024,
        2 * BLOCK,
        2 * BLOCK + 16 * 1024,
        3 * BLOCK + 8 * 1024,
    ] {
        for before in (0..TOKEN.len() + 40).step_by(7) {
            let at = seam - before;
            let mut held = text.clone();
            held[at..at + TOKEN.len()].copy_from_slice(TOKEN.as_bytes());
            held[at - 1] = b' ';
            held[at + TOKEN.len()] = b' ';
            // Flipped, so that it is not read in plain.
            let input = made::gzip_of_literals(&held);
            let found = scanner.scan(&Location::Body, &input);
            assert!(
                found.iter().any(|found| found.rule.0.starts_with("github")),
                "{at}: {found:?}"
            );
            assert!(
                is_stopped(&scanner, &input, TOKEN, made::gunzip),
                "{at}: it left"
            );
            count += 1;
        }
    }
    println!("seams: {count} places");
}

/// Nothing comes out of zstd before a block of up to 128 KiB is complete: until then all of it is held, and the one before.
#[test]
fn a_block_of_zstd_is_held() {
    let scanner = scanner();
    let mut random = Random(13);
    let text = made::noise(&mut random, 900_000);
    for _ in 0..12 {
        let at = 200_000 + random.below(600_000);
        let mut held = text.clone();
        held[at - 1..=at + TOKEN.len()].copy_from_slice(format!(" {TOKEN} ").as_bytes());
        let input = zstd::encode_all(&held[..], 3).unwrap();
        let found = scan(&scanner, &input, &mut random);
        assert!(
            found.iter().any(|found| found.rule.0.starts_with("github")),
            "{at}: {found:?}"
        );
        let mut stream = scanner.stream(Location::Body);
        let mut released = 0;
        for chunk in input.chunks(7_000) {
            if !stream.push(chunk).is_empty() {
                break;
            }
            released = stream.released() as usize;
        }
        let block = made::zstd_block(&input, at);
        assert!(
            released <= block,
            "{at}: {released} left, its block begins at {block}"
        );
    }
}

#[test]
fn what_is_packed_in_what_is_packed_is_read() {
    let scanner = scanner();
    let mut random = Random(5);
    let inner = made::tar(&mut random, 700_000);
    for coding in CODINGS {
        for token in ["", TOKEN] {
            let at = inner.len() / 2;
            let held = [&inner[..at], b" ", token.as_bytes(), b" ", &inner[at..]].concat();
            let member = (coding.pack)(&held);
            let others = made::tar(&mut random, 300_000);
            let tar = [
                &others[..],
                &made::header("inner", member.len()),
                &member,
                &[0; 700],
                &others,
            ]
            .concat();
            let input = made::gzip(&tar);
            let found = scan(&scanner, &input, &mut random);
            // What has no magic number is told at a text's beginning only.
            let told = !matches!(coding.name, "zlib" | "deflate" | "brotli");
            if token.is_empty() || told {
                assert_eq!(
                    found.is_empty(),
                    token.is_empty(),
                    "{}: {found:?}",
                    coding.name
                );
            }
        }
    }
}

#[test]
fn a_bomb_is_stopped() {
    let scanner = scanner();
    let begun = Instant::now();
    // What is shorter than a twentieth is not told to be brotli, which has no magic number.
    for coding in CODINGS.iter().filter(|coding| coding.name != "brotli") {
        let bomb = (coding.pack)(&vec![b'a'; 64 << 20]);
        for writing in WRITINGS {
            let input = (writing.write)(&bomb);
            let found = scanner.scan(&Location::Body, &input);
            assert!(
                found.iter().any(|found| found.rule.0 == "undecodable"),
                "{} {}: {found:?}",
                coding.name,
                writing.name
            );
        }
    }
    // Bombs one after another, each behind a little text.
    let bomb = made::gzip(&vec![0; 16 << 20]);
    let many = [made::noise(&mut Random(2), 5_000), bomb]
        .concat()
        .repeat(40);
    let found = scanner.scan(&Location::Body, &many);
    assert!(found.iter().any(|found| found.rule.0 == "undecodable"));
    assert!(
        begun.elapsed() < Duration::from_secs(120),
        "{:?}",
        begun.elapsed()
    );
}

/// Halves of a token with nothing between them but input that gives no output.
#[test]
fn empty_blocks_hide_nothing() {
    let scanner = scanner();
    for count in [1, 1_000, 4_000, 20_000, 60_000, 200_000] {
        for half in [4, 20, 36] {
            let input = made::gzip_with_a_gap(TOKEN, half, count);
            let found = scanner.scan(&Location::Body, &input);
            assert!(!found.is_empty(), "{count} blocks behind {half} characters");
            let mut stream = scanner.stream(Location::Body);
            let mut released = 0;
            for chunk in input.chunks(5_000) {
                if !stream.push(chunk).is_empty() {
                    break;
                }
                released = stream.released() as usize;
            }
            assert!(
                !made::gunzip(&input[..released]).ends_with(&TOKEN.as_bytes()[..half])
                    || released < 100,
                "{count} blocks behind {half} characters: half of it left"
            );
        }
    }
}

#[test]
fn many_open_members_are_a_finding() {
    let scanner = scanner();
    let text = made::tar(&mut Random(9), 300_000);
    for (levels, bound) in [(1, false), (3, false), (40, true)] {
        let input = (0..levels).fold(text.clone(), |inner, _| made::stored(&inner));
        let found = scanner.scan(&Location::Body, &input);
        assert_eq!(!found.is_empty(), bound, "{levels} levels: {found:?}");
    }
}

/// Data that breaks off: what is missing cannot be judged.
#[test]
fn what_breaks_off_is_a_finding() {
    let scanner = scanner();
    let tar = made::tar(&mut Random(4), 900_000);
    for coding in CODINGS
        .iter()
        .filter(|coding| matches!(coding.name, "gzip" | "zstd"))
    {
        let packed = (coding.pack)(&tar);
        for writing in WRITINGS {
            let input = (writing.write)(&packed[..packed.len() - 1_000]);
            let found = scanner.scan(&Location::Body, &input);
            assert!(!found.is_empty(), "{} {}", coding.name, writing.name);
            // A sign in the midst, which many readers skip.
            if writing.name != "plain" {
                let mut input = (writing.write)(&packed);
                let at = input.len() / 2;
                input.insert(at, b'!');
                let found = scanner.scan(&Location::Body, &input);
                assert!(
                    !found.is_empty(),
                    "{} {} with a sign",
                    coding.name,
                    writing.name
                );
            }
        }
    }
}

/// Rows of one letter in the base64 of a binary file are rows of hexadecimal digits, and so seemed to be compressed.
#[test]
fn rows_of_one_letter_are_no_attempts() {
    let scanner = scanner();
    let mut random = Random(8);
    let mut text = String::new();
    while text.len() < 3 * BLOCK {
        text.push_str(&"A".repeat(33 + random.below(80)));
        text.push_str(["A8", "AAfeB", "wIA", "I", "ZZ/A"][random.below(5)]);
        text.push_str(["I", "Q", "/", "x"][random.below(4)]);
    }
    assert_eq!(scan(&scanner, text.as_bytes(), &mut random), []);
}

/// A frame that may refer further back than is kept.
#[test]
fn a_window_that_is_too_wide_is_a_finding() {
    let scanner = scanner();
    let tar = made::tar(&mut Random(11), 400_000);
    for log in [20, 23, 24, 27] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(log).unwrap();
        std::io::Write::write_all(&mut encoder, &tar).unwrap();
        let found = scanner.scan(&Location::Body, &encoder.finish().unwrap());
        assert_eq!(found.is_empty(), log <= 23, "{log}: {found:?}");
    }
}

#[test]
fn a_stream_is_used_again() {
    let scanner = scanner();
    let mut random = Random(6);
    let input = made::gzip(&made::tar(&mut random, 900_000));
    let mut stream = scanner.stream(Location::Body);
    for length in [input.len() / 2, input.len()] {
        let mut found = stream.push(&input[..length]);
        found.extend(stream.finish());
        assert_eq!(found.is_empty(), length == input.len(), "{found:?}");
    }
}
