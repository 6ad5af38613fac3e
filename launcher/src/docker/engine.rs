//! The engine, through its socket: every call has a deadline, none is cut off half-way, and each error says what was
//! tried.
//!
//! Calls run on a thread of their own. A start that is interrupted drops the future that waits for a call, not the call:
//! what it was making is there before the undo that removes it looks for it, because calls that change something take
//! turns.

use std::env;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::backend::Missing;

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// For one call; building an image has its own.
const PATIENCE: Duration = Duration::from_secs(60);
/// For the first call: every start asks, also one that does without an engine in the end.
const FIRST: Duration = Duration::from_secs(10);
/// Seconds, instead of [`PATIENCE`].
pub const PATIENCE_VARIABLE: &str = "BOT_BOTTLE_DOCKER_TIMEOUT";

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("the engine could not {what}: {why}")]
pub struct EngineError {
    pub what: String,
    pub why: String,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no such thing.
    NotFound,
    /// It exists already, is in use, or is being removed just now.
    Conflict,
    Late,
    Other,
}

impl From<EngineError> for io::Error {
    fn from(error: EngineError) -> Self {
        match error.kind {
            Kind::NotFound => Self::new(io::ErrorKind::NotFound, error),
            _ => Self::other(error),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Engine {
    docker: Docker,
    pub socket: PathBuf,
    patience: Duration,
    turn: Arc<Mutex<()>>,
    runtime: Arc<Background>,
}

impl Engine {
    /// Connects to the engine that `DOCKER_HOST` names, else to the system's.
    pub fn connect() -> Result<Self, Missing> {
        let socket = socket()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("engine")
            .enable_all()
            .build()
            .map_err(|error| Missing {
                what: format!("a thread for the engine's calls could not be started: {error}"),
                remedy: "look at the limits that `ulimit -a` shows".into(),
            })?;
        let patience = patience();
        let missing = |error: Error| match error {
            Error::RequestTimeoutError => late(&socket, patience),
            error => unreachable(&socket, &error),
        };
        let path = socket.to_string_lossy();
        let docker = Docker::connect_with_unix(&path, patience.as_secs(), API_DEFAULT_VERSION)
            .map_err(missing)?;
        let engine = Self {
            docker,
            socket: socket.clone(),
            patience,
            turn: Arc::default(),
            runtime: Arc::new(Background(Some(runtime))),
        };
        let first = patience.min(FIRST);
        let unversioned = engine.docker.clone();
        let negotiated = engine
            .blocking(async move { timeout(first, unversioned.negotiate_version()).await })
            .map_err(|_| late(&socket, first))?
            .map_err(|_| late(&socket, first))?
            .map_err(missing)?;
        Ok(Self {
            docker: negotiated,
            ..engine
        })
    }

    /// Asks something; changes nothing.
    pub async fn ask<T, F>(
        &self,
        what: impl Into<String>,
        call: impl FnOnce(Docker) -> F,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.run(what.into(), self.patience, None, call(self.docker.clone()))
            .await
    }

    /// Changes something: the call goes on to its end even where nobody waits for it any more.
    pub async fn change<T, F>(
        &self,
        what: impl Into<String>,
        call: impl FnOnce(Docker) -> F,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.change_within(self.patience, what, call).await
    }

    /// As `change`, for what takes long.
    pub async fn change_within<T, F>(
        &self,
        patience: Duration,
        what: impl Into<String>,
        call: impl FnOnce(Docker) -> F,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let turn = Some(Arc::clone(&self.turn));
        self.run(what.into(), patience, turn, call(self.docker.clone()))
            .await
    }

    async fn run<T: Send + 'static>(
        &self,
        what: String,
        patience: Duration,
        turn: Option<Arc<Mutex<()>>>,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let task = self.spawn(async move {
            let _turn = match &turn {
                Some(turn) => Some(turn.lock().await),
                None => None,
            };
            timeout(patience, call).await
        });
        match task.await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(error))) => Err(explain(what, &error)),
            Ok(Err(_)) => Err(EngineError {
                what,
                why: format!("it did not answer within {} s", patience.as_secs()),
                kind: Kind::Late,
            }),
            Err(panicked) => Err(EngineError {
                what,
                why: panicked.to_string(),
                kind: Kind::Other,
            }),
        }
    }

    /// Runs on the engine's thread, to its end.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.handle().spawn(future)
    }

    /// For code that cannot wait asynchronously, an undo above all. Works on any thread but the engine's own.
    pub fn blocking<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.spawn(async move {
            // Nobody listens any more only where the launcher itself is ending.
            let _unheard = answer.send(future.await);
        });
        answered.recv().map_err(io::Error::other)
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    pub fn api_version(&self) -> bollard::ClientVersion {
        self.docker.client_version()
    }
}

