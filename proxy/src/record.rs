//! One request's entry in the audit log, filled in as it is understood. Nothing goes in that was found.

use std::borrow::Cow;
use std::sync::Arc;

use detectors::{Finding, Location};

use crate::audit::{self, Record};
use crate::host::{Authority, Scheme};
use crate::inspect;
use crate::judge::Judge;
use crate::limits;
use crate::message::RequestHead;
use crate::settings::Ruling;
use crate::sidecar::Sidecar;
use crate::verdict::{Cause, Refusal};

/// Findings of one request that are recorded; a request with more tells nothing new by its hundredth.
const MAX_FINDINGS: usize = 16;

#[derive(Clone, Debug)]
pub struct Entry {
    pub event: Arc<str>,
    bottle: Arc<str>,
    pub host: Arc<str>,
    port: u16,
    scheme: Scheme,
    method: Arc<str>,
    path: Arc<str>,
    pub request_bytes: Option<u64>,
    policy: Arc<str>,
    pub log: u8,
    warnings: Vec<Finding>,
    /// What an operator let pass, with the identifier under which he was asked.
    approved: Vec<(Finding, String)>,
    /// Judges what is repeated here.
    all: Judge,
}

impl Entry {
    pub fn new(sidecar: &Sidecar, ruling: &Ruling, scheme: Scheme, authority: &Authority) -> Self {
        let host = authority.host.to_string();
        let none = audit::no_text();
        Self {
            event: audit::event_id(),
            bottle: Arc::clone(&sidecar.fixed.bottle),
            host: inspect::shown(ruling.scanners.all(), &Location::Host, host.as_bytes()).into(),
            port: authority.port,
            scheme,
            method: Arc::clone(&none),
            path: none,
            request_bytes: None,
            policy: Arc::clone(ruling.policy.hash()),
            log: ruling.log,
            warnings: Vec::new(),
            approved: Vec::new(),
            all: ruling.scanners.all().clone(),
        }
    }

    pub fn request(&mut self, ruling: &Ruling, host: &[u8], head: &RequestHead) {
        let all = ruling.scanners.all();
        self.method =
            inspect::shown(all, &Location::Method, head.method.as_str().as_bytes()).into();
        // Scanned together with the host: a value that is split over both is not to be read in the log either.
        let joined = [host, head.path()].concat();
        self.path = if all.is_clean(&joined) {
            inspect::shown(all, &Location::Path, head.path()).into()
        } else {
            let path = inspect::shown(all, &Location::Path, head.path());
            if path == audit::printable(head.path()) {
                "********".into()
            } else {
                path.into()
            }
        };
    }

    /// For what has no request yet: a CONNECT that goes no further.
    pub fn method(&mut self, method: &str) {
        self.method = audit::printable(method.as_bytes()).into();
    }

    pub fn warn(&mut self, findings: &[Finding]) {
        let room = MAX_FINDINGS.saturating_sub(self.warnings.len());
        self.warnings.extend(
            findings
                .iter()
                .filter(|finding| !inspect::blocks(finding))
                .take(room)
                .cloned(),
        );
    }

    pub fn approve(&mut self, finding: Finding, ask: String) {
        if self.approved.len() < limits::ASKS * 2 {
            self.approved.push((finding, ask));
        }
    }

    pub fn approved_values(&self) -> Vec<&[u8]> {
        self.approved
            .iter()
            .map(|(finding, _)| finding.matched.expose())
            .filter(|value| !value.is_empty())
            .collect()
    }

    pub fn refusal(&self, refusal: &Refusal) -> Vec<Record> {
        let kind = refusal.cause.kind().as_str();
        let mut records = Vec::new();
        for finding in refusal
            .findings
            .iter()
            .filter(|finding| inspect::blocks(finding))
            .take(MAX_FINDINGS)
        {
            let words = refusal.words_of(finding);
            let mut record = self.record(kind, refusal.cause.code(), printable(&words));
            record.status = refusal.status().as_u16();
            record.asks = refusal.cause.asks().to_vec();
            fill(&mut record, &self.all, finding);
            if refusal.cause == Cause::Injection {
                record.location = Some(format!("response {}", finding.location));
            }
            records.push(record);
        }
        if records.is_empty() {
            let mut record = self.record(kind, refusal.cause.code(), printable(&refusal.reason()));
            record.status = refusal.status().as_u16();
            records.push(record);
        }
        records
    }

