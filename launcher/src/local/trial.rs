//! The launcher's half of the probe: listeners on the host that must hear nothing.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixListener, UnixStream};
use std::time::Duration;

use tokio::time::timeout;

use super::Running;
use super::probe::{CHECKS, Task};
use crate::backend::{Agent, BackendError, Bottle, Check, Proof, Streams};
use crate::exit::Exit;
use crate::plan::Program;
use crate::state::PROXY_PORT;

const PATIENCE: Duration = Duration::from_secs(60);
const MAX_REPORT: u64 = 1024 * 1024;

/// What a probe cannot be run for is a refusal, as is everything that it finds.
pub async fn run(running: &mut Running, bottle: &Bottle<'_>) -> Result<Proof, BackendError> {
    let refused =
        |error: io::Error| BackendError::NotLocked(format!("the probe could not run: {error}"));
    let canary = Canary::listen().map_err(refused)?;
    let task = Task {
        alias: bottle.alias,
        port: PROXY_PORT,
        password: bottle.proxy_password.to_owned(),
        canary_port: canary.port,
        canary_name: canary.name.clone(),
        hidden: bottle.hidden.clone(),
    };
    let mut checks = attempt(running, &task).await?;
    if canary.heard().map_err(refused)? {
        checks.push(Check {
            name: "host loopback".into(),
            held: false,
            detail: "a listener on the host heard the probe".into(),
        });
    }
    Proof::new(checks, &CHECKS).map_err(BackendError::NotLocked)
}

async fn attempt(running: &mut Running, task: &Task) -> Result<Vec<Check>, BackendError> {
    let refused =
        |error: String| BackendError::NotLocked(format!("the probe could not run: {error}"));
    let (stdin, mut task_in) = io::pipe()?;
    let (report_out, stdout) = io::pipe()?;
    let (_errors, stderr) = io::pipe()?;
    let probe = Agent {
        program: Program::Own(vec!["__bottle-probe".into()]),
        env: Vec::new(),
    };
    let streams = Streams::Pipes {
        stdin: OwnedFd::from(stdin),
        stdout: OwnedFd::from(stdout),
        stderr: OwnedFd::from(stderr),
    };
    running
        .start(&probe, streams)
        .await
        .map_err(|error| refused(error.to_string()))?;
    // Smaller than a pipe, so this does not wait for the probe.
    task_in.write_all(&serde_json::to_vec(task).map_err(io::Error::from)?)?;
    drop(task_in);
    let ended = timeout(PATIENCE, running.ended())
        .await
        .map_err(|_| refused(format!("it was not done after {} s", PATIENCE.as_secs())))??;
    if ended != Exit::Ok {
        return Err(refused(format!("it ended with {}", ended.code())));
    }
    // Its writer is gone, so this does not wait either.
    let mut report = Vec::new();
    report_out.take(MAX_REPORT).read_to_end(&mut report)?;
    serde_json::from_slice(&report)
        .map_err(|error| refused(format!("its report cannot be read: {error}")))
}

/// Listeners that a process of the host reaches and the bottle must not.
struct Canary {
    port: u16,
    name: String,
    tcp: TcpListener,
    unix: UnixListener,
}

impl Canary {
    /// Tried out from the host first: a listener that is deaf would prove nothing.
    fn listen() -> io::Result<Self> {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = tcp.local_addr()?.port();
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("bot-bottle-canary-{:016x}", u64::from_ne_bytes(random));
        let address = unix::SocketAddr::from_abstract_name(&name)?;
        let unix = UnixListener::bind_addr(&address)?;

        TcpStream::connect_timeout(
            &SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            Duration::from_secs(3),
        )?;
        tcp.accept()?;
        UnixStream::connect_addr(&address)?;
        unix.accept()?;
        tcp.set_nonblocking(true)?;
        unix.set_nonblocking(true)?;
        Ok(Self {
            port,
            name,
            tcp,
            unix,
        })
    }

    fn heard(&self) -> io::Result<bool> {
        Ok(came(self.tcp.accept())? || came(self.unix.accept())?)
    }
}

fn came<T>(accepted: io::Result<T>) -> io::Result<bool> {
    match accepted {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
