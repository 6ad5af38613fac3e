//! Finds the files below what was named, and has them read by as many threads as there are cores.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ignore::{DirEntry, WalkBuilder, WalkState};

use super::entry::Gathered;
use super::input::{Chosen, Reading, buffer};

/// What is left out of directories. What the user named is not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// `.gitignore`, `.ignore`, `.git/info/exclude` and the user's global excludes count.
    pub(super) ignore_files: bool,
    pub(super) hidden: bool,
}

/// Returns how many hidden files and directories were left out.
pub(super) fn walk(
    roots: &[PathBuf],
    rules: Rules,
    reading: &Reading<'_>,
    gathered: &Gathered,
) -> u64 {
    let mut roots = roots.iter().map(|path| root(path));
    let Some(first) = roots.next() else {
        return 0;
    };
    let skipped = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&skipped);
    let mut builder = WalkBuilder::new(first);
    for path in roots {
        builder.add(path);
    }
    builder
        .standard_filters(rules.ignore_files)
        // Counted below: a `.env` that was not looked at is worth a word.
        .hidden(false)
        .follow_links(false)
        .threads(std::thread::available_parallelism().map_or(1, usize::from))
        .filter_entry(move |entry| {
            if entry.depth() == 0 {
                return true;
            }
            let name = entry.file_name().as_encoded_bytes();
            if name == b".git" {
                return false;
            }
            let wanted = rules.hidden || !name.starts_with(b".");
            if !wanted {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            wanted
        });
    builder.build_parallel().run(|| {
        let mut buffer = buffer();
        Box::new(move |entry| {
            match entry {
                Ok(entry) => visit(&entry, reading, &mut buffer, gathered),
                Err(error) => complain(&error, None, reading),
            }
            WalkState::Continue
        })
    });
    skipped.load(Ordering::Relaxed)
}

/// A link that the user named is followed; the walker would not.
fn root(path: &Path) -> PathBuf {
    if path.is_symlink() && path.is_dir() {
        path.join(".")
    } else {
        path.to_owned()
    }
}

fn visit(entry: &DirEntry, reading: &Reading<'_>, buffer: &mut [u8], gathered: &Gathered) {
    let path = entry.path();
    if let Some(error) = entry.error() {
        reading
            .talk
            .note(&reading.name(path), format!("an ignore file: {error}"));
    }
    let Some(kind) = entry.file_type() else {
        return;
    };
    if kind.is_dir() {
        return;
    }
    if entry.depth() == 0 {
        reading.file(path, Chosen::Named, buffer, gathered);
    } else if kind.is_file() {
        reading.file(path, Chosen::Met, buffer, gathered);
    } else if kind.is_symlink() {
        reading
            .talk
            .detail(&reading.name(path), "skipped: a symbolic link");
    } else {
        reading
            .talk
            .note(&reading.name(path), "skipped: a pipe, a socket or a device");
    }
}

fn complain(error: &ignore::Error, path: Option<&Path>, reading: &Reading<'_>) {
    match error {
        ignore::Error::WithPath { path, err } => complain(err, Some(path), reading),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            complain(err, path, reading);
        }
        ignore::Error::Partial(errors) => {
            for error in errors {
                complain(error, path, reading);
            }
        }
        error => reading
            .talk
            .problem(&reading.name(path.unwrap_or(Path::new("."))), error),
    }
}
