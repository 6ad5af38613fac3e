//! A credential is planted at a random place of a random document, in a random writing, and taken out again: what is left
//! is read by a reader that is not our own, has the shape that it had, and holds nothing of the credential.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers: a broken one must stop the test"
)]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use detectors::{Document, Finding, Format, KnownSecret, Location, Scanner, Severity};
use proptest::prelude::*;
use serde_json::Value;

const TOKEN: &str = "ghp_3KqWz81mRtYxLp0vBnHc5dRt8sQe7UaJ2oXi"; // gitleaks:allow
// No digit that an escape before it could take for its own.
const KNOWN: &str = "zK7f3kQ9zLmXw2vBn-Hc5dRt8"; // gitleaks:allow

static SCANNER: LazyLock<Scanner> = LazyLock::new(|| {
    Scanner::builder()
        .token_patterns(true)
        .known_secrets(vec![
            KnownSecret::new("EGRESS_TOKEN_X", KNOWN.as_bytes()).unwrap(),
        ])
        .build()
        .unwrap()
});

/// How a credential stands in a JSON document.
#[derive(Clone, Copy, Debug)]
enum Writing {
    Plain,
    Escaped,
    HalfEscaped,
    Base64,
    Hex,
    Percent,
    Pieces,
    Numbers,
    Key,
}

use Writing::*;

/// A literal that stands for it.
impl Writing {
    fn json(self, credential: &str, around: &(String, String)) -> String {
        let (before, after) = (escape(&around.0), escape(&around.1));
        let escaped = |every: usize| -> String {
            credential
                .bytes()
                .enumerate()
                .map(|(at, byte)| match at % every {
                    0 => format!("\\u{byte:04X}"),
                    _ => char::from(byte).to_string(),
                })
                .collect()
        };
        let each =
            |format: &dyn Fn(u8) -> String| -> String { credential.bytes().map(format).collect() };
        let inside = match self {
            Plain | Key => credential.to_owned(),
            Escaped => escaped(1),
            HalfEscaped => escaped(3),
            Base64 => BASE64_STANDARD.encode(credential),
            Hex => each(&|byte| format!("{byte:02x}")),
            Percent => each(&|byte| format!("%{byte:02X}")),
            Pieces => {
                let pieces: Vec<String> = credential
                    .as_bytes()
                    .chunks(9)
                    .map(|piece| format!("\"{}\"", std::str::from_utf8(piece).unwrap()))
                    .collect();
                return format!("[{}]", pieces.join(", "));
            }
            Numbers => {
                let numbers: Vec<String> =
                    credential.bytes().map(|byte| byte.to_string()).collect();
                return format!("[{}]", numbers.join(","));
            }
        };
        match self {
            Key => format!("{{\"{inside}\":1}}"),
            _ => format!("\"{before} {inside} {after}\""),
        }
    }
}

fn escape(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    quoted[1..quoted.len() - 1].to_owned()
}

/// What `PLANT` stands for is put in for it.
const PLANT: &str = "@plant@";

/// Documents with one or two places for a credential.
fn document() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-z ,.]{0,12}",
        "[a-z\"\\\\/\n\u{e9}\u{1f600}\u{4e2d}]{0,8}"
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1000_i64..1000).prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let nested = leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z/~\"\u{e9}]{1,6}", inner, 0..6)
                .prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    });
    (
        nested.clone(),
        prop::collection::vec(nested, 0..4),
        any::<bool>(),
    )
        .prop_map(|(first, rest, is_object)| {
            let mut all = vec![Value::from(PLANT), first];
            all.extend(rest);
            let half = all.len() / 2;
            all.rotate_left(half);
            if is_object {
                let members = all.into_iter().enumerate();
                members
                    .map(|(at, value)| (format!("member{at}"), value))
                    .collect()
            } else {
                Value::from(all)
            }
        })
}

fn writing() -> impl Strategy<Value = Writing> {
    prop::sample::select(vec![
        Plain,
        Escaped,
        HalfEscaped,
        Base64,
        Hex,
        Percent,
        Pieces,
        Numbers,
        Key,
    ])
}

/// Both are objects with as many members, arrays with as many elements, or leaves of one kind.
fn same_shape(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            // A name may have been replaced, which moves it in the order, but never lost.
            a.len() == b.len()
                && a.iter().all(|(name, value)| match b.get(name) {
                    Some(other) => same_shape(value, other),
                    None => b
                        .iter()
                        .any(|(name, other)| name.contains("********") && same_shape(value, other)),
                })
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_shape(a, b))
        }
        (Value::Null, Value::Null)
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        _ => false,
    }
}

