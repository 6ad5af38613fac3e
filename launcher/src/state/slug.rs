//! The name of one bottle.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest agent name: the slug is a host name's label (63) and part of a socket's path.
const MAX_NAME: usize = 40;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "{0:?} is not a name: use 1 to {MAX_NAME} characters of a-z, 0-9 and -, beginning and ending with a letter or digit"
    )]
    Name(String),
    #[error("{0:?} is not the name of a bottle; `launcher list` shows them")]
    Slug(String),
    #[error("the system has no randomness: {0}")]
    Random(String),
}

/// The name of an agent or of a bottle's manifest. It becomes a file's name, so it can hold no path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let known = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let edges = [bytes.first(), bytes.last()]
            .iter()
            .all(|edge| edge.is_some_and(known));
        if edges && bytes.len() <= MAX_NAME && bytes.iter().all(|byte| known(byte) || *byte == b'-')
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Name(text.to_owned()))
        }
    }
}

/// A running bottle: the agent's name and six random hex digits. Names its directory, host name and log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(String);

impl Slug {
    pub fn random(agent: &Name) -> Result<Self, NameError> {
        let mut random = [0u8; 3];
        getrandom::fill(&mut random).map_err(|error| NameError::Random(error.to_string()))?;
        let [a, b, c] = random;
        Ok(Self(format!("{agent}-{a:02x}{b:02x}{c:02x}")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its agent.
    pub fn agent(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(agent, _)| agent)
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Slug {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError::Slug(text.to_owned());
        let (name, digits) = text.rsplit_once('-').ok_or_else(bad)?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 6 || !digits.bytes().all(hex) || name.parse::<Name>().is_err() {
            return Err(bad());
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Slug {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_read_back() {
        let slug = Slug::random(&"my-agent".parse().unwrap()).unwrap();
        assert_eq!(slug.as_str().parse::<Slug>().unwrap(), slug);
    }

    #[test]
    fn no_path_is_a_name() {
        for text in [
            "",
            "..",
            "a/b",
            "-a",
            "a-",
            "A",
            "a b",
            "a\0",
            &"a".repeat(41),
        ] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
        for text in [
            "demo",
            "demo-12345",
            "demo-12345g",
            "../x-123456",
            "-123456",
        ] {
            assert!(text.parse::<Slug>().is_err(), "{text:?}");
        }
    }
}
