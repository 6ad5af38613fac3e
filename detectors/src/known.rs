//! Known secrets: values that must not leave, in whatever encoding.
//!
//! The encodings of a value are computed forward, once, at start ([`variants`]), and looked for all at once
//! ([`index`]). So nothing has to be guessed about the input, and a span is exact.

mod encode;
mod index;
mod variants;

use std::fmt;

use zeroize::Zeroizing;

pub(crate) use index::KnownIndex;

/// Below this many bytes chance matches would block clean traffic.
const MIN_VALUE: usize = 8;

/// Above this many bytes a value is a file; its encodings would make the look-behind too long.
const MAX_VALUE: usize = 8 * 1024;

/// A value that must not leave. It is wiped on drop and never shown.
#[derive(Clone)]
pub struct KnownSecret {
    name: Box<str>,
    value: Zeroizing<Vec<u8>>,
    canary: bool,
}

impl KnownSecret {
    /// A secret, found by rule `known-secret`; `name` is its variable's and stands in the reason.
    pub fn new(name: &str, value: &[u8]) -> Result<Self, KnownSecretError> {
        Self::parse(name, value, false)
    }

    /// A value planted to be stolen, found by rule `canary`.
    pub fn canary(name: &str, value: &[u8]) -> Result<Self, KnownSecretError> {
        Self::parse(name, value, true)
    }

    fn parse(name: &str, value: &[u8], canary: bool) -> Result<Self, KnownSecretError> {
        let name = name.into();
        let length = value.len();
        if length < MIN_VALUE {
            return Err(KnownSecretError::TooShort { name, length });
        }
        if length > MAX_VALUE {
            return Err(KnownSecretError::TooLong { name, length });
        }
        Ok(Self {
            name,
            value: Zeroizing::new(value.to_vec()),
            canary,
        })
    }
}

impl fmt::Debug for KnownSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownSecret")
            .field("name", &self.name)
            .field("canary", &self.canary)
            .finish_non_exhaustive()
    }
}

/// Why a value cannot be looked for. It is refused and never skipped, so that nobody believes it guarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KnownSecretError {
    #[error(
        "the value of {name} has {length} bytes, and fewer than {MIN_VALUE} would match by chance: use a longer secret"
    )]
    TooShort { name: Box<str>, length: usize },
    #[error(
        "the value of {name} has {length} bytes, more than {MAX_VALUE}: guard the secret inside it, not the whole file"
    )]
    TooLong { name: Box<str>, length: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_values_are_refused_with_their_name() {
        let error = KnownSecret::new("EGRESS_TOKEN_X", b"1234567").unwrap_err();
        assert_eq!(
            error,
            KnownSecretError::TooShort {
                name: "EGRESS_TOKEN_X".into(),
                length: 7
            }
        );
        assert!(error.to_string().contains("EGRESS_TOKEN_X"));
        assert!(KnownSecret::new("X", &[b'a'; MAX_VALUE + 1]).is_err());
        assert!(KnownSecret::new("X", b"12345678").is_ok());
    }

    #[test]
    fn debug_never_shows_the_value() {
        let secret = KnownSecret::new("X", b"hunter2hunter2").unwrap();
        let index = KnownIndex::new(std::slice::from_ref(&secret));
        assert!(!format!("{secret:?} {index:?}").contains("hunter2"));
    }
}
