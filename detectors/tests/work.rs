//! The work is linear in the input, counted in steps rather than in seconds; and clean plain input costs no memory.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers: a broken one must stop the test"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::{BASE32, HEXLOWER};
use detectors::{KnownSecret, Location, Scanner};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

const KIB: usize = 1024;
const SIZES: [usize; 4] = [128 * KIB, 256 * KIB, 512 * KIB, 1024 * KIB];

/// Bytes that one window owns.
const BLOCK: usize = 64 * KIB;

/// What twice the input may cost: a little more than twice, since windows differ; and the last one, which has nothing to
/// look ahead to, may cost less than half of what others do; and one that ends in the midst of a region is read twice.
const GROWTH: f64 = 2.2;
const CONSTANT: usize = 1024 * KIB;

/// What any input may cost: so many times its length, so much for each window, and so much once. Of its length what comes out
/// of compressed data that is longer than a window takes 24.
const FACTOR: usize = 21 + 24;
const EACH_WINDOW: usize = 256 * KIB;
const ONCE: usize = 1024 * KIB;

/// Counts what a thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // At a thread's end there is nothing left to count in.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Deterministic (xorshift64*), so that a failure is the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize
    }

    fn bytes(&mut self, size: usize) -> Vec<u8> {
        (0..size).map(|_| self.next() as u8).collect()
    }

    fn of(&mut self, alphabet: &[u8], size: usize) -> Vec<u8> {
        (0..size)
            .map(|_| alphabet[self.next() % alphabet.len()])
            .collect()
    }

    fn words(&mut self, size: usize) -> Vec<u8> {
        const WORDS: &[&str] = &[
            "the ",
            "function ",
            "returns ",
            "list, ",
            "which ",
            "is ",
            "not ",
            "empty. ",
            "See ",
            "below: ",
        ];
        let mut text = Vec::new();
        while text.len() < size {
            text.extend_from_slice(WORDS[self.next() % WORDS.len()].as_bytes());
        }
        text.truncate(size);
        text
    }
}

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BASE85: &[u8] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

