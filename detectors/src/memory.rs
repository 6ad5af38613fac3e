//! What was found clean: an agent sends the whole of a conversation with each of its turns, and a verdict on the same bytes
//! with the same bytes around them does not change.
//!
//! Kept are keyed hashes (BLAKE3, cut to 128 bits) of whole windows in which nothing was found and out of which nothing goes
//! on, so that a window that is known again costs its hash alone. Two windows with one hash cannot be made by whoever chooses
//! them: the hash resists collisions, and its key is not known to them.

use std::fmt;

use quick_cache::sync::Cache;

use crate::window::Window;

/// Below, a scan costs about as much as a hash.
const SHORTEST: usize = 256;

type Tag = [u8; 16];

/// Windows that one set of detectors found clean.
pub(crate) struct Memory {
    key: [u8; 32],
    clean: Cache<Tag, ()>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("clean", &self.clean.len())
            .finish_non_exhaustive()
    }
}

impl Memory {
    pub(crate) fn new(key: [u8; 32], windows: usize) -> Self {
        Self {
            key,
            clean: Cache::new(windows),
        }
    }

    /// Of all that a verdict on the window is made of; none where it would not pay.
    pub(crate) fn tag(&self, window: &Window<'_>) -> Option<Tag> {
        if window.bytes.len() < SHORTEST {
            return None;
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(window.bytes);
        // Of one length, and last: no window's bytes can be taken for another's frame.
        let mut frame = [0; 17];
        let (start, rest) = frame.split_at_mut(8);
        start.copy_from_slice(&(window.own.start as u64).to_le_bytes());
        let (end, first) = rest.split_at_mut(8);
        end.copy_from_slice(&(window.own.end as u64).to_le_bytes());
        first.fill(u8::from(window.base == 0));
        hasher.update(&frame);
        let mut tag = Tag::default();
        hasher.finalize_xof().fill(&mut tag);
        Some(tag)
    }

    pub(crate) fn knows(&self, tag: &Tag) -> bool {
        self.clean.get(tag).is_some()
    }

    pub(crate) fn keep(&self, tag: Tag) {
        self.clean.insert(tag, ());
    }
}

#[cfg(test)]
mod tests {
    use crate::finding::Location;
    use crate::memory::Memory;
    use crate::scanner::Scanner;
    use crate::window::{Window, windows};

    #[test]
    fn what_comes_again_is_not_read_again() {
        let text: Vec<u8> = b"some words, and others. "
            .iter()
            .copied()
            .cycle()
            .take(200_000)
            .collect();
        let scanner = Scanner::builder()
            .token_patterns(true)
            .remember([1; 32], 8)
            .build()
            .unwrap();
        let known = |text: &[u8]| {
            let memory = scanner.memory().unwrap();
            windows(text, 16 * 1024)
                .map(|window| memory.knows(&memory.tag(&window).unwrap()))
                .collect::<Vec<_>>()
        };
        assert!(known(&text).iter().all(|known| !known));
        assert!(scanner.scan(&Location::Body, &text).is_empty());
        assert!(known(&text).iter().all(|known| *known));
        // Only the windows that see it.
        let mut other = text;
        other[140_000] ^= 1;
        assert_eq!(known(&other), [true, false, false, true]);
    }

    #[test]
    fn all_that_a_verdict_depends_on_is_in_the_tag() {
        let memory = Memory::new([1; 32], 8);
        let text = [b'a'; 1000];
        let window = Window {
            bytes: &text,
            base: 0,
            own: 0..1000,
        };
        let tag = memory.tag(&window);
        assert!(tag.is_some());
        let others = [
            Window {
                bytes: &text[..999],
                ..window.clone()
            },
            Window {
                base: 65_024,
                ..window.clone()
            },
            Window {
                own: 0..999,
                ..window.clone()
            },
            Window {
                own: 1..1000,
                ..window.clone()
            },
        ];
        for other in others {
            assert_ne!(memory.tag(&other), tag, "{other:?}");
        }
        assert_ne!(Memory::new([2; 32], 8).tag(&window), tag);
        // Wherever it stands in a text, if something is before it.
        let [a, b] = [512, 1024].map(|base| {
            memory.tag(&Window {
                base,
                ..window.clone()
            })
        });
        assert_eq!(a, b);
    }

    #[test]
    fn it_is_bounded_and_shows_no_key() {
        let memory = Memory::new([0xAB; 32], 8);
        for number in 0..10_000_u32 {
            let mut tag = [0; 16];
            tag[..4].copy_from_slice(&number.to_le_bytes());
            memory.keep(tag);
        }
        assert!(memory.clean.len() <= 8);
        assert_eq!(
            format!("{memory:?}"),
            format!("Memory {{ clean: {}, .. }}", memory.clean.len())
        );
    }
}
