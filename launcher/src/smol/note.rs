//! Whose a machine is: a note in the launcher's state that is there before the machine, and labels where smolvm has
//! them.
//!
//! A note is enough to remove a machine with, from any later process: which program made it, and in which state of
//! smolvm's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::place::Place;
use super::program::Caller;
use crate::owner::{Life, Owner};
use crate::state::Slug;

/// Every machine of ours is called so, and after it the bottle.
pub const PREFIX: &str = "bot-bottle-";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Note {
    pub slug: Slug,
    owner: String,
    program: PathBuf,
    home: PathBuf,
    data: Option<PathBuf>,
}

pub fn machine(slug: &Slug) -> String {
    format!("{PREFIX}{slug}")
}

impl Note {
    pub fn new(slug: &Slug, owner: &Owner, caller: &Caller) -> Self {
        Self {
            slug: slug.clone(),
            owner: owner.to_string(),
            program: caller.program.clone(),
            home: caller.place.home().to_owned(),
            data: caller.place.data().map(Path::to_owned),
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

    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    pub fn machine(&self) -> String {
        machine(&self.slug)
    }

    pub fn life(&self) -> Life {
        Owner::parse(&self.owner).map_or(Life::Unknown, |owner| owner.life())
    }

    /// To remove the machine with.
    pub fn caller(&self) -> io::Result<Caller> {
        let place = Place::locate().map_err(io::Error::other)?;
        Ok(Caller::new(
            self.program.clone(),
            place.at(self.home.clone(), self.data.clone()),
        ))
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
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
            && let Ok(note) = Note::read(&path)
        {
            found.push((path, note));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}
