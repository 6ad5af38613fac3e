//! Bind mounts whose flags hold for everything below them too.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount_bind_recursive, mount_remount};

/// Binds `source`, a directory or a file, on `target`, which exists, with `flags` beside those that it has.
///
/// Recursively, because the kernel refuses to take a mount out of a more privileged namespace without those that lie
/// on it: they might cover something. So each of them gets the flags as well.
pub fn bind(source: &Path, target: &Path, flags: MountFlags) -> io::Result<()> {
    mount_bind_recursive(source, target)?;
    // The root at this point is one of our own, and `/old/proc` is the host's; both show our mount namespace.
    let table = ["/old/proc/self/mountinfo", "/proc/self/mountinfo"]
        .iter()
        .find_map(|path| fs::read(path).ok())
        .ok_or_else(|| io::Error::other("there is no /proc to read the mounts from"))?;
    let mut found = false;
    for (path, own) in parse(&table) {
        if path == target {
            found = true;
        }
        if path.starts_with(target) {
            mount_remount(&path, MountFlags::BIND | own | flags, c"").map_err(|error| {
                io::Error::new(
                    io::Error::from(error).kind(),
                    format!("restrict the mount {}: {error}", path.display()),
                )
            })?;
        }
    }
    if found {
        Ok(())
    } else {
        Err(io::Error::other(
            "the new mount is not in the kernel's table",
        ))
    }
}

/// Mount points and their flags, which must be kept: those that came from outside are locked.
fn parse(table: &[u8]) -> Vec<(PathBuf, MountFlags)> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let path = unescape(fields.nth(4)?);
            let options = fields.next()?;
            let flags =
                options
                    .split(|byte| *byte == b',')
                    .fold(MountFlags::empty(), |flags, option| {
                        flags
                            | match option {
                                b"ro" => MountFlags::RDONLY,
                                b"nosuid" => MountFlags::NOSUID,
                                b"nodev" => MountFlags::NODEV,
                                b"noexec" => MountFlags::NOEXEC,
                                b"noatime" => MountFlags::NOATIME,
                                b"nodiratime" => MountFlags::NODIRATIME,
                                b"relatime" => MountFlags::RELATIME,
                                _ => MountFlags::empty(),
                            }
                    });
            Some((path, flags))
        })
        .collect()
}

/// Space, tab, line feed and backslash are written as three octal digits (proc(5)).
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let line =
            b"36 35 98:0 /a /mnt/with\\040space ro,nosuid,relatime shared:1 - ext3 /dev/root rw\n";
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::RELATIME;
        assert_eq!(parse(line), [(PathBuf::from("/mnt/with space"), flags)]);
    }
}
