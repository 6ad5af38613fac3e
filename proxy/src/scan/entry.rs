//! What a report says of one finding, and what a scan adds up to.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use detectors::{Confidence, Finding, Severity};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::escape;
use super::lines::Position;

/// A change of how fingerprints are made makes every baseline useless; then this changes too.
const FINGERPRINT: &str = "bot-bottle scan 1";

/// Where an input comes from, in bytes that may be shown: a credential in it is masked.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// What reports are sorted by. Never shown.
    pub(super) order: Box<[u8]>,
    pub(super) shown: Box<[u8]>,
}

/// One finding. Its serialisation is the JSON report, which is a promise.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    #[serde(serialize_with = "readable")]
    pub(super) path: Arc<Name>,
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) end_line: u64,
    pub(super) end_column: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) rule: String,
    pub(super) credential: String,
    pub(super) severity: &'static str,
    pub(super) confidence: &'static str,
    pub(super) via: Vec<String>,
    pub(super) context: String,
    pub(super) structural: bool,
    pub(super) fingerprint: String,
}

fn readable<S: serde::Serializer>(name: &Arc<Name>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&escape::name(&name.shown))
}

impl Entry {
    pub(super) fn new(
        finding: Finding,
        path: Arc<Name>,
        places: Range<Position>,
        fingerprint: String,
    ) -> Self {
        Self {
            path,
            line: places.start.line,
            column: places.start.column,
            end_line: places.end.line,
            end_column: places.end.column,
            offset: finding.span.start,
            length: finding.span.end.saturating_sub(finding.span.start),
            rule: finding.rule.to_string(),
            credential: finding.credential.to_string(),
            severity: match finding.severity {
                Severity::Block => "block",
                Severity::Warn => "warn",
            },
            confidence: match finding.confidence {
                Confidence::Shape => "shape",
                Confidence::Structure => "structure",
            },
            via: finding.via.iter().map(ToString::to_string).collect(),
            context: finding.context.to_string(),
            structural: finding.structural,
            fingerprint,
        }
    }
}

/// Makes the fingerprints of one input's findings.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    seen: HashMap<[u8; 16], u32>,
}

impl Fingerprints {
    /// `line` is what surrounds the finding, with every finding in it masked: a hash of a credential that is easy to
    /// guess would give it away. Findings that look the same are numbered.
    pub(super) fn next(&mut self, rule: &str, name: &Name, line: &[u8]) -> String {
        let mut hash = Sha256::new();
        for part in [
            FINGERPRINT.as_bytes(),
            rule.as_bytes(),
            &name.shown,
            line.trim_ascii(),
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut short = [0u8; 16];
        for (to, from) in short.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        let count = self.seen.entry(short).or_default();
        *count += 1;
        let digits: String = short.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{digits}:{count}")
    }
}

/// What one input holds.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) entries: Vec<Entry>,
    /// Findings in lines that say that they are allowed.
    pub(super) allowed: u64,
    /// It holds something that the detectors could not look into.
    pub(super) opaque: bool,
    pub(super) bytes: u64,
}

/// What all inputs hold.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) entries: Vec<Entry>,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) allowed: u64,
    /// Inputs with something that the detectors could not look into.
    pub(super) opaque: u64,
    /// Findings that the baseline lists.
    pub(super) known: u64,
}

/// Where the threads bring what they found.
#[derive(Debug, Default)]
pub(super) struct Gathered(Mutex<Totals>);

impl Gathered {
    pub(super) fn add(&self, scanned: Scanned) {
        // A thread that panicked has left whole entries behind.
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        totals.entries.extend(scanned.entries);
        totals.files += 1;
        totals.bytes += scanned.bytes;
        totals.allowed += scanned.allowed;
        totals.opaque += u64::from(scanned.opaque);
    }

    /// In the order of paths and offsets. Who names a file twice gets its findings once.
    pub(super) fn into_totals(self) -> Totals {
        let mut totals = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        fn key(entry: &Entry) -> (&[u8], u64, u64, &str, &str) {
            (
                &entry.path.order,
                entry.offset,
                entry.length,
                &entry.rule,
                &entry.fingerprint,
            )
        }
        totals.entries.sort_by(|a, b| key(a).cmp(&key(b)));
        totals.entries.dedup_by(|a, b| key(a) == key(b));
        totals
    }
}
