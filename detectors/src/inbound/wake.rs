//! What makes the detector look: literals without which no rule can match.

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input};

/// In any case. Each rule needs one of them, unless its words are dressed, which [`DRESSING`] tells.
const WORDS: &[&str] = &[
    "key",
    "token",
    "secret",
    "passw",
    "passphrase",
    "credential",
    "creds",
    "variable",
    " vars",
    "printenv",
    ".env",
    "id_rsa",
    "id_ed25519",
    "prompt",
    "instruction",
    "phrase",
    "cookie",
    "rules",
    "guidelines",
    "directi",
    "commands",
    "programming",
    "constraints",
    "disregard",
    "ignore",
    "forget",
    "you are now",
    "er mode",
    "ug mode",
    "min mode",
    "od mode",
    "an mode",
    "do mode",
    "ak mode",
    "ed mode",
    "ce mode",
    "ot mode",
    " user",
    " human",
    " operator",
    "your new",
    "your real",
    "your true",
    "your only",
    "<|",
    "[inst",
    "<<sys",
    "</tool_",
    "</function_",
    "</system",
    "pretend",
    "act as",
    "restrictions",
    "limitations",
    "filters",
    "guardrails",
    "safeguards",
    "anything now",
    "override",
    "system message",
    "admin message",
    "env |",
    "env|",
    // Openers of places that are long.
    "<!--",
    "]: #",
    "]: <>",
    "style",
    " hidden",
    "\"content\"",
    "\"text\"",
    "output\"",
    "\"std",
    "result\"",
    "\"observation\"",
    "\"response\"",
];

/// Escapes that can spell a letter.
const DRESSING: &[&str] = &[
    "\\u",
    "\\x",
    "&#",
    "&shy;",
    "&zw",
    "&ZeroW",
    "&NoB",
    "</b>",
    "</i>",
    "</u>",
    "</s>",
    "</em>",
    "</strong>",
    "</span>",
    "</a>",
    "</code>",
    "</mark>",
    "a*",
    "e*",
    "i*",
    "o*",
    "*a",
    "*e",
    "*i",
    "*o",
    "</sub>",
    "</sup>",
    "</font>",
    "</small>",
    "</ins>",
    "</del>",
    "<wbr>",
    "<b>",
    "<i>",
    "</tt>",
    "</big>",
];

/// What base64 must hold to be of use: one of these, however its bits lie.
const ENCODED: &[&str] = &[
    "api key",
    "password",
    "secret",
    " token",
    "credential",
    "instructions",
    "system prompt",
    "environment",
    " key",
    "reveal ",
    "previous ",
];

#[derive(Debug)]
pub(super) struct Wake {
    literals: AhoCorasick,
    /// Literals before this one are words; those from it on are ways of writing, which any binary file has by chance.
    telling: usize,
    longest: usize,
}

/// What characters begin with that are invisible, or look like letters of ASCII. Most scripts are none.
fn foreign() -> impl Iterator<Item = Vec<u8>> {
    let alone = (0xC3..=0xD1_u8)
        .chain(0xD4..=0xD7)
        .chain([0xE1])
        .map(|lead| vec![lead]);
    // Of the general punctuation only what is not seen; dashes, quotes and bullets are in all prose.
    let seconds = |lead: u8, seconds: std::ops::RangeInclusive<u8>| {
        seconds.map(move |second| vec![lead, second])
    };
    let thirds = |thirds: std::ops::RangeInclusive<u8>| thirds.map(|third| vec![0xE2, 0x80, third]);
    alone
        .chain([
            vec![0xC2, 0xAD],
            vec![0xE3, 0x85, 0xA4],
            vec![0xF3, 0xA0],
            vec![0xEA, 0x93],
        ])
        .chain(thirds(0x8B..=0x8F))
        .chain(thirds(0xA8..=0xAF))
        .chain(seconds(0xE2, 0x81..=0x85))
        .chain(seconds(0xE2, 0x8D..=0x93))
        .chain(seconds(0xE2, 0xA0..=0xA0))
        .chain(seconds(0xEA, 0x9C..=0x9F))
        .chain(seconds(0xEF, 0xB8..=0xBF))
        .chain(seconds(0xF0, 0x90..=0x9F))
}

/// Bytes before a way of writing that are looked at.
const AROUND: usize = 64;

/// Whether `bytes` are of an image or an archive: nobody reads an order there. What is disguised
/// has more of it, so that rubbish put before the first of it does not help.
fn is_binary(bytes: &[u8]) -> bool {
    let rubbish = |byte: &&u8| matches!(byte, 0..=8 | 11 | 12 | 14..=0x1A | 0x1C..=0x1F | 0x7F | 0xC0 | 0xC1 | 0xF5..);
    bytes.iter().filter(rubbish).count() > 1
}

impl Wake {
    pub(super) fn new() -> Self {
        let mut literals: Vec<Vec<u8>> =
            WORDS.iter().map(|text| text.as_bytes().to_vec()).collect();
        for text in ENCODED {
            literals.extend(super::base64::alignments(text.as_bytes()));
        }
        let telling = literals.len();
        literals.extend(DRESSING.iter().map(|text| text.as_bytes().to_vec()));
        literals.extend(foreign());
        let longest = literals.iter().map(Vec::len).max().unwrap_or(0);
        #[expect(
            clippy::expect_used,
            reason = "the literals are constants, and a test builds them"
        )]
        let literals = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(literals)
            .expect("a small automaton");
        Self {
            literals,
            telling,
            longest,
        }
    }

    /// Where the first literal of `bytes` at or after `from` ends.
    pub(super) fn find(&self, bytes: &[u8], mut from: usize) -> Option<usize> {
        loop {
            let found = self.literals.find(Input::new(bytes).range(from..))?;
            if found.pattern().as_usize() < self.telling {
                return Some(found.end());
            }
            let before = bytes.get(found.start().saturating_sub(AROUND)..found.start());
            if !before.is_some_and(is_binary) {
                return Some(found.end());
            }
            from = found.end();
        }
    }

    pub(super) fn longest(&self) -> usize {
        self.longest
    }
}
