//! A credential in up to three encodings, one in the other, each written by an encoder that is not the scanner's own,
//! is found; and cuts between chunks change nothing.
//!
//! What no scanner of bounded cost can find is left out by [`Encoding::takes`], each with its reason.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers: a broken one must stop the test"
)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use common::{BLOCK, scan_cut};
use data_encoding::{BASE32, HEXLOWER, HEXUPPER};
use detectors::{Finding, KnownSecret, Location, Scanner, TOKEN_RULES};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use proptest::prelude::*;

/// What the inner bytes of an encoding are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Printable ASCII.
    Text,
    /// A byte of each character is zero.
    Wide,
    /// Bytes with a magic number, or in the case of zlib a check, at the beginning.
    Packed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Base64,
    Base64Url,
    Base64UrlPadded,
    Base64Wrapped64,
    Base64Wrapped76,
    Base64WrappedInJson,
    Base32,
    Hex,
    HexUpper,
    HexColons,
    Percent,
    Json,
    JsonInJson,
    HtmlDecimal,
    HtmlHex,
    QuotedPrintable,
    DecimalList,
    CArray,
    Gzip,
    Zlib,
    Utf16Le,
    Utf16Be,
    FullWidth,
    Reversed,
}

use Encoding::*;

const ALL: &[Encoding] = &[
    Base64,
    Base64Url,
    Base64UrlPadded,
    Base64Wrapped64,
    Base64Wrapped76,
    Base64WrappedInJson,
    Base32,
    Hex,
    HexUpper,
    HexColons,
    Percent,
    Json,
    JsonInJson,
    HtmlDecimal,
    HtmlHex,
    QuotedPrintable,
    DecimalList,
    CArray,
    Gzip,
    Zlib,
    Utf16Le,
    Utf16Be,
    FullWidth,
    Reversed,
];

impl Encoding {
    fn encode(self, text: &[u8]) -> Vec<u8> {
        let each = |format: &dyn Fn(&mut String, u8)| {
            let mut all = String::new();
            text.iter().for_each(|byte| format(&mut all, *byte));
            all.into_bytes()
        };
        let listed = |separator: &str, format: &dyn Fn(u8) -> String| {
            text.iter()
                .map(|byte| format(*byte))
                .collect::<Vec<_>>()
                .join(separator)
                .into_bytes()
        };
        let wrapped = |columns: usize, end: &str| {
            let digits = STANDARD.encode(text);
            let lines: Vec<&[u8]> = digits.as_bytes().chunks(columns).collect();
            lines.join(end.as_bytes())
        };
        match self {
            Base64 => STANDARD.encode(text).into(),
            Base64Url => URL_SAFE_NO_PAD.encode(text).into(),
            Base64UrlPadded => URL_SAFE.encode(text).into(),
            Base64Wrapped64 => wrapped(64, "\n"),
            Base64Wrapped76 => wrapped(76, "\r\n"),
            Base64WrappedInJson => wrapped(64, "\\n"),
            Base32 => BASE32.encode(text).into(),
            Hex => HEXLOWER.encode(text).into(),
            HexUpper => HEXUPPER.encode(text).into(),
            HexColons => listed(":", &|byte| format!("{byte:02x}")),
            Percent => each(&|all, byte| write!(all, "%{byte:02X}").unwrap()),
            Json => each(&|all, byte| write!(all, "\\u{byte:04x}").unwrap()),
            JsonInJson => each(&|all, byte| write!(all, "\\\\u{byte:04x}").unwrap()),
            HtmlDecimal => each(&|all, byte| write!(all, "&#{byte};").unwrap()),
            HtmlHex => each(&|all, byte| write!(all, "&#x{byte:x};").unwrap()),
            QuotedPrintable => each(&|all, byte| write!(all, "={byte:02X}").unwrap()),
            DecimalList => listed(", ", &|byte| byte.to_string()),
            CArray => listed(", ", &|byte| format!("0x{byte:02x}")),
            Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
            Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
            Utf16Le => text.iter().flat_map(|byte| [*byte, 0]).collect(),
            Utf16Be => text.iter().flat_map(|byte| [0, *byte]).collect(),
            FullWidth => {
                let wide = |byte: &u8| match byte {
                    b'!'..=b'~' => char::from_u32(u32::from(*byte) - 0x21 + 0xFF01).unwrap(),
                    _ => char::from(*byte),
                };
                text.iter().map(wide).collect::<String>().into()
            }
            Reversed => text.iter().rev().copied().collect(),
        }
    }

    fn kind(self) -> Kind {
        match self {
            Gzip | Zlib => Kind::Packed,
            // Full-width forms are three bytes each, none of which is ASCII.
            Utf16Le | Utf16Be | FullWidth => Kind::Wide,
            _ => Kind::Text,
        }
    }

