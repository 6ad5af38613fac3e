//! Directories of the host in a guest.

use std::path::{Path, PathBuf};

use crate::backend::{BackendError, Bottle};
use crate::parts::{DIRECTORY, Kept};

/// A host's directory in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub host: PathBuf,
    pub guest: String,
    pub read_only: bool,
}

/// Whether a path can be told to an engine at all: its arguments are `HOST:GUEST`.
pub fn is_tellable(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|text| !text.contains([':', ',', '\n']))
}

/// The workspace, the launcher's parts, and what the bottle mounts.
pub fn all(engine: &str, bottle: &Bottle<'_>, kept: &Kept) -> Result<Vec<Share>, BackendError> {
    let share = |host: &Path, guest: String, read_only| {
        if is_tellable(host) {
            Ok(Share {
                host: host.to_owned(),
                guest,
                read_only,
            })
        } else {
            Err(BackendError::Isolate(format!(
                "{} has a colon or a comma in it, which {engine} takes for the end of a path",
                host.display()
            )))
        }
    };
    let same = |path: &Path| path.display().to_string();
    let workspace = bottle.plan.workspace.path();
    let mut all = vec![
        share(&kept.directory, DIRECTORY.to_owned(), true)?,
        share(workspace, same(workspace), false)?,
    ];
    for mount in &bottle.plan.mounts {
        if !mount.path().is_dir() {
            return Err(BackendError::Isolate(format!(
                "the mount {} is a file, and a machine is shared directories only; name its directory",
                mount.path().display()
            )));
        }
        all.push(share(mount.path(), same(mount.path()), true)?);
    }
    Ok(all)
}
