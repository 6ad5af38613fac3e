//! Manifests: what a user writes about agents and bottles, read into what is meant.
//!
//! A repository can name a bottle and never define or alter one: bottles come from the home directory only.

mod agent;
mod bottle;
mod front_matter;
mod hint;
mod image;
mod later;
mod load;
mod template;

use std::path::PathBuf;

pub use agent::GitUser;
pub use bottle::EnvValue;
pub use front_matter::Mistake;
pub use hint::nearest;
pub use image::ImageSource;
pub use load::{Agent, Bottle, Home, check_file};
pub use template::Template;

use crate::state::NameError;

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error(transparent)]
    Mistake(#[from] Mistake),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("neither BOT_BOTTLE_HOME nor HOME says where the manifests are; set one of them")]
    NoHome,
    #[error("there is no {what} `{name}`: looked for {}{hint}", list(places))]
    Missing {
        what: &'static str,
        name: String,
        places: Vec<PathBuf>,
        hint: String,
    },
    #[error("agent `{0}` names no bottle; write `bottle: NAME` in {file}, or start it with --bottle NAME", file = .1.display())]
    NoBottle(String, PathBuf),
}

fn list(places: &[PathBuf]) -> String {
    places
        .iter()
        .map(|place| place.display().to_string())
        .collect::<Vec<_>>()
        .join(" and ")
}
