//! Which backend a start uses. One that was asked for and cannot run is an error, never a quiet downgrade.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::Missing;
use crate::exit::Exit;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Local,
}

const LATER: [&str; 3] = ["smolmachines", "docker", "macos-container"];

#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    #[error("unknown backend `{0}`; there are: local, {later}", later = LATER.join(", "))]
    Unknown(String),
    #[error("backend `{0}` is not available in this version; use --backend local")]
    NotYet(String),
    #[error("backend `{kind}` cannot run here: {first}", first = first(.missing))]
    CannotRun { kind: Kind, missing: Vec<Missing> },
}

impl ChooseError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unknown(_) => Exit::Usage,
            Self::NotYet(_) | Self::CannotRun { .. } => Exit::Preflight,
        }
    }
}

fn first(missing: &[Missing]) -> String {
    missing
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

impl Kind {
    /// What the boundary is made of, in a word.
    pub fn boundary(self) -> &'static str {
        match self {
            Self::Local => "namespaces",
        }
    }

    pub fn strength(self) -> &'static str {
        match self {
            Self::Local => "namespaces, seccomp and no capabilities; the host's kernel is shared",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
        })
    }
}

impl FromStr for Kind {
    type Err = ChooseError;

    fn from_str(text: &str) -> Result<Self, ChooseError> {
        match text {
            "local" => Ok(Self::Local),
            later if LATER.contains(&later) => Err(ChooseError::NotYet(later.into())),
            other => Err(ChooseError::Unknown(other.into())),
        }
    }
}

/// The one that was asked for, else the strongest that there is.
pub fn choose(asked: Option<&str>) -> Result<Kind, ChooseError> {
    match asked {
        Some(name) => name.parse(),
        None => Ok(Kind::Local),
    }
}
