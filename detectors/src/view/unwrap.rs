//! Line breaks out of wrapped base64, and of anything written like it.

use super::map::Rewriter;
use super::simd::vectorised;
use crate::finding::Via;

/// Characters before a break and after it that tell a wrapped run from prose and code, where a word of eight
/// letters at a line's end is nothing special. Lines shorter than this are not unwrapped.
const BEFORE: usize = 16;
const AFTER: usize = 1;

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
        let Some(before) = at.checked_sub(BEFORE).and_then(|start| text.get(start..at)) else {
            continue;
        };
        if !before.iter().all(is_base64) {
            continue;
        }
        let rest = text.get(at..).unwrap_or_default();
        let Some(length) = line_break(rest) else {
            continue;
        };
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
    // A plain loop: an iterator's closure would not be compiled together with it.
    vectorised(
        #[inline(always)]
        || {
            let mut start = 0;
            while start < text.len() {
                if has_break(text, start) {
                    return true;
                }
                start += PIECE;
            }
            false
        },
    )
}

/// Bytes judged together by [`may_change`].
const PIECE: usize = 256;

/// One more than is judged: a backslash counts only before an `n` or `r`.
const SEEN: usize = BEFORE + PIECE + 1;

/// Whether a break ends a run that begins in the [`PIECE`] bytes from `start` on.
#[inline(always)]
fn has_break(text: &[u8], start: usize) -> bool {
    let rest = text.get(start..).unwrap_or_default();
    let seen = rest.len().min(SEEN);
    let mut bytes = [0_u8; SEEN];
    if let (Some(to), Some(from)) = (bytes.get_mut(..seen), rest.get(..seen)) {
        to.copy_from_slice(from);
    }
    // Element `i` says that a run of 1, 2, 4 and 8 begins there; two of 8 in a row make `BEFORE`. Indices are right
    // by construction: each array is shorter by what the one before is looked ahead.
    let mut one = [0_u8; SEEN];
    let mut two = [0_u8; SEEN - 1];
    let mut four = [0_u8; SEEN - 3];
    let mut eight = [0_u8; SEEN - 7];
    for at in 0..one.len() {
        one[at] = u8::from(is_base64(&bytes[at]));
    }
    for at in 0..two.len() {
        two[at] = one[at] & one[at + 1];
    }
    for at in 0..four.len() {
        four[at] = two[at] & two[at + 2];
    }
    for at in 0..eight.len() {
        eight[at] = four[at] & four[at + 4];
    }
    let mut found = 0;
    for at in 0..PIECE {
        let (byte, next) = (bytes[at + BEFORE], bytes[at + BEFORE + 1]);
        let escaped = u8::from(byte == b'\\') & (u8::from(next == b'n') | u8::from(next == b'r'));
        found |= eight[at]
            & eight[at + 8]
            & (escaped | u8::from(byte == b'\n') | u8::from(byte == b'\r'));
    }
    found != 0
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
    let blanks = rest
        .iter()
        .skip(length)
        .take(MAX_BLANKS)
        .take_while(|byte| byte.is_ascii_whitespace())
        .count();
    Some(length + blanks)
}

#[inline(always)]
fn is_base64(byte: &u8) -> bool {
    let letter = (*byte | 0x20).wrapping_sub(b'a') < 26;
    letter
        | (*byte).is_ascii_digit()
        | (*byte == b'+')
        | (*byte == b'/')
        | (*byte == b'-')
        | (*byte == b'_')
        | (*byte == b'=')
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
