//! The table of token rules is its own test: each row's examples over every path of the engine.

#![expect(
    clippy::unwrap_used,
    reason = "test helpers: a broken one must stop the test"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{BLOCK, scan_cut};
use detectors::{Finding, Location, Scanner, Severity, TOKEN_RULES, TokenRule};
use regex::bytes::Regex;

/// Rules whose example is, or holds, another rule's credential as well: `(row, the other)`. Both are right, and which
/// one names the finding does not matter to who is protected by it.
const ALSO: &[(&str, &str)] = &[
    // Base64 of a JSON web token's is a credential of its own.
    ("teamcity-token", "jwt-base64"),
];

/// What stands around an example. No credential goes on with what follows it here unless its shape says so, and then the
/// context is left out for it.
const CONTEXTS: &[(&str, &str, &str)] = &[
    ("alone", "", ""),
    ("in quotes", "key = \"", "\";"),
    ("in single quotes", "key = '", "';"),
    ("in JSON", "{\"n\": 1, \"key\": \"", "\", \"m\": 2}"),
    ("in a URL", "https://example.com/v1/items?q=", "&n=1"),
    ("between blanks", "see ", " there"),
    ("between lines", "first\n", "\nlast"),
    ("after a letter", "x", " y"),
    ("between other bytes", "\u{4e2d}", "\u{4e2d}"),
];

/// Distances of an example's beginning from the seam between two windows, in parts of its length: before it, across
/// it, at it.
const SEAMS: &[f64] = &[-1.2, -1.0, -0.9, -0.5, -0.1, 0.0, 0.1];

struct Scanners {
    vector: Scanner,
    portable: Scanner,
}

#[derive(Default)]
struct Tally {
    examples: usize,
    splits: usize,
    encodings: usize,
    /// Why a check was left out, and how often.
    skipped: BTreeMap<&'static str, BTreeSet<&'static str>>,
    /// The same failure of one row is told once: the first that showed it.
    failures: BTreeMap<(&'static str, String), String>,
}

impl Tally {
    fn fail(&mut self, rule: &TokenRule, what: impl Into<String>, details: String) {
        self.failures
            .entry((rule.id.0, what.into()))
            .or_insert(details);
    }

    fn skip(&mut self, rule: &TokenRule, why: &'static str) {
        self.skipped.entry(why).or_default().insert(rule.id.0);
    }

