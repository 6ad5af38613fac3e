//! Line breaks out of wrapped base64, and of anything written like it.

use std::array::from_fn;

use super::map::Rewriter;
use crate::finding::Via;

/// Characters before a break and after it that tell a wrapped run from prose and code, where a word of eight
/// letters at a line's end is nothing special. Lines shorter than this are not unwrapped.
const BEFORE: usize = 16;
const AFTER: usize = 4;

/// White space after a break: an indented block scalar or heredoc.
const MAX_BLANKS: usize = 32;

/// A break is LF or CRLF, or either as a JSON string writes it.
pub(super) fn unwrap(rewriter: &mut Rewriter<'_>) {
    let text = rewriter.source();
    let mut from = 0;
    while let Some(found) = memchr::memchr2(b'\n', b'\\', text.get(from..).unwrap_or_default()) {
        from += found + 1;
        let at = match text.get(..from) {
            Some([.., b'\r', b'\n']) => from - 2,
            _ => from - 1,
        };
        let Some(before) = at.checked_sub(BEFORE).and_then(|start| text.get(start..at)) else { continue };
        if !before.iter().all(is_base64) {
            continue;
        }
        let rest = text.get(at..).unwrap_or_default();
        let Some(length) = line_break(rest) else { continue };
        let follows = rest.get(length..length + AFTER).unwrap_or_default();
        if follows.len() == AFTER && follows.iter().all(is_base64) {
            from = at + length;
            rewriter.replace(at..from, b"", Via::LineWrap);
        }
    }
}

/// Whether a run of base64 and then a line break stand anywhere in `text`, without a branch for each line: prose
/// and code have one every few words, and hardly any is in question.
pub(super) fn may_change(text: &[u8]) -> bool {
    const PIECE: usize = 256;
    // One more than is judged: a backslash counts only before an `n` or `r`.
    const SEEN: usize = BEFORE + PIECE + 1;
    let mut start = 0;
    while start + BEFORE < text.len() {
        let rest = text.get(start..).unwrap_or_default();
        let mut bytes = [0_u8; SEEN];
        bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let one = bytes.map(|byte| u8::from(is_base64(&byte)));
        // Element `i` says that a run of 2, 4 and 8 begins there; two of 8 in a row make `BEFORE`.
        let two: [u8; SEEN - 1] = from_fn(|at| one[at] & one[at + 1]);
        let four: [u8; SEEN - 3] = from_fn(|at| two[at] & two[at + 2]);
        let eight: [u8; SEEN - 7] = from_fn(|at| four[at] & four[at + 4]);
        let found = (0..PIECE).fold(0, |found, at| {
            let (byte, next) = (bytes[at + BEFORE], bytes[at + BEFORE + 1]);
            let escaped = u8::from(byte == b'\\') & (u8::from(next == b'n') | u8::from(next == b'r'));
            found | (eight[at] & eight[at + 8] & (escaped | u8::from(byte == b'\n') | u8::from(byte == b'\r')))
        });
        if found != 0 {
            return true;
        }
        start += PIECE;
    }
    false
}

/// The length of a line break and the blanks after it.
fn line_break(rest: &[u8]) -> Option<usize> {
    let length = match rest {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        [b'\\', b'r', b'\\', b'n', ..] => 4,
        [b'\\', b'n', ..] => 2,
        _ => return None,
    };
    let blanks = rest.iter().skip(length).take(MAX_BLANKS).take_while(|byte| byte.is_ascii_whitespace()).count();
    Some(length + blanks)
}

fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() | matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_look_misses_no_change() {
        for before in [15, 16, 17, 100, 255, 256, 257, 300, 511, 520] {
            for ending in ["\n", "\r\n", "\\n", "\\r\\n", "\n   "] {
                let text = format!("{}{ending}AAAA", "A".repeat(before));
                let mut rewriter = Rewriter::new(text.as_bytes());
                unwrap(&mut rewriter);
                assert_eq!(rewriter.has_changed(), before >= BEFORE, "{text:?}");
                assert!(may_change(text.as_bytes()) || before < BEFORE, "{text:?}");
                assert!(!may_change(text.replace('A', ";").as_bytes()));
            }
        }
    }
}