/// A runtime that may be dropped anywhere.
#[derive(Debug)]
struct Background(Option<Runtime>);

impl Background {
    fn handle(&self) -> tokio::runtime::Handle {
        match &self.0 {
            Some(runtime) => runtime.handle().clone(),
            // Only `drop` takes it out.
            None => tokio::runtime::Handle::current(),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn patience() -> Duration {
    env::var(PATIENCE_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|seconds| (1..=3600).contains(seconds))
        .map_or(PATIENCE, Duration::from_secs)
}

/// Where the engine listens. A bottle's directories are mounted by their paths, so it must be an engine of this host.
fn socket() -> Result<PathBuf, Missing> {
    let host = env::var("DOCKER_HOST").unwrap_or_default();
    let path = match host.strip_prefix("unix://") {
        Some(path) => PathBuf::from(path),
        None if host.is_empty() => PathBuf::from(DEFAULT_SOCKET),
        None => {
            return Err(Missing {
                what: format!(
                    "DOCKER_HOST is {:?}: only an engine of this host can mount the workspace",
                    crate::escape::Escaped(&host).to_string()
                ),
                remedy: "set it to unix:///path/to/docker.sock, or unset it".into(),
            });
        }
    };
    match std::fs::metadata(&path) {
        Ok(meta) if meta.file_type().is_socket() => Ok(path),
        Ok(_) => Err(Missing {
            what: format!("{} is not a socket", path.display()),
            remedy: "set DOCKER_HOST to unix:///path/to/docker.sock".into(),
        }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(forbidden(&path)),
        Err(_) => Err(Missing {
            what: format!("Docker is not running: there is no socket {}", path.display()),
            remedy: "install it (Debian: `sudo apt-get install docker.io`) and start it: `sudo systemctl start docker`"
                .into(),
        }),
    }
}

fn forbidden(path: &Path) -> Missing {
    Missing {
        what: format!("you may not use the engine's socket {}", path.display()),
        remedy: "`sudo usermod -aG docker $USER`, then log in again (whoever is in that group is as good as root)"
            .into(),
    }
}

fn unreachable(socket: &Path, error: &Error) -> Missing {
    let text = chain(error);
    if text.contains("ermission denied") {
        return forbidden(socket);
    }
    Missing {
        what: format!("no engine answers on {}: {text}", socket.display()),
        remedy: "`sudo systemctl start docker`, and look at `docker version`".into(),
    }
}

fn late(socket: &Path, patience: Duration) -> Missing {
    Missing {
        what: format!(
            "the engine on {} did not answer within {} s",
            socket.display(),
            patience.as_secs()
        ),
        remedy:
            "look at `docker version`; `sudo systemctl restart docker` helps where that hangs too"
                .into(),
    }
}

fn explain(what: String, error: &Error) -> EngineError {
    let (why, kind) = match error {
        Error::DockerResponseServerError {
            status_code,
            message,
        } => {
            let kind = match status_code {
                404 => Kind::NotFound,
                409 => Kind::Conflict,
                _ => Kind::Other,
            };
            (message.clone(), kind)
        }
        other => (chain(other), Kind::Other),
    };
    EngineError {
        what,
        // An engine repeats names and texts that are not ours.
        why: crate::escape::Escaped(why.trim()).to_string(),
        kind,
    }
}

/// An error with its causes: the client's own is often only "error in the client".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
