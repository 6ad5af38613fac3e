//! Dying with the process that started us.

use std::io;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Asks for SIGKILL at the parent's death, and looks whether it has died before it could be asked for.
///
/// The kernel sends it when the *thread* ends that started us, so the launcher starts its children from its main thread.
pub fn die_with(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let expected = i32::try_from(parent).ok().and_then(Pid::from_raw);
    if getppid() != expected {
        return Err(io::Error::other("the launcher is gone"));
    }
    Ok(())
}
