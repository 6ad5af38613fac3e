//! The directory of one bottle, from its start to its end.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::process::ProcessId;
use super::{Slug, State, StateError, at, make_dir, open_lock};
use crate::backend::Check;
use crate::undo::UndoStack;

/// `sun_path` is 108 bytes with its terminator (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
const SOCKET: &str = "egress.sock";
const CONTROL: &str = "control";

/// Who started a bottle: `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub slug: Slug,
    pub agent: String,
    pub bottle: String,
    pub backend: String,
    pub alias: Ipv4Addr,
    /// RFC 3339, UTC.
    pub created: String,
    pub workspace: PathBuf,
    pub launcher: ProcessId,
    /// What the launcher started; killed by the sweep where they outlive it.
    #[serde(default)]
    pub processes: Vec<ProcessId>,
    /// What the probe found; empty until it was run.
    #[serde(default)]
    pub proof: Vec<Check>,
    /// Asked for with `--keep`: a start leaves it, `cleanup` removes it.
    #[serde(default)]
    pub kept: bool,
    /// Outside of the bottle's directory where a socket's path would be too long in it.
    pub run: PathBuf,
}

/// The directory of a bottle that this process owns.
#[derive(Debug)]
pub struct BottleDir {
    pub path: PathBuf,
    /// Holds the sidecar's socket and its certificate, nothing else: a backend may hand it to its boundary.
    pub run: PathBuf,
    pub logs: PathBuf,
    _lock: File,
}

impl BottleDir {
    pub fn create(state: &State, slug: &Slug, undo: &mut UndoStack) -> Result<Self, StateError> {
        let _guard = state.exclusive()?;
        let path = state.bottles().join(slug.as_str());
        let logs = state.logs().join(slug.as_str());
        let gone = path.clone();
        undo.push_files(format!("directory {}", path.display()), move || {
            fs::remove_dir_all(gone)
        });
        make_dir(&path)?;
        make_dir(&logs)?;
        let lock_path = path.join("lock");
        let lock = open_lock(&lock_path)?;
        lock.try_lock()
            .map_err(|error| at(&lock_path)(io::Error::other(error)))?;
        make_dir(&path.join(CONTROL))?;
        let run = run_dir(&path, slug, undo)?;
        Ok(Self {
            path,
            run,
            logs,
            _lock: lock,
        })
    }

    /// Where the sidecar of this bottle listens and where its files are, as far as it is known before it exists.
    pub fn planned(state: &State, slug: &Slug) -> (PathBuf, PathBuf, PathBuf) {
        let path = state.bottles().join(slug.as_str());
        (path.join("run"), state.logs().join(slug.as_str()), path)
    }

    pub fn socket(&self) -> PathBuf {
        self.run.join(SOCKET)
    }

    /// Holds the socket of the control API, and nothing else: the sidecar may write here.
    pub fn control(&self) -> PathBuf {
        self.path.join(CONTROL)
    }

    /// Where the control API is and its token, for the operator's commands.
    pub fn control_file(&self) -> PathBuf {
        self.path.join(crate::operator::FILE)
    }

    pub fn certificate(&self) -> PathBuf {
        self.run.join("ca.pem")
    }

    pub fn sidecar_file(&self) -> PathBuf {
        self.path.join("sidecar.yaml")
    }

    /// Whole or not at all: a reader never sees half of it.
    pub fn write_record(&self, record: &Record) -> Result<(), StateError> {
        let path = self.path.join("state.json");
        let text = serde_json::to_vec_pretty(record).map_err(|error| at(&path)(error.into()))?;
        let new = self.path.join("state.json.new");
        write_private(&new, &text)?;
        fs::rename(&new, &path).map_err(at(&path))
    }
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(at(path))?;
    file.write_all(content).map_err(at(path))
}

fn run_dir(bottle: &Path, slug: &Slug, undo: &mut UndoStack) -> Result<PathBuf, StateError> {
    let own = bottle.join("run");
    if fits(&own) {
        make_dir(&own)?;
        return Ok(own);
    }
    let base = env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|base| base.is_dir());
    let run = base
        .unwrap_or_else(|| PathBuf::from("/tmp"))
        .join(format!("bb-{slug}"));
    if !fits(&run) {
        return Err(StateError::SocketPath {
            path: run.join(SOCKET),
            limit: MAX_SOCKET_PATH,
        });
    }
    let gone = run.clone();
    // Not recursive: in a directory that others can write to, a name that is there already is not ours.
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&run).map_err(at(&run))?;
    undo.push_files(format!("directory {}", run.display()), move || {
        fs::remove_dir_all(gone)
    });
    Ok(run)
}

fn fits(run: &Path) -> bool {
    is_short_enough(&run.join(SOCKET))
}

pub fn is_short_enough(socket: &Path) -> bool {
    socket.as_os_str().len() <= MAX_SOCKET_PATH
}
