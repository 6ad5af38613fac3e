//! A credential under one to three reversible encodings, in any surroundings, is found.

#![no_main]

use arbitrary::{Result, Unstructured};
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
    // A bound that is reached blocks as well, but nothing here is long enough to reach one.
    assert!(
        found.iter().any(|finding| finding.rule.0 == "known-secret" || finding.rule.0 == "github-token-classic"),
        "{credential} is not found under {layers:?} in {}: {found:?}",
        text.escape_ascii()
    );
    Ok(())
}
