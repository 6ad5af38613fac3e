//! Every surface of a request, put before the detectors.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use detectors::{
    Document, Finding, Format, Location, Pass, Scanner, Severity, header_injection, redact,
};

use crate::audit::printable;
use crate::content::Layers;
use crate::judge::Judge;
pub use crate::judge::caseless;
use crate::limits;
use crate::message::{Headers, RequestHead};
use crate::pieces::Pieces;
use crate::policy::{Detectors, Policy};
use crate::secrets::{SecretError, Secrets};

#[derive(Debug, thiserror::Error)]
pub enum ScannerError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the detectors could not be built: {0}")]
    Build(#[from] detectors::BuildError),
    #[error("the system has no randomness: {0}")]
    Randomness(#[from] getrandom::Error),
}

/// One scanner for each set of detectors that the policy uses, and one with all that block.
#[derive(Debug)]
pub struct Scanners {
    all: Judge,
    sets: HashMap<Detectors, Judge>,
}

impl Scanners {
    pub fn build(policy: &Policy, secrets: &Secrets) -> Result<Self, ScannerError> {
        let all = Detectors {
            token_patterns: true,
            known_secrets: true,
            undecodable: true,
            entropy: false,
        };
        // What is known to be clean is not looked through for short pieces either.
        let pieces = Arc::new(Pieces::new(secrets));
        let build = |set: Detectors| -> Result<Judge, ScannerError> {
            let known = if set.known_secrets {
                secrets.known()?
            } else {
                Vec::new()
            };
            let own = Arc::clone(&pieces);
            let scanner = Scanner::builder()
                .token_patterns(set.token_patterns)
                .known_secrets(known)
                .entropy(set.entropy)
                .undecodable(if set.undecodable {
                    Severity::Block
                } else {
                    Severity::Warn
                })
                .remember(random_key()?, limits::CLEAN_WINDOWS)
                .remember_only_where(move |text| !own.any_in(text))
                .build()?;
            Ok(Judge::new(scanner, Arc::clone(&pieces)))
        };
        let mut sets = HashMap::new();
        for route in policy.routes() {
            if let Entry::Vacant(slot) = sets.entry(route.detectors) {
                slot.insert(build(route.detectors)?);
            }
        }
        let all = match sets.get(&all) {
            Some(scanner) => scanner.clone(),
            None => build(all)?,
        };
        Ok(Self { all, sets })
    }

    /// What nothing that is logged or shown may hold is judged by this one, whatever a route switches off.
    pub fn all(&self) -> &Judge {
        &self.all
    }

    pub fn of(&self, detectors: Detectors) -> &Judge {
        self.sets.get(&detectors).unwrap_or(&self.all)
    }
}

/// So that an agent cannot choose what hashes like a text that was clean.
fn random_key() -> Result<[u8; 16], ScannerError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key)?;
    Ok(key)
}

/// Upper-case tokens shorter than this have no shape that a rule could know.
const SHORTEST_TOKEN: usize = 16;

/// All of a head, but for what a body's size takes the place of. No part of it holds a line feed, so another head is another
/// text. `host` is the authority as the agent wrote it.
pub fn joined(host: &[u8], head: &RequestHead) -> Vec<u8> {
    let mut joined = Vec::with_capacity(host.len() + head.target.len() + 64 * head.headers.len());
    joined.extend_from_slice(host);
    joined.push(b'\n');
    joined.extend_from_slice(head.method.as_str().as_bytes());
    joined.push(b'\n');
    joined.extend_from_slice(&head.target);
    joined.push(b'\n');
    for (name, value) in head.headers.iter().filter(|field| !is_size(*field)) {
        joined.extend_from_slice(name);
        joined.push(b'\n');
        joined.extend_from_slice(value);
        joined.push(b'\n');
    }
    joined
}

