//! Starting, watching and stopping the sidecar.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use proxy::config;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, test_kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::backend::Channel;
use crate::docker::{self, ContainedSidecar, Engine};
use crate::local::{parent, sys};
use crate::plan::Plan;
use crate::state::{BottleDir, StateError, bottle, process};
use crate::undo::UndoStack;

/// Of the sidecar's environment: what smolvm's interceptor shows itself by.
pub const INTERCEPTOR_TOKEN: &str = "BOT_BOTTLE_INTERCEPTOR_TOKEN";
pub const READY: Duration = Duration::from_secs(10);
/// Longer than the sidecar's own grace for requests in flight.
const STOP: Duration = Duration::from_secs(12);
const MAX_LINE: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the sidecar's file cannot be written: {0}")]
    Write(String),
    #[error("the sidecar could not be started: {0}")]
    Io(#[from] io::Error),
    #[error("the sidecar's container: {0}")]
    Engine(String),
    #[error("the sidecar was not ready within {} s; its log is {}", READY.as_secs(), .0.display())]
    Late(PathBuf),
    #[error("the sidecar ended before it was ready: {reason}\nhint: its log is {}", log.display())]
    Ended { reason: String, log: PathBuf },
    #[error("the sidecar runs with the policy {running}, not with {planned}; its log is {}", log.display())]
    Policy {
        running: String,
        planned: String,
        log: PathBuf,
    },
}

/// What a sidecar is started with.
#[derive(Debug)]
pub struct SidecarStart<'a> {
    pub plan: &'a Plan,
    pub directory: &'a BottleDir,
    pub alias: Ipv4Addr,
    /// Paths and listeners are those of a process of the host.
    pub file: config::File,
    /// The hash of the policy that was shown to the user.
    pub policy: &'a str,
    pub env: Vec<(String, String)>,
}

/// A sidecar that is ready. It is stopped by the [`UndoStack`].
#[derive(Debug)]
pub struct Sidecar {
    pub handle: Handle,
    /// Where its control API listens, as the host sees it.
    pub control: Option<String>,
    kind: Running,
}

/// Which one it is, to end it as an attack would.
#[derive(Clone, Debug)]
pub enum Handle {
    Process(u32),
    Container { engine: Engine, name: String },
}

#[derive(Debug)]
enum Running {
    Process {
        child: Box<Child>,
        /// Kept open: a process that writes to a closed one is ended.
        _stdout: BufReader<ChildStdout>,
    },
    Container(ContainedSidecar),
}

#[derive(Debug, Deserialize)]
struct Ready {
    ready: bool,
    policy: Option<String>,
    control: Option<String>,
}

