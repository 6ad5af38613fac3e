//! Whose a container, a network or a machine is: labels that say which launcher made it, so that what a dead one left
//! is found, and what is a live one's is spared.

use std::collections::HashMap;
use std::fs;
use std::io;

use crate::state::Slug;
use crate::state::process::ProcessId;

pub const SLUG: &str = "bot-bottle.slug";
pub const OWNER: &str = "bot-bottle.owner";
pub const UID: &str = "bot-bottle.uid";
/// The launcher that a thing belongs to: `PID:START:BOOT:NAMESPACE`.
///
/// A number means nothing in another PID namespace, where a live launcher would look dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    process: ProcessId,
    namespace: String,
}

/// What can be said about an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Alive,
    Dead,
    /// It is not ours to judge: another user's, or in another PID namespace.
    Unknown,
}

impl Owner {
    pub fn current() -> io::Result<Self> {
        Ok(Self {
            process: ProcessId::current()?,
            namespace: namespace()?,
        })
    }

    /// What everything of a bottle's is marked with.
    pub fn labels(&self, slug: &Slug) -> HashMap<String, String> {
        HashMap::from([
            (SLUG.to_owned(), slug.to_string()),
            (OWNER.to_owned(), self.to_string()),
            (
                UID.to_owned(),
                rustix::process::geteuid().as_raw().to_string(),
            ),
        ])
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (process, namespace) = text.rsplit_once(':')?;
        Some(Self {
            process: ProcessId::parse(process)?,
            namespace: namespace.to_owned(),
        })
    }

    pub fn life(&self) -> Life {
        match namespace() {
            Ok(own) if own == self.namespace || self.process.is_of_another_boot() => {
                if self.process.is_alive() {
                    Life::Alive
                } else {
                    Life::Dead
                }
            }
            _ => Life::Unknown,
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.process, self.namespace)
    }
}

/// What the labels of a thing say about its owner.
pub fn life(labels: &HashMap<String, String>) -> Life {
    let own = rustix::process::geteuid();
    let uid = labels.get(UID).and_then(|uid| uid.parse::<u32>().ok());
    // Processes of others may be hidden from us (hidepid); root sees all.
    if uid != Some(own.as_raw()) && !own.is_root() {
        return Life::Unknown;
    }
    labels
        .get(OWNER)
        .and_then(|owner| Owner::parse(owner))
        .map_or(Life::Unknown, |owner| owner.life())
}

fn namespace() -> io::Result<String> {
    let link = fs::read_link("/proc/self/ns/pid")?;
    let text = link.to_string_lossy();
    Ok(text
        .chars()
        .filter(|character| character.is_ascii_digit())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_back_and_judged() {
        let own = Owner::current().unwrap();
        assert_eq!(Owner::parse(&own.to_string()), Some(own.clone()));
        assert_eq!(own.life(), Life::Alive);
        let (process, _) = own
            .to_string()
            .rsplit_once(':')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        assert_eq!(
            Owner::parse(&format!("{process}:1")).unwrap().life(),
            Life::Unknown
        );
        let slug: Slug = "a-000001".parse().unwrap();
        let mut labels = own.labels(&slug);
        assert_eq!(life(&labels), Life::Alive);
        labels.insert(OWNER.into(), "nonsense".into());
        assert_eq!(life(&labels), Life::Unknown);
        labels.insert(OWNER.into(), format!("1:1:no-such-boot:{}", own.namespace));
        assert_eq!(life(&labels), Life::Dead);
    }
}
