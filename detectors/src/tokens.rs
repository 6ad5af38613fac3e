//! Token rules: one table, one automaton, one pass.
//!
//! A row is the *minimal* shape of a credential: the shortest text that is one. A match is then extended
//! over the row's tail class, so the automaton stays small and a cut cannot change where a match begins.
//! Shape alone decides. Entropy, stop words and checksums would each give an agent a way to dress a
//! token up as a sample, and an operator's own token may look like one (`AKIAIOSFODNN7EXAMPLE` blocks).
//!
//! No shape asks for a word boundary on its left unless its row says why: `xghp_...` is still a token for
//! whoever cuts off the `x`.

use std::ops::Range;

use regex_automata::meta::{self, Regex};
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind};

use crate::finding::{RuleId, Severity};
use crate::window::Match;

/// Bytes by which a match is extended at most. The search goes on [`MIN_SHAPE`] before the cut, so that
/// nothing can hide behind it.
pub(crate) const MAX_TAIL: usize = 4 * 1024;

/// At least the length of the longest minimal shape.
pub(crate) const MIN_SHAPE: usize = 128;

/// The bytes by which a match goes on after its minimal shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// `[A-Za-z0-9]`.
    Alphanumeric,
    /// `[A-Za-z0-9_-]`: base64url.
    Base64Url,
    /// `[A-Za-z0-9_.~+/=-]`: what RFC 6750 lets a bearer token hold, and JWTs with their dots.
    Bearer,
}

impl Tail {
    /// How many bytes of `rest` a match goes on for.
    pub(crate) fn length(self, rest: &[u8]) -> usize {
        rest.iter()
            .take(MAX_TAIL)
            .take_while(|byte| self.holds(**byte))
            .count()
    }

    fn holds(self, byte: u8) -> bool {
        byte.is_ascii_alphanumeric()
            || match self {
                Self::Alphanumeric => false,
                Self::Base64Url => matches!(byte, b'_' | b'-'),
                Self::Bearer => matches!(byte, b'_' | b'-' | b'.' | b'~' | b'+' | b'/' | b'='),
            }
    }
}

/// One credential's shape.
#[derive(Clone, Copy, Debug)]
pub struct TokenRule {
    pub id: RuleId,
    /// What people call it.
    pub credential: &'static str,
    /// The minimal shape, in the syntax of the `regex` crate; at most 128 bytes long.
    pub shape: &'static str,
    pub tail: Tail,
    /// For a shape of this byte, a dot and 24 characters between boundaries: too short a literal for the
    /// automaton, which it would slow tenfold, so it is looked for by its dot.
    pub dotted: Option<u8>,
}

const fn rule(
    id: &'static str,
    credential: &'static str,
    shape: &'static str,
    tail: Tail,
) -> TokenRule {
    TokenRule {
        id: RuleId(id),
        credential,
        shape,
        tail,
        dotted: None,
    }
}

