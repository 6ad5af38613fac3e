//! `__bottle-stage1`: leaves the host's namespaces and starts the first process of the bottle's own.
//!
//! One thread, no runtime: `unshare` takes the calling thread only, and a user namespace refuses a process that has
//! more than one. Runs as whoever started the launcher; in the new user namespace that is uid 0, which is worth nothing
//! outside of it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

use super::step::{Step, StepError};
use super::wire::{self, Report};
use super::{parent, sys};

/// With `check`, only tries whether it could.
pub fn main(launcher: u32, check: bool) -> ExitCode {
    match run(launcher, check) {
        Ok(code) => code,
        Err(error) => {
            // Where the launcher is gone too there is nobody to tell.
            let _unheard = wire::send(io::stdin().as_fd(), &error.into_report(), &[]);
            ExitCode::FAILURE
        }
    }
}

fn run(launcher: u32, check: bool) -> Result<ExitCode, StepError> {
    parent::die_with(launcher).step("die with the launcher")?;
    sys::close_inherited_on_exec().step("close inherited descriptors")?;
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        // Root's supplementary groups would stay in force on the workspace. Others cannot drop theirs, and neither can a
        // root that is one in a user namespace only.
        match rustix::thread::set_thread_groups(&[]) {
            Ok(()) | Err(rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error).step("drop supplementary groups"),
        }
    }
    leave()?;
    map_ids(0, uid.as_raw(), 0, gid.as_raw())?;
    // Entering a user namespace may clear it.
    parent::die_with(launcher).step("die with the launcher")?;
    if check {
        wire::send(io::stdin().as_fd(), &Report::Ready, &[]).step("report")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut init = Command::new("/proc/self/exe")
        .arg("__bottle-init")
        .env_clear()
        .stdin(Stdio::inherit())
        .stdout(Stdio::null())
        .spawn()
        .step("start the bottle's first process")?;
    init.wait().step("wait for the bottle's first process")?;
    Ok(ExitCode::SUCCESS)
}

fn leave() -> Result<(), StepError> {
    let all = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWCGROUP;
    sys::unshare(all)
        .step("enter new namespaces")
        .map_err(explain)
}

/// Writes the one-to-one maps of the user namespace that was just entered.
pub fn map_ids(
    inner_uid: u32,
    outer_uid: u32,
    inner_gid: u32,
    outer_gid: u32,
) -> Result<(), StepError> {
    fs::write("/proc/self/setgroups", "deny")
        .step("deny setgroups")
        .map_err(explain)?;
    fs::write("/proc/self/gid_map", format!("{inner_gid} {outer_gid} 1\n"))
        .step("map the group")
        .map_err(explain)?;
    fs::write("/proc/self/uid_map", format!("{inner_uid} {outer_uid} 1\n"))
        .step("map the user")
        .map_err(explain)
}

/// Which of the kernel's switches it was, and the command that turns it.
fn explain(error: StepError) -> StepError {
    let knob = |path: &str| {
        fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    if knob("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return error.remedy(
            "user namespaces are switched off for users; switch them on with: sudo sysctl -w kernel.unprivileged_userns_clone=1",
        );
    }
    if knob("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return error.remedy(
            "this system allows no user namespaces; allow some with: sudo sysctl -w user.max_user_namespaces=15000",
        );
    }
    if knob("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return error.remedy(
            "AppArmor restricts user namespaces; allow them with: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or with a profile for the launcher that says `userns,`",
        );
    }
    match error.os_error() {
        Some(errno) if errno == rustix::io::Errno::NOSYS.raw_os_error() || errno == rustix::io::Errno::INVAL.raw_os_error() => {
            error.remedy("this kernel has no user namespaces; it needs CONFIG_USER_NS and the other namespaces")
        }
        Some(errno) if errno == rustix::io::Errno::NOSPC.raw_os_error() || errno == rustix::io::Errno::USERS.raw_os_error() => {
            error.remedy("the limit of namespaces is reached; raise it with: sudo sysctl -w user.max_user_namespaces=15000")
        }
        _ => error.remedy(
            "something refuses user namespaces, such as a container's seccomp profile; in Docker start the container with --security-opt seccomp=unconfined --security-opt systempaths=unconfined, or run the launcher outside of it",
        ),
    }
}
