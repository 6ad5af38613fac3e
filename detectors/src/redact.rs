//! Takes credentials out of bytes, for forwarding and for showing.

use std::ops::Range;

use crate::finding::Finding;

/// What stands where a credential stood.
pub(crate) const MASK: &str = "********";

/// Characters shown on either side of a finding.
const CONTEXT_CHARS: usize = 40;

/// Replaces the span of each finding by `********`; spans that overlap become one.
///
/// `input` is the whole input that the spans count from. A part of a span outside of it is ignored. A
/// structural finding, such as `crlf-injection`, is replaced too.
pub fn redact(input: &[u8], findings: &[Finding]) -> Vec<u8> {
    let spans: Vec<_> = findings
        .iter()
        .map(|finding| clamp(input, &finding.span))
        .collect();
    cut(input, &union(&spans))
}

/// `input` with each of `spans`, which is a [`union`], replaced.
pub(crate) fn cut(input: &[u8], spans: &[Range<usize>]) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len());
    let mut kept_from = 0;
    for span in spans {
        output.extend_from_slice(input.get(kept_from..span.start).unwrap_or_default());
        output.extend_from_slice(MASK.as_bytes());
        kept_from = span.end;
    }
    output.extend_from_slice(input.get(kept_from..).unwrap_or_default());
    output
}

/// What of a span lies in `input`.
pub(crate) fn clamp(input: &[u8], span: &Range<u64>) -> Range<usize> {
    let local = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(input.len());
    local(span.start)..local(span.end)
}

/// The text around `span` for people to read: every span of `hidden`, which is a [`union`] that covers `span`, is
/// masked first and the result is cut second, so that a cut can never leave half a credential.
pub(crate) fn context(text: &[u8], span: &Range<usize>, hidden: &[Range<usize>]) -> Box<str> {
    let spans = hidden;
    let Some(at) = spans
        .partition_point(|masked| masked.start <= span.start)
        .checked_sub(1)
    else {
        return MASK.into();
    };
    let mut before = String::new();
    let mut start = spans.get(at).map_or(0, |masked| masked.start);
    for earlier in spans.get(..at).unwrap_or_default().iter().rev() {
        if start - earlier.end > 4 * CONTEXT_CHARS {
            break;
        }
        before.insert_str(0, &show(text.get(earlier.end..start).unwrap_or_default()));
        before.insert_str(0, MASK);
        start = earlier.start;
    }
    let before_start = start.saturating_sub(4 * CONTEXT_CHARS);
    before.insert_str(0, &show(whole_characters(text, before_start, start)));

    let mut after = String::new();
    let mut end = spans.get(at).map_or(text.len(), |masked| masked.end);
    for later in spans.get(at + 1..).unwrap_or_default() {
        if later.start - end > 4 * CONTEXT_CHARS {
            break;
        }
        after.push_str(&show(text.get(end..later.start).unwrap_or_default()));
        after.push_str(MASK);
        end = later.end;
    }
    let after_end = (end + 4 * CONTEXT_CHARS).min(text.len());
    after.push_str(&show(text.get(end..after_end).unwrap_or_default()));

    let skip = before.chars().count().saturating_sub(CONTEXT_CHARS);
    let mut shown: String = before.chars().skip(skip).collect();
    shown.push_str(MASK);
    shown.extend(after.chars().take(CONTEXT_CHARS));
    shown.into()
}

/// `text[start..end]` without the UTF-8 character that `start` may have cut.
fn whole_characters(text: &[u8], start: usize, end: usize) -> &[u8] {
    let bytes = text.get(start..end).unwrap_or_default();
    if start == 0 {
        return bytes;
    }
    let cut = bytes
        .iter()
        .take(3)
        .take_while(|byte| **byte & 0xC0 == 0x80)
        .count();
    bytes.get(cut..).unwrap_or_default()
}

/// Bytes as one line that cannot drive a terminal or reorder what stands beside it.
fn show(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '\r' | '\n' => shown.push(' '),
            c if c.is_control() || is_format(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// Bidirectional marks, line separators and invisible characters.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The spans sorted, those that overlap made one.
pub(crate) fn union(spans: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut sorted = spans.to_vec();
    sorted.sort_by_key(|span| (span.start, span.end));
    sorted.dedup_by(|next, kept| {
        let overlap = next.start < kept.end;
        if overlap {
            kept.end = kept.end.max(next.end);
        }
        overlap
    });
    sorted
}
