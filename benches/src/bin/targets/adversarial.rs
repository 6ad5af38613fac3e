//! Throughput on what a hostile agent would send to make the scanner slow, at four sizes: twice the input must not
//! take more than about twice the time.

use std::io::Write as _;

use fixtures::evasions::{Random, encode};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::report::{Report, Row};
use crate::{measure, secrets};

const MIB: usize = 1 << 20;
const SIZES: [usize; 4] = [MIB, 2 * MIB, 4 * MIB, 8 * MIB];

/// Larger sizes of an input so slow are not tried: it has failed already.
const HOPELESS: f64 = 0.0005;

/// Repeated as they stand.
const REPEATED: &[(&str, &str)] = &[
    ("GitHub prefix", "ghp_"),
    ("fine-grained prefix", "github_pat_"),
    ("sk-", "sk-"),
    ("sk-ant-", "sk-ant-api03-"),
    ("sk_live_", "sk_live_"),
    ("SG.", "SG."),
    ("xoxb-", "xoxb-"),
    ("AKIA", "AKIA"),
    ("AKIA one short", "AKIAAAAAAAAAAAAAAAA "),
    (
        "token one short",
        "ghp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ",
    ),
    ("Bearer", "Bearer "),
    ("JWT head", "eyJhbGciOiJIUzI1NiJ9"),
    ("JWT head and dot", "eyJhbGciOiJIUzI1NiJ9."),
    ("private key head", "-----BEGIN RSA PRIVATE KEY-----\n"),
    ("dashes", "-----"),
    ("URL with userinfo", "https://a:b@"),
    ("hex of a prefix", "6768705f"),
    ("\\x of a prefix", "\\x67\\x68\\x70\\x5f"),
    ("base64 of a prefix", "Z2hwX2"),
    ("reversed prefix", "_phg"),
    ("rot13 of a prefix", "tuc_"),
    ("\\u0067\\u0068", "\\u0067\\u0068"),
    ("\\u00", "\\u00"),
    ("\\u{67}", "\\u{67}"),
    ("backslashes", "\\\\"),
    ("percent", "%67%68"),
    ("percent of percent", "%25"),
    ("HTML references", "&#103;&#104;"),
    ("HTML, unfinished", "&#"),
    ("quoted-printable", "=67=68"),
    ("soft breaks", "A=\r\n"),
    ("full-width", "\u{ff47}\u{ff48}"),
    ("zero-width", "\u{200b}a"),
    ("combining marks", "a\u{301}\u{301}\u{301}"),
    ("mathematical", "\u{1d420}\u{1d421}"),
    ("Cyrillic", "\u{441}\u{43e}\u{440}"),
    ("invalid UTF-8 in Latin 1", "\u{e9}a"),
    ("NUL between", "a\0"),
    ("UTF-32", "a\0\0\0"),
    ("20-char words", "abcdefghijklmnopqrst "),
    ("19-char words", "abcdefghijklmnopqrs "),
    ("base64 lines of 8", "AAAAAAAA\n"),
    ("base64 lines of 4", "QUJD\n"),
    ("one character a line", "g\n"),
    ("spaced characters", "g h p _ "),
    ("dotted characters", "g.h.p."),
    ("concatenation", "'g' + 'h' + "),
    ("JSON array of characters", "\"g\",\"h\","),
    ("decimal list", "103, 104, 112, "),
    ("octal list", "147 150 "),
    ("binary list", "01100111 "),
    ("colon hex", "67:68:70:"),
    ("C array", "0x67, 0x68, "),
    ("base32", "M5UHAXY"),
    (
        "uuencode lines",
        "M9VAP7T%Z,#DM=&]K96XN;V8O-#!G:'!?07HP.2UT;VME;BYO9B\\T,&=H<%]!\n",
    ),
    ("UTF-7", "+AGcAaA-"),
    ("morse", "--. .... "),
    ("all at once", "%41\\u0041&#65;=41\u{ff21}\0\n"),
    ("one letter", "a"),
    ("one capital", "A"),
    ("spaces", " "),
    ("NULs", "\0"),
    ("gzip heads", "\x1f\u{8b}\x08\0"),
    ("zip heads", "PK\x03\x04"),
    ("base64 of gzip heads", "H4sIAAAAAAAA"),
    ("brackets", "[{("),
    ("quotes", "\"'`"),
];

type Make = fn(usize, &mut Random) -> Vec<u8>;

