//! HTTP/1.1 responses: read alike however they come, and what is written of one is read as the same again.

#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use proxy_fuzz::{run, stepped};

fuzz_target!(|input: &[u8]| {
    let Some((step, raw)) = stepped(input) else {
        return;
    };
    let method = match raw.first() {
        Some(first) if first % 4 == 0 => Method::HEAD,
        _ => Method::POST,
    };
    let raw = raw.get(1..).unwrap_or_default();
    let whole = run(proxy::fuzzing::relayed(raw, usize::MAX, &method));
    let pieces = run(proxy::fuzzing::relayed(raw, step, &method));
    assert_eq!(whole, pieces, "{step} bytes at a time");
    let Some(own) = whole else {
        return;
    };
    let again = run(proxy::fuzzing::relayed(&own.written, step, &method));
    let shown = || own.written.escape_ascii();
    let again = again.unwrap_or_else(|| panic!("it was written as {}, and is refused", shown()));
    assert_eq!(
        (own.status, &own.fields, &own.body, &own.trailers),
        (again.status, &again.fields, &again.body, &again.trailers),
        "it was written as {}",
        shown()
    );
});