/// The table. Of two rows that match at one place the upper wins, so the more specific stands above.
pub const TOKEN_RULES: &[TokenRule] = &[
    // IAM user guide, "Reference identifiers": AKIA is a long-term key, ASIA a temporary one; 20 characters.
    rule(
        "aws-access-key",
        "AWS access key",
        r"A[KS]IA[A-Z0-9]{16}",
        Tail::Alphanumeric,
    ),
    // GitHub blog, "Behind GitHub's new authentication token formats" (2021): prefix, 30 random, 6 checksum.
    rule(
        "github-token-classic",
        "GitHub token (classic)",
        r"gh[oprsu]_[A-Za-z0-9]{36}",
        Tail::Base64Url,
    ),
    // GitHub docs, "About authentication": `github_pat_`, 22 characters, `_`, 59 characters. The prefix is
    // so telling that half of it will do.
    rule(
        "github-fine-grained-token",
        "GitHub fine-grained token",
        r"github_pat_[A-Za-z0-9_]{36}",
        Tail::Base64Url,
    ),
    // Observed: `sk-ant-api03-`, `sk-ant-oat01-` and the like, then 80 to 95 of base64url. The first 20 are
    // enough to tell, and a token that lacks its last character is still caught.
    rule(
        "anthropic-api-key",
        "Anthropic API key",
        r"sk-ant-[A-Za-z0-9_-]{20}",
        Tail::Base64Url,
    ),
    // Observed since 2024: base64url with `T3BlbkFJ` in the middle, 48 to 156 characters after the prefix.
    rule(
        "openai-project-key",
        "OpenAI project key",
        r"sk-proj-[A-Za-z0-9_-]{20}",
        Tail::Base64Url,
    ),
    // The first format was 48 characters, service account and admin keys came later. Fewer than 48 without
    // an infix would match `task-` and `disk-` with an identifier behind them.
    rule(
        "openai-api-key",
        "OpenAI API key",
        r"sk-(?:svcacct-|admin-|None-)[A-Za-z0-9_-]{40}|sk-[A-Za-z0-9]{48}",
        Tail::Base64Url,
    ),
    // Stripe docs, "API keys": secret and restricted keys; publishable `pk_` keys are public by design.
    rule(
        "stripe-secret-key",
        "Stripe secret key",
        r"[rs]k_(?:live|test)_[A-Za-z0-9]{20}",
        Tail::Alphanumeric,
    ),
    // RFC 6750: `Bearer` and a b64token. 60 characters is below the shortest signed JWT.
    rule(
        "bearer-jwt",
        "Bearer JWT",
        r"(?:[Bb]earer|BEARER)[ \t+]{1,4}[A-Za-z0-9_.~+/-]{60}",
        Tail::Bearer,
    ),
    // Hugging Face docs, "User access tokens": `hf_` and 34 letters, `api_org_` for organisations.
    rule(
        "huggingface-token",
        "HuggingFace token",
        r"(?:hf|api_org)_[A-Za-z0-9]{30}",
        Tail::Alphanumeric,
    ),
    // Databricks docs: `dapi` and 32 hexadecimal digits, then `-2` and the like on Azure.
    rule(
        "databricks-token",
        "Databricks token",
        r"dapi[a-f0-9]{32}",
        Tail::Base64Url,
    ),
    // Slack docs, "Token types": letters for the kind of token, then groups between dashes.
    rule(
        "slack-token",
        "Slack token",
        r"xox[a-eo-s]-[A-Za-z0-9-]{10}|xapp-[A-Za-z0-9-]{20}",
        Tail::Base64Url,
    ),
    // GitHub blog, "npm has a new access token format" (2021): 36 characters.
    rule(
        "npm-token",
        "npm token",
        r"npm_[A-Za-z0-9]{36}",
        Tail::Alphanumeric,
    ),
    // SendGrid docs: `SG.`, 22 characters, `.`, 43 characters.
    rule(
        "sendgrid-api-key",
        "SendGrid API key",
        r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
        Tail::Base64Url,
    ),
    // PyPI docs: `pypi-` and a macaroon, whose first bytes (version 2, location `pypi.org`) are always `AgE`;
    // without them, a longer body.
    rule(
        "pypi-token",
        "PyPI token",
        r"pypi-(?:AgE[A-Za-z0-9_-]{40}|[A-Za-z0-9_-]{60})",
        Tail::Base64Url,
    ),
    // HashiCorp docs, "Tokens": service, batch and recovery tokens since 1.10.
    rule(
        "vault-token",
        "Vault token",
        r"hv[bsr]\.[A-Za-z0-9_-]{20}",
        Tail::Base64Url,
    ),
    // Service tokens before 1.10: `s.` and 24 characters. These two bytes end many a word and begin many a method
    // call, so this one shape asks for a boundary on either side.
    TokenRule {
        dotted: Some(b's'),
        ..rule(
            "vault-token-legacy",
            "Vault token (before 1.10)",
            r"\bs\.[A-Za-z0-9]{24}\b",
            Tail::Alphanumeric,
        )
    },
];

/// The table, compiled.
#[derive(Debug)]
pub(crate) struct TokenEngine {
    regex: Regex,
}

impl TokenEngine {
    pub(crate) fn new() -> Result<Self, Box<meta::BuildError>> {
        // A shape that can never match keeps a pattern's number the number of its row.
        const NEVER: &str = r"[a&&b]";
        let shapes: Vec<&str> = TOKEN_RULES
            .iter()
            .map(|rule| {
                if rule.dotted.is_some() {
                    NEVER
                } else {
                    rule.shape
                }
            })
            .collect();
        let regex = Regex::builder()
            // Bytes, not characters: the input need not be UTF-8.
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .configure(
                Regex::config()
                    .utf8_empty(false)
                    .match_kind(MatchKind::LeftmostFirst),
            )
            .build_many(&shapes)
            .map_err(Box::new)?;
        Ok(Self { regex })
    }

    pub(crate) fn find(&self, text: &[u8], matches: &mut Vec<Match>) {
        let mut from = 0;
        while let Some(found) = self.regex.search(&Input::new(text).range(from..)) {
            let Some(rule) = TOKEN_RULES.get(found.pattern().as_usize()) else {
                return;
            };
            let tail = rule
                .tail
                .length(text.get(found.end()..).unwrap_or_default());
            let span = found.start()..found.end() + tail;
            from = if tail == MAX_TAIL {
                span.end - MIN_SHAPE
            } else {
                span.end
            };
            matches.push(rule.matched(span));
        }
        for rule in TOKEN_RULES {
            if let Some(letter) = rule.dotted {
                matches.extend(dotted(text, letter).map(|span| rule.matched(span)));
            }
        }
    }
}

/// `letter`, a dot and 24 letters and digits, with no word character on either side.
fn dotted(text: &[u8], letter: u8) -> impl Iterator<Item = Range<usize>> {
    const DOTTED: usize = 24;
    let is_word = |at: usize| {
        text.get(at)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    memchr::memchr_iter(b'.', text).filter_map(move |dot| {
        let start = dot
            .checked_sub(1)
            .filter(|start| text.get(*start) == Some(&letter))?;
        let end = dot + 1 + DOTTED;
        let body = text.get(dot + 1..end)?;
        let apart = !start.checked_sub(1).is_some_and(is_word) && !is_word(end);
        (apart && body.iter().all(u8::is_ascii_alphanumeric)).then_some(start..end)
    })
}

impl TokenRule {
    fn matched(&self, span: Range<usize>) -> Match {
        Match {
            rule: self.id,
            severity: Severity::Block,
            credential: self.credential.into(),
            span,
            via: Vec::new(),
            tail: Some(self.tail),
            structural: false,
        }
    }
}
