//! Whose a container is: a note in the launcher's state that is there before the container, and the container's labels.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::program::Caller;
use crate::owner::{Life, Owner};
use crate::state::Slug;

/// Every container of ours is called so, and after it the bottle.
pub const PREFIX: &str = "bot-bottle-";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    pub slug: Slug,
    owner: String,
    /// That made it.
    program: PathBuf,
}

pub fn container(slug: &Slug) -> String {
    format!("{PREFIX}{slug}")
}

impl Note {
    pub fn new(slug: &Slug, owner: &Owner, caller: &Caller) -> Self {
        Self {
            slug: slug.clone(),
            owner: owner.to_string(),
            program: caller.program.clone(),
        }
    }

    pub fn path(directory: &Path, slug: &Slug) -> PathBuf {
        directory.join(format!("{slug}.json"))
    }

    /// Whole or not at all.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let path = Self::path(directory, &self.slug);
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, path)
    }

    pub fn container(&self) -> String {
        container(&self.slug)
    }

    pub fn life(&self) -> Life {
        Owner::parse(&self.owner).map_or(Life::Unknown, |owner| owner.life())
    }

    /// To remove the container with.
    pub fn caller(&self) -> Caller {
        Caller::new(self.program.clone())
    }
}

/// All notes, with their files. What cannot be read is not ours to judge.
pub fn all(directory: &Path) -> io::Result<Vec<(PathBuf, Note)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let note = fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        if let Some(note) = note
            && path == Note::path(directory, &note.slug)
        {
            found.push((path, note));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}