    /// Whether this may be written around `inner`. `None` is the credential itself.
    fn takes(self, inner: Option<Encoding>) -> bool {
        let Some(inner) = inner else {
            return true;
        };
        // Look-alikes are put into ASCII a word at a time, and what has gaps is not one word.
        if self == FullWidth
            && matches!(
                inner,
                DecimalList | CArray | Base64Wrapped64 | Base64Wrapped76
            )
        {
            return false;
        }
        match (self, inner.kind()) {
            // Only what is itself is reversed: a reader that tries every text backwards reads everything twice.
            (Reversed, _) => false,
            // These write characters, not bytes: a character above U+007F becomes two bytes for their reader.
            (Json | JsonInJson | HtmlDecimal | HtmlHex | FullWidth | Utf16Le | Utf16Be, kind) => {
                kind == Kind::Text
            }
            // Compression without a magic number is only looked for where it surely begins: under digits, or alone.
            (Percent | QuotedPrintable | HexColons | DecimalList | CArray, Kind::Packed) => {
                inner != Zlib
            }
            _ => true,
        }
    }

    /// Whether text may stand before what is encoded.
    fn has_context(self) -> bool {
        // Zlib has no magic number, so it is only looked for at the beginning of a text.
        self != Zlib
    }
}

/// What stands around a credential or an encoding of one: `(before, after)`. Digits of an encoding end where these begin.
const AROUND: &[(&str, &str)] = &[
    ("", ""),
    ("{\"data\": \"", "\"}"),
    ("key = ", "\n"),
    ("Here it is: ", ", thanks."),
    ("a,b;", ";c"),
    ("(", ")"),
];

/// A row whose shape is a prefix of four characters or more, and a class without an end.
#[derive(Debug)]
struct Strong {
    id: &'static str,
    prefix: &'static str,
    alphabet: Vec<u8>,
    least: usize,
}

static STRONG: LazyLock<Vec<Strong>> = LazyLock::new(|| {
    TOKEN_RULES
        .iter()
        .filter(|rule| !rule.generic)
        .filter_map(|rule| {
            let (prefix, rest) = rule.shape.split_once('[')?;
            let (class, rest) = rest.split_once(']')?;
            let least = rest.strip_prefix('{')?.strip_suffix(",}")?.parse().ok()?;
            let plain = prefix
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
            // Shorter ones with a digit or two too few are found as well, but not in the midst of base64.
            let telling = plain && prefix.len() >= 4 && prefix.contains(['_', '-']) && least >= 16;
            telling.then(|| Strong {
                id: rule.id.0,
                prefix,
                alphabet: alphabet(class),
                least,
            })
        })
        .collect()
});

fn alphabet(class: &str) -> Vec<u8> {
    let bytes = class.as_bytes();
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes.get(at + 1) == Some(&b'-') && at + 2 < bytes.len() {
            all.extend(bytes[at]..=bytes[at + 2]);
            at += 3;
        } else {
            all.push(bytes[at]);
            at += 1;
        }
    }
    // Ciphers are looked for in runs of these alone, which is what the bodies of nearly all tokens are.
    all.retain(|byte| byte.is_ascii_alphanumeric() || b"_-+/".contains(byte));
    all
}

impl Strong {
    fn token(&self, seed: &[u8]) -> Vec<u8> {
        let length = self.least.max(20);
        let body =
            seed.iter().cycle().zip(0..length).map(|(seed, at)| {
                self.alphabet[(usize::from(*seed) + at * at) % self.alphabet.len()]
            });
        self.prefix.bytes().chain(body).collect()
    }
}

/// A text in encodings, the innermost first, with something around each layer.
#[derive(Clone, Debug)]
struct Nested {
    layers: Vec<(Encoding, usize)>,
    around: usize,
}

impl Nested {
    fn write(&self, credential: &[u8]) -> Vec<u8> {
        let mut text = credential.to_vec();
        let mut inner: Option<Encoding> = None;
        for (encoding, around) in &self.layers {
            // What is reversed is the credential alone.
            if *encoding != Reversed {
                text = surrounded(&text, *around, inner);
            }
            text = encoding.encode(&text);
            inner = Some(*encoding);
        }
        surrounded(&text, self.around, inner)
    }

    fn is_possible(&self) -> bool {
        let mut inner = None;
        self.layers.iter().all(|(encoding, _)| {
            let takes = encoding.takes(inner);
            inner = Some(*encoding);
            takes
        })
    }

    fn name(&self) -> String {
        self.layers
            .iter()
            .rev()
            .map(|(encoding, _)| format!("{encoding:?}"))
            .collect::<Vec<_>>()
            .join(" of ")
    }
}

fn surrounded(text: &[u8], around: usize, inner: Option<Encoding>) -> Vec<u8> {
    let (before, after) = AROUND[around];
    let before = match inner {
        Some(inner) if !inner.has_context() => "",
        // Under digits only a beginning tells compressed data.
        Some(Gzip) => "",
        _ => before,
    };
    [before.as_bytes(), text, after.as_bytes()].concat()
}

fn nested() -> impl Strategy<Value = Nested> {
    let layer = (prop::sample::select(ALL), 0..AROUND.len());
    (prop::collection::vec(layer, 1..=3), 0..AROUND.len())
        .prop_map(|(layers, around)| Nested { layers, around })
        .prop_filter("a nesting that nobody can read", Nested::is_possible)
}

