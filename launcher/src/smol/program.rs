//! Calls of the program `smolvm`: each has a deadline and the whole of its environment from us, its output is read to
//! the end (some versions panic when a pipe is closed), and calls that change something take turns.
//!
//! A call runs on a thread of its own. A start that is interrupted drops the future that waits for it, not the call:
//! the undo that comes next waits for its turn, and so finds what the call has made.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use proxy::secrets::Secret;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use super::channel::{self, Kind};
use super::place::Place;
use super::version::{Offers, Version};
use crate::backend::Missing;
use crate::escape::Escaped;
use crate::state::process::has_ended;

/// For one call. A first start unpacks the image in the guest and has twice as long, and is tried twice.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds, instead of [`PATIENCE`].
pub const PATIENCE_VARIABLE: &str = "BOT_BOTTLE_SMOLVM_TIMEOUT";
/// For a question that changes nothing.
const QUESTION: Duration = Duration::from_secs(20);
const MAX_OUTPUT: usize = 4 * 1024 * 1024;
/// For the last of a program's output, once it has ended.
const LAST: Duration = Duration::from_secs(1);
/// Of an error's text, for people.
const MAX_SAID: usize = 600;

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

/// What a call said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Nothing where a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    fn shown(&self) -> String {
        let text = if self.err.trim().is_empty() {
            &self.out
        } else {
            &self.err
        };
        let short: String = text.trim().chars().take(MAX_SAID).collect();
        let short = short.replace('\n', "; ");
        if short.is_empty() {
            return match self.code {
                Some(code) => format!("it ended with {code} and said nothing"),
                None => "a signal ended it".into(),
            };
        }
        Escaped(&short).to_string()
    }
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

    /// A call that goes on, for a program in a machine: dies with us, and has a terminal of ours or pipes.
    pub fn attached(&self, arguments: &[&str], terminal: bool) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("__tether")
            .arg(std::process::id().to_string())
            .arg(if terminal { "terminal" } else { "pipes" })
            .arg(&self.program)
            .args(arguments)
            .env_clear()
            .envs(self.place.environment())
            .current_dir("/");
        command
    }
}

/// How long a call may take.
pub fn patience() -> Duration {
    std::env::var(PATIENCE_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|seconds| (1..=3600).contains(seconds))
        .map_or(PATIENCE, Duration::from_secs)
}

/// As it says it for people, and as a code where it speaks JSON.
fn is_not_found(text: &str) -> bool {
    text.contains("vm not found")
        || text.contains("\"NOT_FOUND\"")
        || text.contains("machine not found")
}

fn run(
    program: &PathBuf,
    place: &Place,
    more: &[(&'static str, Secret)],
    arguments: &[&str],
    patience: Duration,
) -> io::Result<Said> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(place.environment())
        .envs(more.iter().map(|(name, secret)| (name, secret.expose())))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The terminal's ^C is for the launcher.
        .process_group(0)
        .spawn()?;
    let out = Drain::of(child.stdout.take())?;
    let err = Drain::of(child.stderr.take())?;
    let ended = wait(&mut child, patience)?;
    if !ended {
        child.kill()?;
    }
    let status = child.wait()?;
    if !ended {
        // Its readers end when what it started closes the pipes; nobody waits for that.
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("it was not done after {} s", patience.as_secs()),
        ));
    }
    Ok(Said {
        code: status.code(),
        out: out.said(),
        err: err.said(),
    })
}

fn wait(child: &mut Child, patience: Duration) -> io::Result<bool> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::NotFound)?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    has_ended(&handle, patience)
}

/// Reads a stream to its end, on a thread of its own.
struct Drain {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Drain {
    fn of(from: Option<impl Read + Send + 'static>) -> io::Result<Self> {
        let mut from = from.ok_or(io::ErrorKind::BrokenPipe)?;
        let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (end, ended) = mpsc::sync_channel(1);
        let shared = Arc::clone(&kept);
        std::thread::Builder::new()
            .name("smolvm".into())
            .spawn(move || {
                let mut piece = [0; 8192];
                while let Ok(length @ 1..) = from.read(&mut piece) {
                    let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = MAX_OUTPUT.saturating_sub(kept.len());
                    kept.extend_from_slice(piece.get(..length.min(room)).unwrap_or_default());
                }
                let _unheard = end.send(());
            })?;
        Ok(Self { kept, ended })
    }

    /// What came until the end, or until a moment after the program's: what it has started may keep the stream open.
    fn said(self) -> String {
        let _either = self.ended.recv_timeout(LAST);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
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

    #[test]
    fn a_call_has_a_deadline_and_only_our_environment() {
        let place = Place::locate().unwrap();
        let env = PathBuf::from("/usr/bin/env");
        let said = run(&env, &place, &[], &[], QUESTION).unwrap();
        assert_eq!(said.code, Some(0));
        assert!(!said.out.contains("CARGO"), "{}", said.out);
        let sleep = ["sleep", "30"];
        let late = run(&env, &place, &[], &sleep, Duration::from_millis(200)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let said = run(
            &env,
            &place,
            &[],
            &["sh", "-c", "echo no >&2; exit 3"],
            QUESTION,
        )
        .unwrap();
        assert_eq!((said.code, said.shown().as_str()), (Some(3), "no"));
    }
}
