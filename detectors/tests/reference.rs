//! The engine against a slow and obvious one: the `regex` crate for token rules, a naive search for known secrets.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers: a broken one must stop the test"
)]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use common::BLOCK;
use detectors::{KnownSecret, Location, Scanner, TOKEN_RULES, TokenRule};
use regex::bytes::Regex;

/// Texts of each test.
const TEXTS: usize = 20_000;

/// Base64 characters before a match from which on the engine may take a likely chance for one.
const BLOB: usize = 24;

/// Deterministic (xorshift64*), so that a failure is the same on every machine.
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        let mut random = Self((seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        random.below(2);
        random
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn of(&mut self, alphabet: &[u8], length: usize) -> Vec<u8> {
        (0..length).map(|_| *self.pick(alphabet)).collect()
    }
}

static SHAPES: LazyLock<Vec<(&TokenRule, Regex)>> = LazyLock::new(|| {
    TOKEN_RULES
        .iter()
        .map(|rule| (rule, common::shape(rule)))
        .collect()
});

/// Runs `check` on [`TEXTS`] numbers on all cores and returns what went wrong, the same thing once.
fn each_text(check: impl Fn(usize, &mut BTreeMap<String, String>) + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let mut all = BTreeMap::new();
    thread::scope(|scope| {
        let work = || {
            let mut failures = BTreeMap::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= TEXTS {
                    return failures;
                }
                check(number, &mut failures);
            }
        };
        let workers = thread::available_parallelism().map_or(2, usize::from);
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for handle in handles {
            all.extend(handle.join().unwrap());
        }
    });
    all.into_iter()
        .map(|(what, text)| format!("{what}: {text}"))
        .collect()
}

/// Prefixes, bodies in the alphabets of bodies, whole examples, cut ones, and what stands between.
fn text(random: &mut Random) -> Vec<u8> {
    const ALPHABETS: &[&[u8]] = &[
        b"0123456789abcdef",
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_",
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=",
        b"aA0",
        b"0123456789",
    ];
    const BETWEEN: &[&[u8]] = &[
        b" ", b"\n", b"\"", b"'", b".", b":", b"-", b"_", b"=", b"/", b", ", b"; ", b"://", b"@",
        b"?", b"&", b"x", b"\0", b"\xff", b"", b"{\"", b"\": \"", b"$",
    ];
    let mut text = Vec::new();
    let pieces = 2 + random.below(12);
    for _ in 0..pieces {
        let (rule, _) = random.pick(&SHAPES);
        let examples = if random.below(4) == 0 {
            rule.negative
        } else {
            rule.positive
        };
        let example = if examples.is_empty() {
            b""
        } else {
            random.pick(examples).as_bytes()
        };
        match random.below(7) {
            0 | 1 => text.extend_from_slice(example),
            2 => text.extend_from_slice(&example[..random.below(example.len() + 1)]),
            3 => text.extend_from_slice(&example[random.below(example.len() + 1)..]),
            4 => {
                // What is up to the first repeated class, and a body of its own.
                let literal: Vec<u8> = rule
                    .shape
                    .bytes()
                    .take_while(|byte| !matches!(byte, b'[' | b'(' | b'\\' | b'?'))
                    .collect();
                text.extend(literal);
                let (alphabet, length) = (random.pick(ALPHABETS), random.below(90));
                text.extend(random.of(alphabet, length));
            }
            5 => {
                // One character changed.
                let mut example = example.to_vec();
                if !example.is_empty() {
                    let at = random.below(example.len());
                    example[at] = *random.pick(b"aA0_-. \n/=");
                }
                text.extend(example);
            }
            _ => {
                let (alphabet, length) = (random.pick(ALPHABETS), random.below(40));
                text.extend(random.of(alphabet, length));
            }
        }
        text.extend_from_slice(random.pick::<&[u8]>(BETWEEN));
    }
    text
}

