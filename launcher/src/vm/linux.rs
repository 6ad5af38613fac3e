//! The launcher as guests run it. A guest is Linux whatever the host is: on Linux it is the running program, elsewhere a
//! build for Linux that lies beside it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::backend::Missing;
use crate::parts::interpreter;

/// In every build, so that one is known by its bytes, without being run: a build of another version is another protocol.
#[used]
static MARK: &[u8] = concat!(
    "bot-bottle launcher, version ",
    env!("CARGO_PKG_VERSION"),
    ";"
)
.as_bytes();
const PIECE: usize = 1024 * 1024;

/// What there would have to be, where it is not.
pub fn missing() -> Option<Missing> {
    executable().err()
}

pub fn executable() -> Result<PathBuf, Missing> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    let own = std::env::current_exe().map_err(|error| Missing {
        what: format!("where this program lies is not known: {error}"),
        remedy: "start it by its whole path".into(),
    })?;
    beside(&own, std::env::consts::ARCH)
}

/// As OCI and Debian name it.
pub fn architecture(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn beside(own: &Path, arch: &str) -> Result<PathBuf, Missing> {
    let path = own.with_file_name(format!("launcher-linux-{}", architecture(arch)));
    match check(&path, arch) {
        Ok(()) => Ok(path),
        Err(why) => Err(Missing {
            what: format!(
                "a guest is Linux and needs the launcher built for it: {}: {why}",
                path.display()
            ),
            remedy: format!(
                "on Linux, from the same source: `cargo build --release -p launcher --target {arch}-unknown-linux-musl`; then copy target/{arch}-unknown-linux-musl/release/launcher there, under that name"
            ),
        }),
    }
}

/// Static, for this machine, and of this version.
fn check(path: &Path, arch: &str) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let mut file = File::open(path).map_err(text)?;
    let mut header = [0; 20];
    // A shorter one is none.
    let short = file.read_exact(&mut header).is_err();
    if short || !header.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is not a 64-bit ELF executable".into());
    }
    let machine = match header {
        [.., low, high] => u16::from_le_bytes([low, high]),
    };
    // `e_machine` of elf(5).
    let wanted = match arch {
        "x86_64" => 62,
        "aarch64" => 183,
        _ => return Err(format!("nobody has looked at guests on {arch}")),
    };
    if machine != wanted {
        return Err(format!("it is for another processor than {arch}"));
    }
    if let Some(loader) = interpreter(path).map_err(text)? {
        return Err(format!("it is not static, it needs {}", loader.display()));
    }
    if !is_marked(file).map_err(text)? {
        return Err(format!(
            "it is not a launcher of version {}",
            env!("CARGO_PKG_VERSION")
        ));
    }
    Ok(())
}

fn is_marked(file: File) -> io::Result<bool> {
    let mut window = Vec::new();
    let mut file = file;
    loop {
        // What may be the beginning of the mark is looked at again.
        let kept = window.len().saturating_sub(MARK.len());
        window.drain(..kept);
        let took = file.by_ref().take(PIECE as u64).read_to_end(&mut window)?;
        if window.windows(MARK.len()).any(|piece| piece == MARK) {
            return Ok(true);
        }
        if took == 0 {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// An ELF header, one program header of the type, and some bytes.
    fn elf(path: &Path, machine: u8, segment: u8, rest: &[u8]) {
        let mut bytes = vec![0u8; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[16], bytes[18]) = (3, machine);
        (bytes[32], bytes[54], bytes[56]) = (64, 56, 1);
        bytes[64] = segment;
        // Its file offset and length: the rest.
        (bytes[64 + 8], bytes[64 + 32]) = (120, 8);
        let mut file = File::create(path).unwrap();
        file.write_all(&bytes).unwrap();
        file.write_all(rest).unwrap();
    }

    #[test]
    fn only_our_own_build_for_the_guest_is_taken() {
        let top = tempfile::tempdir().unwrap();
        let own = top.path().join("launcher");
        let path = top.path().join("launcher-linux-arm64");
        let why = || beside(&own, "aarch64").unwrap_err().to_string();
        assert!(
            why().contains("launcher-linux-arm64: No such file"),
            "{}",
            why()
        );
        assert!(
            why().contains("hint: on Linux, from the same source: `cargo build --release -p launcher --target aarch64-unknown-linux-musl`"),
            "{}",
            why()
        );

        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        assert!(why().contains("not a 64-bit ELF"), "{}", why());
        elf(&path, 62, 1, MARK);
        assert!(
            why().contains("another processor than aarch64"),
            "{}",
            why()
        );
        elf(&path, 183, 3, b"/lib/ld\0");
        assert!(why().contains("not static, it needs /lib/ld"), "{}", why());
        elf(&path, 183, 1, b"launcher, version 0.0.0;");
        assert!(why().contains("not a launcher of version"), "{}", why());
        // Across the edge of two pieces.
        let mut rest = vec![0; PIECE - 120 - 7];
        rest.extend_from_slice(MARK);
        elf(&path, 183, 1, &rest);
        assert_eq!(beside(&own, "aarch64").unwrap(), path);
    }

    #[test]
    fn this_build_is_marked() {
        assert!(is_marked(File::open("/proc/self/exe").unwrap()).unwrap());
    }
}
