//! Scanners with everything on, and the promises that each scan has to keep.

use std::sync::LazyLock;

use detectors::{Finding, KnownSecret, Location, Scanner, ScannerBuilder, UserRules};

use crate::credentials::SECRETS;

/// Bytes that one window owns; an internal number of the engine, at whose multiples cutting could go wrong.
pub const BLOCK: usize = 64 * 1024;

/// A rule of the user's own beside those of the table.
const USER_RULES: &str = r#"
[[rule]]
id = "acme-key"
credential = "Acme key"
shape = '\bacme_[a-z0-9]{12,}'
severity = "warn"
positive = ["acme_0123456789ab"]
negative = ["acme_short"]
"#;

/// The same detectors twice; the findings must be the same, too.
pub struct Pair {
    /// With the best vector instructions that the machine has.
    pub vector: Scanner,
    pub portable: Scanner,
}

/// All detectors.
pub static ALL: LazyLock<Pair> = LazyLock::new(|| pair(|builder| builder.entropy(true)));

/// All that name a credential. Random bytes are none, and only the first sixteen stretches of them are told.
pub static NAMED: LazyLock<Pair> = LazyLock::new(|| pair(|builder| builder));

/// One that remembers what was clean, in this input and in those before.
pub static REMEMBERING: LazyLock<Scanner> = LazyLock::new(|| {
    builder()
        .entropy(true)
        .remember([7; 16], 4096)
        .build()
        .expect("a good table")
});

fn builder() -> ScannerBuilder {
    let secrets = SECRETS
        .iter()
        .map(|(name, value)| KnownSecret::new(name, value.as_bytes()).expect("long enough"));
    Scanner::builder()
        .token_patterns(true)
        .user_rules(UserRules::parse(USER_RULES).expect("a good file"))
        .known_secrets(secrets.collect())
}

fn pair(more: impl Fn(ScannerBuilder) -> ScannerBuilder) -> Pair {
    Pair {
        vector: more(builder()).build().expect("a good table"),
        portable: more(builder()).portable().build().expect("a good table"),
    }
}

impl Pair {
    /// Scans `input`, and holds what is found against all promises that need no knowledge of the input.
    pub fn scan(&self, input: &[u8]) -> Vec<Finding> {
        let found = self.vector.scan(&Location::Body, input);
        assert_eq!(
            found,
            self.portable.scan(&Location::Body, input),
            "vector and portable kernels differ"
        );
        // What is inside of compressed data is reported with the window in which it was read.
        assert!(
            input.len() > BLOCK
                || found.is_sorted_by_key(|finding| (
                    finding.rule.0 == "finding-limit",
                    finding.span.start
                )),
            "not sorted: {found:?}"
        );
        for finding in &found {
            let (start, end) = (finding.span.start as usize, finding.span.end as usize);
            assert!(
                start < end && end <= input.len(),
                "{:?} of {} bytes: {finding:?}",
                finding.span,
                input.len()
            );
            if finding.rule.0 != "finding-limit" {
                assert_eq!(finding.matched.expose(), &input[start..end], "{finding:?}");
            }
            for (name, value) in SECRETS {
                assert!(
                    !finding.context.contains(value),
                    "{name} in the context of {finding:?}"
                );
            }
            assert!(
                !finding.context.chars().any(char::is_control),
                "a control character in {:?}",
                finding.context
            );
        }
        self.check_work(input);
        found
    }

    /// Work is linear: 45 times the input, 256 KiB for each window begun, and what compressed data may cost once.
    fn check_work(&self, input: &[u8]) {
        let bound = 45 * input.len() + input.len().div_ceil(BLOCK) * 256 * 1024 + (1 << 20);
        let steps = self.vector.steps(input);
        assert!(
            steps <= bound,
            "{steps} steps for {} bytes, and {bound} were promised",
            input.len()
        );
    }
}

/// Pushes `input` in chunks of the lengths that `chunks` gives, and the rest in one; each must keep the promises of a stream.
pub fn scan_in_chunks(
    scanner: &Scanner,
    mut input: &[u8],
    chunks: impl IntoIterator<Item = usize>,
) -> Vec<Finding> {
    let mut stream = scanner.stream(Location::Body);
    let mut findings = Vec::new();
    let mut pushed = 0;
    for length in chunks.into_iter().chain([usize::MAX]) {
        let (chunk, rest) = input.split_at(length.min(input.len()));
        input = rest;
        pushed += chunk.len() as u64;
        let released = stream.released();
        add(&mut findings, stream.push(chunk), released);
        assert!(
            stream.released() >= released,
            "what was released is held back again"
        );
        assert!(
            stream.released() <= pushed,
            "what has not arrived is released"
        );
        assert!(
            pushed - stream.released() <= scanner.look_behind() as u64,
            "more is held back than promised"
        );
    }
    let released = stream.released();
    add(&mut findings, stream.finish(), released);
    assert_eq!(
        stream.released(),
        pushed,
        "bytes are held back after the end"
    );
    findings
}

fn add(findings: &mut Vec<Finding>, more: Vec<Finding>, released: u64) {
    for finding in &more {
        assert!(
            finding.span.start >= released,
            "a finding begins in what was released up to {released}: {finding:?}"
        );
    }
    findings.extend(more);
}
