//! Rules of the user's own, from a file.

use std::collections::HashSet;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::{ShapeError, TokenEngine, anchors::Anchor, shape};
use crate::finding::{Location, RuleId, Severity};
use crate::scanner::Scanner;

/// Rules in one file, at most: each costs time at every start.
const MAX_RULES: usize = 500;

/// Rules that a user adds to the table.
///
/// The file is TOML: `[[rule]]` tables with `id`, `credential`, `shape`, at least one example under `positive` (the whole
/// text is one credential) and one under `negative` (the rule finds nothing), and optionally `source` and
/// `severity` (`"block"`, which is the default, or `"warn"`). The examples are tried when the file is read.
#[derive(Clone, Debug, Default)]
pub struct UserRules {
    rules: Vec<UserRule>,
}

#[derive(Clone, Debug)]
pub(crate) struct UserRule {
    pub(crate) id: RuleId,
    pub(crate) credential: Box<str>,
    pub(crate) shape: Box<str>,
    pub(crate) severity: Severity,
}

/// Why a file of rules is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct UserRulesError {
    /// Counted from one.
    pub line: usize,
    pub reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    #[error("{0}")]
    Syntax(Box<str>),
    #[error("more than {MAX_RULES} rules")]
    TooMany,
    #[error("an id is 2 to 64 of a-z, 0-9 and `-`, and begins with a letter: `{0}` is not")]
    Id(Box<str>),
    #[error("two rules are called `{0}`")]
    Twice(Box<str>),
    #[error("`{0}` is the id of a rule that is built in")]
    BuiltIn(Box<str>),
    #[error("the rule `{0}` has no {1} example: add at least one")]
    NoExample(Box<str>, &'static str),
    #[error("the shape of `{0}` is refused: {1}")]
    Shape(Box<str>, ShapeError),
    #[error(
        "positive example {1} of `{0}` is not matched by its shape from the first to the last character"
    )]
    Missed(Box<str>, usize),
    #[error("negative example {1} of `{0}` is matched by its shape")]
    Matched(Box<str>, usize),
    #[error("`credential` of `{0}` is empty or has control characters")]
    Credential(Box<str>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Spanned<Row>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: Spanned<String>,
    credential: Spanned<String>,
    shape: Spanned<String>,
    #[serde(default)]
    severity: Level,
    #[serde(default)]
    #[expect(dead_code, reason = "for whoever reads the file")]
    source: String,
    #[serde(default)]
    positive: Vec<Spanned<String>>,
    #[serde(default)]
    negative: Vec<Spanned<String>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    #[default]
    Block,
    Warn,
}