impl Sidecar {
    /// Starts it as a process of the host. Must be called from the main thread: the child dies with the thread that
    /// started it.
    pub async fn start(
        start: &SidecarStart<'_>,
        channel: &Channel,
        undo: &mut UndoStack,
    ) -> Result<Self, SidecarError> {
        let directory = start.directory;
        let mut file = start.file.clone();
        match channel {
            Channel::Socket(path) => file.listen = vec![format!("unix:{}", path.display())],
            Channel::Address(address) => file.listen = vec![address.to_string()],
            Channel::Interceptor {
                listen,
                destination,
            } => {
                // There is no other way in.
                file.listen = Vec::new();
                file.interceptor = Some(config::Interceptor {
                    listen: listen.to_string(),
                    destination: destination.to_string(),
                    token_ref: INTERCEPTOR_TOKEN.into(),
                });
            }
        }
        let path = directory.sidecar_file();
        let text = serde_saphyr::to_string(&file)
            .map_err(|error| SidecarError::Write(error.to_string()))?;
        bottle::write_private(&path, text.as_bytes())?;
        let log = directory.logs.join("sidecar.log");
        let stderr = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&log)?;
        let mut child = Command::new("/proc/self/exe")
            .arg("__sidecar")
            .arg(std::process::id().to_string())
            .args(["run", "--config"])
            .arg(&path)
            .env_clear()
            .envs(start.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // The terminal's ^C is for the launcher, which stops the sidecar last.
            .process_group(0)
            .spawn()?;
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let pid = child.id().ok_or_else(gone)?;
        let raw = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(gone)?;
        let handle = pidfd_open(raw, PidfdFlags::empty()).map_err(io::Error::from)?;
        undo.push(format!("the sidecar (process {pid})"), move || {
            stop(&handle)
        });

        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(gone)?);
        let mut line = String::new();
        let first_line = async { (&mut stdout).take(MAX_LINE).read_line(&mut line).await };
        timeout(READY, first_line)
            .await
            .map_err(|_| SidecarError::Late(log.clone()))??;
        let control = check_ready(&line, start.policy, &log)?;
        Ok(Self {
            handle: Handle::Process(pid),
            control,
            kind: Running::Process {
                child: Box::new(child),
                _stdout: stdout,
            },
        })
    }

    pub fn contained(handle: Handle, container: ContainedSidecar) -> Self {
        Self {
            handle,
            control: container.control.clone(),
            kind: Running::Container(container),
        }
    }

    /// The process of the host that it is.
    pub fn process(&self) -> Option<u32> {
        match self.handle {
            Handle::Process(pid) => Some(pid),
            Handle::Container { .. } => None,
        }
    }

    /// Returns when it has ended, whoever ended it.
    pub async fn ended(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Running::Process { child, .. } => child.wait().await.map(|_| ()),
            Running::Container(container) => {
                container.ended().await;
                Ok(())
            }
        }
    }
}

impl Handle {
    /// Kills it and waits until it is gone.
    pub async fn kill(&self) -> io::Result<()> {
        match self {
            Self::Container { engine, name } => docker::kill(engine, name).await,
            Self::Process(pid) => {
                let pid = i32::try_from(*pid)
                    .ok()
                    .and_then(Pid::from_raw)
                    .ok_or(io::ErrorKind::NotFound)?;
                kill_process(pid, Signal::KILL)?;
                for _ in 0..200 {
                    if test_kill_process(pid).is_err() {
                        return Ok(());
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(io::Error::other("it did not die"))
            }
        }
    }
}

/// The sidecar's one line: it is ready, and runs the policy that was planned.
/// Where its control API listens.
pub(crate) fn check_ready(
    line: &str,
    policy: &str,
    log: &Path,
) -> Result<Option<String>, SidecarError> {
    match serde_json::from_str::<Ready>(line) {
        Ok(Ready {
            ready: true,
            policy: running,
            control,
        }) => {
            // A sidecar whose file is bad starts too, and denies everything; better not to start the agent at all.
            match running.filter(|running| running != policy) {
                Some(running) => Err(SidecarError::Policy {
                    running,
                    planned: policy.into(),
                    log: log.to_owned(),
                }),
                None => Ok(control),
            }
        }
        _ => Err(SidecarError::Ended {
            reason: last_line(log),
            log: log.to_owned(),
        }),
    }
}

/// `__sidecar PARENT …`: dies with the launcher, which is looked for before anything else is done.
pub fn main(arguments: &[std::ffi::OsString]) -> ExitCode {
    let (parent, rest) = match arguments.split_first() {
        Some((parent, rest)) => (parent.to_str().and_then(|text| text.parse().ok()), rest),
        None => (None, arguments),
    };
    let Some(parent) = parent else {
        return ExitCode::from(crate::exit::Exit::Usage);
    };
    if parent::die_with(parent)
        .and_then(|()| sys::close_inherited_on_exec())
        .is_err()
    {
        return ExitCode::FAILURE;
    }
    proxy::cli::main(std::iter::once("sidecar".into()).chain(rest.iter().cloned()))
}

fn stop(handle: &OwnedFd) -> io::Result<()> {
    if !process::end(handle, Signal::TERM, STOP)? && !process::end(handle, Signal::KILL, STOP)? {
        return Err(io::Error::other("it does not end"));
    }
    Ok(())
}

fn last_line(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let line = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing");
    crate::escape::Escaped(line).to_string()
}
