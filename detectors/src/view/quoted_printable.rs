//! Quoted-printable (RFC 2045, section 6.7): `=XX` and soft line breaks.

use super::map::Rewriter;
use crate::finding::Via;

/// Blanks that a mail relay may have put between `=` and the line's end.
const MAX_BLANKS: usize = 8;

pub(super) fn decode(rewriter: &mut Rewriter<'_>) {
    let text = rewriter.source();
    let mut from = 0;
    while let Some(found) = memchr::memchr(b'=', text.get(from..).unwrap_or_default()) {
        let at = from + found;
        from = at + 1;
        let rest = text.get(from..).unwrap_or_default();
        if let Some(byte) = super::unescape::hex_pair(rest) {
            from += 2;
            rewriter.replace(at..from, &[byte], Via::QuotedPrintable);
        } else if let Some(length) = soft_break(rest) {
            from += length;
            rewriter.replace(at..from, b"", Via::QuotedPrintable);
        }
    }
}

/// Whether `text` begins with a soft line break.
pub(super) fn is_soft_break(text: &[u8]) -> bool {
    matches!(text, [b'=', rest @ ..] if soft_break(rest).is_some())
}

/// The length of the soft line break that `text` begins with, or one.
pub(super) fn soft_break_length(text: &[u8]) -> usize {
    match text {
        [b'=', rest @ ..] => 1 + soft_break(rest).unwrap_or(0),
        _ => 1,
    }
}

fn soft_break(rest: &[u8]) -> Option<usize> {
    let blanks = rest
        .iter()
        .take(MAX_BLANKS)
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    match rest.get(blanks..)? {
        [b'\r', b'\n', ..] => Some(blanks + 2),
        [b'\n', ..] => Some(blanks + 1),
        _ => None,
    }
}
