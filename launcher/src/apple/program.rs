//! Calls of Apple's `container` (`vm::call`). Those that change something take turns.
//!
//! A call runs on a thread of its own. A start that is interrupted drops the future that waits for it, not the call: the undo
//! that comes next waits for its turn, and so finds what the call has made.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::platform;
use super::version::{FIRST, PROGRAM, Release, SERVICE};
use crate::backend::Missing;
use crate::vm::Door;
use crate::vm::call::{self, QUESTION, Said};

/// For one call. A first start unpacks the image.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds, instead of [`PATIENCE`].
pub const PATIENCE_VARIABLE: &str = "BOT_BOTTLE_CONTAINER_TIMEOUT";
const PROGRAM_NAME: &str = "container";
/// All that is passed. Above all not `SSH_AUTH_SOCK`, which a container of any program's that asks for it would be
/// given, nor `CONTAINER_…`, which decide about platforms and debugging.
const PASSED: [&str; 7] = ["PATH", "HOME", "LANG", "TERM", "TMPDIR", "USER", "LOGNAME"];

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("Apple's `container` could not {what}: {why}")]
pub struct CallError {
    what: String,
    why: String,
}

impl From<CallError> for io::Error {
    fn from(error: CallError) -> Self {
        Self::other(error)
    }
}

/// A `container` that is there and that a bottle can be made with.
#[derive(Clone, Debug)]
pub struct Reached {
    pub caller: Caller,
    pub release: Release,
}

/// The program.
#[derive(Clone, Debug)]
pub struct Caller {
    pub program: PathBuf,
    turn: Arc<Mutex<()>>,
}

/// Finds it, and asks for its version and whether its services run.
pub fn reach() -> Result<Reached, Vec<Missing>> {
    if let Some(missing) = platform::missing() {
        return Err(vec![missing]);
    }
    let install = format!(
        "install `container` {FIRST} or a newer 1.x: https://github.com/apple/container/releases"
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(program) = call::find(PROGRAM_NAME, &path) else {
        return Err(vec![Missing {
            what: "there is no `container` on PATH".into(),
            remedy: install,
        }]);
    };
    let caller = Caller::new(program);
    let refused = |what: String, remedy: &str| {
        vec![Missing {
            what: format!("{}: {what}", caller.program.display()),
            remedy: remedy.to_owned(),
        }]
    };
    let said = caller
        .run(&["--version"], QUESTION)
        .map_err(|error| refused(error.to_string(), &install))?;
    if said.code != Some(0) {
        return Err(refused(
            format!("`container --version` fails: {}", said.shown()),
            &install,
        ));
    }
    let release =
        Release::parse(PROGRAM, &said.out).map_err(|error| refused(error.to_string(), &install))?;
    caller
        .check_services(release)
        .map_err(|(what, remedy)| refused(what, remedy))?;
    Ok(Reached { caller, release })
}

impl Caller {
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            turn: Arc::default(),
        }
    }

    /// That they run, and are of the program's own release.
    fn check_services(&self, release: Release) -> Result<(), (String, &'static str)> {
        const START: &str = "`container system start`";
        const AGAIN: &str = "`container system stop`, then `container system start`";
        let said = self
            .run(&["system", "status", "--format", "json"], QUESTION)
            .map_err(|error| (error.to_string(), START))?;
        // Where they do not run it says so, and ends with 1.
        let Ok(status) = serde_json::from_str::<Value>(&said.out) else {
            return Err((
                format!("what its services do is not known: {}", said.shown()),
                START,
            ));
        };
        let field = |name: &str| status.get(name).and_then(Value::as_str).unwrap_or_default();
        if said.code != Some(0) || field("status") != "running" {
            return Err((
                format!(
                    "its services do not run (status {:?})",
                    crate::escape::Escaped(field("status")).to_string()
                ),
                START,
            ));
        }
        match Release::parse(SERVICE, field("apiServerVersion")) {
            Ok(service) if service == release => Ok(()),
            Ok(service) => Err((
                format!("its services are of version {service}, and it is {release}"),
                AGAIN,
            )),
            Err(error) => Err((format!("its services: {error}"), AGAIN)),
        }
    }

    /// Asks something; changes nothing.
    pub fn ask(&self, what: &str, arguments: &[&str]) -> Result<String, CallError> {
        self.call(what, arguments, QUESTION.min(patience()))
    }

    /// As `ask`, for code that must not block, and to the end also where nobody waits for it any more. Takes its turn.
    pub async fn change_aside(
        &self,
        what: &'static str,
        arguments: Vec<String>,
    ) -> Result<String, CallError> {
        let own = self.clone();
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let _turn = own.turn();
            own.call(what, &arguments, patience())
        })
        .await
        .map_err(|error| CallError {
            what: what.to_owned(),
            why: error.to_string(),
        })?
    }

    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn call(
        &self,
        what: &str,
        arguments: &[&str],
        patience: Duration,
    ) -> Result<String, CallError> {
        let failed = |why: String| CallError {
            what: what.to_owned(),
            why,
        };
        let said = self
            .run(arguments, patience)
            .map_err(|error| failed(error.to_string()))?;
        match said.code {
            Some(0) => Ok(said.out),
            _ => Err(failed(said.shown())),
        }
    }

    /// All containers, of anybody's.
    pub fn list(&self) -> Result<Vec<Value>, CallError> {
        let what = "list its containers";
        let text = self.ask(what, &["list", "--all", "--format", "json"])?;
        serde_json::from_str(&text).map_err(|error| CallError {
            what: what.into(),
            why: format!("what it says is no list: {error}"),
        })
    }

    /// Into a container, for programs of the guest's.
    pub fn door(&self, container: &str) -> Door {
        Door {
            engine: "Apple's `container`",
            program: self.program.clone(),
            environment: environment(),
            words: ["exec", "--interactive"].map(str::to_owned).to_vec(),
            terminal: "--tty",
            rest: vec![container.to_owned()],
        }
    }

    fn run(&self, arguments: &[&str], patience: Duration) -> io::Result<Said> {
        call::run(&self.program, environment(), arguments, patience)
    }
}

/// The whole environment of a call.
fn environment() -> Vec<(&'static str, OsString)> {
    PASSED
        .iter()
        .filter_map(|name| Some((*name, std::env::var_os(name)?)))
        .collect()
}

/// How long a call may take.
pub fn patience() -> Duration {
    call::patience(PATIENCE_VARIABLE, PATIENCE)
}
