//! How fast input is judged, with all token rules on and some known secrets loaded.
//!
//! Each benchmark asserts its answer first: a scanner that finds nothing is fast too.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up must stop"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::time::Duration;

use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group,
    criterion_main, measurement::WallTime,
};
use detectors::{KnownSecret, Location, Scanner};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SIZES: [(usize, &str); 4] = [
    (KIB, "1 KiB"),
    (64 * KIB, "64 KiB"),
    (MIB, "1 MiB"),
    (16 * MIB, "16 MiB"),
];

/// Secrets that are loaded unless a benchmark is about their number.
const FEW: usize = 4;

/// A small deterministic generator (xorshift64*), so that every run scans the same bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next() % of.len()]
    }

    fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        (0..length)
            .map(|_| char::from(self.pick(alphabet)))
            .collect()
    }

    fn base64(&mut self, length: usize) -> String {
        self.text(
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
            length,
        )
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn name(&mut self) -> String {
        let parts = 1 + self.next() % 3;
        (0..parts)
            .map(|_| self.pick(NAMES))
            .collect::<Vec<_>>()
            .join("_")
    }

    fn sentence(&mut self, words: usize) -> String {
        (0..words)
            .map(|_| self.pick(WORDS))
            .collect::<Vec<_>>()
            .join(" ")
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
    "(since 2.1)",
    "password",
    "key",
    "secret",
    "https://example.com/docs#start",
    "100%",
    "it's",
    "\u{2014}",
    "AWS",
    "e.g.",
    "C:/temp",
    "x = y + 1",
];

const NAMES: &[&str] = &[
    "parse", "scan", "open", "read", "until", "token", "buffer", "index", "state", "key", "value",
    "next", "limit", "config", "path", "user", "session", "secret", "count",
];

/// A chat with a model as its API takes it: prose, code with escaped line ends and quotes, signatures.
fn llm_json(size: usize) -> Vec<u8> {
    let mut random = Random(1);
    let mut text = String::from(r#"{"model":"some-model","max_tokens":4096,"messages":["#);
    while text.len() < size {
        text.push_str(r#"{"role":"user","content":[{"type":"text","text":""#);
        for _ in 0..12 {
            let words = 6 + random.next() % 20;
            text.push_str(&random.sentence(words));
            text.push_str(random.pick(&[".\\n", ". ", ":\\n\\n", "? "]));
        }
        text.push_str(r#"let x = \"quoted\";\n    return x;\n"},{"type":"thinking","signature":""#);
        text.push_str(&random.base64(400));
        let id = random.text(b"0123456789abcdef", 8);
        let _ = writeln!(text, "\"}}],\"id\":\"{id}\"}},");
    }
    cut(text, size)
}

fn rust_source(size: usize) -> Vec<u8> {
    let mut random = Random(2);
    let mut text = String::from("//! A module.\n\nuse std::io;\n\n");
    while text.len() < size {
        let (name, other, words) = (random.name(), random.name(), random.sentence(9));
        let (number, small) = (random.next() % 100_000, random.next() % 90);
        let _ = match random.next() % 4 {
            0 => write!(
                text,
                "    /// {words}, so that `x == 1 && y != 2`.\n    pub fn {name}(&mut self, input: &[u8]) -> Result<usize, Error> {{\n        \
                 let mut {other} = {small};\n        while let Some(byte) = input.get({other}) {{\n            if *byte == b'\\n' {{ return Ok({other} % 7); }}\n            \
                 {other} += 1;\n        }}\n        Err(Error::Incomplete {{ needed: \"{other}\" }})\n    }}\n\n"
            ),
            1 => write!(
                text,
                "#[derive(Clone, Debug, PartialEq)]\npub struct S{number} {{\n    /// {words}\n    {name}: Vec<(u32, Range<usize>)>,\n    \
                 {other}: [u8; {small}],\n}}\n\n"
            ),
            2 => write!(
                text,
                "#[test]\nfn {name}_{number}() {{\n    assert_eq!({other}(\"{words}\\t{small}\"), Ok(0x{number:x}));\n}}\n\n"
            ),
            _ => write!(
                text,
                "const {}: &[&str] = &[\"{name}\", \"{other}\", r\"\\b[a-z]{{3}}\"];\n\n",
                name.to_uppercase()
            ),
        };
    }
    cut(text, size)
}

fn python_source(size: usize) -> Vec<u8> {
    let mut random = Random(3);
    let mut text = String::from("#!/usr/bin/env python3\nimport os\nfrom typing import Any\n\n");
    while text.len() < size {
        let (name, other, words) = (random.name(), random.name(), random.sentence(8));
        let (number, small) = (random.next() % 100_000, random.next() % 90);
        let _ = match random.next() % 4 {
            0 => write!(
                text,
                "def {name}(self, {other}: dict[str, Any] | None = None) -> int:\n    \"\"\"{words}.\n\n    Returns the {other}.\n    \"\"\"\n    \
                 if {other} is None:\n        {other} = {{'{name}': {small}, \"n\": [1, 2.5, -{small}]}}\n    return len({other}) % {number}\n\n\n"
            ),
            1 => write!(
                text,
                "class C{number}:\n    # {words}\n    {name} = os.environ.get('{}', f\"{{{other}!r:>{small}}}\\n\")\n\n",
                other.to_uppercase()
            ),
            2 => write!(
                text,
                "for {name}, _ in enumerate(sorted({other}, key=lambda x: x[{small}])):\n    print('%s: %d' % ({name}, {number}))\n\n"
            ),
            _ => write!(
                text,
                "{name} = re.compile(r'^\\s*(\\w+)\\s*=\\s*(.*)$')  # {words}\n\n"
            ),
        };
    }
    cut(text, size)
}

fn minified_js(size: usize) -> Vec<u8> {
    let mut random = Random(4);
    let mut text = String::from("!function(e,t){\"use strict\";");
    let letters = b"abcdefghijklmnopqrstuvwxyz";
    while text.len() < size {
        let (a, b, c) = (
            random.text(letters, 1),
            random.text(letters, 1),
            random.text(letters, 2),
        );
        let (name, words, number) = (random.name(), random.sentence(3), random.next() % 10_000);
        let _ = match random.next() % 4 {
            0 => write!(
                text,
                "function {c}({a},{b}){{return {a}.{name}?{b}[{number}]:void 0!=={a}&&{c}({b},{a}.length-1)}}"
            ),
            1 => write!(
                text,
                "var {c}={{{name}:{number},get {a}(){{return\"{words}\"}}}};"
            ),
            2 => write!(
                text,
                "for(let {a}=0,{b}={c};{a}<{b};++{a}){c}[{a}]^=0x{number:x}+({a}>>>3);"
            ),
            _ => write!(
                text,
                "Object.defineProperty({a},\"{name}\",{{value:/[\\w$]+\\/{number}/g.test({b}),enumerable:!0}}),"
            ),
        };
    }
    cut(text, size)
}

/// Prose in scripts other than Latin, with emphasis and quotes as people type them.
fn unicode_text(size: usize) -> Vec<u8> {
    let mut random = Random(5);
    let mut text = String::new();
    while text.len() < size {
        let (first, last) = random.pick(&[
            ('\u{430}', '\u{44f}'),
            ('\u{4e00}', '\u{9f00}'),
            ('\u{3041}', '\u{3096}'),
            ('\u{ac00}', '\u{d7a3}'),
            ('\u{e0}', '\u{ff}'),
            ('\u{3b1}', '\u{3c9}'),
            ('\u{5d0}', '\u{5ea}'),
        ]);
        for _ in 0..40 {
            for _ in 0..2 + random.next() % 7 {
                let number = u32::from(first)
                    + (random.next() as u32) % (u32::from(last) - u32::from(first));
                text.extend(char::from_u32(number));
            }
            text.push_str(random.pick(&[
                " ",
                " ",
                ", ",
                ". ",
                " \u{2013} ",
                "\u{3002}",
                "\n",
                " \u{1f600} ",
            ]));
        }
        text.push_str(random.pick(WORDS));
        text.push(' ');
    }
    let mut end = size;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    // Filled up, so that sizes are exact.
    text.push_str(&" ".repeat(size - end));
    text.into_bytes()
}

fn base64_blob(size: usize) -> Vec<u8> {
    Random(6).base64(size).into_bytes()
}

/// Objects as git packs them: a head of a few bytes, and zlib.
fn packfile(size: usize) -> Vec<u8> {
    let mut random = Random(7);
    let mut bytes = b"PACK\0\0\0\x02\0\0\x10\0".to_vec();
    while bytes.len() < size {
        bytes.push(0x90 | random.next() as u8 & 0x0F);
        bytes.push(random.next() as u8 & 0x7F);
        let length = 100 + random.next() % 3000;
        let object = random.bytes(length);
        bytes.extend(zlib(&object));
    }
    bytes.truncate(size);
    bytes
}

fn one_token(size: usize) -> Vec<u8> {
    let token = format!(" ghp_{}", "A".repeat(36));
    let mut text = llm_json(size - token.len());
    text.extend_from_slice(token.as_bytes());
    text
}

fn cut(mut text: String, size: usize) -> Vec<u8> {
    let tail = text.split_off(
        (0..=size)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0),
    );
    let mut bytes = text.into_bytes();
    bytes.extend(std::iter::repeat_n(
        b' ',
        tail.len().min(size - bytes.len()),
    ));
    bytes
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

/// The tokens, passwords and keys of an environment: of many lengths, in several alphabets.
fn secrets(count: usize) -> Vec<KnownSecret> {
    let mut random = Random(8);
    (0..count)
        .map(|number| {
            let value = match number % 4 {
                0 => random.text(b"0123456789abcdef", 32),
                1 => random.base64(40 + number % 30),
                2 => random.text(
                    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_",
                    20 + number % 20,
                ),
                _ => random.text(
                    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&*+.,:;?@~",
                    16,
                ),
            };
            KnownSecret::new(&format!("EGRESS_TOKEN_{number}"), value.as_bytes())
        })
        .collect::<Result<_, _>>()
        .expect("the values are long enough")
}

fn scanner(count: usize) -> Scanner {
    Scanner::builder()
        .token_patterns(true)
        .known_secrets(secrets(count))
        .build()
        .expect("the table compiles")
}

fn found(scanner: &Scanner, input: &[u8]) -> Vec<&'static str> {
    scanner
        .scan(&Location::Body, input)
        .iter()
        .map(|finding| finding.rule.0)
        .collect()
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, label: &str, scanner: &Scanner, input: &[u8]) {
    group.throughput(Throughput::Bytes(input.len() as u64));
    // Long ones are run once a sample.
    group.sampling_mode(if input.len() >= MIB {
        SamplingMode::Flat
    } else {
        SamplingMode::Auto
    });
    group.bench_with_input(
        BenchmarkId::from_parameter(label),
        input,
        |bencher, input| {
            bencher.iter(|| scanner.scan(&Location::Body, black_box(input)));
        },
    );
}

type Make = fn(usize) -> Vec<u8>;

fn throughput(criterion: &mut Criterion) {
    let scanner = scanner(FEW);
    let kinds: [(&str, Make); 7] = [
        ("llm json", llm_json),
        ("rust source", rust_source),
        ("python source", python_source),
        ("minified js", minified_js),
        ("unicode text", unicode_text),
        ("base64 blob", base64_blob),
        ("packfile", packfile),
    ];
    for (name, make) in kinds {
        let mut group = criterion.benchmark_group(name);
        let larger = [(64 * MIB, "64 MiB")];
        let larger = larger.iter().filter(|_| name == "llm json");
        for (size, label) in SIZES.iter().chain(larger) {
            let input = make(*size);
            assert_eq!(input.len(), *size, "{name}");
            assert_eq!(found(&scanner, &input), [""; 0], "{name}, {label}");
            bench(&mut group, label, &scanner, &input);
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("one token at the end");
    let input = one_token(MIB);
    assert_eq!(found(&scanner, &input), ["github-token-classic"]);
    bench(&mut group, "1 MiB", &scanner, &input);
    group.finish();
}

fn by_secrets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("secrets, llm json of 1 MiB");
    let input = llm_json(MIB);
    for count in [0, 10, 50, 200] {
        let scanner = scanner(count);
        assert_eq!(found(&scanner, &input), [""; 0], "{count} secrets");
        bench(&mut group, &count.to_string(), &scanner, &input);
    }
    group.finish();
}

/// The turns of a conversation of half a megabyte: each sends all that was said, and 8 KiB more.
fn turns(criterion: &mut Criterion) {
    const NEW: usize = 8 * KIB;
    let mut group = criterion.benchmark_group("a turn of 512 KiB, of which 8 are new");
    let text = llm_json(512 * KIB);
    let (said, new) = text.split_at(text.len() - NEW);
    let token = one_token(NEW);
    for (name, windows) in [("not remembered", 0), ("remembered", 64)] {
        let scanner = Scanner::builder()
            .token_patterns(true)
            .known_secrets(secrets(FEW))
            .remember([1; 16], windows)
            .build()
            .expect("the table compiles");
        let turn = |new: &[u8]| [said, new].concat();
        for _ in 0..2 {
            assert_eq!(found(&scanner, &turn(new)), [""; 0]);
            assert_eq!(found(&scanner, &turn(&token)), ["github-token-classic"]);
        }
        let mut number = 0_u64;
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    number += 1;
                    let mut turn = turn(new);
                    turn.extend_from_slice(number.to_string().as_bytes());
                    turn
                },
                |turn| scanner.scan(&Location::Body, black_box(&turn)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// What a hostile agent would send to make the scanner slow; read as a lower bound.
fn adversarial(criterion: &mut Criterion) {
    let scanner = scanner(FEW);
    let mut group = criterion.benchmark_group("adversarial, 1 MiB");
    let pieces: [(&str, &[u8]); 26] = [
        ("token prefixes", b"ghp_"),
        ("short prefixes", b"sk-"),
        (
            "a token one short",
            b"ghp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ",
        ),
        ("JWT heads", b"eyJhbGciOiJIUzI1NiJ9."),
        ("Bearer", b"Bearer "),
        ("one letter", b"a"),
        ("dashes", b"-"),
        ("NUL between", b"a\0"),
        ("percent", b"%67%68"),
        ("percent of percent", b"%25"),
        ("unicode escapes", b"\\u0067"),
        ("unfinished escapes", b"\\u00"),
        ("backslashes", b"\\\\"),
        ("HTML references", b"&#103;"),
        ("quoted-printable", b"=67=68"),
        ("soft breaks", b"A=\r\n"),
        ("full-width", "\u{ff47}".as_bytes()),
        ("zero-width", "\u{200b}a".as_bytes()),
        ("short lines of base64", b"QUJDREVGR0hJSktM\n"),
        ("hex of a prefix", b"6768705f"),
        ("hex list", b"0x67, 0x68, "),
        ("decimal list", b"103, 104, "),
        ("spelled letters", b"g h p _ "),
        ("uuencode heads", b"begin 644 x\n"),
        ("reversed prefixes", b"_phg"),
        ("everything", b"%41\\u0041&#65;=41\xef\xbc\xa1\0\n"),
    ];
    let mut inputs: Vec<(&str, Vec<u8>)> = pieces
        .into_iter()
        .map(|(name, piece)| (name, piece.repeat(MIB / piece.len())))
        .collect();
    let mut random = Random(9);
    let mut escapes = Vec::new();
    while escapes.len() < MIB {
        escapes.extend_from_slice(random.pick(&[
            &b"%41"[..],
            b"\\u0041",
            b"&#65;",
            b"=41",
            b"%25",
            b"\\\\",
            b"&amp;",
            b" ",
            b"a",
        ]));
    }
    let bomb = gzip(&vec![0; 4 * MIB]);
    inputs.extend([
        ("random bytes", random.bytes(MIB)),
        ("random escapes", escapes),
        ("hex", random.text(b"0123456789abcdef", MIB).into_bytes()),
        ("base64 words of 24", base64_words(24)),
        ("base64 in base64 in base64", nested(3)),
        ("gzip bombs", bomb.repeat(MIB / bomb.len())),
    ]);
    for (name, input) in inputs {
        // A token behind it all must still be found, or as many things before it that it need not be.
        let input = [
            &input[..],
            b"\n \"ghp_0123456789abcdefghijklmnopqrstuvwxyz\" ",
        ]
        .concat();
        let rules = found(&scanner, &input);
        let is_stopped = rules
            .iter()
            .any(|rule| *rule == "github-token-classic" || *rule == "finding-limit");
        assert!(is_stopped, "{name}: {rules:?}");
        bench(&mut group, name, &scanner, &input);
    }
    group.finish();
}

fn base64_words(length: usize) -> Vec<u8> {
    let mut random = Random(10);
    let mut text = String::new();
    while text.len() < MIB {
        text.push_str(&random.base64(length));
        text.push(' ');
    }
    text.into_bytes()
}

/// Prose in base64, so many times.
fn nested(depth: usize) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let inner = Random(11).sentence(MIB / 20).into_bytes();
    let mut text = (0..depth).fold(inner, |text, _| {
        text.chunks_exact(3)
            .flat_map(|three| {
                let number = three
                    .iter()
                    .fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
                [18, 12, 6, 0].map(|shift| DIGITS[number >> shift & 63])
            })
            .collect()
    });
    text.truncate(MIB);
    text
}

fn start_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    group.sampling_mode(SamplingMode::Flat);
    for count in [0, 50, 200] {
        let secrets = secrets(count);
        let build = || {
            Scanner::builder()
                .token_patterns(true)
                .known_secrets(secrets.clone())
                .build()
                .expect("the table compiles")
        };
        let token = b"ghp_0123456789abcdefghijklmnopqrstuvwxyz";
        assert_eq!(found(&build(), token), ["github-token-classic"]);
        group.bench_function(
            BenchmarkId::from_parameter(format!("{count} secrets")),
            |bencher| {
                bencher.iter(build);
            },
        );
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(600));
    targets = throughput, by_secrets, turns, adversarial, start_up
}
criterion_main!(benches);
