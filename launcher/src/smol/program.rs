//! Calls of the program `smolvm` (`vm::call`). Those that change something take turns.
//!
//! A call runs on a thread of its own. A start that is interrupted drops the future that waits for it, not the call:
//! the undo that comes next waits for its turn, and so finds what the call has made.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proxy::secrets::Secret;
use serde_json::Value;

use super::channel::{self, Kind};
use super::place::Place;
use super::version::{Offers, Version};
use crate::backend::Missing;
use crate::vm::Door;
use crate::vm::call::{self, QUESTION, Said};

/// For one call. A first start unpacks the image in the guest and has twice as long, and is tried twice.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds, instead of [`PATIENCE`].
pub const PATIENCE_VARIABLE: &str = "BOT_BOTTLE_SMOLVM_TIMEOUT";

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("smolvm could not {what}: {why}")]
pub struct CallError {
    pub what: String,
    pub why: String,
    pub kind: Failure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such machine.
    NotFound,
    Late,
    Other,
}

impl From<CallError> for io::Error {
    fn from(error: CallError) -> Self {
        match error.kind {
            Failure::NotFound => Self::new(io::ErrorKind::NotFound, error),
            _ => Self::other(error),
        }
    }
}

/// A smolvm that is there and that a bottle can be made with.
#[derive(Clone, Debug)]
pub struct Smolvm {
    pub caller: Caller,
    pub version: Version,
    pub offers: Offers,
    pub channel: Kind,
}

/// A program, and the state that it works on.
#[derive(Clone, Debug)]
pub struct Caller {
    pub program: PathBuf,
    pub place: Place,
    turn: Arc<Mutex<()>>,
    /// Of the environment, beside what every call has.
    more: Vec<(&'static str, Secret)>,
}

/// Finds it, asks for its version and what it offers, and chooses the channel.
pub fn reach() -> Result<Smolvm, Vec<Missing>> {
    let place = Place::locate().map_err(|error| {
        vec![Missing {
            what: error.to_string(),
            remedy: "`export HOME=/home/you`".into(),
        }]
    })?;
    let Some(program) = place.program() else {
        return Err(vec![Missing {
            what: "there is no `smolvm` on PATH".into(),
            remedy: format!(
                "install smolvm {} or newer: https://github.com/smol-machines/smolvm#install",
                super::version::INSTALL
            ),
        }]);
    };
    let refused = |what: String| {
        vec![Missing {
            what: format!("{}: {what}", program.display()),
            remedy: format!(
                "install smolvm {} or newer: https://github.com/smol-machines/smolvm#install",
                super::version::INSTALL
            ),
        }]
    };
    let ask = |arguments: &[&str]| {
        run(&program, &place, &[], arguments, QUESTION)
            .map_err(|error| refused(error.to_string()))
            .and_then(|said| match said.code {
                Some(0) => Ok(said.out),
                _ => Err(refused(format!(
                    "`smolvm {}` fails: {}",
                    arguments.join(" "),
                    said.shown()
                ))),
            })
    };
    let version =
        Version::parse(&ask(&["--version"])?).map_err(|error| refused(error.to_string()))?;
    let offers = Offers::parse(
        &ask(&["machine", "create", "--help"])?,
        &ask(&["machine", "start", "--help"])?,
    );
    let asked = channel::asked(std::env::var(channel::VARIABLE).ok().as_deref())
        .map_err(|error| refused(error.to_string()))?;
    let channel =
        channel::choose(version, offers, asked).map_err(|error| refused(error.to_string()))?;
    Ok(Smolvm {
        caller: Caller::new(program, place),
        version,
        offers,
        channel,
    })
}

impl Caller {
    pub fn new(program: PathBuf, place: Place) -> Self {
        Self {
            program,
            place,
            turn: Arc::default(),
            more: Vec::new(),
        }
    }