/// Repeated as they stand.
const REPEATED: &[(&str, &[u8])] = &[
    ("GitHub prefix", b"ghp_"),
    ("fine-grained prefix", b"github_pat_"),
    ("sk-", b"sk-"),
    ("sk-ant-", b"sk-ant-api03-"),
    ("SG.", b"SG."),
    ("AKIA", b"AKIA"),
    ("AKIA one short", b"AKIAAAAAAAAAAAAAAAA "),
    (
        "GitHub one short",
        b"ghp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ",
    ),
    ("Bearer", b"Bearer "),
    ("JWT start", b"eyJhbGciOiJIUzI1NiJ9"),
    ("JWT start and dot", b"eyJhbGciOiJIUzI1NiJ9."),
    ("private key head", b"-----BEGIN RSA PRIVATE KEY-----\n"),
    ("URL with userinfo", b"https://a:b@"),
    ("many URL starts", b"mongodb://"),
    ("netrc starts", b"machine a.bc login "),
    ("AccountKey", b"AccountKey="),
    ("UUID shapes", b"01234567-89ab-cdef-0123-"),
    ("dashes", b"-"),
    ("one letter", b"a"),
    ("one capital", b"A"),
    ("zeros", b"0"),
    ("blanks", b" "),
    ("NULs", b"\0"),
    ("high bytes", b"\xFF"),
    ("hex of a prefix", b"6768705f"),
    ("hex pairs with colons", b"67:68:70:"),
    ("\\x of a prefix", b"\\x67\\x68\\x70\\x5f"),
    ("base64 of a prefix", b"Z2hwX2"),
    ("reversed prefix", b"_phg"),
    ("rot13 of a prefix", b"tuc_"),
    ("other case", b"GHP_"),
    ("\\u", b"\\u0067\\u0068"),
    ("\\u unfinished", b"\\u00"),
    ("\\\\u", b"\\\\\\\\u0067"),
    ("\\u{}", b"\\u{67}"),
    ("backslashes", b"\\\\"),
    ("percent", b"%67%68"),
    ("percent of percent", b"%25"),
    ("double percent", b"%2567%2568"),
    ("triple percent", b"%252567"),
    ("HTML references", b"&#103;&#104;"),
    ("HTML unfinished", b"&#"),
    ("HTML of HTML", b"&amp;#103;"),
    ("HTML leading zeros", b"&#0000000103;"),
    ("quoted-printable", b"=67=68"),
    ("soft breaks", b"A=\r\n"),
    ("full-width", "\u{ff47}\u{ff48}\u{ff50}\u{ff3f}".as_bytes()),
    ("zero-width", "g\u{200b}".as_bytes()),
    ("zero-width flood", "\u{200b}".as_bytes()),
    ("combining", "a\u{301}\u{301}\u{301}".as_bytes()),
    ("mathematical", "\u{1d420}\u{1d421}".as_bytes()),
    ("Cyrillic look-alikes", "\u{441}\u{43e}\u{440}".as_bytes()),
    ("tags", "\u{e0067}".as_bytes()),
    ("NUL between", b"a\0"),
    ("UTF-32", b"a\0\0\0"),
    ("base64 lines of 16", b"QUJDREVGR0hJSktM\n"),
    ("base64 lines of 4", b"QUJD\n"),
    ("one character a line", b"g\n"),
    ("spelled letters", b"g h p _ "),
    ("spelled with quotes", b"\"g\",\"h\","),
    ("concatenation", b"'ghp_' + "),
    ("decimal list", b"103, 104, 112, 95, "),
    ("octal list", b"147 150 160 137 "),
    ("octal escapes", b"\\147\\150"),
    ("binary list", b"01100111 "),
    ("binary digits", b"01100111"),
    ("decimal digits", b"103104112095"),
    ("C array", b"0x67, 0x68, "),
    (
        "dump lines",
        b"00000000: 6768 705f 3031 3233 3435 3637 3839 6162  ghp_0123456789ab\n",
    ),
    ("begin 644", b"begin 644 "),
    ("begin 644 lines", b"begin 644 x\n"),
    ("uuencoded lines", b"begin 644 x\n#0V%T\n#0V%T\n"),
    (
        "zip headers",
        b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\x10\0\0\0\x10\0\0\0\x01\0\0\0a",
    ),
    ("gzip headers", b"\x1f\x8b\x08\0\0\0\0\0\0\xff"),
    ("zstd headers", b"\x28\xb5\x2f\xfd"),
    ("base64 of gzip headers", b"H4sIAAAAAAAA"),
    ("zlib heads", b"\x78\x9c"),
    ("all at once", b"%41\\u0041&#65;=41\xef\xbc\xa1\0\n"),
    (
        "escapes and blobs",
        b"%41 QUJDREVGR0hJSktMTU5PUFFSU1RV \\u0041 ",
    ),
];

type Make = fn(usize, &mut Random) -> Vec<u8>;

