//! NULs out of UTF-16 and UTF-32 text, either byte order, and out of text that had them strewn in.

use super::map::Rewriter;
use crate::finding::Via;

/// NULs between two characters of UTF-32, plus one. Longer runs are padding of a binary format and keep
/// the texts on either side apart.
const MAX_RUN: usize = 4;

pub(super) fn narrow(rewriter: &mut Rewriter<'_>) {
    let text = rewriter.source();
    let mut from = 0;
    while let Some(found) = memchr::memchr(0, text.get(from..).unwrap_or_default()) {
        let start = from + found;
        let run = text
            .get(start..)
            .unwrap_or_default()
            .iter()
            .take_while(|byte| **byte == 0)
            .count();
        if run <= MAX_RUN {
            rewriter.replace(
                start..start + run,
                b"",
                if run < 3 { Via::Utf16 } else { Via::Utf32 },
            );
        }
        from = start + run;
    }
}
