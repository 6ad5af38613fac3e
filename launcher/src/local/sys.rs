//! The two things that have no safe wrapper. All of the launcher's `unsafe` is in this file.
#![expect(
    unsafe_code,
    reason = "unshare(2) and descriptors that we did not open have no safe wrapper"
)]

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::thread::UnshareFlags;

/// `unshare(2)`, without `CLONE_FILES`.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: rustix documents one hazard, `CLONE_FILES`, after which a thread may use descriptors of a table that it
    // no longer shares; it was excluded above.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Marks every descriptor above the standard streams as closed on `execve`. Whoever started us may have left theirs
/// open, and the agent must not inherit a file of the host's.
pub fn close_inherited_on_exec() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        if number <= 2 {
            continue;
        }
        // SAFETY: the number was open a moment ago and this runs while the process has one thread; the directory's own
        // descriptor is open until the loop ends. Were it closed, `fcntl` would say EBADF. The borrow ends with this
        // turn of the loop and owns nothing.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let flags = match fcntl_getfd(descriptor) {
            Ok(flags) => flags,
            Err(rustix::io::Errno::BADF) => continue,
            Err(error) => return Err(error.into()),
        };
        if !flags.contains(FdFlags::CLOEXEC) {
            fcntl_setfd(descriptor, flags | FdFlags::CLOEXEC)?;
        }
    }
    Ok(())
}
