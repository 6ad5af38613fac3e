//! A response that repeats an injected credential is scrubbed before the agent reads it.
//!
//! What is found is replaced by as many asterisks as it had bytes, so that no length and no framing changes. Only what
//! could be the beginning of a credential is held back: an event that holds none passes as it came.

mod pattern;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};

use pattern::{Match, Pattern, Symbol};

/// A row of fewer symbols stands in ordinary text by chance.
const SHORTEST: usize = 8;
/// Where a body ends in the midst of a credential, so many symbols of it are not let through either.
const CUT: usize = 8;

/// Every way in which the injected credentials are looked for; built once for a policy.
#[derive(Clone)]
pub struct Scrubber(Arc<Patterns>);

struct Patterns {
    patterns: Vec<Pattern>,
    /// Which patterns can begin with these two bytes.
    pairs: HashMap<[u8; 2], Vec<usize>>,
    /// Whether any can: most of a text is past here after one look.
    any: Vec<bool>,
    /// Whether a pattern can begin with this byte.
    firsts: [bool; 256],
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").finish_non_exhaustive()
    }
}

impl Scrubber {
    /// `None` where there is nothing to look for.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Option<Self> {
        let patterns: Vec<Pattern> = secrets
            .into_iter()
            .flat_map(writings)
            .filter(|symbols| symbols.len() >= SHORTEST)
            .map(Pattern::new)
            .collect();
        if patterns.is_empty() {
            return None;
        }
        let mut all = Patterns {
            patterns: Vec::new(),
            pairs: HashMap::new(),
            any: vec![false; 1 << 16],
            firsts: [false; 256],
        };
        for (index, pattern) in patterns.iter().enumerate() {
            if let [first, second, ..] = pattern.symbols() {
                all.begin(index, *first, *second);
            }
        }
        all.patterns = patterns;
        Some(Self(Arc::new(all)))
    }

    pub fn stream(&self) -> Stream {
        Stream {
            patterns: Arc::clone(&self.0),
            held: Bytes::new(),
            found: 0,
        }
    }

    /// A whole text; `None` where there is nothing in it.
    pub fn scrub(&self, text: &Bytes) -> Option<Bytes> {
        let mut stream = self.stream();
        let mut clean = BytesMut::from(stream.push(text.clone()));
        clean.extend_from_slice(&stream.finish());
        (stream.found > 0).then(|| clean.freeze())
    }
}

/// The credential itself, its hex, and its base64 wherever it stands in a longer text.
fn writings(secret: &str) -> Vec<Vec<Symbol>> {
    let bytes = secret.as_bytes();
    let mut all = vec![bytes.iter().copied().map(Symbol::one).collect()];
    let hex = bytes.iter().flat_map(|byte| {
        let digit = |half: u8| char::from_digit(u32::from(half), 16).map_or(b'0', |c| c as u8);
        [digit(byte >> 4), digit(byte & 15)]
    });
    all.push(
        hex.map(|digit| Symbol::either(digit, digit.to_ascii_uppercase()))
            .collect(),
    );
    for before in 0..3usize {
        let mut text = vec![0; before];
        text.extend_from_slice(bytes);
        let encoded = BASE64_STANDARD.encode(&text);
        // Characters that other bytes have a share in are not known.
        let (from, to) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
        let known = encoded.as_bytes().get(from..to).unwrap_or_default();
        all.push(
            known
                .iter()
                .map(|byte| match byte {
                    b'+' => Symbol::either(b'+', b'-'),
                    b'/' => Symbol::either(b'/', b'_'),
                    other => Symbol::one(*other),
                })
                .collect(),
        );
    }
    all
}