/// Made at the size.
const MADE: &[(&str, Make)] = &[
    ("random bytes", |size, random| random.bytes(size)),
    ("random base64", |size, random| {
        STANDARD.encode(random.bytes(size * 3 / 4)).into()
    }),
    ("random base64 wrapped at 76", |size, random| {
        wrapped(&STANDARD.encode(random.bytes(size * 3 / 4)), 76)
    }),
    ("random base64 wrapped at 16", |size, random| {
        wrapped(&STANDARD.encode(random.bytes(size * 3 / 4)), 16)
    }),
    ("random base64 words of 24", |size, random| {
        let text = STANDARD.encode(random.bytes(size * 3 / 4));
        text.as_bytes().chunks(24).collect::<Vec<_>>().join(&b' ')
    }),
    ("random hex", |size, random| {
        HEXLOWER.encode(&random.bytes(size / 2)).into()
    }),
    ("random letters and digits", |size, random| {
        random.of(LETTERS, size)
    }),
    ("random base32", |size, random| {
        BASE32.encode(&random.bytes(size * 5 / 8)).into()
    }),
    ("long lines of base85", |size, random| {
        let mut text = random.of(BASE85, size);
        text.iter_mut()
            .skip(4000)
            .step_by(4000)
            .for_each(|byte| *byte = b'\n');
        text
    }),
    ("random printable", |size, random| {
        (0..size)
            .map(|_| b' ' + (random.next() % 95) as u8)
            .collect()
    }),
    ("random separators", |size, random| {
        random.of(b"ghp_ -.,\n|\"'", size)
    }),
    ("random decimal digits", |size, random| {
        random.of(b"0123456789", size)
    }),
    ("random binary digits", |size, random| {
        random.of(b"01", size)
    }),
    ("random escapes", |size, random| {
        pieces(
            size,
            random,
            &[
                "%41", "\\u0041", "&#65;", "=41", "%25", "\\\\", "&amp;", "%u0041", " ", "a",
                "\u{ff21}",
            ],
        )
    }),
    ("prefixes with random tails", |size, random| {
        let mut text = Vec::new();
        while text.len() < size {
            let prefixes = [
                "ghp_", "sk-", "AKIA", "xoxb-", "SG.", "npm_", "hf_", "eyJ", "dapi", "glpat-",
                "sk_live_",
            ];
            text.extend_from_slice(prefixes[random.next() % prefixes.len()].as_bytes());
            let length = random.next() % 30;
            text.extend(random.of(LETTERS, length));
            text.push(b' ');
        }
        text
    }),
    ("base64 of prose", |size, random| {
        STANDARD.encode(random.words(size * 3 / 4)).into()
    }),
    ("base64 of percent", |size, _| {
        STANDARD.encode("%67%68".repeat(size / 8)).into()
    }),
    ("base64 of percent of base64", |size, random| {
        STANDARD
            .encode(percent(
                STANDARD.encode(random.words(size * 3 / 16)).as_bytes(),
            ))
            .into()
    }),
    ("base64 of base32", |size, random| {
        STANDARD
            .encode(BASE32.encode(&random.words(size * 15 / 32)))
            .into()
    }),
    ("base64 of base64 wrapped", |size, random| {
        STANDARD
            .encode(wrapped(&STANDARD.encode(random.words(size / 2)), 64))
            .into()
    }),
    ("base64 nested 3 deep", |size, random| {
        nested(size, 3, random)
    }),
    ("base64 nested 8 deep", |size, random| {
        nested(size, 8, random)
    }),
    ("many small blobs nested 4 deep", |size, random| {
        let mut text = Vec::new();
        while text.len() < size {
            text.extend(nested(400, 4, random));
            text.push(b'"');
        }
        text
    }),
    ("hex nested 5 deep", |size, random| {
        (0..5).fold(random.words(size / 32), |text, _| {
            HEXLOWER.encode(&text).into()
        })
    }),
    ("base32 nested 5 deep", |size, random| {
        (0..5).fold(random.words(size / 10), |text, _| {
            BASE32.encode(&text).into()
        })
    }),
    ("percent nested 3 deep", |size, random| {
        (0..3).fold(random.of(LETTERS, size / 27), |text, _| percent(&text))
    }),
    ("\\u of percent of base64", |size, random| {
        let text = percent(STANDARD.encode(random.words(size / 24)).as_bytes());
        text.iter()
            .fold(String::new(), |mut all, byte| {
                let _ = write!(all, "\\u{byte:04x}");
                all
            })
            .into()
    }),
    ("small gzip bombs", |size, _| {
        repeated(&packed(&vec![0; 64 * KIB]), size)
    }),
    ("large gzip bombs", |size, _| {
        repeated(&packed(&vec![b'a'; 4096 * KIB]), size)
    }),
    ("gzip of prose", |size, random| {
        packed(&random.words(size * 4))
    }),
    ("many gzips of prose", |size, random| {
        repeated(&packed(&random.words(2000)), size)
    }),
    ("gzip of random bytes", |size, random| {
        packed(&random.bytes(size))
    }),
    ("gzip of gzip of zeros", |size, _| {
        repeated(&packed(&packed(&vec![0; 4096 * KIB])), size)
    }),
    ("base64 of gzips", |size, random| {
        let one = STANDARD.encode(packed(&random.words(2000)));
        repeated(format!("{one} ").as_bytes(), size)
    }),
    ("base64 of zlib of zeros", |size, _| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; 256 * KIB]).unwrap();
        let one = STANDARD.encode(encoder.finish().unwrap());
        repeated(format!("{one} ").as_bytes(), size)
    }),
    ("base64 of deflate of letters", |size, random| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&random.of(b"ab", 8 * KIB)).unwrap();
        let one = STANDARD.encode(encoder.finish().unwrap());
        repeated(format!("{one} ").as_bytes(), size)
    }),
    ("zip members", |size, random| {
        let mut deflated = DeflateEncoder::new(Vec::new(), Compression::best());
        deflated.write_all(&random.words(3000)).unwrap();
        let head = b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\x10\0\0\0\x10\0\0\0\x01\0\0\0a";
        repeated(&[&head[..], &deflated.finish().unwrap()].concat(), size)
    }),
    ("parts of a known secret", |size, _| {
        repeated(&SECRET.as_bytes()[..14], size)
    }),
    ("mixed", |size, random| {
        let mut text = Vec::new();
        while text.len() < size {
            let length = 50 + random.next() % 400;
            match random.next() % 7 {
                0 => text.extend(random.words(length)),
                1 => text.extend(STANDARD.encode(random.words(length)).bytes()),
                2 => text.extend(percent(&random.of(LETTERS, length))),
                3 => text.extend(HEXLOWER.encode(&random.words(length)).bytes()),
                4 => text.extend(packed(&random.words(length))),
                5 => text.extend(random.of(BASE85, length)),
                _ => text.extend(random.bytes(length)),
            }
            text.push(b'\n');
        }
        text
    }),
];

