//! Line breaks out of wrapped base64, and of anything written like it.

use std::ops::Range;

use super::map::Rewriter;
use crate::finding::Via;

/// White space after a break: an indented block scalar or heredoc.
const MAX_BLANKS: usize = 32;

/// Backslashes before an escaped break: what three layers of JSON make of one.
const MAX_BACKSLASHES: usize = 7;

/// The lines that `run`, of at least `line` characters, is the first of, if another one follows. Every line but the last
/// has at least as many characters.
pub(super) fn region(text: &[u8], run: Range<usize>, line: usize) -> Option<Range<usize>> {
    let mut end = run.end;
    let mut length = run.len();
    let mut lines = 1;
    while length >= line {
        let rest = text.get(end..).unwrap_or_default();
        let gap = line_break(rest);
        if gap == 0 {
            break;
        }
        length = rest
            .iter()
            .skip(gap)
            .take_while(|byte| is_base64(**byte))
            .count();
        if length == 0 {
            break;
        }
        lines += 1;
        end += gap + length;
    }
    (lines > 1).then_some(run.start..end)
}

pub(super) fn unwrap(rewriter: &mut Rewriter<'_>, line: usize) {
    let text = rewriter.source();
    let mut at = 0;
    while at < text.len() {
        let length = text[at..]
            .iter()
            .take_while(|byte| is_base64(**byte))
            .count();
        at += length;
        let gap = line_break(text.get(at..).unwrap_or_default());
        if length >= line && gap > 0 {
            rewriter.replace(at..at + gap, b"", Via::LineWrap);
        }
        at += gap.max(1);
    }
}

/// The length of a line break, raw or as a JSON string writes it, and of the blanks after it; zero if there is none.
pub(super) fn line_break(rest: &[u8]) -> usize {
    let backslashes = rest
        .iter()
        .take(MAX_BACKSLASHES)
        .take_while(|byte| **byte == b'\\')
        .count();
    let length = match rest.get(backslashes..).unwrap_or_default() {
        [b'r', b'\\', after @ ..] if backslashes > 0 => {
            let more = after
                .iter()
                .take(MAX_BACKSLASHES)
                .take_while(|byte| **byte == b'\\')
                .count();
            if after.get(more) == Some(&b'n') {
                backslashes + more + 3
            } else {
                0
            }
        }
        [b'n', ..] if backslashes > 0 => backslashes + 1,
        [b'\r', b'\n', ..] => backslashes + 2,
        [b'\n', ..] => backslashes + 1,
        _ => 0,
    };
    if length == 0 {
        return 0;
    }
    length
        + rest
            .iter()
            .skip(length)
            .take(MAX_BLANKS)
            .take_while(|byte| byte.is_ascii_whitespace())
            .count()
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined() {
        for ending in [
            "\n",
            "\r\n",
            "\\n",
            "\\r\\n",
            "\n   ",
            "\\\\n",
            "\\\n",
            "\\\\r\\\\n",
        ] {
            let text = format!(
                "{}{ending}{}{ending}AAA end",
                "A".repeat(16),
                "B".repeat(16)
            );
            let region = region(text.as_bytes(), 0..16, 16).unwrap();
            assert_eq!(region, 0..text.len() - 4, "{text:?}");
            let mut rewriter = Rewriter::new(&text.as_bytes()[region]);
            unwrap(&mut rewriter, 16);
            assert_eq!(
                rewriter.finish().unwrap().text,
                format!("{}{}AAA", "A".repeat(16), "B".repeat(16)).as_bytes()
            );
        }
        assert_eq!(region(b"AAAAAAAAAAAAAAAA AAAA", 0..16, 16), None);
        assert_eq!(region(b"AAAA\nAAAA", 0..4, 16), None);
    }
}
