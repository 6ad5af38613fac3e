//! What the launcher itself consists of, so that it can run where nothing of the host is: in the sidecar's container, and
//! as the helper in the agent's, whatever image that has.
//!
//! A static executable is alone. A dynamic one brings its loader and its libraries, which the loader itself names
//! (`ld.so --list`, what `ldd` does); they lie in one directory and are run as `loader --library-path DIR launcher …`.
//! So the very program that runs on the host runs in the container, built in any way, and no registry is asked.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::vm;

/// Where they lie in a container.
pub const DIRECTORY: &str = "/bot-bottle";
const LAUNCHER: &str = "launcher";
const LOADER: &str = "loader";
const MAX_PARTS: usize = 64;

/// The files, by their names in [`DIRECTORY`].
#[derive(Clone, Debug)]
pub struct Parts {
    files: Vec<(String, PathBuf)>,
    is_static: bool,
}

/// Copies of them in the launcher's state, for mounts and images.
#[derive(Clone, Debug)]
pub struct Kept {
    pub directory: PathBuf,
    /// SHA-256 over names and contents, in hex.
    pub content: String,
    is_static: bool,
}

/// `index.json` beside the copies: whether they are still what runs, without reading it all.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    content: String,
    files: Vec<Stamp>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    name: String,
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Parts {
    pub fn own() -> io::Result<Self> {
        let executable =
            vm::linux::executable().map_err(|missing| io::Error::other(missing.to_string()))?;
        let mut files = vec![(LAUNCHER.to_owned(), executable.clone())];
        let loader = interpreter(&executable)?;
        if let Some(loader) = &loader {
            files.push((LOADER.to_owned(), loader.clone()));
            files.extend(libraries(loader, &executable)?);
        }
        if files.len() > MAX_PARTS {
            return Err(io::Error::other(format!(
                "the launcher is linked with more than {MAX_PARTS} libraries"
            )));
        }
        Ok(Self {
            files,
            is_static: loader.is_none(),
        })
    }

    /// Copies them into `base`, a directory of ours, where they are not there yet.
    pub fn keep(&self, base: &Path) -> io::Result<Kept> {
        let stamps = self.stamps()?;
        for entry in fs::read_dir(base)? {
            let directory = entry?.path();
            let index = fs::read(directory.join("index.json"))
                .ok()
                .and_then(|text| serde_json::from_slice::<Index>(&text).ok());
            if let Some(index) = index.filter(|index| index.files == stamps) {
                return Ok(self.kept(directory, index.content));
            }
        }
        let new = tempfile::Builder::new().prefix("new-").tempdir_in(base)?;
        let mut hash = Sha256::new();
        for (name, path) in &self.files {
            let target = new.path().join(name);
            fs::copy(path, &target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o555))?;
            let bytes = fs::read(&target)?;
            hash.update(name.as_bytes());
            hash.update([0]);
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(&bytes);
        }
        let content = HEXLOWER.encode(&hash.finalize());
        let index = Index {
            content: content.clone(),
            files: stamps,
        };
        fs::write(new.path().join("index.json"), serde_json::to_vec(&index)?)?;
        // An agent of any user id reads it in its container.
        fs::set_permissions(new.path(), fs::Permissions::from_mode(0o755))?;
        let directory = base.join(&content);
        let new = new.keep();
        match fs::rename(&new, &directory) {
            Ok(()) => {}
            // Another start was faster, or the same content came from another place.
            Err(_) if directory.is_dir() => fs::remove_dir_all(&new)?,
            Err(error) => {
                fs::remove_dir_all(&new)?;
                return Err(error);
            }
        }
        Ok(self.kept(directory, content))
    }

    fn kept(&self, directory: PathBuf, content: String) -> Kept {
        Kept {
            directory,
            content,
            is_static: self.is_static,
        }
    }

    fn stamps(&self) -> io::Result<Vec<Stamp>> {
        self.files
            .iter()
            .map(|(name, path)| {
                let meta = fs::metadata(path).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })?;
                Ok(Stamp {
                    name: name.clone(),
                    device: meta.dev(),
                    inode: meta.ino(),
                    size: meta.len(),
                    changed: (meta.ctime(), meta.ctime_nsec()),
                })
            })
            .collect()
    }
}

impl Kept {
    /// The command line that runs the launcher in a container, before its arguments.
    pub fn command(&self) -> Vec<String> {
        let inside = |name: &str| format!("{DIRECTORY}/{name}");
        if self.is_static {
            return vec![inside(LAUNCHER)];
        }
        vec![
            inside(LOADER),
            "--library-path".into(),
            DIRECTORY.into(),
            inside(LAUNCHER),
        ]
    }

