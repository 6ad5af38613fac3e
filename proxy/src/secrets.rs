//! The credentials in the sidecar's environment: what is injected, and what must never be seen on the way out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use detectors::{KnownSecret, KnownSecretError};
use zeroize::Zeroizing;

/// Every sidecar takes the variables that start so.
pub const PREFIX: &str = "EGRESS_TOKEN_";
/// Further prefixes, comma-separated; an exact name is a prefix too.
pub const PREFIXES_VARIABLE: &str = "BOT_BOTTLE_SENSITIVE_PREFIXES";
/// How long a request waits for an operator; no secret, whatever its name begins with.
pub const ALLOW_TIMEOUT: &str = "EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS";
/// Planted in the agent's environment; any sighting of it is a leak.
pub const CANARY: &str = "EGRESS_TOKEN_CANARY";

/// A value that is never shown.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(Arc::new(Zeroizing::new(value)))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

/// Named secrets, taken from an environment once.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    values: BTreeMap<String, Secret>,
    known: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the secret in {name} cannot be looked for: {source}; give it a longer value or take the variable away"
)]
pub struct SecretError {
    pub name: String,
    pub source: KnownSecretError,
}

impl Secrets {
    /// Everything in the environment; only the sensitive names become known secrets.
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let values: BTreeMap<String, Secret> = variables
            .into_iter()
            .map(|(name, value)| (name, Secret::new(value)))
            .collect();
        let more = values
            .get(PREFIXES_VARIABLE)
            .map(|list| list.expose().to_owned())
            .unwrap_or_default();
        let prefixes: Vec<&str> = std::iter::once(PREFIX)
            .chain(more.split(',').map(str::trim))
            .filter(|prefix| !prefix.is_empty())
            .collect();
        let known = values
            .keys()
            .filter(|name| {
                *name != PREFIXES_VARIABLE
                    && *name != ALLOW_TIMEOUT
                    && prefixes.iter().any(|prefix| name.starts_with(prefix))
            })
            .cloned()
            .collect();
        Self { values, known }
    }

    pub fn value(&self, name: &str) -> Option<&Secret> {
        self.values
            .get(name)
            .filter(|value| !value.expose().is_empty())
    }

    /// Name and value of each known secret.
    pub fn sensitive(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.known
            .iter()
            .filter_map(|name| self.value(name).map(|value| (name.as_str(), value)))
    }

    /// For the scanner. A value that is too short to look for is an error: it must not be silently skipped.
    pub fn known(&self) -> Result<Vec<KnownSecret>, SecretError> {
        self.known
            .iter()
            .filter_map(|name| {
                self.value(name)
                    .map(|value| (name, value.expose().as_bytes()))
            })
            .map(|(name, value)| {
                let secret = if name == CANARY {
                    KnownSecret::canary(name, value)
                } else {
                    KnownSecret::new(name, value)
                };
                secret.map_err(|source| SecretError {
                    name: name.clone(),
                    source,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(variables: &[(&str, &str)]) -> Secrets {
        Secrets::from_environment(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn which_variables_are_secrets() {
        let secrets = secrets(&[
            ("EGRESS_TOKEN_A", "longenough1"),
            ("PATH", "/usr/bin:/bin"),
            ("MY_TOKEN", "longenough2"),
            ("CORP_X", "longenough3"),
            ("EGRESS_TOKEN_EMPTY", ""),
            (PREFIXES_VARIABLE, "MY_TOKEN, CORP_"),
        ]);
        assert_eq!(
            secrets.known,
            ["CORP_X", "EGRESS_TOKEN_A", "EGRESS_TOKEN_EMPTY", "MY_TOKEN"]
        );
        assert_eq!(secrets.known().unwrap().len(), 3);
        assert!(!format!("{secrets:?}").contains("longenough"));
    }

    #[test]
    fn a_short_secret_is_an_error_and_not_a_silent_gap() {
        let error = secrets(&[("EGRESS_TOKEN_A", "tiny-77")])
            .known()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("EGRESS_TOKEN_A") && !error.contains("tiny-77"),
            "{error}"
        );
    }
}