impl Patterns {
    fn begin(&mut self, index: usize, first: Symbol, second: Symbol) {
        let hex = |half: u8| char::from_digit(u32::from(half), 16).map_or(b'0', |c| c as u8);
        let mut pairs = BTreeSet::new();
        for byte in first.forms() {
            for next in second.forms().into_iter().chain(*b"%\\&") {
                pairs.insert([byte, next]);
            }
            let high = hex(byte >> 4);
            pairs.insert([b'%', high]);
            pairs.insert([b'%', high.to_ascii_uppercase()]);
            for next in [byte, b'u', b'U'] {
                pairs.insert([b'\\', next]);
            }
            if b"&<>\"'".contains(&byte) {
                pairs.extend(b"#algq".map(|next| [b'&', next]));
            }
        }
        for [one, two] in pairs {
            self.pairs.entry([one, two]).or_default().push(index);
            if let Some(slot) = self.any.get_mut(slot(one, two)) {
                *slot = true;
            }
            if let Some(slot) = self.firsts.get_mut(usize::from(one)) {
                *slot = true;
            }
        }
    }

    fn may_begin(&self, pair: &[u8]) -> bool {
        match pair {
            [first, second] => self.any.get(slot(*first, *second)).copied().unwrap_or(true),
            _ => true,
        }
    }

    /// The patterns that may stand at the front of a text; all of them where it is too short to tell.
    fn candidates(&self, first: u8, second: Option<u8>) -> Candidates<'_> {
        match second {
            Some(second) => match self.pairs.get(&[first, second]) {
                Some(list) => Candidates::Some(list),
                None => Candidates::None,
            },
            None if self.firsts.get(usize::from(first)).copied().unwrap_or(true) => Candidates::All,
            None => Candidates::None,
        }
    }

    /// What is to be masked, and from where on it cannot be told yet.
    fn look(&self, text: &[u8], last: bool) -> (Vec<Range<usize>>, usize) {
        let mut masks = Vec::new();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let next = rest.windows(2).position(|pair| self.may_begin(pair));
            // The last byte has no second one to tell.
            let ahead = next.unwrap_or(rest.len() - 1);
            at += ahead;
            let rest = rest.get(ahead..).unwrap_or_default();
            let Some(first) = rest.first().copied() else {
                break;
            };
            let (mut whole, mut begun) = (0, None);
            let mut judge = |pattern: &Pattern| match pattern.at(rest) {
                Match::No => {}
                Match::Begun(symbols) => begun = begun.max(Some(symbols)),
                Match::Whole(length) => whole = whole.max(length),
            };
            match self.candidates(first, rest.get(1).copied()) {
                Candidates::None => {
                    at += 1;
                    continue;
                }
                Candidates::Some(list) => list
                    .iter()
                    .filter_map(|index| self.patterns.get(*index))
                    .for_each(&mut judge),
                Candidates::All => self.patterns.iter().for_each(&mut judge),
            }
            match begun {
                _ if whole > 0 => {
                    masks.push(at..at + whole);
                    at += whole;
                }
                Some(_) if !last => return (masks, at),
                Some(symbols) if symbols >= CUT => {
                    masks.push(at..text.len());
                    at = text.len();
                }
                _ => at += 1,
            }
        }
        (masks, at)
    }
}

enum Candidates<'a> {
    None,
    Some(&'a [usize]),
    All,
}