static TOKENS: LazyLock<Scanner> =
    LazyLock::new(|| Scanner::builder().token_patterns(true).build().unwrap());

fn is_found(found: &[Finding], rule: &str) -> bool {
    found.iter().any(|finding| {
        finding.rule.0 == rule
            || rule != "known-secret"
                && TOKEN_RULES
                    .iter()
                    .any(|row| row.id == finding.rule && !row.generic)
    })
}

fn knowing(secret: &str) -> Scanner {
    let secret = KnownSecret::new("EGRESS_TOKEN_X", secret.as_bytes()).unwrap();
    Scanner::builder()
        .known_secrets(vec![secret])
        .build()
        .unwrap()
}

/// Every pair of encodings, so that what fails is told at once and by name.
#[test]
fn every_pair_of_encodings_is_seen_through() {
    let secret = "7f3kQ9zLmXw2vBn-Hc5dRt8"; // gitleaks:allow
    let knowing = knowing(secret);
    // GitHub's have an alternative in the prefix; they stand for all of those.
    let mut tokens: Vec<(&str, Vec<u8>)> = STRONG
        .iter()
        .step_by(STRONG.len().div_ceil(12))
        .map(|strong| (strong.id, strong.token(b"3KqWz81mRtYxLp0vBn")))
        .collect();
    tokens.push((
        "github-token-classic",
        b"ghp_3KqWz81mRtYxLp0vBnHc5dRt8sQe7UaJ2oXi".to_vec(),
    ));
    let mut failures: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut count = 0;
    for outer in ALL.iter().copied().map(Some).chain([None]) {
        for inner in ALL.iter().copied() {
            for around in 0..AROUND.len() {
                let layers: Vec<(Encoding, usize)> = [(inner, around)]
                    .into_iter()
                    .chain(outer.map(|outer| (outer, (around + 1) % AROUND.len())))
                    .collect();
                let nested = Nested { layers, around };
                if !nested.is_possible() {
                    continue;
                }
                let input = nested.write(secret.as_bytes());
                count += 1;
                if !is_found(&knowing.scan(&Location::Body, &input), "known-secret") {
                    failures
                        .entry(nested.name())
                        .or_default()
                        .push(format!("known secret, around {around}"));
                }
                for (id, token) in &tokens {
                    let input = nested.write(token);
                    count += 1;
                    if !is_found(&TOKENS.scan(&Location::Body, &input), id) {
                        failures
                            .entry(nested.name())
                            .or_default()
                            .push(format!("{id}, around {around}"));
                    }
                }
            }
        }
    }
    fixtures::tell!(
        "round trips: {} strong rules, {count} texts in one or two encodings",
        STRONG.len()
    );
    let lines: Vec<String> = failures
        .iter()
        .map(|(name, of)| format!("{name}: {} of them, such as {}", of.len(), of[0]))
        .collect();
    assert!(
        lines.is_empty(),
        "{} nestings\n{}",
        lines.len(),
        lines.join("\n")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_token_is_found(
        strong in any::<prop::sample::Index>(),
        seed in prop::collection::vec(any::<u8>(), 40),
        nested in nested(),
        padding in prop_oneof![4 => Just(0_usize), 1 => BLOCK - 600..BLOCK + 10],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let strong = strong.get(&STRONG);
        let token = strong.token(&seed);
        check(&TOKENS, strong.id, &token, &nested, padding, &cuts)?;
    }

    #[test]
    fn a_known_secret_is_found(
        secret in "[A-Za-z0-9]{15}[A-Za-z0-9_.~/+=!-]{5,45}",
        nested in nested(),
        padding in prop_oneof![4 => Just(0_usize), 1 => BLOCK - 600..BLOCK + 10],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        check(&knowing(&secret), "known-secret", secret.as_bytes(), &nested, padding, &cuts)?;
    }
}

fn check(
    scanner: &Scanner,
    rule: &str,
    credential: &[u8],
    nested: &Nested,
    padding: usize,
    cuts: &[prop::sample::Index],
) -> Result<(), TestCaseError> {
    let mut input = nested.write(credential);
    // Zlib without anything before it cannot be moved.
    if nested
        .layers
        .last()
        .is_none_or(|(outermost, _)| outermost.has_context())
    {
        input.splice(0..0, vec![b' '; padding]);
    }
    let whole = scanner.scan(&Location::Body, &input);
    prop_assert!(
        is_found(&whole, rule),
        "{rule} as {}, {whole:?}: {} in {}",
        nested.name(),
        credential.escape_ascii(),
        input.trim_ascii_start().escape_ascii()
    );
    for finding in &whole {
        prop_assert!(
            finding.span.start < finding.span.end && finding.span.end <= input.len() as u64
        );
    }
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    cuts.sort_unstable();
    prop_assert_eq!(scan_cut(scanner, &input, cuts), whole);
    Ok(())
}
