//! `__container-sidecar`: pid 1 of the sidecar's container.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Pid, Signal, kill_process, set_dumpable_behavior};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{CONFIGURATION, SidecarBriefing, read_frame};

/// Longer than the sidecar's own grace for requests in flight.
const STOP: Duration = Duration::from_secs(8);

pub fn main() -> ExitCode {
    match start() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _closed = io::Write::write_all(
                &mut io::stderr(),
                format!("error: the sidecar's first process: {error}\n").as_bytes(),
            );
            ExitCode::FAILURE
        }
    }
}

fn start() -> io::Result<u8> {
    // It has the credentials in its memory for a moment.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let briefing: SidecarBriefing = read_frame(io::stdin().lock())?
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    // One thread: the sidecar dies with the thread that started it.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(briefing))
}

async fn serve(briefing: SidecarBriefing) -> io::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (program, arguments) = briefing
        .command
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut child = Command::new(program)
        .args(arguments)
        .args(["__sidecar", "1", "run", "--config"])
        .arg(format!("{CONFIGURATION}/sidecar.yaml"))
        .env_clear()
        .envs(briefing.env)
        .stdin(std::process::Stdio::null())
        .spawn()?;
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut lifeline = lifeline()?;
    loop {
        tokio::select! {
            status = child.wait() => {
                return Ok(status?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            _ = &mut lifeline => break,
            _ = terminate.recv() => break,
            // The sidecar reloads its policy.
            _ = hangup.recv() => kill_process(pid, Signal::HUP)?,
        }
    }
    kill_process(pid, Signal::TERM)?;
    if timeout(STOP, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(0)
}

/// Comes when the launcher has closed its end, or is gone.
pub(super) fn lifeline() -> io::Result<oneshot::Receiver<()>> {
    let (cut, is_cut) = oneshot::channel();
    std::thread::Builder::new()
        .name("lifeline".into())
        .spawn(move || {
            // Whatever else is said, only the end counts.
            let _ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _unheard = cut.send(());
        })?;
    Ok(is_cut)
}
