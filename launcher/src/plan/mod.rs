//! Everything that a start will do, before it is done: what `--dry-run` prints and what a session follows.

mod build;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use proxy::config::File as SidecarFile;
use proxy::policy::{PolicyError, RouteSummary};
use serde::Serialize;

use crate::backend::Kind;
pub use crate::manifest::ImageSource;
use crate::place::{Mount, PlaceError, Workspace};
use crate::state::{NameError, Slug};

pub use build::{Draft, PROXY_PASSWORD, SENSITIVE_PREFIXES, build, variable};

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("{0}")]
    Prompt(&'static str),
    #[error(
        "these variables are named in {} and are not set in your environment: {}; set them and start again",
        file.display(), names.join(", ")
    )]
    MissingVariables { file: PathBuf, names: Vec<String> },
    #[error("{what} needs a terminal on stdin and stdout; run it in one, or add --headless")]
    NoTerminal { what: String },
}

/// A bottle that is about to be. Holds names of secrets, never values.
#[derive(Debug, Serialize)]
pub struct Plan {
    pub slug: Slug,
    pub agent: String,
    pub agent_file: Option<PathBuf>,
    pub bottle: String,
    pub bottle_file: Option<PathBuf>,
    pub backend: Kind,
    pub strength: &'static str,
    /// Why this backend and no other.
    pub why: String,
    /// Where the backend is one of containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Where it is one of micro-VMs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// The lowest that is free now; taken when the session starts.
    pub alias: Option<Ipv4Addr>,
    pub workspace: Workspace,
    pub program: Program,
    pub headless: bool,
    pub mounts: Vec<Mount>,
    /// The agent's environment, as far as its values are no secrets.
    pub env: BTreeMap<String, String>,
    /// Variables of the agent whose values come from the host's environment: name in the bottle, name on the host.
    pub env_from_host: BTreeMap<String, String>,
    /// Variables of the sidecar that hold credentials: name in the sidecar, name on the host.
    pub credentials: BTreeMap<String, String>,
    /// Variables of the host that the sidecar gets only to recognise their values on the way out.
    pub known_secrets: BTreeSet<String>,
    pub sensitive_prefixes: Option<String>,
    pub git: Git,
    pub routes: Vec<RouteSummary>,
    pub policy: String,
    pub sidecar: SidecarFile,
    /// What the user should know and that is no error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What an agent's container is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Container {
    pub image: ImageSource,
    /// Another than the engine's own: gVisor's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Its version.
    pub engine: String,
    pub socket: PathBuf,
}

/// What an agent's micro-VM is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    pub image: ImageSource,
    /// Whose: `smolvm` or `container`.
    pub engine: &'static str,
    pub program: PathBuf,
    /// The program's.
    pub version: String,
    /// How its guest reaches the sidecar.
    pub channel: String,
}

/// What is executed in the bottle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// Looked up on the bottle's `PATH`.
    Command(Vec<String>),
    /// The launcher's own executable, which has no path in the bottle, with these arguments.
    Own(Vec<String>),
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Git {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}
