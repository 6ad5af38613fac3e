//! Rooms of bodies that are held, used again: pages that come and go with each body cost more than the body, and whoever gives
//! some hundreds of them back keeps all connections of its worker waiting.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use bytes::{Bytes, BytesMut};

/// Rooms that are kept while nobody uses them.
const KEPT: usize = 8;
/// Rooms that are in use at one time: the pages of one that was used are there, however little of it a body takes, and a body
/// has paid for itself alone. What is more has a buffer of its own.
const LENT: usize = 16;
/// A body of the default limit ([`crate::settings`]), the byte that shows that it is longer, and what is read with it.
pub const ROOM: usize = 1024 * 1024 + 64 * 1024;
/// Below, the allocator's own ways are as good.
const LEAST: usize = 64 * 1024;

static ROOMS: Rooms = Rooms::new();

/// An empty room for so many bytes; `None` where they need none of these, or none is to be had.
pub fn take(bytes: usize) -> Option<(BytesMut, Key)> {
    ROOMS.take(bytes)
}

/// Frees those that nobody uses.
pub fn clear() {
    ROOMS.clear();
}

struct Rooms {
    unused: Mutex<Vec<BytesMut>>,
    lent: AtomicUsize,
}

/// Who has it has a room.
#[derive(Debug)]
pub struct Key(&'static Rooms);

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // They hold what agents sent.
        f.debug_struct("Rooms")
            .field("lent", &self.lent)
            .finish_non_exhaustive()
    }
}

impl Rooms {
    const fn new() -> Self {
        Self {
            unused: Mutex::new(Vec::new()),
            lent: AtomicUsize::new(0),
        }
    }

    /// Nobody waits for them: a room that is not used again is only slower.
    fn unused(&self) -> Option<MutexGuard<'_, Vec<BytesMut>>> {
        match self.unused.try_lock() {
            Ok(rooms) => Some(rooms),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn take(&'static self, bytes: usize) -> Option<(BytesMut, Key)> {
        if !(LEAST..=ROOM).contains(&bytes) {
            return None;
        }
        let key = Key(self);
        if self.lent.fetch_add(1, Ordering::Relaxed) >= LENT {
            return None;
        }
        let kept = self.unused().and_then(|mut rooms| rooms.pop());
        Some((kept.unwrap_or_else(|| BytesMut::with_capacity(ROOM)), key))
    }

    fn clear(&self) {
        let unused = self.unused().map(|mut rooms| std::mem::take(&mut *rooms));
        drop(unused);
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.lent.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Key {
    /// What was put into the room. It is given back with the last of those who read it.
    pub fn lend(self, body: BytesMut) -> Bytes {
        Bytes::from_owner(Lent { body, key: self })
    }
}

struct Lent {
    body: BytesMut,
    key: Key,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut room = std::mem::take(&mut self.body);
        room.clear();
        // Not where a part of it is still somebody else's.
        if room.try_reclaim(ROOM)
            && let Some(mut rooms) = self.key.0.unused()
            && rooms.len() < KEPT
        {
            rooms.push(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> &'static Rooms {
        Box::leak(Box::new(Rooms::new()))
    }

    fn address(rooms: &'static Rooms) -> *const u8 {
        rooms.take(ROOM).unwrap().0.as_ptr()
    }

    #[test]
    fn a_room_is_used_again_once_nobody_reads_it() {
        let rooms = none();
        let (mut room, key) = rooms.take(LEAST).unwrap();
        room.extend_from_slice(b"a body");
        let at = room.as_ptr();
        let body = key.lend(room.split());
        drop(room);
        let part = body.slice(2..);
        drop(body);
        assert_ne!(address(rooms), at);
        assert_eq!(&part[..], b"body");
        drop(part);
        let (again, _key) = rooms.take(ROOM).unwrap();
        assert_eq!(again.as_ptr(), at);
        assert!(again.is_empty() && again.capacity() >= ROOM);
    }

    #[test]
    fn what_came_behind_a_body_stays_where_it_is() {
        let rooms = none();
        let (mut room, key) = rooms.take(ROOM).unwrap();
        room.extend_from_slice(b"a body, and more");
        drop(key.lend(room.split_to(6)));
        let (mut other, _key) = rooms.take(ROOM).unwrap();
        other.extend_from_slice(b"something else");
        assert_eq!(&room[..], b", and more");
    }

    #[test]
    fn not_more_are_kept_or_lent_than_may_be_nor_for_what_is_too_short_or_too_long() {
        let rooms = none();
        assert!(rooms.take(LEAST - 1).is_none() && rooms.take(ROOM + 1).is_none());
        for _ in 0..2 {
            let many: Vec<Bytes> = (0..2 * LENT)
                .map_while(|_| rooms.take(ROOM))
                .map(|(room, key)| key.lend(room))
                .collect();
            assert_eq!(many.len(), LENT);
            drop(many);
            assert_eq!(rooms.unused().unwrap().len(), KEPT);
        }
        rooms.clear();
        assert!(rooms.unused().unwrap().is_empty());
    }
}