fn wrapped(text: &str, columns: usize) -> Vec<u8> {
    text.as_bytes()
        .chunks(columns)
        .collect::<Vec<_>>()
        .join(&b'\n')
}

fn percent(text: &[u8]) -> Vec<u8> {
    text.iter()
        .fold(String::new(), |mut all, byte| {
            let _ = write!(all, "%{byte:02x}");
            all
        })
        .into()
}

fn nested(size: usize, depth: usize, random: &mut Random) -> Vec<u8> {
    let inner = random.words((size as f64 * 0.75_f64.powi(depth as i32)) as usize);
    (0..depth).fold(inner, |text, _| STANDARD.encode(text).into())
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn pieces(size: usize, random: &mut Random, of: &[&str]) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < size {
        text.extend_from_slice(of[random.next() % of.len()].as_bytes());
    }
    text
}

fn repeated(piece: &[u8], size: usize) -> Vec<u8> {
    piece.repeat(size.div_ceil(piece.len()))
}

const SECRET: &str = "EGRESS-7f3kQ9zLmXw2vBn"; // gitleaks:allow

fn scanner() -> Scanner {
    let secrets = [
        SECRET,
        "another0secret1value2",
        "xK9-third/secret+value=",
        "0123456789abcdef0123456789abcdee",
    ]
    .into_iter()
    .enumerate()
    .map(|(number, value)| {
        KnownSecret::new(&format!("EGRESS_TOKEN_{number}"), value.as_bytes()).unwrap()
    })
    .collect();
    Scanner::builder()
        .token_patterns(true)
        .known_secrets(secrets)
        .build()
        .unwrap()
}

