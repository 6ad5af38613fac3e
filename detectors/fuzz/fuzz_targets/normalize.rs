//! Credentials among pieces of escapes, look-alikes, NULs and line breaks: no panic, the same however cut and with
//! every kernel.

#![no_main]

use arbitrary::{Result, Unstructured};
use detectors_fuzz::scanners::{self, scan_in_chunks};
use detectors_fuzz::writings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // What describes nothing is no input.
    let _ = check(&mut Unstructured::new(input));
});

fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let cut = u.arbitrary::<u16>()?;
    let text = writings::text(u)?;
    let whole = scanners::ALL.scan(&text);
    let scanner = &scanners::ALL.vector;
    let cut = usize::from(cut) * text.len() / usize::from(u16::MAX);
    assert_eq!(scan_in_chunks(scanner, &text, [cut]), whole, "cut at {cut}");
    if text.len() <= 1024 {
        assert_eq!(
            scan_in_chunks(scanner, &text, std::iter::repeat_n(1, text.len())),
            whole,
            "cut everywhere"
        );
    }
    Ok(())
}
