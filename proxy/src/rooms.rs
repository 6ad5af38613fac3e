//! Rooms of bodies that are held, used again: pages that come and go with each body cost more than the body, and whoever gives
//! some hundreds of them back keeps all connections of its worker waiting.

use std::sync::{Mutex, MutexGuard, TryLockError};

use bytes::{Bytes, BytesMut};

/// Rooms that are kept while nobody uses them.
const KEPT: usize = 8;
/// A body of the default limit ([`crate::settings`]), the byte that shows that it is longer, and what is read with it.
pub const ROOM: usize = 1024 * 1024 + 64 * 1024;
/// Below, the allocator's own ways are as good.
const LEAST: usize = 64 * 1024;

static ROOMS: Rooms = Rooms(Mutex::new(Vec::new()));

/// An empty room for so many bytes; `None` where they need none of these.
pub fn take(bytes: usize) -> Option<BytesMut> {
    ROOMS.take(bytes)
}

/// What was put into a room. It is given back with the last of those who read it.
pub fn lend(body: BytesMut) -> Bytes {
    ROOMS.lend(body)
}

/// Frees those that nobody uses.
pub fn clear() {
    ROOMS.clear();
}

struct Rooms(Mutex<Vec<BytesMut>>);

impl Rooms {
    /// Nobody waits for them: a room that is not used again is only slower.
    fn unused(&self) -> Option<MutexGuard<'_, Vec<BytesMut>>> {
        match self.0.try_lock() {
            Ok(rooms) => Some(rooms),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn take(&self, bytes: usize) -> Option<BytesMut> {
        if !(LEAST..=ROOM).contains(&bytes) {
            return None;
        }
        let kept = self.unused().and_then(|mut rooms| rooms.pop());
        Some(kept.unwrap_or_else(|| BytesMut::with_capacity(ROOM)))
    }

    fn lend(&'static self, body: BytesMut) -> Bytes {
        Bytes::from_owner(Lent { body, rooms: self })
    }

    fn clear(&self) {
        let unused = self.unused().map(|mut rooms| std::mem::take(&mut *rooms));
        drop(unused);
    }
}

struct Lent {
    body: BytesMut,
    rooms: &'static Rooms,
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
            && let Some(mut rooms) = self.rooms.unused()
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
        Box::leak(Box::new(Rooms(Mutex::new(Vec::new()))))
    }

    #[test]
    fn a_room_is_used_again_once_nobody_reads_it() {
        let rooms = none();
        let mut room = rooms.take(LEAST).unwrap();
        room.extend_from_slice(b"a body");
        let at = room.as_ptr();
        let body = rooms.lend(room.split());
        drop(room);
        let part = body.slice(2..);
        drop(body);
        assert_ne!(rooms.take(ROOM).unwrap().as_ptr(), at);
        assert_eq!(&part[..], b"body");
        drop(part);
        let again = rooms.take(ROOM).unwrap();
        assert_eq!(again.as_ptr(), at);
        assert!(again.is_empty() && again.capacity() >= ROOM);
    }

    #[test]
    fn what_came_behind_a_body_stays_where_it_is() {
        let rooms = none();
        let mut room = rooms.take(ROOM).unwrap();
        room.extend_from_slice(b"a body, and more");
        drop(rooms.lend(room.split_to(6)));
        let mut other = rooms.take(ROOM).unwrap();
        other.extend_from_slice(b"something else");
        assert_eq!(&room[..], b", and more");
    }

    #[test]
    fn not_more_are_kept_than_may_be_nor_for_what_is_too_short_or_too_long() {
        let rooms = none();
        assert!(rooms.take(LEAST - 1).is_none() && rooms.take(ROOM + 1).is_none());
        let many: Vec<Bytes> = (0..2 * KEPT)
            .map(|_| rooms.lend(rooms.take(ROOM).unwrap()))
            .collect();
        drop(many);
        assert_eq!(rooms.unused().unwrap().len(), KEPT);
        rooms.clear();
        assert!(rooms.unused().unwrap().is_empty());
    }
}