    fn add(&mut self, other: Self) {
        self.examples += other.examples;
        self.splits += other.splits;
        self.encodings += other.encodings;
        for (why, rules) in other.skipped {
            self.skipped.entry(why).or_default().extend(rules);
        }
        self.failures.extend(other.failures);
    }
}

#[test]
fn rows_are_whole() {
    let mut failures = Vec::new();
    let mut ids = HashSet::new();
    for rule in TOKEN_RULES.iter() {
        for (wrong, why) in
            [
                (!ids.insert(rule.id), "its id is not unique"),
                (rule.source.trim().is_empty(), "no source"),
                (rule.credential.trim().is_empty(), "no name"),
                (rule.positive.is_empty(), "no positive example"),
                (rule.negative.len() < 2, "fewer than two negative examples"),
                (
                    !rule.id.0.bytes().all(|byte| {
                        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
                    }),
                    "an id is lower case letters, digits and dashes",
                ),
            ]
        {
            if wrong {
                failures.push(format!("{}: {why}", rule.id));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(TOKEN_RULES.len() >= 250, "{} rows", TOKEN_RULES.len());
}

#[test]
fn every_example_is_what_it_says() {
    let builder = || Scanner::builder().token_patterns(true);
    let scanners = Scanners {
        vector: builder().build().unwrap(),
        portable: builder().portable().build().unwrap(),
    };
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let work = || {
            let mut tally = Tally::default();
            while let Some(rule) = TOKEN_RULES.get(next.fetch_add(1, Ordering::Relaxed)) {
                check(&scanners, rule, &mut tally);
            }
            tally
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for handle in handles {
            tally.add(handle.join().unwrap());
        }
    });
    for (why, rules) in &tally.skipped {
        let rules: Vec<&str> = rules.iter().copied().collect();
        println!(
            "left out for {} rows: {why}: {}",
            rules.len(),
            rules.join(" ")
        );
    }
    let failures: Vec<String> = tally
        .failures
        .iter()
        .map(|((rule, what), details)| format!("{rule}: {what}: {details}"))
        .collect();
    fixtures::tell!(
        "table: {} rows, {} examples, {} splits, {} encodings",
        TOKEN_RULES.len(),
        tally.examples,
        tally.splits,
        tally.encodings
    );
    assert!(
        failures.is_empty(),
        "{} failures\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn check(scanners: &Scanners, rule: &TokenRule, tally: &mut Tally) {
    // What decides whether a shape fits a context is not the engine under test.
    let shape = common::shape(rule);
    for example in rule.positive {
        let token = example.as_bytes();
        positive(scanners, rule, &shape, token, tally);
        splits(&scanners.vector, rule, token, tally);
        seams(&scanners.vector, rule, token, tally);
        encodings(&scanners.vector, rule, &shape, token, tally);
    }
    for example in rule.negative {
        for scanner in [&scanners.vector, &scanners.portable] {
            tally.examples += 1;
            let found = scanner.scan(&Location::Body, example.as_bytes());
            if let Some(first) = found.first() {
                tally.fail(
                    rule,
                    format!("a negative is found by {}", first.rule),
                    example.to_string(),
                );
            }
        }
    }
}

fn positive(scanners: &Scanners, rule: &TokenRule, shape: &Regex, token: &[u8], tally: &mut Tally) {
    for (name, before, after) in CONTEXTS {
        let input = [before.as_bytes(), token, after.as_bytes()].concat();
        let span = before.len()..before.len() + token.len();
        let fits = shape
            .find_at(&input, span.start)
            .is_some_and(|found| found.range() == span);
        if !fits {
            if *name == "alone" {
                tally.fail(
                    rule,
                    "its shape is not the whole of a positive",
                    show(token),
                );
            } else {
                tally.skip(
                    rule,
                    "a context whose characters belong to the shape or to its `\\b`",
                );
            }
            continue;
        }
        let found = scanners.vector.scan(&Location::Body, &input);
        if found != scanners.portable.scan(&Location::Body, &input) {
            tally.fail(rule, "the portable path differs", show(&input));
        }
        tally.examples += 2;
        if let Err(what) = exactly(rule, &found, span) {
            tally.fail(rule, what, format!("{name}: {}", show(&input)));
        }
    }
}

/// Whether one finding is the row's, whole and in plain, and all others are noted.
fn exactly(rule: &TokenRule, found: &[Finding], span: Range<usize>) -> Result<(), String> {
    let span = span.start as u64..span.end as u64;
    let own: Vec<&Finding> = found
        .iter()
        .filter(|finding| finding.rule == rule.id)
        .collect();
    if let Some(other) = found
        .iter()
        .find(|other| other.rule != rule.id && !ALSO.contains(&(rule.id.0, other.rule.0)))
    {
        let how = if own.is_empty() {
            "named"
        } else {
            "found as well"
        };
        let via: Vec<String> = other.via.iter().map(ToString::to_string).collect();
        return Err(format!("{how} by {} {}", other.rule, via.join("+")));
    }
    match own.as_slice() {
        [] if !found.is_empty() => Ok(()),
        [] => Err("not found".into()),
        [only] if only.span != span => Err("not its whole span".into()),
        [only] if only.severity != Severity::Block => Err("does not block".into()),
        [only] if !only.via.is_empty() => Err(format!("found via {:?}", only.via)),
        [_] => Ok(()),
        several => Err(format!("found {} times", several.len())),
    }
}

/// Every cut into two chunks, and all of them.
fn splits(scanner: &Scanner, rule: &TokenRule, token: &[u8], tally: &mut Tally) {
    let whole = scanner.scan(&Location::Body, token);
    for cut in 0..=token.len() {
        tally.splits += 1;
        if scan_cut(scanner, token, [cut]) != whole {
            tally.fail(
                rule,
                "a cut changes what is found",
                format!("at {cut}: {}", show(token)),
            );
        }
    }
    tally.splits += 1;
    if scan_cut(scanner, token, 0..token.len()) != whole {
        tally.fail(
            rule,
            "a cut changes what is found",
            format!("everywhere: {}", show(token)),
        );
    }
}

/// The example across the seam of two windows, in one piece and cut at the seam.
fn seams(scanner: &Scanner, rule: &TokenRule, token: &[u8], tally: &mut Tally) {
    for part in SEAMS {
        let at = (BLOCK as f64 + part * token.len() as f64) as usize;
        // Blanks belong to the shape of some, so that both inputs end alike.
        let after = vec![b' '; BLOCK.saturating_sub(at) + 100];
        let alone = scanner.scan(&Location::Body, &[b" ", token, &after].concat());
        let mut input = vec![b' '; at + token.len() + after.len()];
        input[at..at + token.len()].copy_from_slice(token);
        let found = scanner.scan(&Location::Body, &input);
        tally.splits += 1;
        let shifted = |finding: &Finding| {
            let by = at as u64 - 1;
            (finding.rule, finding.span.start + by..finding.span.end + by)
        };
        let expected: Vec<_> = alone.iter().map(shifted).collect();
        let seen: Vec<_> = found
            .iter()
            .map(|finding| (finding.rule, finding.span.clone()))
            .collect();
        if seen != expected {
            tally.fail(
                rule,
                "another finding at the seam of two windows",
                format!("at {at}: {seen:?}, not {expected:?}: {}", show(token)),
            );
        }
        tally.splits += 1;
        let mut cuts = [at + token.len() / 2, BLOCK];
        cuts.sort_unstable();
        if scan_cut(scanner, &input, cuts) != found {
            tally.fail(
                rule,
                "a cut at the seam changes what is found",
                format!("at {at}: {}", show(token)),
            );
        }
    }
}

/// The example inside of what a reader of the request takes off.
fn encodings(scanner: &Scanner, rule: &TokenRule, shape: &Regex, token: &[u8], tally: &mut Tally) {
    if rule.generic {
        tally.skip(
            rule,
            "generic: what is inside names the finding, if it is a credential",
        );
        return;
    }
    let each = |format: &dyn Fn(u8) -> String| {
        token
            .iter()
            .map(|byte| format(*byte))
            .collect::<String>()
            .into_bytes()
    };
    let mut written = vec![
        ("hex", each(&|byte| format!("{byte:02x}"))),
        ("hex, capitals", each(&|byte| format!("{byte:02X}"))),
        ("percent", each(&|byte| format!("%{byte:02X}"))),
        ("JSON", each(&|byte| format!("\\u{byte:04x}"))),
    ];
    for (name, before) in [
        ("base64", ""),
        ("base64 after 1 byte", "#"),
        ("base64 after 2 bytes", "##"),
    ] {
        let text = [before.as_bytes(), token].concat();
        if shape
            .find_at(&text, before.len())
            .is_none_or(|found| found.start() != before.len())
        {
            tally.skip(
                rule,
                "base64 at another alignment: the shape has its own character before",
            );
            continue;
        }
        written.push((name, STANDARD.encode(text).into_bytes()));
    }
    for (name, written) in written {
        let input = [b"a: ", &written[..], b" z"].concat();
        tally.encodings += 1;
        let found = scanner.scan(&Location::Body, &input);
        let seen = |finding: &Finding| {
            finding.rule == rule.id && !finding.via.is_empty()
                || ALSO.contains(&(rule.id.0, finding.rule.0))
        };
        if !found.iter().any(seen) {
            let instead: Vec<&str> = found.iter().map(|finding| finding.rule.0).collect();
            tally.fail(
                rule,
                format!("not found in {name}"),
                format!("{instead:?} instead: {}", show(&input)),
            );
        }
    }
}

fn show(input: &[u8]) -> String {
    input.escape_ascii().to_string()
}
