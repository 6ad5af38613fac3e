//! What is looked for.

use std::path::Path;

use detectors::{BuildError, KnownSecret, Scanner, TOKEN_RULES, UserRules};
use serde::Serialize;

use super::talk::Talk;
use super::{ScanError, escape};
use crate::secrets::{PREFIX, PREFIXES_VARIABLE, Secrets};

#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) user: UserRules,
    pub(super) known: Vec<KnownSecret>,
}

impl Choice {
    pub(super) fn build(self) -> Result<Scanner, BuildError> {
        Scanner::builder()
            .token_patterns(true)
            .user_rules(self.user)
            .known_secrets(self.known)
            .build()
    }
}

/// Reads the user's rules. A file that cannot be used ends the scan: whoever names it believes that it is looked for.
pub(super) fn load_rules(path: &Path) -> Result<UserRules, ScanError> {
    let wrong = |reason: String| ScanError::Rules {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    // The reason repeats parts of the file.
    UserRules::parse(&text).map_err(|error| wrong(escape::text(&error.to_string())))
}

/// The values of the environment that the sidecar would guard.
pub(super) fn known(talk: &Talk) -> Result<Vec<KnownSecret>, ScanError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => variables.push((name, value)),
            (Ok(name), Err(_)) => talk.remark(&format!(
                "the value of {name} is not UTF-8 and is not looked for"
            )),
            (Err(_), _) => {}
        }
    }
    let known = Secrets::from_environment(variables).known()?;
    if known.is_empty() {
        talk.remark(&format!(
            "--known-from-env: no variable {PREFIX}* is set, nor one that {PREFIXES_VARIABLE} names"
        ));
    }
    Ok(known)
}

/// A row of `--list-rules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) credential: String,
    /// The document that describes it, or the argument that turns it on.
    pub(super) source: &'static str,
}

/// Everything that can be found, but for the user's own rules.
pub(super) fn listed() -> Vec<Listed> {
    let row = |id: &str, credential: &str, source| Listed {
        id: id.into(),
        credential: credential.into(),
        source,
    };
    let mut rows: Vec<Listed> = Vec::new();
    for rule in TOKEN_RULES.iter() {
        let next = row(&rule.id.to_string(), rule.credential, rule.source);
        if !rows.contains(&next) {
            rows.push(next);
        }
    }
    rows.push(row(
        "known-secret",
        "the value of a sensitive variable",
        "--known-from-env",
    ));
    rows.push(row(
        "canary",
        "the value of EGRESS_TOKEN_CANARY",
        "--known-from-env",
    ));
    rows.push(row(
        "hidden-text",
        "a flood of invisible characters",
        "built in",
    ));
    rows.push(row(
        "finding-limit",
        "more findings in one input than are listed",
        "built in",
    ));
    rows
}

pub(super) fn table(rows: &[Listed]) -> String {
    let width = |of: fn(&Listed) -> &str| {
        rows.iter()
            .map(|row| of(row).chars().count())
            .max()
            .unwrap_or(0)
    };
    let ids = width(|row| &row.id);
    let credentials = width(|row| &row.credential);
    rows.iter()
        .map(|row| {
            format!(
                "{:ids$}  {:credentials$}  {}\n",
                row.id, row.credential, row.source
            )
        })
        .collect()
}
