//! `__bottle-init`: the first process of the bottle's PID namespace.
//!
//! It builds the bottle, relays to the sidecar, starts what the launcher orders, and reaps. When it ends the kernel
//! kills every process of the bottle; it ends with the launcher, whose end of the channel then closes.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, kill_process_group,
    set_dumpable_behavior, wait,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};

use super::root::{self, Kept};
use super::step::{Step, StepError};
use super::wire::{self, Become, Order, Report, Run, Setup};
use super::{netlink, relay};

pub fn main() -> ExitCode {
    let channel = match take_channel() {
        Ok(channel) => Arc::new(channel),
        Err(_) => return ExitCode::FAILURE,
    };
    match serve(&channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where the launcher is gone too there is nobody to tell.
            let _unheard = wire::send(&*channel, &error.into_report(), &[]);
            ExitCode::FAILURE
        }
    }
}

/// The channel came as standard input, which children inherit; theirs is something else.
pub(super) fn take_channel() -> io::Result<OwnedFd> {
    let channel = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(channel)
}

fn serve(channel: &Arc<OwnedFd>) -> Result<(), StepError> {
    // Its memory and its `/proc` entries are closed to everything of the agent's.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("become undumpable")?;
    let Some((Order::Setup(setup), fds)) = wire::receive(channel).step("read the set-up")? else {
        return Err(io::ErrorKind::UnexpectedEof).step("read the set-up");
    };
    let sidecar = fds
        .into_iter()
        .next()
        .ok_or(io::ErrorKind::InvalidData)
        .step("take the sidecar's directory")?;

    rustix::system::sethostname(setup.hostname.as_bytes()).step("set the host name")?;
    netlink::loopback_up().step("bring the loopback interface up")?;
    let kept = root::enter(&setup)?;
    relay::start(
        SocketAddrV4::new(setup.alias, setup.port),
        relay::To::Directory(sidecar),
    )
    .step(format!("listen on {}:{}", setup.alias, setup.port))?;

    let children = Arc::new(Children::default());
    let (reaper, answers) = (Arc::clone(&children), Arc::clone(channel));
    std::thread::Builder::new()
        .name("reaper".into())
        .spawn(move || reaper.reap(&answers))
        .step("start the reaper")?;
    wire::send(channel, &Report::Ready, &[]).step("report")?;

    while let Some((order, fds)) = wire::receive(channel).step("read an order")? {
        match order {
            Order::Run(run) => {
                if let Err(error) = start(*run, fds, &setup, &kept, &children, channel) {
                    wire::send(channel, &error.into_report(), &[]).step("report")?;
                }
            }
            Order::Signal(number) => children.signal(number),
            Order::Setup(_) => return Err(io::ErrorKind::InvalidData).step("read an order"),
        }
    }
    Ok(())
}

/// Starts the helper that confines itself and becomes the program; returns once it has, or with what failed.
fn start(
    run: Run,
    mut fds: Vec<OwnedFd>,
    setup: &Setup,
    kept: &Kept,
    children: &Children,
    channel: &OwnedFd,
) -> Result<(), StepError> {
    let mut master = None;
    if run.terminal {
        let (ours, theirs) = terminal().step("open a terminal")?;
        master = Some(ours);
        fds = vec![theirs];
    }
    let (ours, theirs) = wire::pair().step("make a channel to the program")?;
    let helper = |kept: &Kept| {
        Command::new(format!("/proc/self/fd/{}", kept.executable.as_raw_fd()))
            .arg("__bottle-become")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
    };
    children
        .start(|| helper(kept))
        .step("start the program's helper")?;
    let order = Become {
        run,
        uid: setup.agent_uid,
        gid: setup.agent_gid,
    };
    let mut passed: Vec<BorrowedFd<'_>> = vec![kept.sysctl.as_fd()];
    passed.extend(fds.iter().map(AsFd::as_fd));
    wire::send(&ours, &order, &passed).step("brief the program's helper")?;
    drop(passed);
    drop(fds);
    // It closes its end by becoming the program.
    match wire::receive::<Report>(&ours).step("hear from the program's helper")? {
        None => {
            let master: Vec<BorrowedFd<'_>> = master.iter().map(AsFd::as_fd).collect();
            children.announce(channel, &master).step("report")
        }
        Some((failed, _)) => {
            children.forget();
            wire::send(channel, &failed, &[]).step("report")
        }
    }
}

fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let master = rustix::fs::open(
        "/dev/pts/ptmx",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::pty::unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    Ok((master, slave))
}

/// What was started, for the reaper: everything that loses its parent in the bottle becomes our child as well.
#[derive(Debug, Default)]
struct Children {
    program: Mutex<Program>,
    some: Condvar,
}

#[derive(Debug, Default)]
struct Program {
    pid: Option<Pid>,
    /// Counts starts, so that the reaper can wait for the next one.
    starts: u64,
    /// Whether the launcher was told of the start.
    announced: bool,
    /// An end that came before that. The launcher hears of a start first, however short the program was.
    ended: Option<Report>,
}

impl Children {
    /// Holds the lock from before the start until the number is known: the reaper may see the end of it first.
    fn start(&self, start: impl FnOnce() -> io::Result<std::process::Child>) -> io::Result<()> {
        let mut program = self.lock();
        let child = start()?;
        *program = Program {
            pid: i32::try_from(child.id()).ok().and_then(Pid::from_raw),
            starts: program.starts + 1,
            announced: false,
            ended: None,
        };
        self.some.notify_all();
        Ok(())
    }

    fn announce(&self, channel: &OwnedFd, master: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut program = self.lock();
        wire::send(channel, &Report::Started, master)?;
        program.announced = true;
        match program.ended.take() {
            Some(report) => wire::send(channel, &report, &[]),
            None => Ok(()),
        }
    }

    fn forget(&self) {
        let mut program = self.lock();
        program.pid = None;
        program.ended = None;
    }

    fn signal(&self, number: i32) {
        // The helper makes itself the leader of a session, so its number is that of a process group.
        if let (Some(pid), Some(signal)) = (self.lock().pid, Signal::from_named_raw(number)) {
            // It may have ended by itself.
            let _ended = kill_process_group(pid, signal);
        }
    }

    fn reap(&self, answers: &OwnedFd) {
        let mut seen = 0;
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => {
                    if self.note_end(pid, status, answers).is_err() {
                        std::process::exit(1);
                    }
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                // No child at all: wait for the next start.
                Err(_) => {
                    let program = self
                        .some
                        .wait_while(self.lock(), |program| program.starts == seen)
                        .unwrap_or_else(PoisonError::into_inner);
                    seen = program.starts;
                }
            }
        }
    }

    fn note_end(&self, pid: Pid, status: WaitStatus, answers: &OwnedFd) -> io::Result<()> {
        let mut program = self.lock();
        if program.pid != Some(pid) {
            return Ok(());
        }
        program.pid = None;
        let report = Report::Exited {
            code: status.exit_status(),
            signal: status.terminating_signal(),
        };
        if program.announced {
            return wire::send(answers, &report, &[]);
        }
        program.ended = Some(report);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Program> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