enum Source {
    Repeated(&'static [u8]),
    Made(Make),
}

impl Source {
    /// Exactly `size` bytes, of which the first half are not those of half the size: each size is an input of its own.
    fn bytes(&self, size: usize) -> Vec<u8> {
        let mut bytes = match self {
            Self::Repeated(piece) => repeated(piece, size),
            Self::Made(make) => make(size, &mut Random(9)),
        };
        bytes.truncate(size);
        bytes
    }
}

#[test]
fn work_is_linear_in_the_input() {
    let scanner = scanner();
    let repeated = REPEATED
        .iter()
        .map(|&(name, piece)| (name, Source::Repeated(piece)));
    let made = MADE.iter().map(|&(name, make)| (name, Source::Made(make)));
    let sources: Vec<(&str, Source)> = repeated.chain(made).collect();
    assert!(sources.len() >= 60);
    let next = AtomicUsize::new(0);
    let results = Mutex::new((Vec::new(), Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((name, source)) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (mut lines, mut failures) = (String::new(), Vec::new());
                    let mut before: Option<(usize, usize)> = None;
                    for size in SIZES {
                        let input = source.bytes(size);
                        let steps = scanner.steps(&input);
                        let _ = write!(lines, " {:.2}", steps as f64 / input.len() as f64);
                        if steps > FACTOR * input.len() + EACH_WINDOW * input.len().div_ceil(BLOCK) + ONCE {
                            failures.push(format!("{name}: {steps} steps for {} bytes", input.len()));
                        }
                        // Some are shorter than asked for; what matters is the length that they have.
                        if let Some((length, steps_before)) = before {
                            let allowed = GROWTH / 2.0 * input.len() as f64 / length as f64 * steps_before as f64;
                            if steps as f64 > allowed + CONSTANT as f64 {
                                failures.push(format!("{name}: {steps_before} steps for {length} bytes, {steps} for {}", input.len()));
                            }
                        }
                        before = Some((input.len(), steps));
                    }
                    let mut results = results.lock().unwrap();
                    results.0.push(format!("{name}:{lines}"));
                    results.1.append(&mut failures);
                }
            });
        }
    });
    let (mut lines, failures) = results.into_inner().unwrap();
    lines.sort_unstable();
    println!(
        "steps a byte at 128, 256, 512, 1024 KiB\n{}",
        lines.join("\n")
    );
    fixtures::tell!("work: {} inputs, {} sizes", sources.len(), SIZES.len());
    assert!(
        failures.is_empty(),
        "{} failures\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn clean_plain_input_allocates_nothing() {
    let scanner = scanner();
    let mut random = Random(4);
    let mut source = String::new();
    let mut json = String::from("[");
    while source.len() < KIB * KIB {
        let number = random.next() % 1000;
        let _ = write!(
            source,
            "    /// Reads up to {number} bytes; see `Self::open`.\n    pub fn read_{number}(&mut self, input: &[u8]) -> Result<usize, Error> {{\n        \
             let mut count = {number};\n        while let Some(byte) = input.get(count) {{\n            if *byte == b'/' && count % 7 != 2 {{ return Ok(count); }}\n            \
             count += 1;\n        }}\n        Err(Error::Incomplete {{ needed: \"more\" }})\n    }}\n\n"
        );
    }
    while json.len() < KIB * KIB {
        let number = random.next() % 1000;
        let _ = writeln!(
            json,
            "{{\"role\": \"user\", \"index\": {number}, \"content\": \"Why does this fail?\\n\\nlet x = \\\"quoted\\\";\\n    return x;\\n\", \"cost\": {number}.25}},"
        );
    }
    let inputs = [
        ("prose", random.words(KIB * KIB)),
        ("Rust source", source.into()),
        ("JSON", json.into()),
    ];
    let mut failures = Vec::new();
    for (name, mut input) in inputs {
        input.truncate(KIB * KIB);
        // The first scan of a thread makes room for a window.
        assert_eq!(scanner.scan(&Location::Body, &input), [], "{name}");
        let before = ALLOCATIONS.get();
        let found = scanner.scan(&Location::Body, &input);
        let allocations = ALLOCATIONS.get() - before;
        assert_eq!(found, [], "{name}");
        if allocations > 0 {
            failures.push(format!("{name}: {allocations} allocations"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join(", "));
}
