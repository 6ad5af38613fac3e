//! `__container-init`: pid 1 of the agent's container. It has no authority that the agent lacks: what it relays to is a
//! socket that the agent may open itself, and asks for the same credentials.

use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, kill_process_group, set_dumpable_behavior, wait,
};
use tokio::signal::unix::{SignalKind, signal};

use super::{InitBriefing, InitReport, Order, RUN, read_frame, say};
use crate::local::relay;

pub fn main() -> ExitCode {
    super::told(start())
}

fn start() -> io::Result<()> {
    // Its memory and its `/proc` entries are closed to the agent, which has the same user id.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let briefing: InitBriefing = read_frame(io::stdin().lock())?
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    let directory = rustix::fs::open(
        RUN,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    relay::start(
        SocketAddrV4::new(briefing.alias, briefing.port),
        relay::To::Directory(directory),
    )?;
    std::thread::Builder::new()
        .name("orders".into())
        .spawn(|| {
            obey();
            // The lifeline is cut: the kernel ends everything else in here.
            std::process::exit(0);
        })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut ended = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        say(&InitReport {
            ready: true,
            error: None,
        })?;
        loop {
            tokio::select! {
                _ = ended.recv() => reap(),
                _ = terminate.recv() => return Ok(()),
            }
        }
    })
}

fn obey() {
    let mut orders = io::stdin().lock();
    while let Ok(Some(Order::Signal(number))) = read_frame(&mut orders) {
        if let Some(signal) = Signal::from_named_raw(number) {
            for pid in from_outside() {
                // It may have ended by itself.
                let _ended = kill_process_group(pid, signal);
            }
        }
    }
}

/// What the engine started in here has no parent in here, and is the leader of its session.
fn from_outside() -> Vec<Pid> {
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_ascii_whitespace().nth(1)?.parse::<i32>().ok()
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != 1 && parent(*pid) == Some(0))
        .filter_map(Pid::from_raw)
        .collect()
}

/// Everything that loses its parent in the container becomes our child.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
