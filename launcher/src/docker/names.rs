//! Names and labels of what an engine keeps for us.

use std::collections::HashMap;

pub use crate::owner::{Life, Owner, SLUG, life};
use crate::state::Slug;

/// Which of a bottle's containers it is.
pub const ROLE: &str = "bot-bottle.role";
/// On images of ours.
pub const CONTENT: &str = "bot-bottle.content";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Sidecar,
    Agent,
    /// Made to read an image's files from, never started.
    Look,
    Network,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Agent => "agent",
            Self::Look => "look",
            Self::Network => "network",
        }
    }

    pub fn name(self, slug: &Slug) -> String {
        match self {
            Self::Network => format!("bot-bottle-{slug}"),
            _ => format!("bot-bottle-{slug}-{}", self.as_str()),
        }
    }

    /// Everything of a bottle's has these.
    pub fn labels(self, slug: &Slug, owner: &Owner) -> HashMap<String, String> {
        let mut labels = owner.labels(slug);
        labels.insert(ROLE.to_owned(), self.as_str().to_owned());
        labels
    }
}
