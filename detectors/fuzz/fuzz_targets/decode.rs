//! A credential under one to three reversible encodings, in any surroundings, is found.

#![no_main]

use arbitrary::{Result, Unstructured};
use detectors::{Finding, Severity};
use detectors_fuzz::{credentials, layers, scanners};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // What describes nothing is no input.
    let _ = check(&mut Unstructured::new(input));
});

fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let credential = credentials::long(u)?;
    let (text, layers) = layers::wrap(&credential, u)?;
    let found = scanners::NAMED.scan(&text);
    // What stands around it may make a credential of another kind with it, which then names the place.
    let names = |finding: &Finding| {
        finding.severity == Severity::Block
            && !matches!(finding.rule.0, "undecodable" | "hidden-text")
    };
    assert!(
        found.iter().any(names),
        "{credential} is not found under {layers:?} in {}: {found:?}",
        text.escape_ascii()
    );
    Ok(())
}