impl UserRules {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, UserRulesError> {
        let at = |span: Range<usize>, reason: Reason| UserRulesError {
            line: 1 + text
                .bytes()
                .take(span.start)
                .filter(|byte| *byte == b'\n')
                .count(),
            reason,
        };
        let file: File = toml::from_str(text).map_err(|error| {
            at(
                error.span().unwrap_or_default(),
                Reason::Syntax(error.message().into()),
            )
        })?;
        let mut rules: Vec<UserRule> = Vec::new();
        let mut ids: HashSet<String> = HashSet::new();
        for row in file.rule {
            let whole = row.span();
            let row = row.into_inner();
            let id: Box<str> = row.id.get_ref().as_str().into();
            if rules.len() == MAX_RULES {
                return Err(at(whole, Reason::TooMany));
            }
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if !(2..=64).contains(&id.len())
                || !id.bytes().all(plain)
                || !id.starts_with(|c: char| c.is_ascii_lowercase())
            {
                return Err(at(row.id.span(), Reason::Id(id)));
            }
            if super::TOKEN_RULES.iter().any(|rule| rule.id.0 == &*id) {
                return Err(at(row.id.span(), Reason::BuiltIn(id)));
            }
            if !ids.insert(id.to_string()) {
                return Err(at(row.id.span(), Reason::Twice(id)));
            }
            let credential = row.credential.get_ref();
            if credential.is_empty()
                || credential.len() > 200
                || credential.chars().any(char::is_control)
            {
                return Err(at(row.credential.span(), Reason::Credential(id)));
            }
            for (examples, kind) in [(&row.positive, "positive"), (&row.negative, "negative")] {
                if examples.is_empty() {
                    return Err(at(whole, Reason::NoExample(id, kind)));
                }
            }
            let refused = |error| at(row.shape.span(), Reason::Shape(id.clone(), error));
            for way in shape::parse(row.shape.get_ref()).map_err(refused)? {
                Anchor::of(&way).map_err(refused)?;
            }
            let rule = UserRule {
                // A rule lives as long as the process: a file is read once.
                id: RuleId(Box::leak(id.clone())),
                credential: credential.as_str().into(),
                shape: row.shape.get_ref().as_str().into(),
                severity: match row.severity {
                    Level::Block => Severity::Block,
                    Level::Warn => Severity::Warn,
                },
            };
            let alone = Self {
                rules: vec![rule.clone()],
            };
            let engine = TokenEngine::new(false, &alone).map_err(|(_, error)| refused(error))?;
            let scanner = Scanner::of_tokens(engine);
            for (number, example) in (1..).zip(&row.positive) {
                let text = example.get_ref();
                let found = scanner.scan(&Location::Body, text.as_bytes());
                if !found
                    .iter()
                    .any(|found| found.span == (0..text.len() as u64) && found.via.is_empty())
                {
                    return Err(at(example.span(), Reason::Missed(id, number)));
                }
            }
            for (number, example) in (1..).zip(&row.negative) {
                if !scanner
                    .scan(&Location::Body, example.get_ref().as_bytes())
                    .is_empty()
                {
                    return Err(at(example.span(), Reason::Matched(id, number)));
                }
            }
            rules.push(rule);
        }
        Ok(Self { rules })
    }

    pub(crate) fn rules(&self) -> &[UserRule] {
        &self.rules
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[rule]]\nid = \"acme-key\"\ncredential = \"Acme key\"\nshape = 'acme_[a-z0-9]{20,}'\npositive = [\"acme_aaaaaaaaaaaaaaaaaaaa\"]\nnegative = [\"acme_short\"]\n";

    #[test]
    fn a_good_file_finds() {
        let rules = UserRules::parse(GOOD).unwrap();
        assert_eq!(rules.len(), 1);
        let scanner = Scanner::builder()
            .token_patterns(true)
            .user_rules(rules)
            .build()
            .unwrap();
        let found = scanner.scan(&Location::Body, b"x=acme_bbbbbbbbbbbbbbbbbbbbbb;");
        assert_eq!(
            (found.len(), found[0].rule.0, found[0].span.clone()),
            (1, "acme-key", 2..29)
        );
        assert!(UserRules::parse("").unwrap().is_empty());
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line() {
        for (from, to, line, reason) in [
            ("acme-key", "Acme", 2, "an id is"),
            ("acme-key", "aws-access-key", 2, "built in"),
            (
                "credential = \"Acme key\"",
                "credential = \"\"",
                3,
                "`credential`",
            ),
            ("{20,}", "{20,", 4, "shape of `acme-key` is refused"),
            ("acme_[a-z0-9]{20,}", "[a-z0-9]{20}", 4, "no stretch"),
            ("acme_[a-z0-9]{20,}", "^acme_", 4, "only `\\b`"),
            (
                "positive = [\"acme_aaaaaaaaaaaaaaaaaaaa\"]\n",
                "",
                1,
                "no positive example",
            ),
            (
                "acme_aaaaaaaaaaaaaaaaaaaa",
                "acme_aaaa",
                5,
                "positive example 1",
            ),
            (
                "acme_short",
                "acme_bbbbbbbbbbbbbbbbbbbbb",
                6,
                "negative example 1",
            ),
            ("negative", "negativ", 6, "unknown field"),
            ("shape = ", "shape ", 4, ""),
        ] {
            let error = UserRules::parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(
                error.line == line && error.to_string().contains(reason),
                "{from} -> {to}: {error}"
            );
        }
        let error = UserRules::parse(&GOOD.repeat(2)).unwrap_err();
        assert_eq!(
            (error.line, error.reason),
            (8, Reason::Twice("acme-key".into()))
        );
    }
}
