//! Backend `local`: Linux namespaces, no engine and no root.
//!
//! ```text
//! launcher ── sidecar                       host's namespaces, own process group, dies with the launcher
//!     └────── __bottle-stage1               enters new namespaces, waits
//!                 └── __bottle-init         pid 1 in there: file tree, relay to the sidecar, reaper
//!                         └── __bottle-become   gives everything up and becomes the probe, then the agent
//! ```
//!
//! Each is `/proc/self/exe` again, so that nothing has to be done between fork and exec. The network namespace has a
//! loopback interface and no other; the one way out is the relay on the alias, which joins connections to the sidecar's
//! Unix socket. The agent runs in a second user namespace below that of the first process, without any capability.

pub(crate) mod etc;
pub mod init;
mod mounts;
mod netlink;
pub mod parent;
pub mod probe;
pub(crate) mod program;
pub(crate) mod relay;
mod root;
pub(crate) mod seccomp;
pub mod stage1;
mod step;
pub mod sys;
mod syscalls;
mod trial;
mod wire;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
use rustix::process::{Signal, getegid, geteuid};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::timeout;

pub use program::main as become_main;

use crate::backend::{
    Agent, Backend, BackendError, Bottle, Channel, Missing, Proof, Streams, Terminal,
};
use crate::exit::Exit;
use crate::plan::Program;
use crate::state::{BottleDir, PROXY_PORT, process};
use crate::undo::UndoStack;
use wire::{Order, Report, Run, Setup};

/// Mounts and copies; a slow disk has time.
const SETUP: Duration = Duration::from_secs(30);
/// For the kernel to end all processes of a bottle.
const TEARDOWN: Duration = Duration::from_secs(3);
/// The agent's uid where the launcher's is root's.
const AGENT_ID: u32 = 1000;
/// Where distributions keep their certificates in one file.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[derive(Debug, Default)]
pub struct Local {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// A sequenced-packet socket. The type stands for any that keeps messages whole.
    channel: UnixDatagram,
    stage1: u32,
    workspace: PathBuf,
}

impl Backend for Local {
    fn preflight(&self) -> Vec<Missing> {
        match try_namespaces() {
            Ok(()) => Vec::new(),
            Err(missing) => vec![missing],
        }
    }

    fn channel(&self, directory: &BottleDir, _alias: Ipv4Addr) -> Channel {
        Channel::Socket(directory.socket())
    }

