//! Arbitrary cuts: findings as in one piece, with a memory and without, nothing released before its verdict, and a stream that
//! is used again.

#![no_main]

use arbitrary::{Result, Unstructured};
use detectors::Location;
use detectors_fuzz::scanners::{self, BLOCK, scan_in_chunks};
use detectors_fuzz::writings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // What describes nothing is no input.
    let _ = check(&mut Unstructured::new(input));
});

fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let mut chunks = Vec::new();
    for _ in 0..u.int_in_range(0..=15_u8)? {
        chunks.push(match u.int_in_range(0..=3_u8)? {
            0 => 0,
            1 => usize::from(u.arbitrary::<u8>()?),
            2 => usize::from(u.arbitrary::<u16>()?),
            _ => BLOCK - usize::from(u.arbitrary::<u8>()?),
        });
    }
    let text = writings::text(u)?;
    let scanner = &scanners::ALL.vector;
    let whole = scanner.scan(&Location::Body, &text);
    assert_eq!(
        scan_in_chunks(scanner, &text, chunks.iter().copied()),
        whole,
        "cut into {chunks:?}"
    );
    let remembering = &scanners::REMEMBERING;
    assert_eq!(
        scan_in_chunks(remembering, &text, chunks.iter().copied()),
        whole,
        "with a memory, cut into {chunks:?}"
    );
    assert_eq!(
        remembering.scan(&Location::Body, &text),
        whole,
        "with a memory of this very text"
    );
    // The same chunk lengths over and over, as a network has them.
    if let Some(length) = chunks
        .iter()
        .copied()
        .find(|length| *length > text.len() / 256)
    {
        assert_eq!(
            scan_in_chunks(
                scanner,
                &text,
                std::iter::repeat_n(length, text.len() / length)
            ),
            whole,
            "every {length}"
        );
    }

    let mut stream = scanner.stream(Location::Body);
    stream.push(&text);
    stream.finish();
    let mut again = stream.push(&text);
    again.extend(stream.finish());
    for finding in &mut again {
        finding.span.start -= text.len() as u64;
        finding.span.end -= text.len() as u64;
    }
    assert_eq!(again, whole, "a stream that is used again");
    Ok(())
}
