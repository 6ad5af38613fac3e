//! Directories of the host that a bottle may see, and those that it must not.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

/// Entries that are looked at for sockets under a mount. A tree is refused above it rather than half looked at.
const MAX_ENTRIES: usize = 200_000;

/// What no bottle may get at.
#[derive(Clone, Debug)]
pub struct Private {
    home: Option<PathBuf>,
    state: PathBuf,
    manifests: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("workspace {}: {source}", path.display())]
    Workspace { path: PathBuf, source: io::Error },
    #[error("workspace {} {reason}; start it in a project's directory, or give one with --workspace", path.display())]
    WorkspaceRefused { path: PathBuf, reason: String },
    #[error("mount {text}: {source}")]
    Mount { text: String, source: io::Error },
    #[error("mount {text} {reason}")]
    MountRefused { text: String, reason: String },
}

/// A directory that the agent reads and writes, at its own path. Absolute, without symbolic links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workspace(PathBuf);

/// A directory or file that the agent reads, at its own path. Absolute, without symbolic links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount(PathBuf);

impl Private {
    pub fn locate(state: &Path, manifests: &Path) -> Self {
        let resolved = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let home = env::var_os("HOME")
            .filter(|home| !home.is_empty())
            .map(|home| resolved(Path::new(&home)));
        Self {
            home,
            state: resolved(state),
            manifests: resolved(manifests),
        }
    }

    /// Must not exist in a bottle; for the probe.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.state, &self.manifests]
            .into_iter()
            .map(PathBuf::as_path)
    }

    /// Why a directory must not be shown, if so.
    fn objection(&self, path: &Path) -> Option<String> {
        if path == Path::new("/") {
            return Some("is the root of the host".into());
        }
        if let Some(home) = &self.home
            && home.starts_with(path)
        {
            let what = if home == path { "is" } else { "holds" };
            return Some(format!(
                "{what} your home directory, with your keys and credentials"
            ));
        }
        for (kept, what) in [
            (&self.state, "the launcher's state"),
            (&self.manifests, "your manifests"),
        ] {
            if kept.starts_with(path) {
                return Some(format!("holds {what} ({})", kept.display()));
            }
            if path.starts_with(kept) {
                return Some(format!("is inside of {what} ({})", kept.display()));
            }
        }
        for tree in ["/proc", "/sys", "/dev", "/run"] {
            if path.starts_with(tree) {
                return Some(format!("is in {tree}, which belongs to the running system"));
            }
        }
        None
    }
}

