//! Finds the regions of a text that any view would change.
//!
//! A match beneath some dressing holds dressed bytes, and between two of them only plain ones, fewer than the
//! longest plain match has (`reach`). So it lies wholly inside the dressed bytes and `reach` bytes on either
//! side of each, whatever the layers: the rest of the text need not be looked at again.

use std::ops::Range;

use super::Step;
use super::traits::Traits;

/// Bytes judged together.
const PIECE: usize = 512;

/// What a step replaces may begin this many bytes before the piece that shows it, and end this many after it:
/// a run of backslashes, and white space after a line break, are the longest.
const MARGIN: usize = 48;

/// The regions of `text` to make views of, in order and apart.
pub(super) fn regions(text: &[u8], reach: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut region: Option<Range<usize>> = None;
        while at < text.len() {
            let start = at.saturating_sub(MARGIN + reach);
            if region.as_ref().is_some_and(|region| start > region.end) {
                break;
            }
            if is_dressed(text, at) {
                let end = (at + PIECE + MARGIN + reach).min(text.len());
                region = Some(region.map_or(start, |region| region.start)..end);
            }
            at += PIECE;
        }
        region
    })
}

fn is_dressed(text: &[u8], at: usize) -> bool {
    // Two bytes more, since a trait is told by up to three.
    let traits = Traits::of(
        text.get(at..(at + PIECE + 2).min(text.len()))
            .unwrap_or_default(),
    );
    if !traits.any() {
        return false;
    }
    let around = text
        .get(at.saturating_sub(MARGIN)..(at + PIECE + MARGIN).min(text.len()))
        .unwrap_or_default();
    [
        Step::Fold,
        Step::Unescape,
        Step::Narrow,
        Step::QuotedPrintable,
        Step::Unwrap,
    ]
    .into_iter()
    .any(|step| step.applies(traits) && step.changes(around))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_hold_every_change_and_what_is_near() {
        for at in [0, 1, 250, 255, 256, 257, 5000, 9990] {
            let mut text = vec![b'a'; 10_000];
            text.splice(at..at, *b"%41");
            let regions: Vec<_> = regions(&text, 300).collect();
            assert_eq!(regions.len(), 1, "{at}: {regions:?}");
            assert!(
                regions[0].start <= at.saturating_sub(300)
                    && regions[0].end >= (at + 303).min(text.len())
            );
            assert!(regions[0].len() <= 2 * PIECE + 2 * (MARGIN + 300));
        }
        assert_eq!(
            regions(b"plain & simple = 100% \\n fn f(&mut self)\n", 300).count(),
            0
        );
        let apart = [
            &b"%41"[..],
            &[b' '; 5000],
            b"\xC3\xA9",
            &[b' '; 5000],
            b"\0",
        ]
        .concat();
        assert_eq!(regions(&apart, 128).count(), 3);
    }
}
