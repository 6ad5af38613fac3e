//! The loopback address of a bottle's sidecar, out of a small pool.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Slug, pool};

/// The port of the egress proxy, the same on every alias.
pub const PROXY_PORT: u16 = 9099;

#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    #[error(
        "all loopback aliases ({first} to {last}) are in use, by {0}; end one of these bottles, or run `launcher cleanup`",
        first = pool::ALL[0], last = pool::ALL[15]
    )]
    Exhausted(String),
    #[error("alias lock {path}: {source}")]
    Lock { path: String, source: io::Error },
}

/// Held by this process until it is dropped; the kernel releases it when the process dies.
#[derive(Debug)]
pub struct Alias {
    pub address: Ipv4Addr,
    _lock: File,
}

impl Alias {
    /// Takes the lowest free address. `directory` holds one lock file for each; `held` are those that something without
    /// a lock of ours has, as far as that was known before, and `is_taken` looks once the lock is ours.
    pub fn acquire(
        directory: &Path,
        slug: &Slug,
        held: &[(Ipv4Addr, String)],
        is_taken: impl Fn(Ipv4Addr) -> bool,
    ) -> Result<Self, AliasError> {
        let mut holders = Vec::new();
        for address in pool::ALL {
            if let Some((_, holder)) = held.iter().find(|(taken, _)| *taken == address) {
                holders.push(holder.clone());
                continue;
            }
            let path = directory.join(format!("{address}.lock"));
            let failed = |source| AliasError::Lock {
                path: path.display().to_string(),
                source,
            };
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) if is_taken(address) => {
                    holders.push(format!("another program on {address}:{PROXY_PORT}"));
                }
                Ok(()) => {
                    // Only for people: who holds it is said when the pool is exhausted.
                    file.set_len(0)
                        .and_then(|()| file.rewind())
                        .map_err(failed)?;
                    file.write_all(slug.as_str().as_bytes()).map_err(failed)?;
                    return Ok(Self {
                        address,
                        _lock: file,
                    });
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // Its holder may be writing its name just now; an unknown holder is one nonetheless.
                    let _unread = file.read_to_string(&mut holder);
                    holders.push(if holder.is_empty() {
                        address.to_string()
                    } else {
                        holder
                    });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        Err(AliasError::Exhausted(holders.join(", ")))
    }

    /// What `acquire` would take now; takes and writes nothing.
    pub fn peek(directory: &Path) -> Option<Ipv4Addr> {
        pool::ALL.into_iter().find(|address| {
            File::open(directory.join(format!("{address}.lock")))
                .map_or(true, |file| file.try_lock().is_ok())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_first_and_exhaustion_names_the_holders() {
        let directory = tempfile::tempdir().unwrap();
        let slug = |n: u8| format!("agent-{n:06x}").parse::<Slug>().unwrap();
        let acquire = |n: u8| Alias::acquire(directory.path(), &slug(n), &[], |_| false);
        let mut held: Vec<_> = (16..=31).map(|n| acquire(n).unwrap()).collect();
        assert_eq!(held[0].address, Ipv4Addr::new(127, 0, 0, 16));
        assert_eq!(Alias::peek(directory.path()), None);
        let error = acquire(99).unwrap_err().to_string();
        assert!(error.contains("agent-000010, agent-000011"), "{error}");
        drop(held.remove(3));
        assert_eq!(
            Alias::peek(directory.path()),
            Some(Ipv4Addr::new(127, 0, 0, 19))
        );
        assert_eq!(acquire(99).unwrap().address, Ipv4Addr::new(127, 0, 0, 19));
    }

    #[test]
    fn what_others_hold_is_passed_over_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let slug: Slug = "agent-000001".parse().unwrap();
        let [first, second, third, ..] = pool::ALL;
        let held = [(first, "other-000002".to_owned())];
        let alias =
            Alias::acquire(directory.path(), &slug, &held, |address| address == second).unwrap();
        assert_eq!(alias.address, third);
        // What was only looked at is free for others.
        let next = Alias::acquire(directory.path(), &slug, &held, |_| false).unwrap();
        assert_eq!(next.address, second);
        let error = Alias::acquire(directory.path(), &slug, &held, |_| true)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(
                "other-000002, agent-000001, agent-000001, another program on 127.0.0.19:9099"
            ),
            "{error}"
        );
    }
}
