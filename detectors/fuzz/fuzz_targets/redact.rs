//! What is redacted holds none of what was found.

#![no_main]

use arbitrary::{Result, Unstructured};
use detectors::{Finding, redact};
use detectors_fuzz::credentials::SECRETS;
use detectors_fuzz::{scanners, writings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // What describes nothing is no input.
    let _ = check(&mut Unstructured::new(input));
});

/// Redactions after which nothing is left. What stands on either side of a credential may be two halves of another one,
/// which are beside each other only when the first is gone; hence more than one.
const ROUNDS: usize = 2;

fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let mut text = writings::text(u)?;
    let first = scanners::NAMED.scan(&text);
    let mut found = first.clone();
    for _ in 0..ROUNDS {
        if found.is_empty() {
            return Ok(());
        }
        text = redact(&text, &found);
        found = scanners::NAMED.scan(&text);
    }
    let same = |finding: &&Finding| {
        is_redactable(finding) && first.iter().any(|earlier| earlier.rule == finding.rule)
    };
    let left: Vec<_> = found.iter().filter(same).collect();
    assert!(left.is_empty(), "left in {}: {left:?}", text.escape_ascii());
    if found.is_empty() {
        for (name, value) in SECRETS {
            assert!(
                !text
                    .windows(value.len())
                    .any(|part| part == value.as_bytes()),
                "{name} is left"
            );
        }
    }
    Ok(())
}

/// Whether taking out the span takes out what the finding is about. A scan that was given up says only where.
fn is_redactable(finding: &Finding) -> bool {
    !matches!(finding.rule.0, "finding-limit" | "undecodable")
}
