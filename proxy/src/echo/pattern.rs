//! One way in which a credential can be written, and where it stands.
//!
//! A pattern is a row of symbols: the characters of the credential itself, of its hex, of its base64. Each symbol can
//! be written plainly or escaped as URLs, JSON and HTML escape it, each on its own, so that no mixture has to be listed.

/// A character, in the one or two forms that mean the same (`a` and `A` of hex, `+` and `-` of base64).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Symbol([u8; 2]);

impl Symbol {
    pub(super) fn one(byte: u8) -> Self {
        Self([byte, byte])
    }

    pub(super) fn either(one: u8, other: u8) -> Self {
        Self([one, other])
    }

    pub(super) fn forms(self) -> [u8; 2] {
        self.0
    }
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    No,
    /// The input ends in the midst of it, after so many symbols.
    Begun(usize),
    /// All of it, in so many bytes.
    Whole(usize),
}

/// What stands for a symbol at the front of an input: the bytes that each reading takes.
#[derive(Default)]
struct Readings {
    lengths: [usize; 4],
    count: usize,
    cut: bool,
}

impl Readings {
    fn add(&mut self, length: usize) {
        if let Some(slot) = self.lengths.get_mut(self.count) {
            *slot = length;
            self.count += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.lengths.iter().copied().take(self.count)
    }
}

const NAMED: [(u8, &[u8]); 8] = [
    (b'&', b"&amp;"),
    (b'<', b"&lt;"),
    (b'>', b"&gt;"),
    (b'"', b"&quot;"),
    (b'"', b"&#34;"),
    (b'\'', b"&#39;"),
    (b'\'', b"&#x27;"),
    (b'\'', b"&apos;"),
];

fn readings(symbol: Symbol, input: &[u8]) -> Readings {
    let mut found = Readings::default();
    let [one, other] = symbol.forms();
    let Some(first) = input.first().copied() else {
        found.cut = true;
        return found;
    };
    if first == one || first == other {
        found.add(1);
    }
    match first {
        b'%' => escaped(&mut found, input, b"%", one, other),
        b'\\' => {
            match input.get(1).copied() {
                None => found.cut = true,
                // `\"`, `\\`, `\/`.
                Some(next) if next == one || next == other => found.add(2),
                Some(_) => {}
            }
            escaped(&mut found, input, b"\\u00", one, other);
        }
        b'&' => {
            for (_, name) in NAMED.iter().filter(|(byte, _)| *byte == one) {
                if input.starts_with(name) {
                    found.add(name.len());
                } else if name.starts_with(input) {
                    found.cut = true;
                }
            }
        }
        _ => {}
    }
    found
}

/// `%2f`, `\u002F`: a prefix and two hex digits of either case.
fn escaped(found: &mut Readings, input: &[u8], prefix: &[u8], one: u8, other: u8) {
    let length = prefix.len() + 2;
    let shown = input.get(..length.min(input.len())).unwrap_or_default();
    let fits = |byte: u8| {
        let digit = |half: u8| b"0123456789abcdef".get(usize::from(half)).copied();
        let digits = [digit(byte >> 4), digit(byte & 15)];
        let whole = prefix.iter().copied().map(Some).chain(digits);
        shown
            .iter()
            .zip(whole)
            .all(|(own, expected)| expected.is_some_and(|byte| own.eq_ignore_ascii_case(&byte)))
    };
    if fits(one) || fits(other) {
        if shown.len() == length {
            found.add(length);
        } else {
            found.cut = true;
        }
    }
}

pub(super) struct Pattern {
    symbols: Vec<Symbol>,
}

impl Pattern {
    pub(super) fn new(symbols: Vec<Symbol>) -> Self {
        Self { symbols }
    }

    pub(super) fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }

    pub(super) fn at(&self, input: &[u8]) -> Match {
        let mut place = 0;
        for (done, symbol) in self.symbols.iter().enumerate() {
            let found = readings(*symbol, input.get(place..).unwrap_or_default());
            match (found.count, found.cut) {
                (0, false) => return Match::No,
                (0, true) => return Match::Begun(done),
                (1, false) => place += found.iter().sum::<usize>(),
                _ => return self.in_every_reading(done, place, input),
            }
        }
        Match::Whole(place)
    }

    /// All readings at once, from a symbol on that has several: there are few at any time, and they cannot multiply, for
    /// those that stand at the same byte are one.
    fn in_every_reading(&self, from: usize, place: usize, input: &[u8]) -> Match {
        let mut places = vec![place];
        let mut next = Vec::new();
        let mut begun = None;
        for (done, symbol) in self.symbols.iter().enumerate().skip(from) {
            next.clear();
            for place in &places {
                let rest = input.get(*place..).unwrap_or_default();
                let found = readings(*symbol, rest);
                if found.cut {
                    begun = Some(done);
                }
                next.extend(found.iter().map(|length| place + length));
            }
            next.sort_unstable();
            next.dedup();
            std::mem::swap(&mut places, &mut next);
            if places.is_empty() {
                return begun.map_or(Match::No, Match::Begun);
            }
        }
        places.last().map_or(Match::No, |end| Match::Whole(*end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text.bytes().map(Symbol::one).collect())
    }

    #[test]
    fn every_writing_of_every_character() {
        let pattern = pattern("a/\"\\&b");
        for text in [
            "a/\"\\&b",
            "a%2f%22%5c%26b",
            "%61%2F%22%5C%26%62",
            "a\\/\\\"\\\\&b",
            "\\u0061\\u002f\\u0022\\u005C\\u0026\\u0062",
            "a/&quot;\\&amp;b",
            "a%2F\\\"%5c&amp;\\u0062",
        ] {
            assert_eq!(
                pattern.at(text.as_bytes()),
                Match::Whole(text.len()),
                "{text}"
            );
            let more = format!("{text}tail");
            assert_eq!(
                pattern.at(more.as_bytes()),
                Match::Whole(text.len()),
                "{text}"
            );
            for cut in 0..text.len() {
                let found = pattern.at(&text.as_bytes()[..cut]);
                assert!(
                    matches!(found, Match::Begun(_)),
                    "{text} cut at {cut}: {found:?}"
                );
            }
        }
        for text in ["b", "a%2", "a%3f", "a\\u012f"] {
            let more = format!("{text}zzzzzzzz");
            assert_eq!(pattern.at(more.as_bytes()), Match::No, "{text}");
        }
    }

    #[test]
    fn readings_do_not_multiply() {
        let pattern = pattern(&"\\".repeat(200));
        assert_eq!(pattern.at("\\".repeat(200).as_bytes()), Match::Whole(200));
        assert_eq!(pattern.at("\\".repeat(400).as_bytes()), Match::Whole(400));
        assert!(matches!(
            pattern.at("\\".repeat(199).as_bytes()),
            Match::Begun(_)
        ));
    }
}