    /// For calls that are told a secret, which no argument holds. They take turns with all others.
    pub fn told(&self, name: &'static str, secret: &Secret) -> Self {
        let mut own = self.clone();
        own.more.push((name, secret.clone()));
        own
    }

    /// Asks something; changes nothing.
    pub fn ask(&self, what: &str, arguments: &[&str]) -> Result<String, CallError> {
        self.call(what, arguments, QUESTION.min(patience()))
    }

    /// Changes something, when its turn comes.
    pub fn change(
        &self,
        what: &str,
        arguments: &[&str],
        patience: Duration,
    ) -> Result<String, CallError> {
        let _turn = self.turn();
        self.call(what, arguments, patience)
    }

    /// As `change`, for code that must not block. To its end, also where nobody waits for it any more.
    pub async fn change_aside(
        &self,
        what: impl Into<String>,
        arguments: Vec<String>,
        patience: Duration,
    ) -> Result<String, CallError> {
        let (what, own) = (what.into(), self.clone());
        let failed = what.clone();
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            own.change(&what, &arguments, patience)
        })
        .await
        .map_err(|error| CallError {
            what: failed,
            why: error.to_string(),
            kind: Failure::Other,
        })?
    }

    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn call(
        &self,
        what: &str,
        arguments: &[&str],
        patience: Duration,
    ) -> Result<String, CallError> {
        let failed = |why: String, kind| CallError {
            what: what.to_owned(),
            why,
            kind,
        };
        let said =
            run(&self.program, &self.place, &self.more, arguments, patience).map_err(|error| {
                let kind = match error.kind() {
                    io::ErrorKind::TimedOut => Failure::Late,
                    _ => Failure::Other,
                };
                failed(error.to_string(), kind)
            })?;
        if said.code == Some(0) {
            return Ok(said.out);
        }
        let kind = if is_not_found(&said.err) {
            Failure::NotFound
        } else {
            Failure::Other
        };
        Err(failed(said.shown(), kind))
    }

    /// What `machine ls --json` says of the machine; `None` where it does not know it.
    pub fn listed(&self, machine: &str) -> Result<Option<Value>, CallError> {
        Ok(self
            .list()?
            .into_iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some(machine)))
    }

    pub fn list(&self) -> Result<Vec<Value>, CallError> {
        let what = "list its machines";
        let text = self.ask(what, &["machine", "ls", "--json"])?;
        serde_json::from_str(&text).map_err(|error| CallError {
            what: what.into(),
            why: format!("what it says is no list: {error}"),
            kind: Failure::Other,
        })
    }

    /// Into a machine, for programs of the guest's.
    pub fn door(&self, machine: &str) -> Door {
        Door {
            engine: "smolvm",
            program: self.program.clone(),
            environment: self.place.environment(),
            words: ["machine", "exec", "--name", machine, "-i"]
                .map(str::to_owned)
                .to_vec(),
            terminal: "-t",
            rest: vec!["--".into()],
        }
    }
}

/// How long a call may take.
pub fn patience() -> Duration {
    call::patience(PATIENCE_VARIABLE, PATIENCE)
}

/// As it says it for people, and as a code where it speaks JSON.
fn is_not_found(text: &str) -> bool {
    text.contains("vm not found")
        || text.contains("\"NOT_FOUND\"")
        || text.contains("machine not found")
}

fn run(
    program: &Path,
    place: &Place,
    more: &[(&'static str, Secret)],
    arguments: &[&str],
    patience: Duration,
) -> io::Result<Said> {
    let secrets = more
        .iter()
        .map(|(name, secret)| (*name, secret.expose().into()));
    let environment = place.environment().into_iter().chain(secrets);
    call::run(program, environment, arguments, patience)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_told_from_other_errors() {
        assert!(is_not_found("Error: vm not found: bot-bottle-x"));
        assert!(is_not_found(
            r#"{"error":{"code":"NOT_FOUND","message":"x"}}"#
        ));
        assert!(!is_not_found("Error: database is locked"));
    }
}