/// Whether so much base64 stands before `at` that a match there may be taken for a chance.
fn is_in_base64(text: &[u8], at: usize) -> bool {
    let wide = |byte: &&u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'+' | b'/' | b'\n' | b'\r' | b'\\')
    };
    text[..at]
        .iter()
        .rev()
        .take(2 * BLOB)
        .take_while(wide)
        .count()
        >= BLOB
}

#[test]
fn token_rules_find_what_their_shapes_say() {
    let scanner = Scanner::builder().token_patterns(true).build().unwrap();
    let (compared, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failures = each_text(|number, failures| {
        let mut random = Random::new(number);
        let input = text(&mut random);
        let found = scanner.scan(&Location::Body, &input);
        let rules: Vec<(&str, std::ops::Range<u64>, usize)> = found
            .iter()
            .map(|finding| (finding.rule.0, finding.span.clone(), finding.via.len()))
            .collect();
        for (rule, shape) in SHAPES.iter() {
            for expected in shape.find_iter(&input) {
                let start = expected.start() as u64;
                if is_in_base64(&input, expected.start())
                    || rule
                        .unless
                        .is_some_and(|is_placeholder| is_placeholder(expected.as_bytes()))
                {
                    continue;
                }
                compared.fetch_add(1, Ordering::Relaxed);
                // Where a generic shape holds a specific one, that one names the finding, and its span is its own.
                let is_covered = found.iter().any(|finding| {
                    finding.span.contains(&start)
                        || rule.generic
                            && start <= finding.span.start
                            && finding.span.start < expected.end() as u64
                });
                if !is_covered {
                    failures
                        .entry(format!("{} is missed", rule.id))
                        .or_insert_with(|| {
                            format!("at {start}, {rules:?}: {}", input.escape_ascii())
                        });
                }
            }
        }
        for finding in found.iter().filter(|finding| finding.via.is_empty()) {
            let Some((_, shape)) = SHAPES.iter().find(|(rule, _)| rule.id == finding.rule) else {
                continue;
            };
            // A view may begin in the midst of a word, and a boundary then seems to be there.
            if shape.as_str().contains(r"\b{start-half}") {
                continue;
            }
            told.fetch_add(1, Ordering::Relaxed);
            let start = finding.span.start as usize;
            if shape
                .find_at(&input, start)
                .is_none_or(|expected| expected.start() != start)
            {
                failures
                    .entry(format!("{} is found where it is not", finding.rule))
                    .or_insert_with(|| format!("at {:?}: {}", finding.span, input.escape_ascii()));
            }
        }
    });
    fixtures::tell!(
        "reference: {TEXTS} texts, {} matches of {} shapes, {} findings",
        compared.into_inner(),
        SHAPES.len(),
        told.into_inner()
    );
    assert!(
        failures.is_empty(),
        "{} failures\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Letters and digits in lower case, and where each stood.
fn squeezed(text: &[u8]) -> (Vec<u8>, Vec<usize>) {
    text.iter()
        .enumerate()
        .filter(|(_, byte)| byte.is_ascii_alphanumeric())
        .map(|(at, byte)| (byte.to_ascii_lowercase(), at))
        .unzip()
}

/// `value` as it is, in base64 at each alignment and in hex: digits that hold bits of what stands beside it are none of it.
fn variants(value: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![
        value.to_vec(),
        value
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            .into(),
    ];
    for before in 0..3 {
        let padded = [&b"\0\0"[..before], value].concat();
        let skipped = [0, 2, 3][before];
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let digits = engine.encode(&padded).into_bytes();
            all.push(digits[skipped..padded.len() * 8 / 6].to_vec());
        }
    }
    all
}

const ENOUGH: usize = 15;

#[test]
fn known_secrets_are_found_wherever_fifteen_characters_are() {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    const SIGNS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~+/=!";
    let (hits, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failures = each_text(|number, failures| {
        let mut random = Random::new(number);
        let length = 20 + random.below(41);
        let secret = [
            random.of(LETTERS, ENOUGH),
            random.of(SIGNS, length - ENOUGH),
        ]
        .concat();
        let scanner = Scanner::builder()
            .known_secrets(vec![KnownSecret::new("EGRESS_TOKEN_X", &secret).unwrap()])
            .build()
            .unwrap();
        let variants = variants(&secret);
        let mut input = Vec::new();
        if random.below(8) == 0 {
            // Across the seam of two windows.
            input.resize(BLOCK - random.below(120), b' ');
        }
        for _ in 0..1 + random.below(6) {
            let variant = random.pick(&variants);
            let from = random.below(variant.len() - 8);
            let count = (8 + random.below(16)).min(variant.len() - from);
            let (from, count) = if random.below(4) == 0 {
                (0, variant.len())
            } else {
                (from, count)
            };
            let separator = *random.pick::<&[u8]>(&[
                &b""[..],
                b"",
                b"",
                b" ",
                b"-",
                b"\n",
                b", ",
                b"\" + \"",
                b"\0",
            ]);
            let every = 1 + random.below(9);
            for (at, byte) in variant[from..from + count].iter().enumerate() {
                if at > 0 && at % every == 0 {
                    input.extend_from_slice(separator);
                }
                let other_case = random.below(40) == 0;
                input.push(if other_case {
                    byte.to_ascii_uppercase()
                } else {
                    *byte
                });
            }
            let length = random.below(12);
            input.extend(random.of(SIGNS, length));
            input.push(*random.pick(b" \n,;\""));
        }
        let found = scanner.scan(&Location::Body, &input);
        let (text, places) = squeezed(&input);
        let mut parts: HashSet<&[u8]> = HashSet::new();
        let of_variants: Vec<Vec<u8>> =
            variants.iter().map(|variant| squeezed(variant).0).collect();
        for variant in &of_variants {
            parts.extend(variant.windows(ENOUGH));
        }
        for (at, window) in text.windows(ENOUGH).enumerate() {
            // A few different characters, or digits alone, are in other texts as well, and say nothing of a secret.
            let different = window.iter().collect::<HashSet<_>>().len();
            if !parts.contains(window) || different < 5 || window.iter().all(u8::is_ascii_digit) {
                continue;
            }
            hits.fetch_add(1, Ordering::Relaxed);
            let (first, last) = (places[at] as u64, places[at + ENOUGH - 1] as u64);
            if !found
                .iter()
                .any(|finding| finding.span.start <= first && last < finding.span.end)
            {
                let spans: Vec<_> = found.iter().map(|finding| finding.span.clone()).collect();
                failures
                    .entry("a part of a secret is missed".into())
                    .or_insert_with(|| {
                        format!(
                            "{first}..={last}, not in {spans:?}: {} in {}",
                            secret.escape_ascii(),
                            input.trim_ascii_start().escape_ascii()
                        )
                    });
            }
        }
        let raw: HashSet<&[u8]> = of_variants[0].windows(ENOUGH).collect();
        for finding in found.iter().filter(|finding| finding.via.is_empty()) {
            told.fetch_add(1, Ordering::Relaxed);
            let (inside, _) = squeezed(finding.matched.expose());
            if !inside.windows(ENOUGH).any(|window| raw.contains(window)) {
                failures
                    .entry("a secret is found where it is not".into())
                    .or_insert_with(|| {
                        format!(
                            "{:?}: {} in {}",
                            finding.span,
                            secret.escape_ascii(),
                            input.escape_ascii()
                        )
                    });
            }
        }
    });
    fixtures::tell!(
        "reference: {TEXTS} texts, {} parts of secrets, {} plain findings",
        hits.into_inner(),
        told.into_inner()
    );
    assert!(
        failures.is_empty(),
        "{} failures\n{}",
        failures.len(),
        failures.join("\n")
    );
}
