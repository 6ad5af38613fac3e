//! Characters with the same thing between each two: `g h p _`, `g","h","p"`, a character a line.

use super::map::{Rewriter, View};
use crate::finding::Via;

/// Characters in a row that hold the shortest credential.
const LEAST: usize = 14;

/// Bytes of what stands between.
const SEPARATOR: usize = 8;

/// `text` with what separates single characters taken out.
pub(super) fn view(text: &[u8]) -> Option<View> {
    let mut rewriter = Rewriter::new(text);
    let mut at = 0;
    while at < text.len() {
        if !text[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let length = text[at + 1..]
            .iter()
            .take(SEPARATOR + 1)
            .take_while(|byte| !byte.is_ascii_alphanumeric())
            .count();
        if length == 0 || length > SEPARATOR {
            at += 1;
            continue;
        }
        let separator = &text[at + 1..at + 1 + length];
        let mut count = 1;
        let mut end = at;
        while text[end + 1..].starts_with(separator) && end + 1 + length < text.len() {
            end += 1 + length;
            count += 1;
        }
        if count < LEAST {
            at = end.max(at + 1);
            continue;
        }
        for number in 1..count {
            let from = at + 1 + (number - 1) * (length + 1);
            rewriter.replace(from..from + length, b"", Via::Spelled);
        }
        at = end + 1;
    }
    rewriter.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_goes() {
        let spelled = |separator: &str| {
            "ghp_AB-CD.0123"
                .chars()
                .map(String::from)
                .collect::<Vec<_>>()
                .join(separator)
        };
        for separator in [
            " ", "\n", "\r\n", "-", "_", ".", "\",\"", "', '", " + ", "\u{a0}", "  ",
        ] {
            let text = format!("token: {}; end", spelled(separator));
            let view = view(text.as_bytes()).unwrap();
            assert!(
                view.text
                    .windows(14)
                    .any(|window| window == b"ghp_AB-CD.0123"),
                "{}",
                view.text.escape_ascii()
            );
        }
        assert!(view(b"a b c d of the e f g and h").is_none());
    }
}