/// Where the pointer leads in the document, `*` where a name is hidden.
fn follow<'v>(value: &'v Value, pointer: &str) -> Option<&'v Value> {
    if !pointer.contains("********") {
        return value.pointer(pointer);
    }
    // The parent of what is hidden is enough.
    let (parent, _) = pointer.split_once("/********")?;
    value.pointer(parent)
}

fn redact(format: &Format, input: &[u8]) -> (Vec<Finding>, Vec<u8>) {
    let mut found = SCANNER.scan(&Location::Body, input);
    let extent = SCANNER.extent(&Location::Body, input, &found);
    let document = Document::new(format, input);
    document.locate(&SCANNER, &mut found);
    (found, document.redact(&extent).unwrap())
}

fn is_clean(input: &[u8]) -> bool {
    let left = SCANNER.scan(&Location::Body, input);
    !left
        .iter()
        .any(|finding| finding.severity == Severity::Block)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn json_is_redacted_in_place(
        document in document(),
        writing in writing(),
        known in any::<bool>(),
        around in ("[a-z ,.\n\"\u{e9}]{0,8}", "[a-z ,.\n\"\u{1f600}]{0,8}"),
        pretty in any::<bool>(),
    ) {
        let credential = if known { KNOWN } else { TOKEN };
        let written = if pretty {
            serde_json::to_string_pretty(&document).unwrap()
        } else {
            document.to_string()
        };
        let literal = writing.json(credential, &around);
        let input = written.replace(&format!("\"{PLANT}\""), &literal);
        let before: Value = serde_json::from_str(&input).unwrap();
        let (found, clean) = redact(&Format::Unknown, input.as_bytes());
        prop_assert!(!found.is_empty(), "{writing:?} is not found in {input}");
        let text = String::from_utf8(clean.clone()).unwrap();
        let after: Value = match serde_json::from_slice(&clean) {
            Ok(after) => after,
            Err(error) => panic!("{error}: {input} became {text}"),
        };
        prop_assert!(same_shape(&before, &after), "{input} became {text}");
        prop_assert!(is_clean(&clean), "{writing:?}: {input} became {text}");
        prop_assert!(!text.contains(&credential[5..]));
        for finding in &found {
            let place = finding.location.to_string();
            let pointer = place.strip_prefix("body at ").unwrap_or_default();
            prop_assert!(!place.contains(&credential[..8]) && !place.contains(&credential[8..]));
            // Names that are escaped for people are not to be followed.
            if pointer.is_ascii() && !pointer.contains('\\') {
                let value = follow(&before, pointer);
                prop_assert!(value.is_some(), "{place} in {input}");
                // It is in there, in full.
                let inside = value.unwrap().to_string();
                let whole = serde_json::from_str::<Value>(&literal).unwrap().to_string();
                prop_assert!(inside.contains(&whole) || whole.contains(&inside), "{place} in {input}");
            }
        }
    }

    #[test]
    fn a_form_is_redacted_in_place(
        fields in prop::collection::vec(("[a-z]{1,6}", "[a-z ,é&=%+]{0,10}"), 0..5),
        at in any::<prop::sample::Index>(),
        every in 1..4_usize,
        in_name in any::<bool>(),
        known in any::<bool>(),
    ) {
        let credential = if known { KNOWN } else { TOKEN };
        let percent = |text: &str, every: usize| -> String {
            text.bytes()
                .enumerate()
                .map(|(at, byte)| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' if every == 0 || at % every != 0 => char::from(byte).to_string(),
                    _ => format!("%{byte:02X}"),
                })
                .collect()
        };
        let mut pairs: Vec<(String, String)> = fields
            .iter()
            .map(|(name, value)| (name.clone(), percent(value, 0)))
            .collect();
        let at = at.index(pairs.len() + 1);
        let hidden = percent(credential, every);
        pairs.insert(at, if in_name { (hidden, "1".into()) } else { ("planted".into(), hidden) });
        let input = pairs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("&");
        let (found, clean) = redact(&Format::Form, input.as_bytes());
        prop_assert!(!found.is_empty(), "{input}");
        let text = String::from_utf8(clean.clone()).unwrap();
        prop_assert!(is_clean(&clean), "{input} became {text}");
        let after: Vec<(&str, &str)> = text
            .split('&')
            .map(|pair| pair.split_once('=').unwrap())
            .collect();
        prop_assert_eq!(after.len(), pairs.len(), "{} became {}", input, text);
        for (number, ((name, value), (old_name, old_value))) in after.iter().zip(&pairs).enumerate() {
            if number != at {
                prop_assert_eq!((*name, *value), (old_name.as_str(), old_value.as_str()));
            }
            // Every escape is whole.
            for escape in name.split('%').skip(1).chain(value.split('%').skip(1)) {
                prop_assert!(u8::from_str_radix(&escape[..2], 16).is_ok(), "{text}");
            }
        }
        let place = found[0].location.to_string();
        prop_assert_eq!(place, if in_name { "body field ********" } else { "body field planted" });
    }

    #[test]
    fn multipart_is_redacted_in_place(
        contents in prop::collection::vec("[a-z ,é\r\n-]{0,30}", 1..5),
        at in any::<prop::sample::Index>(),
        writing in prop::sample::select(vec![Plain, Base64, Hex, Percent]),
        in_file_name in any::<bool>(),
    ) {
        let boundary = "----WebKitFormBoundaryX7";
        let at = at.index(contents.len());
        let literal = writing.json(TOKEN, &(String::new(), String::new()));
        let hidden = literal.trim_matches('"').trim();
        let mut input = String::new();
        for (number, content) in contents.iter().enumerate() {
            let planted = number == at;
            let file = if planted && in_file_name { hidden } else { "f.txt" };
            let content = if planted && !in_file_name { format!("{content} {hidden} {content}") } else { content.clone() };
            input += &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"part{number}\"; filename=\"{file}\"\r\nContent-Type: text/plain\r\n\r\n{content}\r\n");
        }
        input += &format!("--{boundary}--\r\n");
        let format = Format::of(format!("multipart/form-data; boundary={boundary}").as_bytes());
        let (found, clean) = redact(&format, input.as_bytes());
        prop_assert!(!found.is_empty(), "{input}");
        let text = String::from_utf8(clean.clone()).unwrap();
        prop_assert!(is_clean(&clean), "{text}");
        let shown = if in_file_name { "********" } else { "f.txt" };
        prop_assert_eq!(found[0].location.to_string(), format!("body part part{at}, file {shown}"));
        // All that is syntax is as it was.
        let split = |text: &str| -> Vec<Vec<String>> {
            let delimiter = format!("--{boundary}");
            text.split(&delimiter)
                .map(|part| {
                    let (head, content) = part.split_once("\r\n\r\n").unwrap_or((part, ""));
                    vec![head.to_owned(), content.to_owned()]
                })
                .collect()
        };
        let (before, after) = (split(&input), split(&text));
        prop_assert_eq!(before.len(), after.len(), "{}", text);
        for (number, (old, new)) in before.iter().zip(&after).enumerate() {
            if number != at + 1 {
                prop_assert_eq!(old, new);
                continue;
            }
            let part = format!("name=\"part{at}\"; filename=\"");
            prop_assert!(new[0].contains(&part) && new[0].ends_with("\"\r\nContent-Type: text/plain"), "{}", new[0]);
            prop_assert!(new[1].ends_with("\r\n"), "{text}");
            prop_assert!(new[1].contains("********") || in_file_name, "{text}");
        }
    }

    /// Whatever it is, and whatever is said of it, nothing panics and nothing of a span is left out of account.
    #[test]
    fn no_document_is_too_odd(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "[", "]", "\"", "\\", "\\u", "00", "41", ":", ",", "-", "1", "e", ".", "true", "null", " ",
                "\n", "\r\n", "--x", "--x--", "&", "=", "%", "%4", "\u{e9}", "\u{1f600}", "Content-Disposition: form-data",
                "; name=", "\r\n\r\n", TOKEN, "\u{feff}",
            ]),
            0..40,
        ),
        spans in prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize), 0..6),
        format in prop::sample::select(vec!["", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]),
    ) {
        let input = pieces.concat().into_bytes();
        let format = Format::of(format.as_bytes());
        let document = Document::new(&format, &input);
        let spans: Vec<_> = spans
            .iter()
            .map(|(start, length)| {
                let start = start.index(input.len() + 1);
                start..(start + length).min(input.len())
            })
            .collect();
        let clean = document.redact(&spans);
        let mut found = SCANNER.scan(&Location::Body, &input);
        document.locate(&SCANNER, &mut found);
        for finding in &found {
            prop_assert!(!finding.location.to_string().contains(&TOKEN[..12]));
        }
        if serde_json::from_slice::<Value>(&input).is_ok_and(|value| value.is_object() || value.is_array() || value.is_string()) {
            prop_assert!(serde_json::from_slice::<Value>(&clean.unwrap()).is_ok());
        }
    }
}