    pub fn let_through(&self, redacted: &[Finding]) -> Vec<Record> {
        let mut records = Vec::new();
        for (verdict, findings) in [("redact", redacted), ("warn", self.warnings.as_slice())] {
            for finding in findings.iter().take(MAX_FINDINGS) {
                let mut record = self.record(verdict, verdict, printable(&finding.reason()));
                fill(&mut record, &self.all, finding);
                records.push(record);
            }
        }
        for (finding, ask) in &self.approved {
            let mut record = self.record("approved", "approved", printable(&finding.reason()));
            fill(&mut record, &self.all, finding);
            record.asks = vec![ask.clone()];
            records.push(record);
        }
        if redacted.is_empty() && self.approved.is_empty() {
            records.push(self.record("allow", "allow", "allowed by policy".into()));
        }
        records
    }

    /// The warnings so far are on record.
    pub fn recorded(&mut self) {
        self.warnings.clear();
    }

    /// What is to be said of a part of it that was let through, after the whole was.
    pub fn noted(&mut self, redacted: &[Finding]) -> Vec<Record> {
        let mut records = self.let_through(redacted);
        records.retain(|record| record.verdict != "allow");
        self.recorded();
        records
    }

    /// What was found in the response, after the verdict on the request.
    pub fn inbound(&self, echoes: u64, warnings: &[Finding]) -> Vec<Record> {
        let mut records = Vec::new();
        if echoes > 0 {
            let words = "an injected credential was repeated in the response, and scrubbed";
            records.push(self.record("warn", "echo", words.into()));
        }
        for finding in warnings.iter().take(MAX_FINDINGS) {
            let words = format!("{} found in the response", finding.credential);
            let mut record = self.record("warn", "injection", printable(&words));
            fill(&mut record, &self.all, finding);
            record.location = Some(format!("response {}", finding.location));
            records.push(record);
        }
        records
    }

    fn record(
        &self,
        verdict: &'static str,
        code: &'static str,
        reason: Cow<'static, str>,
    ) -> Record {
        Record {
            time: audit::now(),
            event: Arc::clone(&self.event),
            bottle: Arc::clone(&self.bottle),
            verdict,
            code,
            reason,
            rule: None,
            location: None,
            via: Vec::new(),
            context: None,
            host: Arc::clone(&self.host),
            port: Some(self.port),
            scheme: Some(self.scheme.as_str()),
            method: Arc::clone(&self.method),
            path: Arc::clone(&self.path),
            status: 0,
            request_bytes: self.request_bytes,
            asks: Vec::new(),
            by: None,
            until: None,
            policy: Arc::clone(&self.policy),
        }
    }

    /// A finding as an operator may see it: a record of this request, without a verdict yet.
    pub fn question(&self, finding: &Finding) -> Record {
        let mut record = self.record("wait", "wait", printable(&finding.reason()));
        fill(&mut record, &self.all, finding);
        record
    }
}

/// A reason fit for a log.
fn printable(reason: &str) -> Cow<'static, str> {
    audit::printable(reason.as_bytes()).into()
}

fn fill(record: &mut Record, all: &Judge, finding: &Finding) {
    record.rule = Some(finding.rule.0);
    record.location = Some(finding.location.to_string());
    record.via = finding.via.iter().map(ToString::to_string).collect();
    // A route may have switched off what would have found a neighbour.
    // Beside one sighting of a known secret there may be parts of another, which nothing has cut out.
    if !matches!(finding.rule.0, "known-secret" | "canary") {
        record.context = Some(inspect::shown(
            all,
            &finding.location,
            finding.context.as_bytes(),
        ));
    }
}
