//! What is on the host's disk while bottles run, and what is kept afterwards.
//!
//! ```text
//! STATE/lock                       taken while a bottle's directory is made, and by the sweep
//! STATE/aliases/127.0.0.N.lock     held for a bottle's life
//! STATE/bottles/SLUG/lock          held for a bottle's life
//! STATE/bottles/SLUG/state.json    who started it; for `list` and the sweep
//! STATE/bottles/SLUG/sidecar.yaml  no secrets: it names variables
//! STATE/bottles/SLUG/control/      the socket of its control API
//! STATE/bottles/SLUG/control.json  where that is, and the token for it (0600)
//! STATE/bottles/SLUG/run/          the sidecar's socket and its CA certificate
//! STATE/machines/SLUG.json         whose a micro-VM is, and how to remove it
//! STATE/containers/SLUG.json       the same of a container of Apple's
//! STATE/guest/CONTENT/             copies of the launcher, as containers run it
//! STATE/logs/SLUG/                 audit.jsonl and sidecar.log; kept
//! ```

mod alias;
pub mod bottle;
pub mod pool;
pub mod process;
mod slug;
mod sweep;

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use alias::{Alias, AliasError, PROXY_PORT};
pub use bottle::{BottleDir, Record};
pub use slug::{Name, NameError, Slug};
pub use sweep::{Found, Standing};

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "neither BOT_BOTTLE_STATE, XDG_STATE_HOME nor HOME says where the state directory is; set BOT_BOTTLE_STATE"
    )]
    NoPlace,
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the state directory {} belongs to uid {owner}, not to you; set BOT_BOTTLE_STATE to a directory of your own",
        path.display()
    )]
    Foreign { path: PathBuf, owner: u32 },
    #[error("there is no bottle `{name}`{}", known_bottles(known))]
    NoBottle { name: String, known: Vec<String> },
    #[error("`{name}` could be any of: {}; give the whole name", known.join(", "))]
    Ambiguous { name: String, known: Vec<String> },
    #[error(
        "the socket's path {} would be longer than the {limit} bytes that the kernel takes; set BOT_BOTTLE_STATE to a shorter one",
        path.display()
    )]
    SocketPath { path: PathBuf, limit: usize },
}

fn known_bottles(known: &[String]) -> String {
    if known.is_empty() {
        "; none is running".into()
    } else {
        format!("; there are: {}", known.join(", "))
    }
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> StateError + '_ {
    move |source| StateError::Io {
        path: path.to_owned(),
        source,
    }
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
}

impl State {
    /// Where it is; makes nothing.
    pub fn locate() -> Result<Self, StateError> {
        let set = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = if let Some(own) = set("BOT_BOTTLE_STATE") {
            own
        } else if let Some(xdg) = set("XDG_STATE_HOME") {
            xdg.join("bot-bottle")
        } else {
            set("HOME")
                .ok_or(StateError::NoPlace)?
                .join(".local/state/bot-bottle")
        };
        let root = std::path::absolute(&root).map_err(at(&root))?;
        Ok(Self { root })
    }

    /// Makes what is missing, readable for nobody else.
    pub fn open() -> Result<Self, StateError> {
        let mut state = Self::locate()?;
        make_dir(&state.root)?;
        state.root = fs::canonicalize(&state.root).map_err(at(&state.root))?;
        let meta = fs::metadata(&state.root).map_err(at(&state.root))?;
        let own = rustix::process::geteuid().as_raw();
        if meta.uid() != own {
            return Err(StateError::Foreign {
                path: state.root,
                owner: meta.uid(),
            });
        }
        if meta.mode() & 0o077 != 0 {
            let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(&state.root, closed).map_err(at(&state.root))?;
        }
        for path in [state.aliases(), state.bottles(), state.logs()] {
            make_dir(&path)?;
        }
        Ok(state)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn aliases(&self) -> PathBuf {
        self.root.join("aliases")
    }

    pub fn bottles(&self) -> PathBuf {
        self.root.join("bottles")
    }

    pub fn guest(&self) -> PathBuf {
        self.root.join("guest")
    }

    /// Notes of micro-VMs, for whoever has to remove one.
    pub fn machines(&self) -> PathBuf {
        self.root.join("machines")
    }

    /// Notes of containers of Apple's, likewise.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Making a bottle's directory and sweeping exclude each other: a directory whose lock is not taken yet looks
    /// like one whose owner died.
    pub(crate) fn exclusive(&self) -> Result<File, StateError> {
        let path = self.root.join("lock");
        let file = open_lock(&path)?;
        file.lock().map_err(at(&path))?;
        Ok(file)
    }
}

pub(crate) fn open_lock(path: &Path) -> Result<File, StateError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(at(path))
}

pub(crate) fn make_dir(path: &Path) -> Result<(), StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(at(path))
}
