//! `__bottle-become`: gives up everything, for good, and becomes a program of the agent's.
//!
//! The order matters: each step takes away what a later one does not need any more, and the filter of system calls comes
//! last, because it forbids most of what stands before it.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::fs::{Access, access};
use rustix::process::{Resource, Rlimit, chdir, ioctl_tiocsctty, setrlimit, setsid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, UnshareFlags,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_no_new_privs,
};

use super::step::{Step, StepError};
use super::wire::{self, Become, Run};
use super::{init, seccomp, stage1, sys};

pub fn main() -> ExitCode {
    let Ok(channel) = init::take_channel() else {
        return ExitCode::FAILURE;
    };
    let Err(error) = run(&channel);
    // Where the first process is gone so are we.
    let _unheard = wire::send(&channel, &error.into_report(), &[]);
    ExitCode::FAILURE
}

fn run(channel: &OwnedFd) -> Result<Infallible, StepError> {
    let Some((order, fds)) = wire::receive::<Become>(channel).step("read what to become")? else {
        return Err(io::ErrorKind::UnexpectedEof).step("read what to become");
    };
    let mut fds = fds.into_iter();
    let sysctl = fds
        .next()
        .ok_or(io::ErrorKind::InvalidData)
        .step("take /proc/sys")?;
    setsid().step("start a session")?;
    streams(&order.run, fds)?;

    sys::unshare(UnshareFlags::NEWUSER).step("enter the agent's user namespace")?;
    stage1::map_ids(order.uid, 0, order.gid, 0)?;
    // A second wall behind the filter: no user namespace below this one, whatever system call asks for it.
    let limit = format!(
        "/proc/self/fd/{}/user/max_user_namespaces",
        sysctl.as_raw_fd()
    );
    std::fs::write(limit, "0").step("forbid further user namespaces")?;
    drop(sysctl);

    // Not 0: a handler that the host's core_pattern names runs on the host for every limit but 1 (core(5)).
    let no_core = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    setrlimit(Resource::Core, no_core).step("forbid core dumps")?;
    chdir(&order.run.directory).step(format!("enter {}", order.run.directory.display()))?;
    let program = find(&order.run)?;
    drop_capabilities()?;
    sys::close_inherited_on_exec().step("close inherited descriptors")?;
    seccomp::apply().step("filter system calls")?;

    let mut command = Command::new(&program);
    if order.run.own {
        command.arg0("launcher").args(&order.run.argv);
    } else if let Some((name, arguments)) = order.run.argv.split_first() {
        command.arg0(name).args(arguments);
    }
    let error = command.env_clear().envs(order.run.env).exec();
    Err(error).step(format!("execute {}", program.display()))
}

fn streams(run: &Run, mut fds: impl Iterator<Item = OwnedFd>) -> Result<(), StepError> {
    let mut next = || {
        fds.next()
            .ok_or(io::ErrorKind::InvalidData)
            .step("take the standard streams")
    };
    let (input, output, error);
    if run.terminal {
        let terminal = next()?;
        ioctl_tiocsctty(&terminal).step("take the terminal")?;
        input = terminal.try_clone().step("take the terminal")?;
        output = terminal.try_clone().step("take the terminal")?;
        error = terminal;
    } else {
        (input, output, error) = (next()?, next()?, next()?);
    }
    rustix::stdio::dup2_stdin(&input).step("set standard input")?;
    rustix::stdio::dup2_stdout(&output).step("set standard output")?;
    rustix::stdio::dup2_stderr(&error).step("set standard error")
}

fn drop_capabilities() -> Result<(), StepError> {
    bound_capabilities().step("drop capabilities")?;
    give_up_capabilities().step("drop capabilities")
}

/// Takes every capability from what this process may become, and keeps its own until [`give_up_capabilities`].
pub(crate) fn bound_capabilities() -> io::Result<()> {
    clear_ambient_capability_set()?;
    // By number, so that those go too which are newer than our names for them.
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // The first that this kernel does not know; there are none above it.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(locked)
        .map_err(|error| io::Error::other(format!("lock the secure bits: {error}")))
}

/// Gives up those that are left, and the ways to get others.
pub(crate) fn give_up_capabilities() -> io::Result<()> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none)?;
    Ok(set_no_new_privs(true)?)
}

fn find(run: &Run) -> Result<PathBuf, StepError> {
    if run.own {
        return Ok("/proc/self/exe".into());
    }
    let name = run
        .argv
        .first()
        .ok_or(io::ErrorKind::InvalidInput)
        .step("find the program")?;
    let runnable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    let missing = |place: &str, remedy: &str| {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("it is not {place}"),
        ))
        .step(format!("find the program `{name}`"))
        .map_err(|error: StepError| error.remedy(remedy))
    };
    const REMEDY: &str = "a bottle has the host's /usr and /opt and nothing of your home directory; add the program's directory to the bottle's `mounts` and to PATH in its `env`";
    if name.contains('/') {
        let path = PathBuf::from(name);
        return if runnable(&path) {
            Ok(path)
        } else {
            missing("an executable file in the bottle", REMEDY)
        };
    }
    let path = run
        .env
        .iter()
        .find(|(key, _)| key == "PATH")
        .map(|(_, value)| value.as_str())
        .unwrap_or_default();
    let found = path
        .as_bytes()
        .split(|byte| *byte == b':')
        .map(|directory| Path::new(OsStr::from_bytes(directory)).join(name))
        .find(|candidate| runnable(candidate));
    match found {
        Some(path) => Ok(path),
        None => missing(&format!("in the bottle's PATH ({path})"), REMEDY),
    }
}