    /// Copies of the same, in a directory that is made for them.
    pub fn copy_to(&self, directory: &Path) -> io::Result<Self> {
        fs::create_dir(directory)?;
        for (name, path) in self.files()? {
            // Shares blocks where the file system can.
            fs::copy(path, directory.join(name))?;
        }
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            directory: directory.to_owned(),
            ..self.clone()
        })
    }

    /// The files, by name.
    pub fn files(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let mut files: Vec<_> = fs::read_dir(&self.directory)?
            .map(|entry| {
                let entry = entry?;
                Ok((
                    entry.file_name().to_string_lossy().into_owned(),
                    entry.path(),
                ))
            })
            .collect::<io::Result<_>>()?;
        files.retain(|(name, _)| name != "index.json");
        files.sort();
        Ok(files)
    }
}

/// Removes copies of earlier launchers in `base`.
pub fn forget_others(base: &Path, current: &str) -> io::Result<()> {
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(current) || (name.starts_with("new-") && is_young(&path)) {
            continue;
        }
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Another launcher may be making it just now.
fn is_young(path: &Path) -> bool {
    const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);
    let modified = fs::metadata(path).and_then(|meta| meta.modified());
    modified.is_ok_and(|modified| modified.elapsed().map_or(true, |age| age < HOUR))
}

/// What the loader finds for the executable: the name that is asked for, and the file.
fn libraries(loader: &Path, executable: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let output = Command::new(loader)
        .arg("--list")
        .arg(fs::canonicalize(executable).unwrap_or_else(|_| executable.to_owned()))
        .env_clear()
        .envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)))
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "{} --list: {}",
            loader.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    parse_list(&String::from_utf8_lossy(&output.stdout))
}

/// Lines are `NAME => PATH (ADDRESS)`; the loader itself and the kernel's own have no arrow.
fn parse_list(text: &str) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((name, rest)) = line.trim().split_once(" => ") else {
            continue;
        };
        let path = rest.rsplit_once(" (").map_or(rest, |(path, _)| path).trim();
        if name.contains('/') {
            continue;
        }
        if !path.starts_with('/') {
            return Err(io::Error::other(format!("the library {name} is {path}")));
        }
        found.push((name.to_owned(), PathBuf::from(path)));
    }
    Ok(found)
}

/// `PT_INTERP` of an ELF file; `None` where it is static. The layout is that of elf(5), 64 bits, little endian.
pub fn interpreter(path: &Path) -> io::Result<Option<PathBuf>> {
    const PT_INTERP: u32 = 3;
    let mut file = File::open(path)?;
    let mut header = [0u8; 64];
    file.read_exact(&mut header)?;
    let bad = || io::Error::other("the launcher's file is not a 64-bit ELF executable");
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(bad());
    }
    let offset = u64::from_le_bytes(field(&header, 32).ok_or_else(bad)?);
    let size = u16::from_le_bytes(field(&header, 54).ok_or_else(bad)?);
    let count = u16::from_le_bytes(field(&header, 56).ok_or_else(bad)?);
    if size != 56 {
        return Err(bad());
    }
    file.seek(SeekFrom::Start(offset))?;
    for _ in 0..count {
        let mut segment = [0u8; 56];
        file.read_exact(&mut segment)?;
        if u32::from_le_bytes(field(&segment, 0).ok_or_else(bad)?) != PT_INTERP {
            continue;
        }
        let at = u64::from_le_bytes(field(&segment, 8).ok_or_else(bad)?);
        let length = u64::from_le_bytes(field(&segment, 32).ok_or_else(bad)?);
        file.seek(SeekFrom::Start(at))?;
        let mut name = Vec::new();
        file.take(length.min(4096)).read_to_end(&mut name)?;
        let name: Vec<u8> = name.into_iter().take_while(|byte| *byte != 0).collect();
        return Ok(Some(PathBuf::from(
            String::from_utf8(name).map_err(|_| bad())?,
        )));
    }
    Ok(None)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was kept runs alone, without a file of the host's.
    #[test]
    fn the_kept_parts_are_whole() {
        let base = tempfile::tempdir().unwrap();
        let parts = Parts::own().unwrap();
        let kept = parts.keep(base.path()).unwrap();
        assert_eq!(kept.content.len(), 64);
        assert_eq!(parts.keep(base.path()).unwrap().directory, kept.directory);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
        let names: Vec<_> = kept
            .files()
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(names.contains(&LAUNCHER.to_owned()), "{names:?}");
        if interpreter(Path::new("/proc/self/exe")).unwrap().is_some() {
            assert!(names.contains(&LOADER.to_owned()), "{names:?}");
            let listed = Command::new(kept.directory.join(LOADER))
                .arg("--library-path")
                .arg(&kept.directory)
                .arg("--list")
                .arg(kept.directory.join(LAUNCHER))
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            for (_, path) in parse_list(&text).unwrap() {
                assert!(path.starts_with(&kept.directory), "{text}");
            }
        }
    }

    #[test]
    fn lists_of_loaders() {
        let glibc = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(
            parse_list(glibc).unwrap(),
            [(
                "libc.so.6".into(),
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6")
            )]
        );
        let nix = "\t/nix/store/x/ld.so => /nix/store/x/ld.so (0x7f)\n";
        assert!(parse_list(nix).unwrap().is_empty());
        assert!(parse_list("\tlibz.so.1 => not found\n").is_err());
    }
}
