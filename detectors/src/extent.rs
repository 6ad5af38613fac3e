//! How much of a text must go for what was found in it: more than the spans of the findings, at times.
//!
//! Of rules that see one place the scanner tells the most telling one. A key of a provider's inside the password of a URL
//! is a finding whose span is the key, and cutting out that alone would leave the rest of the password, and cut the shape
//! by which it was known. So what was found is replaced by letters and digits that mean nothing, of the same kinds in the
//! same places, and the text is scanned again: what holds the shape without it is found now, as a whole.

use std::ops::Range;

use crate::finding::{Finding, Location, Severity};
use crate::redact::{clamp, union};
use crate::scanner::Scanner;

/// Findings within findings within findings. What is beyond is seen by the scan of what was redacted.
const ROUNDS: usize = 3;

impl Scanner {
    /// The spans that must be cut out of `input`, all of which was scanned and gave `findings`: sorted, and apart from one
    /// another. Each round costs a scan of the input, of which there are at most three.
    pub fn extent(
        &self,
        location: &Location,
        input: &[u8],
        findings: &[Finding],
    ) -> Vec<Range<usize>> {
        let spans: Vec<_> = findings
            .iter()
            .map(|finding| clamp(input, &finding.span))
            .collect();
        let mut extent = union(&spans);
        for _ in 0..ROUNDS {
            let mut probe = zeroize::Zeroizing::new(input.to_vec());
            for span in &extent {
                fill(probe.get_mut(span.clone()).unwrap_or_default());
            }
            let more: Vec<_> = self
                .scan(location, &probe)
                .iter()
                .filter(|finding| finding.severity == Severity::Block && !finding.structural)
                .map(|finding| clamp(input, &finding.span))
                .filter(|span| !covers(&extent, span))
                .collect();
            if more.is_empty() {
                break;
            }
            extent.extend(more);
            extent = union(&extent);
        }
        extent
    }
}

fn covers(extent: &[Range<usize>], span: &Range<usize>) -> bool {
    extent
        .partition_point(|own| own.start <= span.start)
        .checked_sub(1)
        .and_then(|at| extent.get(at))
        .is_some_and(|own| span.end <= own.end)
}

/// Puts a letter for a letter and a digit for a digit, in an order in which no shape that is known has them, and which is
/// not the monotony that is told as a placeholder.
fn fill(bytes: &mut [u8]) {
    let mut state = 0x9E37_79B9_u32;
    for byte in bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let random = (state >> 16) as u8;
        match byte {
            b'a'..=b'z' => *byte = b'a' + random % 26,
            b'A'..=b'Z' => *byte = b'A' + random % 26,
            b'0'..=b'9' => *byte = b'0' + random % 10,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::cut;

    const KEY: &str = "AKIAIOSFODNN7EXAMPLE"; // gitleaks:allow

    #[test]
    fn the_rest_of_a_password_goes_with_the_key_in_it() {
        let scanner = Scanner::builder().token_patterns(true).build().unwrap();
        for input in [
            format!("see https://admin:{KEY}-Xk93lqP@db.example.com/x now"),
            format!("see https://admin:Xk93lqP-{KEY}@db.example.com/x now"),
            format!("see https://admin:Xk93lqP{KEY}{KEY}hT4@db.example.com/x now"),
        ] {
            let input = input.as_bytes();
            let found = scanner.scan(&Location::Body, input);
            assert!(
                found.iter().any(|found| found.rule.0 == "aws-access-key"),
                "{found:?}"
            );
            let clean = cut(input, &scanner.extent(&Location::Body, input, &found));
            let clean = String::from_utf8(clean).unwrap();
            assert!(!clean.contains("Xk93lqP"), "{clean}");
            assert!(!clean.contains("hT4"), "{clean}");
            assert!(
                clean.starts_with("see ") && clean.ends_with(" now"),
                "{clean}"
            );
        }
    }

    #[test]
    fn what_is_found_alone_is_all_that_goes() {
        let scanner = Scanner::builder().token_patterns(true).build().unwrap();
        let input = format!("a {KEY} b {KEY}");
        let found = scanner.scan(&Location::Body, input.as_bytes());
        let extent = scanner.extent(&Location::Body, input.as_bytes(), &found);
        assert_eq!(extent, [2..22, 25..45]);
    }
}
