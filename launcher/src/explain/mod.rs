//! What the sidecar's audit log means, for people.

mod advice;
mod record;
mod request;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::manifest::ManifestError;
use crate::state::Slug;

pub use record::AuditRecord;
pub use request::request;

/// A record is bounded where it is written; a longer line is not one.
const MAX_LINE: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("{0}")]
    Usage(String),
    #[error("no log holds the event {event}; looked in {} of {}", count(.logs), directory.display())]
    UnknownEvent {
        event: String,
        logs: usize,
        directory: PathBuf,
    },
    #[error(
        "there is no log of a bottle or an agent `{0}`; `launcher log` without a name shows all"
    )]
    UnknownBottle(String),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn count(logs: &usize) -> String {
    if *logs == 1 {
        "the log".into()
    } else {
        format!("{logs} logs")
    }
}

/// The audit logs of one bottle, of all bottles of an agent, or of all; the oldest first.
pub fn logs(directory: &Path, bottle: Option<&str>) -> Result<Vec<PathBuf>, ExplainError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(ExplainError::Read {
                path: directory.to_owned(),
                source,
            });
        }
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(slug) = name.parse::<Slug>() else {
            continue;
        };
        let agent = slug.as_str().rsplit_once('-').map(|(agent, _)| agent);
        let wanted = bottle.is_none_or(|wanted| wanted == name || Some(wanted) == agent);
        let path = entry.path().join("audit.jsonl");
        if wanted && let Ok(meta) = fs::metadata(&path) {
            found.push((meta.modified().ok(), path));
        }
    }
    if let (Some(wanted), true) = (bottle, found.is_empty()) {
        return Err(ExplainError::UnknownBottle(wanted.to_owned()));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Calls `visit` with each record and its line until it returns false. A line that is not a record is skipped: the
/// last one of a sidecar that was killed may be cut.
pub fn each(
    path: &Path,
    mut visit: impl FnMut(&AuditRecord, &str) -> io::Result<bool>,
) -> Result<(), ExplainError> {
    let failed = |source| ExplainError::Read {
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut reader)
            .take(MAX_LINE)
            .read_line(&mut line)
            .map_err(failed)?
            == 0
        {
            return Ok(());
        }
        let Ok(record) = serde_json::from_str(&line) else {
            continue;
        };
        if !visit(&record, line.trim_end())? {
            return Ok(());
        }
    }
}

/// Explains one event.
pub fn event(directory: &Path, event: &str) -> Result<String, ExplainError> {
    if !event.starts_with("evt_") {
        return Err(ExplainError::Usage(format!(
            "{} is neither an event (evt_…) nor a method with a URL",
            crate::escape::Escaped(event)
        )));
    }
    let logs = logs(directory, None)?;
    for log in logs.iter().rev() {
        // One request may have several records: what was found, then what was decided.
        let mut found = Vec::new();
        each(log, |record, _| {
            if record.event == event {
                found.push(record.clone());
            }
            Ok(true)
        })?;
        if !found.is_empty() {
            return Ok(advice::explain(&found, log));
        }
    }
    Err(ExplainError::UnknownEvent {
        event: event.to_owned(),
        logs: logs.len(),
        directory: directory.to_owned(),
    })
}
