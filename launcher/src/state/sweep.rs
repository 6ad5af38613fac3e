//! What dead launchers left behind.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Record, Slug, State, StateError, at};

/// A bottle's directory, as it was found.
#[derive(Debug, Serialize)]
pub struct Found {
    pub name: String,
    pub standing: Standing,
    /// Missing where it was half-written.
    pub record: Option<Record>,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    Running,
    /// Its launcher is dead.
    Dead,
}

impl State {
    /// Every bottle that has a directory.
    pub fn bottles_found(&self) -> Result<Vec<Found>, StateError> {
        if !self.root().exists() {
            return Ok(Vec::new());
        }
        let _guard = self.exclusive()?;
        self.look()
    }

    /// The bottle of that name, or the only one of that agent.
    pub fn find(&self, name: &str) -> Result<Found, StateError> {
        let all = self.bottles_found()?;
        let names: Vec<String> = all.iter().map(|found| found.name.clone()).collect();
        let mut fitting: Vec<Found> = all
            .into_iter()
            .filter(|found| {
                found.name == name
                    || found
                        .name
                        .parse::<Slug>()
                        .is_ok_and(|slug| slug.agent() == name)
            })
            .collect();
        match fitting.len() {
            1 => fitting.pop().ok_or(StateError::NoPlace),
            0 => Err(StateError::NoBottle {
                name: crate::escape::Escaped(name).to_string(),
                known: names,
            }),
            _ => Err(StateError::Ambiguous {
                name: name.to_owned(),
                known: fitting.into_iter().map(|found| found.name).collect(),
            }),
        }
    }

    fn look(&self) -> Result<Vec<Found>, StateError> {
        let directory = self.bottles();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&directory)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(at(&directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What is not named as we name it is not ours to touch.
            if name.parse::<Slug>().is_err() {
                continue;
            }
            found.push(look_at(entry.path(), name));
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes what dead launchers left; the names of what was removed. Logs stay, running bottles are not touched, and
    /// neither is what was kept on purpose.
    pub fn sweep(&self) -> Result<Vec<String>, StateError> {
        self.sweep_where(|found| !found.record.as_ref().is_some_and(|record| record.kept))
    }

    /// As `sweep`, and what was kept too.
    pub fn sweep_all(&self) -> Result<Vec<String>, StateError> {
        self.sweep_where(|_| true)
    }

    fn sweep_where(&self, wanted: impl Fn(&Found) -> bool) -> Result<Vec<String>, StateError> {
        let _guard = self.exclusive()?;
        let mut removed = Vec::new();
        for found in self.look()? {
            if found.standing == Standing::Dead && wanted(&found) {
                found.remove()?;
                removed.push(found.name);
            }
        }
        Ok(removed)
    }
}

impl Found {
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn remove(&self) -> Result<(), StateError> {
        if let Some(record) = &self.record {
            for process in &record.processes {
                process.kill().map_err(at(&self.path))?;
            }
            // Only the place that we make ourselves: the record must not be a way to have anything else removed.
            let own = format!("bb-{}", self.name);
            if !record.run.starts_with(&self.path)
                && record.run.file_name().is_some_and(|name| *name == *own)
            {
                remove_dir(&record.run)?;
            }
        }
        remove_dir(&self.path)
    }
}

fn remove_dir(path: &Path) -> Result<(), StateError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn look_at(path: PathBuf, name: String) -> Found {
    let record: Option<Record> = fs::read(path.join("state.json"))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    // The lock decides, the record says more: a launcher that holds its lock runs, whatever is written.
    let locked = File::open(path.join("lock")).is_ok_and(|file| {
        matches!(
            file.try_lock(),
            Err(TryLockError::WouldBlock | TryLockError::Error(_))
        )
    });
    let alive = locked
        || record
            .as_ref()
            .is_some_and(|record| record.launcher.is_alive());
    Found {
        name,
        standing: if alive {
            Standing::Running
        } else {
            Standing::Dead
        },
        record,
        path,
    }
}
