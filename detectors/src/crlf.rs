//! Header injection: a line break smuggled into what becomes part of a request's head.
//!
//! A server or proxy that decodes a path or a header value and writes it into another message lets the agent
//! add headers, or whole requests, that no policy saw.
//!
//! What counts, and why no more:
//!
//! - A raw CR, LF or NUL: no head may hold one (RFC 9112, section 2.2; RFC 9110, section 5.5).
//! - An encoded CR, under up to three layers of percent-encoding. Text that browsers encode into a URL ends
//!   its lines with CR LF only in form submissions, which belong into bodies; those are never looked at here.
//! - An encoded LF only if a header's name and colon, or another line break, come after it. A commit message or
//!   a prompt in a query has encoded LFs by right; one line of it that reads `Note: x` is the false positive
//!   that we take.
//! - CR and LF as overlong UTF-8 (`%C0%8D`), which nobody writes in good faith, like an encoded CR; and as
//!   U+560D and U+560A, which a decoder that keeps the low byte alone turns into CR and LF, like an encoded LF,
//!   since they are also Chinese characters.

use std::ops::Range;

use crate::finding::{Confidence, Finding, Location, Matched, RuleId, Severity, Via};
use crate::redact;
use crate::view::{View, percent_decoded};

/// Layers of percent-encoding that are taken off.
const LAYERS: usize = 3;

/// A header name longer than this is not looked for behind a line break, so that the work stays linear.
const MAX_NAME: usize = 64;

/// Looks for header injection in `raw`: the request line, or a header's value; never a body.
///
/// The finding is structural: it blocks whatever the policy says. `location` is copied into it.
pub fn header_injection(location: &Location, raw: &[u8]) -> Option<Finding> {
    if let Some(at) = raw
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n' | 0))
    {
        return Some(finding(location, raw, at..at + 1, Vec::new()));
    }
    if let Some(span) = injection(raw) {
        return Some(finding(location, raw, span, Vec::new()));
    }
    let mut layers: Vec<View> = Vec::new();
    while layers.len() < LAYERS {
        layers.push(percent_decoded(
            layers.last().map_or(raw, |layer| &layer.text),
        )?);
        let Some(span) = layers.last().and_then(|layer| injection(&layer.text)) else {
            continue;
        };
        let mut via = Vec::new();
        let span = layers.iter().rev().fold(span, |span, layer| {
            let mut outer = Vec::new();
            let span = layer.to_source(span, &mut outer);
            via.splice(0..0, outer);
            span
        });
        return Some(finding(location, raw, span, via));
    }
    None
}

/// How sure a line break's form alone makes us.
enum Break {
    Certain,
    Likely,
}

fn injection(text: &[u8]) -> Option<Range<usize>> {
    (0..text.len()).find_map(|at| {
        let rest = text.get(at..)?;
        let (kind, length) = line_break(rest)?;
        let after = rest.get(length..).unwrap_or_default();
        let injects =
            matches!(kind, Break::Certain) || line_break(after).is_some() || begins_header(after);
        injects.then_some(at..at + length)
    })
}

fn line_break(rest: &[u8]) -> Option<(Break, usize)> {
    match rest {
        [b'\r', ..] => Some((Break::Certain, 1)),
        [b'\n', ..] => Some((Break::Likely, 1)),
        [0xC0, 0x8A | 0x8D, ..] => Some((Break::Certain, 2)),
        [0xE0, 0x80, 0x8A | 0x8D, ..] => Some((Break::Certain, 3)),
        [0xE5, 0x98, 0x8A | 0x8D, ..] => Some((Break::Likely, 3)),
        _ => None,
    }
}

fn begins_header(text: &[u8]) -> bool {
    let name = text
        .iter()
        .take(MAX_NAME)
        .take_while(|byte| is_token(**byte))
        .count();
    name > 0 && text.get(name) == Some(&b':')
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn finding(location: &Location, raw: &[u8], span: Range<usize>, via: Vec<Via>) -> Finding {
    Finding {
        severity: Severity::Block,
        rule: RuleId("crlf-injection"),
        credential: "CRLF injection".into(),
        location: location.clone(),
        span: span.start as u64..span.end as u64,
        context: redact::context(raw, &span, std::slice::from_ref(&span)),
        matched: Matched::new(raw.get(span).unwrap_or_default()),
        via,
        confidence: Confidence::Structure,
        structural: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injections_are_found_where_they_stand() {
        for (raw, span) in [
            (&b"a\rb"[..], 1..2),
            (b"a\nb", 1..2),
            (b"a\0b", 1..2),
            (b"/x%0dy", 2..5),
            (b"/x%0D%0ASet-Cookie:a=b", 2..5),
            (b"/x%250dy", 2..7),
            (b"/x%25250dy", 2..9),
            (b"/x%%30dy", 2..7),
            (b"/x%0aSet-Cookie:%20a", 2..5),
            (b"/x%0a%0aGET", 2..5),
            (b"/x%250aX-A:b", 2..7),
            (b"/x%E5%98%8A%E5%98%8DSet-Cookie:a", 2..11),
            (b"/x%e5%98%8aSet-Cookie:a", 2..11),
            ("/x\u{560a}\u{560d}Set-Cookie:a".as_bytes(), 2..5),
            (b"/x%C0%8Ay", 2..8),
        ] {
            let found = header_injection(&Location::Path, raw).unwrap();
            assert_eq!(found.span, span, "{}", raw.escape_ascii());
            assert!(found.structural && found.severity == Severity::Block);
            assert_eq!(found.reason(), "CRLF injection found in path");
        }
    }

    #[test]
    fn encoded_text_in_a_query_is_not_an_injection() {
        for raw in [
            &b"q=first%20line%0asecond%20line"[..],
            b"q=100%25%200d",
            b"%0a",
            b"q=%0a-%20item",
            b"0d0a",
            b"Mozilla/5.0 (X11; Linux x86_64)",
            "\u{560d}\u{56c9}".as_bytes(),
            b"",
        ] {
            assert_eq!(
                header_injection(&Location::Query, raw),
                None,
                "{}",
                raw.escape_ascii()
            );
        }
    }

    #[test]
    fn a_flood_is_linear() {
        for piece in ["%25", "%0a", "%0aaaaaaaaa", "%E5%98%8A-"] {
            let _ = header_injection(&Location::Query, piece.repeat(100_000).as_bytes());
        }
    }
}
