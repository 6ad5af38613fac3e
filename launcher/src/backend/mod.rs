//! The boundary around an agent, whatever it is made of.
//!
//! A session drives every backend through the same steps, in this order: [`Backend::preflight`], [`Backend::ground`],
//! [`Backend::sidecar`], [`Backend::isolate`], [`Backend::probe`], [`Backend::attach`], [`Backend::wait`]. A step that fails
//! ends the session; no step has a weaker way of doing it.

pub mod canary;
mod choose;
pub mod claim;
pub mod proof;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::process::Signal;
use rustix::termios::Winsize;
use serde::Serialize;

pub use choose::{ChooseError, Chosen, Kind, choose};
pub use proof::{Check, Proof};

use crate::exit::Exit;
use crate::plan::{Plan, Program};
use crate::sidecar::{Sidecar, SidecarError, SidecarStart};
use crate::state::BottleDir;
use crate::undo::UndoStack;

/// How the agent's side reaches the sidecar. The agent's proxy URL names the alias in every case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A Unix socket that is handed into the boundary; a relay in there listens on the alias. There is no network.
    Socket(PathBuf),
    /// The sidecar listens at this address of the host, and the boundary lets through to it alone.
    Address(SocketAddrV4),
    /// smolvm dials the sidecar here for every connection of the guest's, and `destination` alone is let in.
    Interceptor {
        listen: SocketAddrV4,
        destination: SocketAddrV4,
    },
}

/// Something that a host lacks, and the command that mends it.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.what, self.remedy)
    }
}

/// What a backend needs to know of a bottle to build its boundary.
#[derive(Debug)]
pub struct Bottle<'a> {
    pub plan: &'a Plan,
    pub alias: Ipv4Addr,
    pub directory: &'a BottleDir,
    /// For the probe, which must get through with it and not without.
    pub proxy_password: &'a str,
    /// Paths of the host that must not be there inside.
    pub hidden: Vec<PathBuf>,
}

/// The program to run inside, with its whole environment.
#[derive(Clone, Debug)]
pub struct Agent {
    pub program: Program,
    pub env: Vec<(String, String)>,
}

/// What the agent's standard streams are.
#[derive(Debug)]
pub enum Streams {
    /// A terminal of the boundary's own; the backend returns its other end.
    Terminal,
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
}

/// The other end of an agent's terminal.
pub struct Terminal {
    /// What is typed goes here.
    pub input: OwnedFd,
    /// What is shown comes from here.
    pub output: OwnedFd,
    pub resize: Box<dyn Fn(Winsize) + Send>,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal")
            .field("input", &self.input)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("{}", list(.0))]
    Missing(Vec<Missing>),
    #[error("the boundary could not be built: {0}")]
    Isolate(String),
    #[error("the boundary could not be confirmed, so the agent was not started: {0}")]
    NotLocked(String),
    #[error("the agent could not be started: {0}")]
    Start(String),
    #[error("the boundary is gone: {0}")]
    Gone(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl BackendError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Missing(_) => Exit::Preflight,
            Self::NotLocked(_) => Exit::NotLocked,
            Self::Isolate(_) | Self::Start(_) | Self::Gone(_) | Self::Io(_) => Exit::Failed,
        }
    }
}

fn list(missing: &[Missing]) -> String {
    missing
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// One boundary, from nothing to its end. Dropping what it registered on the [`UndoStack`] must destroy it.
pub trait Backend {
    /// Everything that this host lacks; empty where it can run.
    fn preflight(&self) -> Vec<Missing>;

    /// Aliases that are in use beside those whose lock is held, and by whom.
    fn aliases_held(&self) -> Result<Vec<(Ipv4Addr, String)>, BackendError> {
        Ok(Vec::new())
    }

    /// Whether something on this host has the alias; asked once its lock is ours.
    fn is_taken(&self, _alias: Ipv4Addr) -> bool {
        false
    }

    /// Where the sidecar listens, for a sidecar that is a process of the host.
    fn channel(&self, directory: &BottleDir, alias: Ipv4Addr) -> Channel;

    /// Makes what the sidecar stands on. The host's address as the sidecar sees it.
    fn ground(
        &mut self,
        _plan: &Plan,
        _undo: &mut UndoStack,
    ) -> impl Future<Output = Result<Ipv4Addr, BackendError>> {
        async { Ok(Ipv4Addr::LOCALHOST) }
    }

    /// Starts the sidecar; a process of the host where a backend does not say otherwise.
    fn sidecar(
        &mut self,
        start: &SidecarStart<'_>,
        undo: &mut UndoStack,
    ) -> impl Future<Output = Result<Sidecar, SidecarError>> {
        let channel = self.channel(start.directory, start.alias);
        async move { Sidecar::start(start, &channel, undo).await }
    }

    /// Builds the boundary with nothing of the agent's in it yet. The sidecar runs already.
    fn isolate(
        &mut self,
        bottle: &Bottle<'_>,
        undo: &mut UndoStack,
    ) -> impl Future<Output = Result<(), BackendError>>;

    /// Tries from inside, under the agent's own confinement, to get out. A probe that cannot run is an error.
    fn probe(&mut self, bottle: &Bottle<'_>) -> impl Future<Output = Result<Proof, BackendError>>;

    /// Starts the agent; the other end of its terminal where it has one.
    fn attach(
        &mut self,
        agent: &Agent,
        streams: Streams,
    ) -> impl Future<Output = Result<Option<Terminal>, BackendError>>;

    /// Waits for the end of the agent. May be dropped and called again.
    fn wait(&mut self) -> impl Future<Output = Result<Exit, BackendError>>;

    /// Ends everything that runs inside. The boundary itself goes with the [`UndoStack`].
    fn end(&mut self);

    /// Processes of the host that it started: killed by the sweep where they outlive the launcher.
    fn processes(&self) -> Vec<u32>;

    /// Passes a signal on to the agent; it may have ended.
    fn signal(&mut self, signal: Signal) -> Result<(), BackendError>;
}
