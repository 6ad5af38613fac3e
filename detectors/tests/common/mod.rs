//! What the tests of the scanner share: one check for every path through the engine.

#![allow(
    dead_code,
    reason = "each test is a crate of its own, and few need all of it"
)]

use detectors::{Finding, Location, Scanner, TokenRule};
use regex::bytes::{Regex, RegexBuilder};

/// Bytes of one window, an internal number; findings on its seams are where cutting could go wrong.
pub const BLOCK: usize = 64 * 1024;

/// Scans `input` in the pieces that end at `cuts`, checking the promises of a stream on the way.
pub fn scan_cut(
    scanner: &Scanner,
    input: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Vec<Finding> {
    let mut stream = scanner.stream(Location::Body);
    let mut findings = Vec::new();
    let mut at = 0;
    for cut in cuts.into_iter().chain([input.len()]) {
        let released = stream.released();
        let found = stream.push(&input[at..cut]);
        at = cut;
        assert!(
            found.iter().all(|finding| finding.span.start >= released),
            "a released byte is in a finding"
        );
        assert!(stream.released() >= released);
        assert!(at as u64 - stream.released() <= scanner.look_behind() as u64);
        findings.extend(found);
    }
    let released = stream.released();
    let found = stream.finish();
    assert!(found.iter().all(|finding| finding.span.start >= released));
    assert_eq!(stream.released(), input.len() as u64);
    findings.extend(found);
    findings
}

/// Scans `input` in one shot, then cut at every offset (every few if it is long): the findings must be equal.
pub fn scan_every_way(scanner: &Scanner, input: &[u8]) -> Vec<Finding> {
    let whole = scanner.scan(&Location::Body, input);
    let step = (input.len() / 512).max(1);
    for cut in (0..=input.len()).step_by(step) {
        assert_eq!(scan_cut(scanner, input, [cut]), whole, "cut at {cut}");
    }
    if input.len() < 4096 {
        assert_eq!(
            scan_cut(scanner, input, 0..input.len()),
            whole,
            "cut everywhere"
        );
    }
    whole
}

/// A rule's shape for the `regex` crate. In a shape `\b` asks that no word character stands before, or after; to the crate
/// it asks for one on exactly one side, which is another thing beside a dash.
pub fn shape(rule: &TokenRule) -> Regex {
    let mut pattern = String::new();
    for (number, part) in rule.shape.split(r"\b").enumerate() {
        if number > 0 {
            let begins = pattern.is_empty() || pattern.ends_with(['|', '(', ':']);
            pattern.push_str(if begins {
                r"\b{start-half}"
            } else {
                r"\b{end-half}"
            });
        }
        pattern.push_str(part);
    }
    RegexBuilder::new(&pattern)
        .unicode(false)
        .size_limit(1 << 26)
        .build()
        .unwrap()
}
