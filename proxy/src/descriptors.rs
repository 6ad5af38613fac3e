//! File descriptors: a connection of the agent's takes one, and one more for each of its origin's.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::limits;

/// More are of no use.
const ENOUGH: u64 = 65_536;
/// For files, listeners, DNS and what the runtime needs.
const OURS: u64 = 64;
/// A tunnel with its origin, and a few more connections that its requests may have opened.
const A_CONNECTION: u64 = 4;

/// Raises the limit as far as it goes without privileges, and says how many connections it is good for.
pub fn connections() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
    let open = getrlimit(Resource::Nofile).current.unwrap_or(ENOUGH);
    let room = open.saturating_sub(OURS) / A_CONNECTION;
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let connections = room.clamp(limits::FEWEST_CONNECTIONS, limits::CONNECTIONS);
    if connections < limits::CONNECTIONS {
        tracing::warn!(
            connections,
            open,
            "the limit of open files lets fewer connections in (ulimit -n)"
        );
    }
    connections
}
