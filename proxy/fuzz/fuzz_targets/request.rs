//! HTTP/1.1 requests: read alike however they come, and what is written of one is read as exactly that one by a parser that
//! shares no code with ours.

#![no_main]

use fixtures::strict;
use libfuzzer_sys::fuzz_target;
use proxy_fuzz::{run, stepped};

const AUTHORITY: &str = "origin.test:8443";

fuzz_target!(|input: &[u8]| {
    let Some((step, raw)) = stepped(input) else {
        return;
    };
    let whole = run(proxy::fuzzing::forwarded(raw, usize::MAX, AUTHORITY));
    let pieces = run(proxy::fuzzing::forwarded(raw, step, AUTHORITY));
    assert_eq!(whole, pieces, "{step} bytes at a time");
    let Some(own) = whole else {
        return;
    };
    let expected = strict::Request {
        method: own.method,
        target: own.target,
        fields: own.fields,
        body: own.body,
        trailers: own.trailers,
    };
    if let Err(why) = strict::agrees(&own.written, AUTHORITY, &expected) {
        panic!("{why}: it was written as {}", own.written.escape_ascii());
    }
});
