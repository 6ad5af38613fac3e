//! Which backend a start uses. One that was asked for and cannot run is an error, never a quiet downgrade.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::Missing;
use crate::docker;
use crate::exit::Exit;
use crate::manifest::ImageSource;
use crate::plan::Container;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Local,
    Docker,
}

/// From the strongest to the weakest.
const ALL: [Kind; 2] = [Kind::Docker, Kind::Local];
pub const LATER: [&str; 2] = ["smolmachines", "macos-container"];

/// A backend that can run here, as far as that is known without trying.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub kind: Kind,
    pub why: String,
    pub container: Option<Container>,
}

#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    #[error("unknown backend `{0}`; there are: {all}, {later}", all = names(), later = LATER.join(", "))]
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

fn names() -> String {
    ALL.map(|kind| kind.to_string()).join(", ")
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
            Self::Docker => "containers",
        }
    }
}

impl Chosen {
    pub fn strength(&self) -> &'static str {
        match (self.kind, &self.container) {
            (Kind::Local, _) => {
                "namespaces, seccomp and no capabilities; the host's kernel is shared"
            }
            (
                Kind::Docker,
                Some(Container {
                    runtime: Some(_), ..
                }),
            ) => {
                "a container on gVisor's own kernel, without network, privileges or capabilities, with limits"
            }
            (Kind::Docker, _) => {
                "a container without network, privileges or capabilities, with seccomp and limits; the host's kernel is shared"
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Docker => "docker",
        })
    }
}

impl FromStr for Kind {
    type Err = ChooseError;

    fn from_str(text: &str) -> Result<Self, ChooseError> {
        match text {
            "local" => Ok(Self::Local),
            "docker" => Ok(Self::Docker),
            later if LATER.contains(&later) => Err(ChooseError::NotYet(later.into())),
            other => Err(ChooseError::Unknown(
                crate::escape::Escaped(other).to_string(),
            )),
        }
    }
}

/// The one that was asked for, else the strongest that can run. `image` is what a container would be made of.
pub fn choose(asked: Option<&str>, image: Option<&ImageSource>) -> Result<Chosen, ChooseError> {
    // A variable that is set to nothing asks for nothing.
    let asked: Option<Kind> = asked
        .filter(|name| !name.is_empty())
        .map(str::parse)
        .transpose()?;
    let local = |why: String| Chosen {
        kind: Kind::Local,
        why,
        container: None,
    };
    match asked {
        Some(Kind::Local) => Ok(local("it was asked for".into())),
        Some(Kind::Docker) => container(image)
            .map(|container| docker(container, "it was asked for"))
            .map_err(|missing| ChooseError::CannotRun {
                kind: Kind::Docker,
                missing,
            }),
        None => Ok(match container(image) {
            Ok(container) => docker(
                container,
                "the strongest that this host can run; an engine answers",
            ),
            Err(missing) => {
                let what = missing.first().map(|missing| missing.what.clone());
                local(format!(
                    "the strongest that this host can run; docker cannot: {}",
                    what.unwrap_or_default()
                ))
            }
        }),
    }
}

fn docker(reached: (Container, Option<String>), why: &str) -> Chosen {
    let (container, note) = reached;
    Chosen {
        kind: Kind::Docker,
        why: match note {
            Some(note) => format!("{why}; {note}"),
            None => why.into(),
        },
        container: Some(container),
    }
}

/// The container that there would be, and what should be known about it.
fn container(image: Option<&ImageSource>) -> Result<(Container, Option<String>), Vec<Missing>> {
    let Some(image) = image else {
        return Err(vec![Missing {
            what: "the bottle names no image for a container".into(),
            remedy: "write `image: NAME` or `dockerfile: PATH` into its agent_provider".into(),
        }]);
    };
    let reached = docker::reach()?;
    let container = Container {
        image: image.clone(),
        runtime: reached.facts.runtime,
        engine: reached.facts.version,
        socket: reached.engine.socket.clone(),
    };
    Ok((container, reached.facts.gvisor))
}
