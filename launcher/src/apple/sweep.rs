//! What dead launchers left of containers, found by notes and labels. A container does not outlive its launcher: its first
//! process ends with its input, and the machine with it. What is left is its description and its image.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::note::{self, Note};
use super::program::{self, Caller};
use super::remove::remove;
use crate::owner::{self, Life};
use crate::state::Slug;

#[derive(Debug, Default)]
pub struct Found {
    /// Their launchers are dead.
    pub dead: BTreeSet<String>,
    /// Containers of others, whose launchers cannot be judged from here.
    pub spared: BTreeSet<String>,
}

/// Looks at the notes and at all containers.
pub fn look(notes: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let noted = note::all(notes)?
        .into_iter()
        .map(|(_, note)| (note.slug.clone(), note.life()));
    for (slug, life) in noted.chain(labelled()?.1) {
        match life {
            Life::Alive => continue,
            Life::Dead => found.dead.insert(slug.to_string()),
            Life::Unknown => found.spared.insert(slug.to_string()),
        };
    }
    Ok(found)
}

/// Removes what dead launchers left, with `labels` also what no note speaks of; the names of the bottles. What fails does
/// not keep the others from being removed.
pub fn sweep(notes: &Path, labels: bool) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    let mut first = None;
    for (path, note) in note::all(notes)? {
        if note.life() != Life::Dead {
            continue;
        }
        match clear(&path, &note) {
            Ok(()) => removed.push(note.slug.to_string()),
            Err(error) => first = first.or(Some(error)),
        }
    }
    if labels && let (Some(caller), containers) = labelled()? {
        for (slug, life) in containers {
            if life != Life::Dead {
                continue;
            }
            match remove(&caller, &slug) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    first = first.or(Some(error));
                }
                _ => removed.push(slug.to_string()),
            }
        }
    }
    match first {
        None => Ok(removed),
        Some(error) => Err(error),
    }
}

fn clear(path: &Path, note: &Note) -> io::Result<()> {
    match remove(&note.caller(), &note.slug) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Who can remove them, and whose they are.
type Labelled = (Option<Caller>, Vec<(Slug, Life)>);

/// Containers that are marked as ours.
fn labelled() -> io::Result<Labelled> {
    let Ok(reached) = program::reach() else {
        return Ok((None, Vec::new()));
    };
    let mut found = Vec::new();
    for container in reached.caller.list()? {
        let name = container
            .get("id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let Some(slug) = name
            .strip_prefix(note::PREFIX)
            .and_then(|slug| slug.parse::<Slug>().ok())
        else {
            continue;
        };
        let labels: HashMap<String, String> = container
            .pointer("/configuration/labels")
            .and_then(|labels| serde_json::from_value(labels.clone()).ok())
            .unwrap_or_default();
        // A name alone is no proof that it is ours.
        if labels.get(owner::SLUG).map(String::as_str) == Some(slug.as_str()) {
            found.push((slug, owner::life(&labels)));
        }
    }
    Ok((Some(reached.caller), found))
}
