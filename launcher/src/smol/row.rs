//! A machine's row in smolvm's state: SQLite, `vms(name, data)`, where `data` is the machine as JSON in a BLOB.
//!
//! The row is what a machine is started from, so it is read before anything of it runs: in one transaction, from a
//! file that is what it should be. Whatever is not exactly as it was asked for is an error; nothing is guessed.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Transaction};
use serde_json::{Map, Value};

/// As long as smolvm itself waits for another writer.
const BUSY: Duration = Duration::from_secs(15);
/// Of a row; smolvm's own have a few kilobytes.
const MAX_ROW: usize = 1024 * 1024;

/// Why a row cannot be believed, or a list was not confirmed. Each ends in a machine that is not started.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    #[error("smolvm's state {} is not there", .0.display())]
    NoFile(PathBuf),
    #[error("smolvm's state {} {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("smolvm's state {} cannot be read or written: {source}", path.display())]
    Sql {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("smolvm's state has other tables than we know: {0}")]
    Schema(String),
    #[error("smolvm's state has no machine {0}")]
    NoRow(String),
    #[error("smolvm's row of {machine} {why}")]
    Row { machine: String, why: String },
    #[error("smolvm's row of {machine}: `{key}` is {found}, and not {wanted}")]
    Differs {
        machine: String,
        key: String,
        found: String,
        wanted: String,
    },
}

/// smolvm's state, at its path.
#[derive(Clone, Debug)]
pub struct Database {
    pub path: PathBuf,
    busy: Duration,
}

impl Database {
    pub fn at(path: PathBuf) -> Self {
        Self { path, busy: BUSY }
    }

    /// Waits less long for another writer.
    #[cfg(test)]
    pub fn impatient(path: PathBuf) -> Self {
        Self {
            path,
            busy: Duration::from_millis(100),
        }
    }

    /// A machine's row, in a transaction and through a connection of its own.
    pub fn read(&self, machine: &str) -> Result<Map<String, Value>, RowError> {
        let mut connection = self.open(false)?;
        let transaction = connection.transaction().map_err(self.sql())?;
        self.row(&transaction, machine)
    }

    /// Opens the file once it is seen to be ours.
    pub(super) fn open(&self, write: bool) -> Result<Connection, RowError> {
        check_file(&self.path)?;
        let access = if write {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        } else {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        };
        // Never made where it is not there, and never read through a link.
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(self.sql())?;
        connection.busy_timeout(self.busy).map_err(self.sql())?;
        Ok(connection)
    }

    pub(super) fn sql(&self) -> impl Fn(rusqlite::Error) -> RowError + '_ {
        |source| RowError::Sql {
            path: self.path.clone(),
            source,
        }
    }

    pub(super) fn row(
        &self,
        transaction: &Transaction<'_>,
        machine: &str,
    ) -> Result<Map<String, Value>, RowError> {
        self.check_schema(transaction)?;
        let bad = |why: &str| RowError::Row {
            machine: machine.to_owned(),
            why: why.to_owned(),
        };
        let mut statement = transaction
            .prepare("SELECT data FROM vms WHERE name = ?1")
            .map_err(self.sql())?;
        let mut rows = statement.query([machine]).map_err(self.sql())?;
        let mut found: Option<Vec<u8>> = None;
        while let Some(row) = rows.next().map_err(self.sql())? {
            if found.is_some() {
                return Err(bad("is there twice"));
            }
            found = match row.get_ref(0).map_err(self.sql())? {
                ValueRef::Blob(bytes) => Some(bytes.to_vec()),
                other => return Err(bad(&format!("is {} and not a BLOB", other.data_type()))),
            };
        }
        let bytes = found.ok_or_else(|| RowError::NoRow(machine.to_owned()))?;
        if bytes.len() > MAX_ROW {
            return Err(bad("is too long"));
        }
        let Ok(Value::Object(row)) = serde_json::from_slice(&bytes) else {
            return Err(bad("is no JSON object"));
        };
        if row.get("name").and_then(Value::as_str) != Some(machine) {
            return Err(bad("names another machine"));
        }
        Ok(row)
    }

    /// `vms` must have the columns that we read and write, so that a patch is what it seems.
    fn check_schema(&self, transaction: &Transaction<'_>) -> Result<(), RowError> {
        let mut statement = transaction
            .prepare("SELECT name, type, pk FROM pragma_table_info('vms')")
            .map_err(self.sql())?;
        let columns: Vec<(String, String, i64)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .and_then(Iterator::collect)
            .map_err(self.sql())?;
        let expected = [("name", "TEXT", 1), ("data", "BLOB", 0)];
        let same = columns.len() == expected.len()
            && columns
                .iter()
                .zip(expected)
                .all(|((name, kind, key), wanted)| (name.as_str(), kind.as_str(), *key) == wanted);
        if !same {
            return Err(RowError::Schema(if columns.is_empty() {
                "there is no table vms".into()
            } else {
                format!("vms has the columns {columns:?}")
            }));
        }
        let triggers: i64 = transaction
            .query_row(
                "SELECT count(*) FROM sqlite_master WHERE type IN ('trigger', 'view')",
                [],
                |row| row.get(0),
            )
            .map_err(self.sql())?;
        if triggers != 0 {
            return Err(RowError::Schema("there are triggers or views".into()));
        }
        Ok(())
    }
}

/// A regular file of ours that nobody else may write to.
fn check_file(path: &Path) -> Result<(), RowError> {
    let bad = |why: &str| RowError::File {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(RowError::NoFile(path.to_owned()));
        }
        Err(error) => return Err(bad(&format!("cannot be looked at: {error}"))),
    };
    let kind = meta.file_type();
    if !kind.is_file() {
        return Err(bad(if kind.is_symlink() {
            "is a symbolic link"
        } else if kind.is_socket() || kind.is_fifo() {
            "is a socket or a pipe"
        } else {
            "is not a file"
        }));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(bad("belongs to another user"));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(bad("can be written by others"));
    }
    Ok(())
}