fn slot(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// A response's body, or any other text that comes in pieces.
pub struct Stream {
    patterns: Arc<Patterns>,
    held: Bytes,
    found: u64,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is held may be the beginning of a credential.
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Stream {
    /// Adds a piece, and returns what may go on; nothing is copied where nothing is found.
    pub fn push(&mut self, data: Bytes) -> Bytes {
        let text = if self.held.is_empty() {
            data
        } else {
            let mut joined = BytesMut::from(std::mem::take(&mut self.held));
            joined.extend_from_slice(&data);
            joined.freeze()
        };
        self.run(text, false)
    }

    /// What was held back, at the end.
    pub fn finish(&mut self) -> Bytes {
        let text = std::mem::take(&mut self.held);
        self.run(text, true)
    }

    /// How often something was found so far.
    pub fn found(&self) -> u64 {
        self.found
    }

    fn run(&mut self, mut text: Bytes, last: bool) -> Bytes {
        let (masks, ready) = self.patterns.look(&text, last);
        self.held = text.split_off(ready.min(text.len()));
        if masks.is_empty() {
            return text;
        }
        self.found += masks.len() as u64;
        let mut clean = BytesMut::from(text);
        for mask in masks {
            if let Some(place) = clean.get_mut(mask) {
                place.fill(b'*');
            }
        }
        clean.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "tok/EN+\"9f3c&8d2e_longer-than-some"; // gitleaks:allow

    fn encodings() -> Vec<(&'static str, String)> {
        let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
        let percent: String = SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url: String = SECRET
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                    c.to_string()
                } else {
                    format!("%{:02x}", c as u32)
                }
            })
            .collect();
        let json = serde_json::to_string(SECRET).unwrap();
        let mut all = vec![
            ("raw", SECRET.to_owned()),
            ("hex", hex.clone()),
            ("HEX", hex.to_uppercase()),
            ("percent", percent),
            ("url", url),
            ("json", json.trim_matches('"').to_owned()),
            ("json/", json.trim_matches('"').replace('/', "\\/")),
        ];
        for before in ["", "a", "ab"] {
            let text = BASE64_STANDARD.encode(format!("{before}{SECRET}~~"));
            all.push(("base64", text.clone()));
            all.push(("base64url", text.replace('+', "-").replace('/', "_")));
        }
        all
    }

    fn scrub(pieces: &[&[u8]]) -> (Vec<u8>, u64) {
        let scrubber = Scrubber::new([SECRET]).unwrap();
        let mut stream = scrubber.stream();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&stream.push(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&stream.finish());
        (out, stream.found())
    }

    /// In every encoding, cut at every place; the length stays.
    #[test]
    fn nothing_of_it_is_left_however_it_is_cut() {
        for (what, written) in encodings() {
            let text = format!("{{\"you sent\":\"{written}\", and}} tok tok/EN");
            for cut in 0..text.len() {
                let (one, two) = text.as_bytes().split_at(cut);
                let (out, found) = scrub(&[one, two]);
                assert_eq!((out.len(), found), (text.len(), 1), "{what} at {cut}");
                let out = String::from_utf8(out).unwrap();
                let middle = written.get(4..written.len() - 4).unwrap();
                assert!(!out.contains(middle), "{what} at {cut}: {out}");
                assert!(
                    out.starts_with("{\"you sent\":\"") && out.ends_with(", and} tok tok/EN"),
                    "{what}: {out}"
                );
            }
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(scrub(&bytes).1, 1, "{what}");
        }
    }

    #[test]
    fn an_event_that_holds_no_beginning_is_not_held() {
        let scrubber = Scrubber::new([SECRET]).unwrap();
        let mut stream = scrubber.stream();
        for event in [
            "data: {\"text\":\"hello token\"}\n\n",
            ":\n\n",
            "data: a%20b\\u00e9 tok\n\n",
        ] {
            assert_eq!(stream.push(Bytes::from_static(event.as_bytes())), event);
        }
        assert_eq!(stream.push(Bytes::from_static(b"data: tok/E")), "data: ");
        assert_eq!(
            stream.push(Bytes::from_static(b"xtra\n\n")),
            "tok/Extra\n\n"
        );
        assert_eq!(stream.found(), 0);
    }

    #[test]
    fn a_body_that_ends_in_the_midst_of_it() {
        let (out, found) = scrub(&[b"begins: tok/EN+\"9f3c"]);
        assert_eq!((out.as_slice(), found), (&b"begins: ************"[..], 1));
        assert_eq!(scrub(&[b"begins: tok/E"]).0, b"begins: tok/E");
    }

    #[test]
    fn what_is_too_short_is_not_looked_for() {
        assert!(Scrubber::new(["ab"]).is_none());
        assert!(Scrubber::new([]).is_none());
    }
}
