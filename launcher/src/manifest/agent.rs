//! `agents/NAME.md`, as it is written: in the home directory or in a repository.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::later::{Later, Skills};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentFile {
    /// The name of a bottle of the home directory.
    #[serde(default)]
    pub bottle: Option<Spanned<String>>,
    #[serde(default)]
    pub git: Git,

    #[serde(default, rename = "skills")]
    _skills: Later<Skills>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Git {
    #[serde(default)]
    pub user: GitUser,
}

/// Who the agent's commits are by.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitUser {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub email: Option<String>,
}
