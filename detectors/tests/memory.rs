//! What is remembered as clean changes no verdict: the same bytes beside others are judged anew.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers: a broken one must stop the test"
)]

mod common;
#[path = "long/made.rs"]
#[expect(dead_code, reason = "made for the tests of long archives")]
mod made;

use common::{BLOCK, scan_cut};
use detectors::{KnownSecret, Location, Scanner, ScannerBuilder};
use fixtures::tell;
use made::{CODINGS, Random};

const TOKEN: &str = "ghp_3KqWz81mRtYxLp0vBnHc5dRt8sQe7UaJ2oXi"; // gitleaks:allow
const SECRET: &str = "Zk3vQ9xT7mLw2RbN8sYc4HdJ6pGf1Ae"; // gitleaks:allow

fn builder() -> ScannerBuilder {
    let secret = KnownSecret::new("EGRESS_TOKEN_X", SECRET.as_bytes()).unwrap();
    Scanner::builder()
        .token_patterns(true)
        .known_secrets(vec![secret])
        .entropy(true)
}

fn pair(windows: usize) -> (Scanner, Scanner) {
    (
        builder().build().unwrap(),
        builder().remember([7; 16], windows).build().unwrap(),
    )
}

/// Words without a repetition that would compress to nothing.
fn prose(length: usize, random: &mut Random) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        for _ in 0..2 + random.below(8) {
            text.push(b'a' + random.below(26) as u8);
        }
        text.push(b' ');
    }
    text.truncate(length);
    text
}

/// Blocks of a window each that are clean for themselves, and together not always.
fn blocks(random: &mut Random) -> Vec<Vec<u8>> {
    let mut blocks: Vec<Vec<u8>> = (0..2).map(|_| prose(BLOCK, random)).collect();
    for secret in [TOKEN, SECRET] {
        for cut in [6, secret.len() / 2, secret.len() - 4] {
            let (head, tail) = secret.split_at(cut);
            let mut ends = prose(BLOCK, random);
            ends[BLOCK - cut..].copy_from_slice(head.as_bytes());
            ends[BLOCK - cut - 1] = b' ';
            let mut begins = prose(BLOCK, random);
            begins[..tail.len()].copy_from_slice(tail.as_bytes());
            begins[tail.len()] = b' ';
            blocks.extend([ends, begins]);
        }
    }
    // An archive over three windows with a token in its third; without the first they are noise.
    for coding in CODINGS {
        let mut text = prose(260_000, random);
        text.splice(250_000..250_000, format!(" {TOKEN} ").into_bytes());
        let mut packed = (coding.pack)(&text);
        packed.resize(packed.len().div_ceil(BLOCK) * BLOCK, b' ');
        blocks.extend(packed.chunks(BLOCK).map(<[u8]>::to_vec));
    }
    blocks
}

#[test]
fn blocks_in_any_order_are_judged_as_if_for_the_first_time() {
    let mut random = Random(0x5EED);
    let blocks = blocks(&mut random);
    let (plain, remembering) = pair(64);
    let (mut texts, mut found) = (0, 0);
    for round in 0..60 {
        let mut text = Vec::new();
        let mut next = random.below(blocks.len());
        for _ in 0..1 + random.below(5) {
            text.extend_from_slice(&blocks[next]);
            // As often as not what belongs behind it.
            next = if random.below(2) == 0 {
                (next + 1) % blocks.len()
            } else {
                random.below(blocks.len())
            };
        }
        // The last window is as long as it happens to be.
        if random.below(2) == 0 {
            text.truncate(text.len() - random.below(BLOCK));
        }
        let expected = plain.scan(&Location::Body, &text);
        assert_eq!(
            remembering.scan(&Location::Body, &text),
            expected,
            "{round}"
        );
        let cuts: Vec<usize> = (1..)
            .map(|n| n * 50_021)
            .take_while(|at| *at < text.len())
            .collect();
        assert_eq!(
            scan_cut(&remembering, &text, cuts),
            expected,
            "{round}, in pieces"
        );
        texts += 1;
        found += expected.len();
    }
    assert!(found > 20, "{found}");
    tell!(
        "{texts} texts of {} blocks, {found} findings, each as without a memory",
        blocks.len()
    );
}

/// Each place of a token in a text of which all else is known to be clean.
#[test]
fn a_token_in_a_text_that_is_known_is_found_wherever_it_stands() {
    let mut random = Random(77);
    let (_, remembering) = pair(1024);
    let text = prose(2 * BLOCK + 20_000, &mut random);
    assert_eq!(remembering.scan(&Location::Body, &text), []);
    assert_eq!(remembering.scan(&Location::Body, &text), []);
    for secret in [TOKEN, SECRET] {
        let written = format!(" {secret} ");
        for place in [
            0,
            300,
            BLOCK - 512,
            BLOCK - 20,
            BLOCK - 1,
            BLOCK,
            BLOCK + 16_000,
            BLOCK + 17_000,
            2 * BLOCK - 21,
            2 * BLOCK + 10_000,
            text.len() - written.len(),
        ] {
            let mut with = text.clone();
            with[place..place + written.len()].copy_from_slice(written.as_bytes());
            for _ in 0..2 {
                let found = remembering.scan(&Location::Body, &with);
                assert_eq!(found.len(), 1, "{place}");
                assert_eq!(
                    found[0].span,
                    place as u64 + 1..(place + 1 + secret.len()) as u64
                );
            }
        }
    }
}

/// What one set of detectors passes, another may not.
#[test]
fn each_scanner_remembers_for_itself() {
    let mut random = Random(3);
    let mut text = prose(1000, &mut random);
    text.extend_from_slice(SECRET.as_bytes());
    let without = Scanner::builder()
        .token_patterns(true)
        .remember([7; 16], 16)
        .build()
        .unwrap();
    let (_, with) = pair(16);
    for _ in 0..2 {
        assert_eq!(without.scan(&Location::Body, &text), []);
        assert!(!with.scan(&Location::Body, &text).is_empty());
    }
}