    async fn isolate(
        &mut self,
        bottle: &Bottle<'_>,
        undo: &mut UndoStack,
    ) -> Result<(), BackendError> {
        let setup = setup(bottle)?;
        let directory = rustix::fs::open(
            &bottle.directory.run,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(io::Error::from)?;
        let (child, ours) = start_stage1(&[])?;
        let stage1 = child.id();
        let end = ours.try_clone()?;
        undo.push(
            format!("the bottle's processes (stage 1 is process {stage1})"),
            move || stop(child, &end),
        );

        rustix::io::ioctl_fionbio(&ours, true).map_err(io::Error::from)?;
        let mut running = Running {
            channel: UnixDatagram::from_std(ours.into())?,
            stage1,
            workspace: bottle.plan.workspace.path().to_owned(),
        };
        running.order(&Order::Setup(Box::new(setup)), &[directory.as_fd()])?;
        match running.report(SETUP).await? {
            (Report::Ready, _) => {}
            (
                Report::Failed {
                    step,
                    error,
                    remedy: Some(remedy),
                },
                _,
            ) => {
                return Err(BackendError::Missing(vec![Missing {
                    what: format!("{step}: {error}"),
                    remedy,
                }]));
            }
            (
                Report::Failed {
                    step,
                    error,
                    remedy: None,
                },
                _,
            ) => {
                return Err(BackendError::Isolate(format!("{step}: {error}")));
            }
            (other, _) => return Err(unexpected(&other)),
        }
        self.running = Some(running);
        Ok(())
    }

    async fn probe(&mut self, bottle: &Bottle<'_>) -> Result<Proof, BackendError> {
        let running = self.running()?;
        trial::run(running, bottle).await
    }

    async fn attach(
        &mut self,
        agent: &Agent,
        streams: Streams,
    ) -> Result<Option<Terminal>, BackendError> {
        let running = self.running()?;
        let master = running.start(agent, streams).await?;
        Ok(match master {
            None => None,
            Some(master) => Some(Terminal {
                input: master.try_clone()?,
                output: master.try_clone()?,
                resize: Box::new(move |size| {
                    // A wrong size is no reason to end a session.
                    let _unchanged = rustix::termios::tcsetwinsize(master.as_fd(), size);
                }),
            }),
        })
    }

    async fn wait(&mut self) -> Result<Exit, BackendError> {
        self.running()?.ended().await
    }

    fn signal(&mut self, signal: Signal) -> Result<(), BackendError> {
        self.running()?.order(&Order::Signal(signal.as_raw()), &[])
    }

    fn end(&mut self) {
        // Closes the lifeline: the first process ends, and the kernel ends all others.
        if let Some(running) = self.running.take() {
            // It may be closed already.
            let _closed = shutdown(&running.channel, Shutdown::Both);
        }
    }

    fn processes(&self) -> Vec<u32> {
        self.running.iter().map(|running| running.stage1).collect()
    }
}

impl Local {
    fn running(&mut self) -> Result<&mut Running, BackendError> {
        self.running
            .as_mut()
            .ok_or_else(|| BackendError::Gone("it was not built".into()))
    }
}

impl Running {
    async fn start(
        &mut self,
        agent: &Agent,
        streams: Streams,
    ) -> Result<Option<OwnedFd>, BackendError> {
        let (own, argv) = match &agent.program {
            Program::Command(argv) => (false, argv.clone()),
            Program::Own(argv) => (true, argv.clone()),
        };
        let run = Run {
            own,
            argv,
            env: agent.env.clone(),
            directory: self.workspace.clone(),
            terminal: matches!(streams, Streams::Terminal),
        };
        match &streams {
            Streams::Terminal => self.order(&Order::Run(Box::new(run)), &[])?,
            Streams::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                self.order(
                    &Order::Run(Box::new(run)),
                    &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
                )?;
            }
        }
        // The bottle has its own now; as long as ours were open, a reader would not see the end.
        drop(streams);
        match self.report(SETUP).await? {
            (Report::Started, mut fds) => Ok(fds.pop()),
            (
                Report::Failed {
                    step,
                    error,
                    remedy,
                },
                _,
            ) => {
                let hint = remedy
                    .map(|remedy| format!("\nhint: {remedy}"))
                    .unwrap_or_default();
                Err(BackendError::Start(format!("{step}: {error}{hint}")))
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn ended(&mut self) -> Result<Exit, BackendError> {
        match self.next().await? {
            (Report::Exited { code: Some(0), .. }, _) => Ok(Exit::Ok),
            (
                Report::Exited {
                    code: Some(code), ..
                },
                _,
            ) => Ok(Exit::Agent(u8::try_from(code).unwrap_or(u8::MAX))),
            (
                Report::Exited {
                    signal: Some(signal),
                    ..
                },
                _,
            ) => Ok(Exit::signalled(signal)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    fn order(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<(), BackendError> {
        wire::send(&self.channel, order, fds).map_err(|error| BackendError::Gone(error.to_string()))
    }

    async fn report(&mut self, patience: Duration) -> Result<(Report, Vec<OwnedFd>), BackendError> {
        let late =
            |_| BackendError::Gone(format!("it did not answer within {} s", patience.as_secs()));
        timeout(patience, self.next()).await.map_err(late)?
    }

    async fn next(&mut self) -> Result<(Report, Vec<OwnedFd>), BackendError> {
        loop {
            self.channel.readable().await?;
            match self
                .channel
                .try_io(Interest::READABLE, || wire::receive(&self.channel))
            {
                Ok(Some(report)) => return Ok(report),
                Ok(None) => return Err(BackendError::Gone("its first process has ended".into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn unexpected(report: &Report) -> BackendError {
    BackendError::Gone(format!("it reported out of turn: {report:?}"))
}

fn setup(bottle: &Bottle<'_>) -> Result<Setup, BackendError> {
    let id = |own: u32| if own == 0 { AGENT_ID } else { own };
    Ok(Setup {
        hostname: bottle.plan.slug.to_string(),
        alias: bottle.alias,
        port: PROXY_PORT,
        workspace: bottle.plan.workspace.path().to_owned(),
        mounts: bottle
            .plan
            .mounts
            .iter()
            .map(|mount| mount.path().to_owned())
            .collect(),
        certificate: std::fs::read_to_string(bottle.directory.certificate()).map_err(|error| {
            BackendError::Isolate(format!("read the sidecar's certificate: {error}"))
        })?,
        bundle: host_bundle(),
        executable: std::env::current_exe()?,
        agent_uid: id(geteuid().as_raw()),
        agent_gid: id(getegid().as_raw()),
        git_name: bottle.plan.git.name.clone(),
        git_email: bottle.plan.git.email.clone(),
    })
}

/// The host's own certificates in one file, if it has one.
pub(crate) fn host_bundle() -> Option<PathBuf> {
    BUNDLES
        .iter()
        .map(Path::new)
        .find(|path| path.is_file())
        .map(Path::to_owned)
}

/// Must be called from the main thread: the child dies with the thread that started it.
fn start_stage1(arguments: &[&str]) -> io::Result<(Child, OwnedFd)> {
    let (ours, theirs) = wire::pair()?;
    let child = Command::new("/proc/self/exe")
        .arg("__bottle-stage1")
        .arg(std::process::id().to_string())
        .args(arguments)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        // The terminal's ^C is for the launcher, which ends the bottle in order.
        .process_group(0)
        .spawn()?;
    Ok((child, ours))
}

/// The first process ends when its channel does, stage 1 when that has ended and all in the bottle with it.
fn stop(mut child: Child, channel: &OwnedFd) -> io::Result<()> {
    // It may be closed already.
    let _closed = shutdown(channel, Shutdown::Both);
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .ok_or(io::ErrorKind::NotFound)?;
    let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    if !process::has_ended(&handle, TEARDOWN)? {
        child.kill()?;
    }
    child.wait()?;
    Ok(())
}

fn try_namespaces() -> Result<(), Missing> {
    let cannot = |error: io::Error| Missing {
        what: format!("namespaces could not be tried: {error}"),
        remedy: "look at what `strace -f launcher doctor` shows".into(),
    };
    let (mut child, channel) = start_stage1(&["check"]).map_err(cannot)?;
    let report = wire::receive::<Report>(&channel);
    child.wait().map_err(cannot)?;
    match report.map_err(cannot)? {
        Some((Report::Ready, _)) => Ok(()),
        Some((
            Report::Failed {
                step,
                error,
                remedy,
            },
            _,
        )) => Err(Missing {
            what: format!("{step}: {error}"),
            remedy: remedy
                .unwrap_or_else(|| "`strace -f launcher doctor` shows the call that failed".into()),
        }),
        Some((other, _)) => Err(cannot(io::Error::other(format!("{other:?}")))),
        None => Err(cannot(io::ErrorKind::UnexpectedEof.into())),
    }
}
