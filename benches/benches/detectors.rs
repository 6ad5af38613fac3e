//! How fast input is judged, with everything but entropy on and four known secrets loaded.
//!
//! Each benchmark asserts its answer first: a scanner that finds nothing is fast too.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up must stop"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use detectors::{KnownSecret, Location, Scanner};

const SIZES: [(usize, &str); 4] = [
    (1 << 10, "1 KiB"),
    (1 << 16, "64 KiB"),
    (1 << 20, "1 MiB"),
    (1 << 24, "16 MiB"),
];

/// A small deterministic generator (xorshift64*), so that every run scans the same bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.next() % of.len()]
    }

    fn base64(&mut self, length: usize) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        (0..length)
            .map(|_| DIGITS[self.next() % 64] as char)
            .collect()
    }
}

const WORDS: &[&str] = &[
    "the",
    "function",
    "returns",
    "a",
    "list",
    "of",
    "sessions",
    "that",
    "were",
    "open",
    "when",
    "request",
    "task-42",
    "disk",
    "token",
    "bearer",
    "is",
    "not",
    "yet",
    "parsed;",
    "see",
    "`src/lib.rs`",
    "for",
    "why",
    "this",
    "fails:",
    "error[E0277]",
    "we",
    "should",
    "retry",
];

/// A chat with a model as its API takes it: prose, code with escaped line ends and quotes, signatures.
fn llm_json(size: usize) -> Vec<u8> {
    let mut random = Random(1);
    let mut text = String::from(r#"{"model":"some-model","max_tokens":4096,"messages":["#);
    while text.len() < size {
        text.push_str(r#"{"role":"user","content":[{"type":"text","text":""#);
        for word in 0..200 {
            text.push_str(random.pick(WORDS));
            text.push_str(if word % 13 == 12 { "\\n" } else { " " });
        }
        text.push_str(r#"let x = \"quoted\";\n    return x;\n"},{"type":"thinking","signature":""#);
        text.push_str(&random.base64(400));
        text.push_str("\"}]},\n");
    }
    text.truncate(size);
    text.into_bytes()
}

fn rust_source(size: usize) -> Vec<u8> {
    let mut random = Random(2);
    let mut text = String::new();
    while text.len() < size {
        let (name, word) = (
            random.pick(&["parse", "scan", "open", "read_until"]),
            random.pick(WORDS),
        );
        text.push_str(&format!(
            "    /// {word} and {name}, so that `x == 1 && y != 2`.\n    pub fn {name}_{}(&mut self, input: &[u8]) -> Result<usize, Error> {{\n        \
             let mut count = {};\n        while let Some(byte) = input.get(count) {{\n            if *byte == b'\\n' {{ return Ok(count % 7); }}\n            \
             count += 1;\n        }}\n        Err(Error::Incomplete {{ needed: \"{word}\" }})\n    }}\n\n",
            random.next() % 1000,
            random.next() % 90,
        ));
    }
    text.truncate(size);
    text.into_bytes()
}

fn base64_blob(size: usize) -> Vec<u8> {
    Random(3).base64(size).into_bytes()
}

fn one_token(size: usize) -> Vec<u8> {
    let token = format!(" ghp_{}", "A".repeat(36));
    let mut text = llm_json(size - token.len());
    text.extend_from_slice(token.as_bytes());
    text
}

fn scanner() -> Scanner {
    let secrets = [
        "EGRESS-7f3kQ9zLmXw2vBn",
        "another0secret1value2",
        "xK9-third/secret+value=",
        "0123456789abcdef0123456789abcdee",
    ]
    .into_iter()
    .enumerate()
    .map(|(number, value)| KnownSecret::new(&format!("EGRESS_TOKEN_{number}"), value.as_bytes()))
    .collect::<Result<_, _>>()
    .expect("the values are long enough");
    Scanner::builder()
        .token_patterns(true)
        .known_secrets(secrets)
        .build()
        .expect("the table compiles")
}

fn throughput(criterion: &mut Criterion) {
    let scanner = scanner();
    type Make = fn(usize) -> Vec<u8>;
    let kinds: [(&str, Make, &[&str]); 4] = [
        ("llm json", llm_json, &[]),
        ("rust source", rust_source, &[]),
        ("base64 blob", base64_blob, &[]),
        ("one token at the end", one_token, &["github-token-classic"]),
    ];
    for (name, make, expected) in kinds {
        let mut group = criterion.benchmark_group(name);
        for (size, label) in SIZES {
            let input = make(size);
            assert_eq!(input.len(), size);
            let rules: Vec<&str> = scanner
                .scan(&Location::Body, &input)
                .iter()
                .map(|finding| finding.rule.0)
                .collect();
            assert_eq!(rules, expected, "{name}, {label}");
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_with_input(
                BenchmarkId::from_parameter(label),
                &input,
                |bencher, input| {
                    bencher.iter(|| scanner.scan(&Location::Body, black_box(input)));
                },
            );
        }
        group.finish();
    }
}

/// What a hostile agent would send to make the scanner slow; read as a lower bound.
fn adversarial(criterion: &mut Criterion) {
    let scanner = scanner();
    let mut group = criterion.benchmark_group("adversarial, 1 MiB");
    for piece in [
        "ghp_",
        "sk-",
        "%25",
        "\\u00",
        "\\\\",
        "&#",
        "=41",
        "\u{ff47}",
        "\u{200b}a",
        "AAAAAAAA\n",
        "a\0",
        "Bearer ",
        "%41\\u0041&#65;=41\u{ff21}\0\n",
    ] {
        let input = piece.repeat((1 << 20) / piece.len());
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(piece.escape_debug().to_string(), |bencher| {
            bencher.iter(|| scanner.scan(&Location::Body, black_box(input.as_bytes())));
        });
    }
    group.finish();
}

fn start_up(criterion: &mut Criterion) {
    criterion.bench_function("start-up", |bencher| bencher.iter(scanner));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    targets = throughput, adversarial, start_up
}
criterion_main!(benches);
