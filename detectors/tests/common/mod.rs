//! What the tests of the scanner share: one check for every path through the engine.

use detectors::{Finding, Location, Scanner};

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