/// Made at the size.
const MADE: &[(&str, Make)] = &[
    ("random bytes", |size, random| random.bytes(size)),
    ("random base64", |size, random| {
        encode::base64(&random.bytes(size * 3 / 4)).into_bytes()
    }),
    ("random base64url", |size, random| {
        encode::base64_url_unpadded(&random.bytes(size * 3 / 4)).into_bytes()
    }),
    ("random base64, wrapped at 76", |size, random| {
        encode::wrapped(&encode::base64(&random.bytes(size * 3 / 4)), 76, "\n").into_bytes()
    }),
    ("random hex", |size, random| {
        encode::hex(&random.bytes(size / 2)).into_bytes()
    }),
    ("random letters and digits", |size, random| {
        random.alphanumeric(size).into_bytes()
    }),
    ("random base64 words of 24", |size, random| {
        encode::wrapped(&encode::base64(&random.bytes(size * 3 / 4)), 24, " ").into_bytes()
    }),
    ("base64 nested 8 deep", |size, random| {
        nested(size, random, |bytes| encode::base64(bytes).into_bytes())
    }),
    ("base64 of prose, many blobs", |size, random| {
        let mut text = String::new();
        while text.len() < size {
            let length = 40 + random.below(400);
            text.push_str(&encode::base64(random.prose(length).as_bytes()));
            text.push(' ');
        }
        text.into_bytes()
    }),
    ("hex nested 6 deep", |size, random| {
        let inner = random.bytes(size / 64);
        (0..6).fold(inner, |bytes, _| encode::hex(&bytes).into_bytes())
    }),
    ("percent nested 3 deep", |size, random| {
        let inner = random.alphanumeric(size / 27);
        (0..3)
            .fold(inner, |text, _| {
                text.bytes().map(|byte| format!("%{byte:02x}")).collect()
            })
            .into_bytes()
    }),
    ("prefixes with random tails", |size, random| {
        let mut text = String::new();
        while text.len() < size {
            text.push_str(random.pick::<&str>(&[
                "ghp_", "sk-", "AKIA", "xoxb-", "SG.", "npm_", "hf_", "eyJ", "dapi",
            ]));
            let length = random.below(30);
            text.push_str(&random.alphanumeric(length));
            text.push(' ');
        }
        text.into_bytes()
    }),
    ("random printable", |size, random| {
        let printable: Vec<u8> = (b' '..=b'~').collect();
        random.text(&printable, size).into_bytes()
    }),
    ("random separators", |size, random| {
        random.text(b"ghp_ -.,\n|", size).into_bytes()
    }),
    ("gzip of zeros", |size, _| {
        // As many members as fit: each is small and unpacks to a megabyte.
        packed(&vec![0; MIB]).repeat(size / 1000)
    }),
    ("zlib of zeros in base64", |size, _| {
        let one = encode::base64(&zlib(&vec![0; MIB]));
        format!("{one} ").repeat(size / one.len()).into_bytes()
    }),
    ("gzip of base64 of gzip", |size, random| {
        packed(encode::base64(&packed(&random.bytes(size * 3 / 4))).as_bytes())
    }),
    ("gzip of random bytes", |size, random| {
        packed(&random.bytes(size))
    }),
];

pub fn measure(report: &mut Report, repeat: usize) -> anyhow::Result<()> {
    let scanner = secrets::scanner(&[], &mut Random::new(1))?;
    let (mut lines, mut unfound) = (Vec::new(), Vec::new());
    let (mut lowest, mut slowest, mut steepest) =
        (f64::MAX, String::new(), (f64::MAX, String::new()));
    let repeated = REPEATED
        .iter()
        .map(|&(name, piece)| (name, Source::Repeated(piece)));
    let made = MADE.iter().map(|&(name, make)| (name, Source::Made(make)));
    for (name, source) in repeated.chain(made) {
        let mut speeds: Vec<Option<f64>> = Vec::new();
        for size in SIZES {
            let speed = measure::gigabytes_a_second(&scanner, source.bytes(size), repeat).ok();
            speeds.push(speed);
            match speed {
                None => unfound.push(name),
                Some(speed) if speed < lowest => (lowest, slowest) = (speed, name.to_owned()),
                Some(_) => {}
            }
            if speed.is_some_and(|speed| speed < HOPELESS) {
                break;
            }
        }
        let growth = match speeds.as_slice() {
            [Some(first), .., Some(last)] => last / first,
            _ => 0.0,
        };
        if growth < steepest.0 {
            steepest = (growth, name.to_owned());
        }
        let mut line = vec![name.to_owned()];
        line.extend((0..SIZES.len()).map(|size| match speeds.get(size) {
            Some(Some(speed)) => format!("{speed:.3}"),
            Some(None) => "not found".into(),
            None => "not tried".into(),
        }));
        line.push(format!("{growth:.2}"));
        lines.push(line);
    }
    // Caches and the clock of a shared machine take their part; quadratic work would be 0.13.
    let linear = steepest.0 >= 0.4;
    unfound.dedup();
    let blind = match unfound.as_slice() {
        [] => String::new(),
        names => format!("; a token behind it is not found: {}", names.join(", ")),
    };
    report.row(Row {
        what: "throughput on any adversarial input, work linear in input",
        peers: "not stated by anyone",
        target: ">= 0.3 GB/s",
        figure: format!(
            "{lowest:.3} GB/s ({slowest}) of {} inputs; at 8 MiB {:.2} of the speed at 1 MiB ({}){blind}",
            lines.len(),
            steepest.0,
            steepest.1
        ),
        value: lowest,
        pass: lowest >= 0.3 && linear && unfound.is_empty(),
    });
    report.detail(
        "Adversarial inputs, GB/s",
        &["input", "1 MiB", "2 MiB", "4 MiB", "8 MiB", "8 MiB : 1 MiB"],
        lines,
    );
    Ok(())
}

enum Source {
    Repeated(&'static str),
    Made(Make),
}

impl Source {
    fn bytes(&self, size: usize) -> Vec<u8> {
        match self {
            Self::Repeated(piece) => piece.as_bytes().repeat(size / piece.len()),
            Self::Made(make) => make(size, &mut Random::new(9)),
        }
    }
}

fn nested(size: usize, random: &mut Random, wrap: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    // Eight times a third more.
    let inner = random.prose(size / 10).into_bytes();
    (0..8).fold(inner, |bytes, _| wrap(&bytes))
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .unwrap_or_default()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .unwrap_or_default()
}
