//! Who a bottle's containers run as: never root.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use rustix::process::{getegid, geteuid};

use crate::backend::Missing;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// The caller. For root it is the owner of the workspace, so that the agent can write there without being root.
    pub fn of(workspace: &Path) -> Result<Self, Missing> {
        let caller = Self {
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
        };
        if caller.uid != 0 {
            return Ok(caller);
        }
        let meta = fs::metadata(workspace).map_err(|error| Missing {
            what: format!("the workspace {}: {error}", workspace.display()),
            remedy: "give another with --workspace".into(),
        })?;
        if meta.uid() == 0 {
            return Err(Missing {
                what: format!(
                    "the workspace {} belongs to root, and an agent in a container does not run as root",
                    workspace.display()
                ),
                remedy: format!(
                    "start the launcher as an ordinary user, or `chown -R USER {}`",
                    workspace.display()
                ),
            });
        }
        Ok(Self {
            uid: meta.uid(),
            // Root's group would open what root's group may.
            gid: if meta.gid() == 0 {
                meta.uid()
            } else {
                meta.gid()
            },
        })
    }

    /// Makes a directory of ours and what is in it this user's. Only root has to, and can.
    pub fn give(self, path: &Path) -> io::Result<()> {
        if !geteuid().is_root() {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid))?;
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                let path = entry?.path();
                std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}