/// Findings in a head, structural ones first; `all` judges the names that are shown.
pub fn head(
    scanner: &Judge,
    all: &Judge,
    host: &[u8],
    head: &RequestHead,
    joined: &[u8],
) -> Vec<Finding> {
    // One pass over all of the head finds nothing in nearly every request, and sees what is split over fields;
    // only a hit is looked for field by field.
    let mut findings = structural(all, head);
    let mut whole = scanner.scan(&Location::HeaderName, joined);
    if host.len() >= SHORTEST_TOKEN && !scanner.is_clean_in_either_case(host) {
        whole.extend(caseless(scanner, &Location::Host, host));
    }
    for (name, _) in head
        .headers
        .iter()
        .filter(|(name, _)| name.len() >= SHORTEST_TOKEN)
        .filter(|(name, _)| !scanner.is_clean_in_either_case(name))
    {
        whole.extend(caseless(scanner, &Location::HeaderName, name));
    }
    if whole.is_empty() {
        if findings.is_empty() {
            scanner.remember_head(joined);
        }
        return findings;
    }
    findings.extend(caseless(scanner, &Location::Host, host));
    findings.extend(scanner.scan(&Location::Method, head.method.as_str().as_bytes()));
    findings.extend(scanner.scan(&Location::Path, head.path()));
    if let Some(query) = head.query() {
        findings.extend(scanner.scan(&Location::Query, query));
    }
    findings.extend(fields(scanner, all, &head.headers, Location::Header));
    if !findings.iter().any(blocks) {
        // It stands across fields, where it cannot be cut out.
        findings.extend(whole);
    }
    findings
}

/// What says how long a body is that could be held. It does not go on: we write our own, behind all other fields, by
/// what came. A longer number may say something else, so it is looked at.
fn is_size((name, value): (&Bytes, &Bytes)) -> bool {
    value.len() <= 7
        && value.iter().all(u8::is_ascii_digit)
        && name.eq_ignore_ascii_case(b"content-length")
}

pub fn trailers(scanner: &Scanner, all: &Judge, headers: &Headers) -> Vec<Finding> {
    let mut findings = fields(scanner, all, headers, Location::Trailer);
    for (name, value) in headers.iter() {
        findings.extend(injection(all, Location::Trailer, name, value));
    }
    if findings.is_empty() {
        // What is split over fields.
        let mut joined = Vec::new();
        for (name, value) in headers.iter() {
            joined.extend_from_slice(name);
            joined.push(b'\n');
            joined.extend_from_slice(value);
            joined.push(b'\n');
        }
        findings = scanner.scan(&Location::HeaderName, &joined);
    }
    findings
}

fn injection(
    all: &Judge,
    location: fn(Box<str>) -> Location,
    name: &[u8],
    value: &[u8],
) -> Option<Finding> {
    let mut finding = header_injection(&location("".into()), value)?;
    finding.location = location(shown_name(all, name));
    Some(finding)
}

fn fields(
    scanner: &Scanner,
    all: &Judge,
    headers: &Headers,
    location: fn(Box<str>) -> Location,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, value) in headers.iter() {
        findings.extend(caseless(scanner, &Location::HeaderName, name));
        let mut found = scanner.scan(&location("".into()), value);
        if !found.is_empty() {
            let place = location(shown_name(all, name));
            found
                .iter_mut()
                .for_each(|finding| finding.location = place.clone());
        }
        findings.extend(found);
    }
    findings
}

/// A header's name for a report; the name may be the credential itself.
fn shown_name(scanner: &Judge, name: &[u8]) -> Box<str> {
    shown(scanner, &Location::HeaderName, name).into()
}

/// Text of the agent's for logs and answers: free of every credential, and escaped.
pub fn shown(judge: &Judge, location: &Location, raw: &[u8]) -> String {
    let either = matches!(location, Location::Host | Location::HeaderName);
    let clean = if either {
        judge.is_clean_in_either_case(raw)
    } else {
        judge.is_clean(raw)
    };
    if clean {
        return printable(raw);
    }
    let findings = if either {
        caseless(judge, location, raw)
    } else {
        judge.scan(location, raw)
    };
    printable(&redact(raw, &findings))
}

fn structural(all: &Judge, head: &RequestHead) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(header_injection(&Location::Path, head.path()));
    if let Some(query) = head.query() {
        findings.extend(header_injection(&Location::Query, query));
    }
    for (name, value) in head.headers.iter() {
        findings.extend(injection(all, Location::Header, name, value));
    }
    findings
}

pub fn blocks(finding: &Finding) -> bool {
    finding.severity == Severity::Block
}

/// Findings in a whole body, as it was sent and in every layer of its `Content-Encoding`.
pub struct BodyFindings {
    pub raw: Vec<Finding>,
    /// These have no place in the bytes as sent, so they cannot be redacted there.
    pub decoded: Vec<Finding>,
}

impl BodyFindings {
    /// They stand in something other than a body.
    pub fn move_to(&mut self, place: &Location) {
        for finding in self.raw.iter_mut().chain(&mut self.decoded) {
            finding.location = place.clone();
        }
    }
}

/// Findings in a short body without a coding. `all` judges what is shown of the names of fields.
pub fn body(scanner: &Scanner, all: &Scanner, format: &Format, body: &[u8]) -> BodyFindings {
    BodyFindings {
        raw: located(all, format, body, scanner.scan(&Location::Body, body)),
        decoded: Vec::new(),
    }
}