impl Workspace {
    pub fn parse(path: &Path, private: &Private) -> Result<Self, PlaceError> {
        let failed = |source| PlaceError::Workspace {
            path: path.to_owned(),
            source,
        };
        let resolved = fs::canonicalize(path).map_err(failed)?;
        // An agent that worked here before can have made the link, to anywhere.
        if lexical(&std::path::absolute(path).map_err(failed)?) != resolved {
            return Err(PlaceError::WorkspaceRefused {
                path: path.to_owned(),
                reason: format!(
                    "is reached through a symbolic link; if {} is meant, name it",
                    resolved.display()
                ),
            });
        }
        if !resolved.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        let refused = |reason: String| {
            Err(PlaceError::WorkspaceRefused {
                path: resolved.clone(),
                reason,
            })
        };
        if let Some(reason) = private.objection(&resolved) {
            return refused(reason);
        }
        if let Some(home) = &private.home
            && let Ok(below) = resolved.strip_prefix(home)
            && let Some(first) = below.components().next()
            && first.as_os_str().as_encoded_bytes().starts_with(b".")
        {
            let directory = home.join(first);
            return refused(format!(
                "is in {}, where programs keep credentials and settings",
                directory.display()
            ));
        }
        // A tree too large to be read to its end is let be: the manual says what a socket in a workspace means.
        if let Ok(Some(socket)) = find_socket(&resolved) {
            return refused(format!(
                "holds the socket {}, through which the agent would reach what listens there; end that and remove it",
                socket.display()
            ));
        }
        for tree in [
            "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/boot",
        ] {
            if resolved.starts_with(tree)
                && !resolved.starts_with("/usr/src/")
                && !resolved.starts_with("/usr/local/src/")
            {
                return refused(format!("is in {tree}, which the host runs from"));
            }
        }
        for shared in [
            "/tmp", "/var", "/var/tmp", "/home", "/opt", "/mnt", "/srv", "/nix",
        ] {
            if resolved == Path::new(shared) {
                return refused(format!("is {shared}, which others use too"));
            }
        }
        if resolved.to_str().is_none() {
            return refused("has a name that is not UTF-8".into());
        }
        Ok(Self(resolved))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Mount {
    pub fn parse(text: &str, private: &Private, workspace: &Workspace) -> Result<Self, PlaceError> {
        let refused = |reason: &str| PlaceError::MountRefused {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let written = match (text.strip_prefix("~/"), &private.home) {
            (Some(rest), Some(home)) => home.join(rest),
            (Some(_), None) => return Err(refused("starts with ~, and HOME is not set")),
            (None, _) => PathBuf::from(text),
        };
        if !written.is_absolute() {
            return Err(refused("is not an absolute path; write /path or ~/path"));
        }
        let failed = |source| PlaceError::Mount {
            text: text.to_owned(),
            source,
        };
        let path = fs::canonicalize(&written).map_err(failed)?;
        if let Some(reason) = private.objection(&path) {
            return Err(refused(&reason));
        }
        // The agent could put a symbolic link there, and the next start would follow it.
        for spelling in [&written, &path] {
            if spelling.starts_with(workspace.path()) || workspace.path().starts_with(spelling) {
                return Err(refused(
                    "overlaps the workspace, which the agent can rearrange",
                ));
            }
        }
        if path.to_str().is_none() {
            return Err(refused("has a name that is not UTF-8"));
        }
        let kind = fs::metadata(&path).map_err(failed)?.file_type();
        if !kind.is_dir() && !kind.is_file() {
            return Err(refused("is neither a directory nor a file"));
        }
        // Read-only does not keep a socket from being connected to: an ssh-agent's would sign for the agent.
        if kind.is_dir()
            && let Some(socket) = find_socket(&path).map_err(failed)?
        {
            return Err(refused(&format!(
                "holds a socket ({}); name the directories beside it",
                socket.display()
            )));
        }
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Without `.` and `..`, as they are written: what a link leads to is not looked at.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

fn find_socket(top: &Path) -> io::Result<Option<PathBuf>> {
    let mut directories = vec![top.to_owned()];
    let mut seen = 0usize;
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // What we cannot read the agent, under the same uid, cannot read either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(io::Error::other(format!(
                    "has more than {MAX_ENTRIES} entries; name a part of it"
                )));
            }
            let kind = entry.file_type()?;
            if kind.is_socket() {
                return Ok(Some(entry.path()));
            }
            if kind.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private(home: &Path) -> Private {
        Private {
            home: Some(home.to_owned()),
            state: home.join(".local/state/bot-bottle"),
            manifests: home.join(".bot-bottle"),
        }
    }

    #[test]
    fn workspaces_that_are_refused() {
        let top = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(top.path()).unwrap().join("home");
        for path in [
            ".local/state/bot-bottle/logs",
            ".bot-bottle/agents",
            "project",
        ] {
            fs::create_dir_all(home.join(path)).unwrap();
        }
        let private = private(&home);
        let refuse = |path: &Path| Workspace::parse(path, &private).unwrap_err().to_string();
        assert!(refuse(Path::new("/")).contains("is the root of the host"));
        assert!(refuse(&home).contains("is your home directory"));
        assert!(refuse(home.parent().unwrap()).contains("holds your home directory"));
        assert!(refuse(&home.join(".local")).contains("holds the launcher's state"));
        assert!(
            refuse(&home.join(".local/state/bot-bottle/logs"))
                .contains("is inside of the launcher's state")
        );
        assert!(refuse(&home.join(".bot-bottle/agents")).contains("is inside of your manifests"));
        assert!(refuse(Path::new("/etc")).contains("which the host runs from"));
        assert!(refuse(Path::new("/opt")).contains("others use"));
        assert!(Workspace::parse(&home.join("project"), &private).is_ok());
    }

    #[test]
    fn mounts_that_are_refused() {
        let top = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(top.path()).unwrap().join("home");
        for path in [
            ".local/state/bot-bottle",
            ".bot-bottle",
            "project",
            "tools/bin",
            "sockets/deep",
        ] {
            fs::create_dir_all(home.join(path)).unwrap();
        }
        let _socket =
            std::os::unix::net::UnixListener::bind(home.join("sockets/deep/agent.sock")).unwrap();
        std::os::unix::fs::symlink("/", home.join("project/link")).unwrap();
        let private = private(&home);
        let workspace = Workspace::parse(&home.join("project"), &private).unwrap();
        let refuse = |text: &str| {
            Mount::parse(text, &private, &workspace)
                .unwrap_err()
                .to_string()
        };
        assert!(refuse("~/").contains("is your home directory"));
        assert!(refuse("/").contains("is the root"));
        assert!(refuse("tools").contains("not an absolute path"));
        assert!(refuse("~/sockets").contains("holds a socket"));
        assert!(refuse("~/sockets/deep/agent.sock").contains("neither a directory nor a file"));
        assert!(refuse("~/.bot-bottle").contains("holds your manifests"));
        assert!(refuse("~/project/link").contains("root of the host"));
        assert!(refuse("~/absent").contains("No such file"));
        assert_eq!(
            Mount::parse("~/tools", &private, &workspace)
                .unwrap()
                .path(),
            home.join("tools")
        );
    }
}
