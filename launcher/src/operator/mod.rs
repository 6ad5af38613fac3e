//! The operator's side of running bottles: what waits in them, and answers.
//!
//! A running bottle's directory holds `control.json`, readable for its owner alone: where its sidecar's control API
//! listens, and the token for it. Neither is in reach of the bottle.

mod client;
mod pending;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::escape::Escaped;
use crate::state::{Standing, State, StateError};

pub use client::{Client, ClientError};
pub use pending::Pending;

/// The variable that holds the token: in a sidecar's environment, and in yours where you ask with `--control`.
pub const TOKEN_VARIABLE: &str = "BOT_BOTTLE_CONTROL_TOKEN";

#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("no bottle runs; `launcher list` shows those that do")]
    NothingRuns,
    #[error("no running bottle is named `{0}`, and no agent in one; `launcher list` shows them")]
    NoSuchBottle(String),
    #[error(
        "no running bottle knows {0}\nhint: `launcher supervise --once` lists what waits; an answer that was given, or a bottle that has ended, takes it off the list"
    )]
    Unknown(String),
    #[error("{bottle}: {source}")]
    Bottle { bottle: String, source: ClientError },
    #[error("--control needs the token of that sidecar in {TOKEN_VARIABLE}")]
    NoToken,
    #[error("{0}")]
    Control(#[from] ClientError),
    #[error(
        "asking needs a terminal on stdin and stdout; `launcher supervise --once` lists, `launcher approve` and `launcher reject` answer"
    )]
    NoTerminal,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// `control.json`.
#[derive(Serialize, Deserialize)]
pub struct Access {
    /// `unix:/path` or `ADDRESS:PORT`.
    pub address: String,
    pub token: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Whose sidecars are asked.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// A bottle's name, or an agent's.
    pub bottle: Option<String>,
    /// A sidecar that no launcher started.
    pub control: Option<String>,
}

/// A sidecar that can be asked.
#[derive(Debug)]
pub struct Desk {
    pub bottle: String,
    pub client: Client,
    /// Whether a launcher started it, so that it is known whether it still runs.
    launched: bool,
}

impl Desk {
    /// Whether it ended since it was listed: then nothing waits there.
    fn has_ended(&self) -> bool {
        let still_runs = || {
            let found = State::locate().ok()?.bottles_found().ok()?;
            Some(
                found
                    .iter()
                    .any(|found| found.name == self.bottle && found.standing == Standing::Running),
            )
        };
        self.launched && still_runs() == Some(false)
    }
}

/// The desks of the running bottles, or the one that is named.
pub fn desks(which: &Which) -> Result<Vec<Desk>, OperatorError> {
    if let Some(address) = &which.control {
        let token = std::env::var(TOKEN_VARIABLE).map_err(|_| OperatorError::NoToken)?;
        let client = Client::new(address, token)?;
        let bottle = address.clone();
        return Ok(vec![Desk {
            bottle,
            client,
            launched: false,
        }]);
    }
    let running: Vec<_> = State::locate()?
        .bottles_found()?
        .into_iter()
        .filter(|found| found.standing == Standing::Running)
        .collect();
    let wanted = |name: &str| {
        let agent = name.rsplit_once('-').map(|(agent, _)| agent);
        which
            .bottle
            .as_deref()
            .is_none_or(|wanted| wanted == name || Some(wanted) == agent)
    };
    if running.is_empty() {
        return Err(OperatorError::NothingRuns);
    }
    let mut desks = Vec::new();
    for found in running.iter().filter(|found| wanted(&found.name)) {
        // One that is starting or ending has none, and nothing waits in it.
        if let Some(access) = read(&found.path().join(FILE)) {
            desks.push(Desk {
                bottle: found.name.clone(),
                client: Client::new(&access.address, access.token)?,
                launched: true,
            });
        }
    }
    match &which.bottle {
        Some(bottle) if !running.iter().any(|found| wanted(&found.name)) => {
            Err(OperatorError::NoSuchBottle(Escaped(bottle).to_string()))
        }
        _ => Ok(desks),
    }
}

pub const FILE: &str = "control.json";

fn read(path: &Path) -> Option<Access> {
    let text = std::fs::read(path).ok()?;
    serde_json::from_slice(&text).ok()
}

/// What waits at all of the desks. A bottle that ends meanwhile has nothing that waits.
pub async fn pending(desks: &[Desk]) -> Result<Vec<Pending>, OperatorError> {
    let mut all = Vec::new();
    for desk in desks {
        match desk.client.get::<Vec<Pending>>("/v1/pending").await {
            Ok(pending) => all.extend(pending),
            Err(ClientError::Unreachable(..)) if desks.len() > 1 || desk.has_ended() => {}
            Err(source) => {
                return Err(OperatorError::Bottle {
                    bottle: desk.bottle.clone(),
                    source,
                });
            }
        }
    }
    Ok(all)
}

/// The desk that knows an ask, and the ask.
pub async fn find<'d>(desks: &'d [Desk], id: &str) -> Result<(&'d Desk, Pending), OperatorError> {
    let unknown = || OperatorError::Unknown(Escaped(id).to_string());
    // It becomes part of a path; identifiers are of these characters alone.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    if id.is_empty() || !id.bytes().all(plain) {
        return Err(unknown());
    }
    for desk in desks {
        match desk.client.get(&format!("/v1/pending/{id}")).await {
            Ok(pending) => return Ok((desk, pending)),
            Err(ClientError::Refused { status: 404, .. } | ClientError::Unreachable(..)) => {}
            Err(source) => {
                return Err(OperatorError::Bottle {
                    bottle: desk.bottle.clone(),
                    source,
                });
            }
        }
    }
    Err(unknown())
}

/// Who answers, for the record: `alice@laptop`.
pub fn operator() -> String {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let name = set("USER")
        .or_else(|| set("LOGNAME"))
        .unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    let host = rustix::system::uname();
    format!("{name}@{}", host.nodename().to_string_lossy())
}

/// Where a bottle's control API listens: a socket in a directory of its own, which the sidecar may write to and to
/// nothing beside it; where that path is too long for a socket, a port of the host's loopback address.
pub fn listen(directory: &Path) -> String {
    let socket: PathBuf = directory.join("control.sock");
    if crate::state::bottle::is_short_enough(&socket) {
        format!("unix:{}", socket.display())
    } else {
        "127.0.0.1:0".into()
    }
}