/// Only what was found asks what the text claims to be.
fn located(all: &Scanner, format: &Format, body: &[u8], mut found: Vec<Finding>) -> Vec<Finding> {
    if !found.is_empty() {
        Document::new(format, body).locate(all, &mut found);
    }
    found
}

/// The scan of a body that may take long, in steps.
pub struct BodyScan {
    scanner: Judge,
    all: Judge,
    format: Format,
    /// What is still to be decoded.
    layers: Layers,
    pass: Pass<Bytes>,
    /// Once that pass is over.
    raw: Option<Vec<Finding>>,
    decoded: Vec<Finding>,
}

impl BodyScan {
    pub fn new(
        scanner: &Judge,
        all: &Judge,
        format: &Format,
        body: &Bytes,
        layers: Layers,
    ) -> Self {
        Self {
            scanner: scanner.clone(),
            all: all.clone(),
            format: format.clone(),
            layers,
            pass: scanner.pass(Location::Body, body.clone()),
            raw: None,
            decoded: Vec::new(),
        }
    }

    /// Scans a window, or decodes a layer. What was found, or why it cannot be decoded, once that is all.
    pub fn step(&mut self) -> Option<Result<BodyFindings, &'static str>> {
        let found = self.pass.step()?;
        let found = located(&self.all, &self.format, self.pass.input(), found);
        match self.raw {
            None => self.raw = Some(found),
            Some(_) => self.decoded.extend(found),
        }
        match self.layers.next() {
            Some(Ok(layer)) => {
                self.pass = self.scanner.pass(Location::Body, layer);
                None
            }
            Some(Err(why)) => Some(Err(why)),
            None => Some(Ok(BodyFindings {
                raw: self.raw.take().unwrap_or_default(),
                decoded: std::mem::take(&mut self.decoded),
            })),
        }
    }
}

/// What a request says its body is.
pub fn format(headers: &Headers) -> Format {
    let mut values = headers.all("content-type");
    match (values.next(), values.next()) {
        (Some(value), None) => Format::of(value),
        _ => Format::Unknown,
    }
}

/// Cuts what was found in the first `judged` bytes out of a body. `None` where that would break it, or does not do.
pub fn redact_body(
    scanner: &Scanner,
    format: &Format,
    body: &[u8],
    judged: usize,
    findings: &[Finding],
) -> Option<Vec<u8>> {
    let judged = body.get(..judged)?;
    let extent = scanner.extent(&Location::Body, judged, findings);
    let clean = Document::new(format, body).redact(&extent)?;
    let left = scanner.scan(&Location::Body, &clean);
    (!left.iter().any(blocks)).then_some(clean)
}

/// Cuts what was found out of a head. `None` where it stands in a place that cannot be rewritten.
pub fn redact_head(
    scanner: &Scanner,
    findings: &[Finding],
    head: &RequestHead,
) -> Option<RequestHead> {
    let at = |location: &Location| -> Vec<Finding> {
        findings
            .iter()
            .filter(|finding| finding.location == *location)
            .cloned()
            .collect()
    };
    let rewritable = |location: &Location| {
        matches!(
            location,
            Location::Path | Location::Query | Location::Header(_)
        )
    };
    if findings
        .iter()
        .any(|finding| finding.structural || !rewritable(&finding.location))
    {
        return None;
    }
    let cut = |location: &Location, format: &Format, raw: &[u8]| {
        let found = at(location);
        if found.is_empty() {
            return Some(raw.to_vec());
        }
        Document::new(format, raw).redact(&scanner.extent(location, raw, &found))
    };
    let mut clean = head.clone();
    let mut target = cut(&Location::Path, &Format::Unknown, head.path())?;
    if let Some(query) = head.query() {
        target.push(b'?');
        target.extend_from_slice(&cut(&Location::Query, &Format::Form, query)?);
    }
    clean.target = target.into();
    for (name, value) in clean.headers.iter_mut() {
        let location = Location::Header(printable(name).into());
        let found = at(&location);
        // Two fields of one name share a location; a span that does not fit this one redacts it whole.
        if !found.is_empty() {
            let fits = found
                .iter()
                .all(|finding| finding.span.end <= value.len() as u64)
                && once(head, name);
            *value = if fits {
                cut(&location, &Format::Unknown, value)?.into()
            } else {
                Bytes::from_static(b"********")
            };
        }
    }
    Some(clean)
}

fn once(head: &RequestHead, name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| head.headers.all(name).count() == 1)
}
