//! What was found clean: an agent sends the whole of a conversation with each of its turns, and a verdict on the same bytes
//! with the same bytes around them does not change.
//!
//! Kept are authentication codes (AEGIS-128X2, 128 bits) of whole windows in which nothing was found and out of which nothing
//! goes on, so that a window that is known again costs its code alone, some 0.03 ns a byte. Two windows with one code cannot be
//! made by whoever chooses them: he knows neither the key nor any code.

use std::fmt;

use aegis::aegis128x2::Aegis128X2Mac;
use quick_cache::sync::Cache;

use crate::window::Window;

/// Below, a scan takes little longer than to look for a code.
const SHORTEST: usize = 256;

const TAG: usize = 16;

type Tag = [u8; TAG];

/// Says of a window's bytes that nothing else is to be found in them.
type Free = dyn Fn(&[u8]) -> bool + Send + Sync;

/// Windows that one set of detectors found clean.
pub(crate) struct Memory {
    key: [u8; 16],
    clean: Cache<Tag, ()>,
    free: Option<Box<Free>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("clean", &self.clean.len())
            .finish_non_exhaustive()
    }
}

impl Memory {
    pub(crate) fn new(key: [u8; 16], windows: usize) -> Self {
        Self {
            key,
            clean: Cache::new(windows),
            free: None,
        }
    }

    pub(crate) fn only_where(&mut self, free: Box<Free>) {
        self.free = Some(free);
    }

    /// Of all that a verdict on the window is made of; none where it would not pay.
    pub(crate) fn tag(&self, window: &Window<'_>) -> Option<Tag> {
        if window.bytes.len() < SHORTEST {
            return None;
        }
        let mut code = Aegis128X2Mac::<TAG>::new(&self.key);
        code.update(window.bytes);
        // Of one length, and last: no window's bytes can be taken for another's frame.
        let mut frame = [0; 17];
        let (start, rest) = frame.split_at_mut(8);
        start.copy_from_slice(&(window.own.start as u64).to_le_bytes());
        let (end, first) = rest.split_at_mut(8);
        end.copy_from_slice(&(window.own.end as u64).to_le_bytes());
        first.fill(u8::from(window.base == 0));
        code.update(&frame);
        Some(code.finalize())
    }

    pub(crate) fn knows(&self, tag: &Tag) -> bool {
        self.clean.get(tag).is_some()
    }

    /// Of a window in which nothing was found.
    pub(crate) fn keep(&self, tag: Tag, window: &Window<'_>) {
        if self.free.as_ref().is_none_or(|free| free(window.bytes)) {
            self.clean.insert(tag, ());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::finding::Location;
    use crate::memory::{Memory, TAG};
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
            .remember([1; 16], 8)
            .build()
            .unwrap();
        let known = |text: &[u8]| {
            let memory = scanner.memory().unwrap();
            windows(text, 16 * 1024)
                .map(|window| memory.knows(&memory.tag(&window).unwrap()))
                .collect::<Vec<_>>()
        };
        assert!(known(&text).iter().all(|known| !known) && !scanner.knows(&text));
        assert!(scanner.scan(&Location::Body, &text).is_empty());
        assert!(known(&text).iter().all(|known| *known) && scanner.knows(&text));
        // Only the windows that see it.
        let mut other = text;
        other[140_000] ^= 1;
        assert_eq!(known(&other), [true, false, false, true]);
        assert!(!scanner.knows(&other) && !scanner.knows(&other[..200]));
    }

    #[test]
    fn a_caller_may_look_for_more() {
        let scanner = Scanner::builder()
            .token_patterns(true)
            .remember([1; 16], 8)
            .remember_only_where(|text| !text.contains(&b'X'))
            .build()
            .unwrap();
        let mut text = vec![b'a'; 150_000];
        for marked in [false, true] {
            // Behind the first window, which still sees it.
            text[70_000] = if marked { b'X' } else { b'a' };
            for _ in 0..2 {
                assert!(scanner.scan(&Location::Body, &text).is_empty());
            }
            assert_eq!(scanner.knows(&text), !marked);
            let mut stream = scanner.stream(Location::Body);
            assert!(stream.push(&text).is_empty());
            assert_eq!(stream.has_read(), marked);
            assert!(stream.finish().is_empty());
            // The last window of this text is one of the other, too.
            assert!(!stream.has_read());
        }
    }

    #[test]
    fn all_that_a_verdict_depends_on_is_in_the_tag() {
        let memory = Memory::new([1; 16], 8);
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
        assert_ne!(Memory::new([2; 16], 8).tag(&window), tag);
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
        let memory = Memory::new([0xAB; 16], 8);
        let window = Window {
            bytes: b"words",
            base: 0,
            own: 0..5,
        };
        for number in 0..10_000_u32 {
            let mut tag = [0; TAG];
            tag[..4].copy_from_slice(&number.to_le_bytes());
            memory.keep(tag, &window);
        }
        assert!(memory.clean.len() <= 8);
        assert_eq!(
            format!("{memory:?}"),
            format!("Memory {{ clean: {}, .. }}", memory.clean.len())
        );
    }
}
