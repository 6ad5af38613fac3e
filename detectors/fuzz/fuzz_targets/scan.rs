//! Any bytes: no panic, spans in bounds and sorted, work within its bound, and the same with every kernel.

#![no_main]

use detectors_fuzz::scanners;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    scanners::ALL.scan(input);
});
