//! Any text as a file of rules: no panic, an error on a line of the file, and what is accepted can be used.
//!
//! To reach the parser of shapes at once, `shape:` before three lines is a file with one rule of that shape, positive and
//! negative example.
//!
//! Ids of rules live as long as the process, by intent; run it with `ASAN_OPTIONS=detect_leaks=0`, as `.ci/fuzz` does.

#![no_main]

use detectors::{Location, Scanner, UserRules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let file = short(input).unwrap_or_else(|| input.into());
    match UserRules::parse(&file) {
        Ok(rules) => check_rules(rules, input),
        Err(error) => {
            let lines = 1 + file.matches('\n').count();
            assert!(
                (1..=lines).contains(&error.line),
                "line {} of {lines}: {error}",
                error.line
            );
        }
    }
});

fn short(input: &str) -> Option<String> {
    let mut lines = input.strip_prefix("shape:")?.splitn(3, '\n').map(literal);
    let [shape, positive, negative] = [lines.next()?, lines.next()?, lines.next()?];
    Some(format!(
        "[[rule]]\nid = \"fuzzed\"\ncredential = \"Fuzzed\"\nshape = {shape}\npositive = [{positive}]\nnegative = [{negative}]\n"
    ))
}

/// A basic string of TOML.
fn literal(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| format!("\\U{:08X}", u32::from(c)))
        .collect();
    format!("\"{escaped}\"")
}

fn check_rules(rules: UserRules, text: &str) {
    let builder = || Scanner::builder().user_rules(rules.clone());
    let vector = builder().build().expect("what was accepted builds");
    let portable = builder()
        .portable()
        .build()
        .expect("what was accepted builds");
    let found = vector.scan(&Location::Body, text.as_bytes());
    assert_eq!(
        found,
        portable.scan(&Location::Body, text.as_bytes()),
        "vector and portable kernels differ"
    );
}
