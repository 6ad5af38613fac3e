//! Findings that only an operator can let pass: gathered over all of a request, and asked about at once.
//!
//! What an approval is given for must be all that there is: each text is scanned again with what was found cut out,
//! until nothing more is found, so that one finding cannot stand before another. Where something cannot be cut out
//! (a name, what stands across fields, a compressed body) nothing can be approved.

use bytes::Bytes;
use detectors::{Finding, Location, Scanner, Via, redact};

use super::{Exchange, Reply, RequestBody};
use crate::audit::printable;
use crate::config::OnMatch;
use crate::content::Codings;
use crate::inspect::{self, BodyFindings};
use crate::limits;
use crate::message::RequestHead;
use crate::policy::Route;
use crate::supervise::{Desk, NotApproved, Question, Scope, Verdict, Why};
use crate::verdict::{Cause, Refusal};

/// Scans of one text, each with what the last one found cut out.
const ROUNDS: usize = 4;

/// What of a request is not decided yet.
#[derive(Debug, Default)]
pub(super) struct Asked {
    findings: Vec<Finding>,
    scopes: Vec<Scope>,
}

impl Exchange<'_> {
    /// Whether findings on this route are an operator's to decide, and one can be asked.
    pub(super) fn desk(&self, route: &Route) -> Option<std::sync::Arc<Desk>> {
        match route.on_match {
            OnMatch::Supervise => self.sidecar.desk.clone(),
            OnMatch::Redact | OnMatch::Block => None,
        }
    }

    /// Findings of a head, of which at least one blocks.
    pub(super) fn ask_about_head(
        &mut self,
        desk: &Desk,
        route: &Route,
        host: &[u8],
        head: &RequestHead,
        findings: &[Finding],
    ) -> Result<(), Refusal> {
        let (scanner, all) = (
            self.ruling.scanners.of(route.detectors),
            self.ruling.scanners.all(),
        );
        let mut found = blocking(findings);
        let mut round = found.clone();
        let mut text = head.clone();
        for _ in 0..ROUNDS {
            let Some(clean) = masked_head(&round, &text) else {
                return Err(not(Why::Place, found));
            };
            text = clean;
            let joined = inspect::joined(host, &text);
            round = blocking(&inspect::head(scanner, all, host, &text, &joined));
            if round.is_empty() {
                let whole = whole_head(head);
                return self.ask(desk, route, found, &whole);
            }
            found.extend(round.iter().cloned());
        }
        Err(not(Why::TooMany, found))
    }

    /// Findings of a held body, of which at least one blocks.
    pub(super) async fn ask_about_body(
        &mut self,
        desk: &Desk,
        route: &Route,
        codings: &Codings,
        body: &Bytes,
        findings: &BodyFindings,
    ) -> Result<(), Refusal> {
        let mut found = blocking(&findings.raw);
        if !codings.is_plain() || findings.decoded.iter().any(inspect::blocks) {
            found.extend(blocking(&findings.decoded));
            return Err(not(Why::Place, found));
        }
        let scanner = self.ruling.scanners.of(route.detectors).clone();
        let text = body.clone();
        let all = self.aside_once(body.len(), move || exhausted(&scanner, found, &text));
        match all.await? {
            Ok(found) => self.ask(desk, route, found, body),
            Err(found) => Err(not(Why::TooMany, found)),
        }
    }

    /// What is decided already is decided here; the rest is asked about when all of the request is known.
    fn ask(
        &mut self,
        desk: &Desk,
        route: &Route,
        found: Vec<Finding>,
        whole: &[u8],
    ) -> Result<(), Refusal> {
        for finding in found {
            if finding.structural {
                let cause = Cause::Structural;
                let findings = vec![finding];
                return Err(Refusal { cause, findings });
            }
            // It was planted to be seen by nobody: whoever sends it has read what is not his.
            // And of two in one compressed text the place is the same: one could stand behind the other.
            if finding.rule.0 == "canary" || finding.via.contains(&Via::Compressed) {
                return Err(not(Why::Place, vec![finding]));
            }
            let scope = desk.values.scope(&finding, &route.key, whole);
            match desk.standing(&scope) {
                Some(decision) if decision.verdict == Verdict::Reject => {
                    return Err(not(Why::Rejected(decision.reason), vec![finding]));
                }
                Some(decision) => self.entry.approve(finding, decision.id),
                None if self.asked.scopes.contains(&scope) => {}
                None => {
                    self.asked.findings.push(finding);
                    self.asked.scopes.push(scope);
                }
            }
        }
        if self.asked.findings.len() > limits::ASKS {
            return Err(not(Why::TooMany, std::mem::take(&mut self.asked.findings)));
        }
        Ok(())
    }

    /// What goes on for long cannot wait: what was found in its head can be approved for its next try.
    pub(super) fn check_nothing_asked(&mut self) -> Result<(), Refusal> {
        let Asked { findings, scopes } = std::mem::take(&mut self.asked);
        let Some(desk) = self.sidecar.desk.clone().filter(|_| !findings.is_empty()) else {
            return Ok(());
        };
        let ids = desk.miss(&self.entry.event, self.questions(&findings, scopes));
        let command = self.sidecar.fixed.approve.as_deref();
        Err(Refusal {
            cause: Cause::NotApproved(NotApproved::missed(self.no_wait(), ids, command)),
            findings,
        })
    }

    /// Why nothing can wait here.
    fn no_wait(&self) -> Why {
        if self.messages || self.switching {
            Why::Messages
        } else if self.streaming {
            Why::Streamed
        } else {
            Why::Place
        }
    }

    fn questions(&self, findings: &[Finding], scopes: Vec<Scope>) -> Vec<Question> {
        findings
            .iter()
            .zip(scopes)
            .map(|(finding, scope)| Question {
                scope,
                record: self.entry.question(finding),
            })
            .collect()
    }

    /// Returns once an operator has approved everything that was asked about.
    pub(super) async fn approved<B: RequestBody, R: Reply>(
        &mut self,
        held: usize,
        body: &mut B,
        reply: &mut R,
    ) -> Result<(), Refusal> {
        let Asked { findings, scopes } = std::mem::take(&mut self.asked);
        let Some(desk) = self.sidecar.desk.clone().filter(|_| !findings.is_empty()) else {
            return Ok(());
        };
        self.entry.request_bytes = Some(held as u64);
        let questions = self.questions(&findings, scopes);
        let (ids, parked) = desk.park(&self.entry.event, questions, held);
        let command = self.sidecar.fixed.approve.as_deref();
        let refused = |why: Why| {
            let not = match why {
                why @ (Why::Rejected(_) | Why::PolicyChanged) => NotApproved {
                    asks: ids.clone(),
                    ..why.into()
                },
                why => NotApproved::missed(why, ids.clone(), command),
            };
            Refusal {
                cause: Cause::NotApproved(not),
                findings: findings.clone(),
            }
        };
        let mut parked = parked.map_err(&refused)?;
        let decisions = tokio::select! {
            biased;
            outcome = desk.wait(&mut parked, &self.sidecar.stopping) => outcome,
            () = reply.gone() => Err(Why::Gone),
            () = body.closed() => Err(Why::Gone),
        };
        let decisions = decisions.map_err(&refused)?;
        drop(parked);
        // What it was judged by may not be what holds now.
        if !std::sync::Arc::ptr_eq(&self.sidecar.ruling(), self.ruling) {
            return Err(refused(Why::PolicyChanged));
        }
        self.sidecar.check_ready()?;
        for (finding, decision) in findings.into_iter().zip(decisions) {
            self.entry.approve(finding, decision.id);
        }
        Ok(())
    }

    /// What was refused because nobody can be asked, where there is somebody.
    pub fn explained(&self, mut refusal: Refusal) -> Refusal {
        if refusal.cause == Cause::Unsupervised && self.sidecar.desk.is_some() {
            refusal.cause = Cause::NotApproved(self.no_wait().into());
        }
        refusal
    }
}

/// A head without exactly what was found. (Redaction cuts more: what shows only then is to be asked about here.)
/// `None` where it stands in what cannot be looked behind.
fn masked_head(findings: &[Finding], head: &RequestHead) -> Option<RequestHead> {
    let at = |location: &Location| -> Vec<Finding> {
        findings
            .iter()
            .filter(|finding| finding.location == *location)
            .cloned()
            .collect()
    };
    let known = |location: &Location| {
        matches!(
            location,
            Location::Path | Location::Query | Location::Header(_)
        )
    };
    if findings
        .iter()
        .any(|finding| finding.structural || !known(&finding.location))
    {
        return None;
    }
    let mut clean = head.clone();
    let mut target = redact(head.path(), &at(&Location::Path));
    if let Some(query) = head.query() {
        target.push(b'?');
        target.extend_from_slice(&redact(query, &at(&Location::Query)));
    }
    clean.target = target.into();
    for (name, value) in clean.headers.iter_mut() {
        let found = at(&Location::Header(printable(name).into()));
        if found.is_empty() {
            continue;
        }
        // Two fields of one name share a location, so of neither it is known what was found in it.
        let once = std::str::from_utf8(name).is_ok_and(|name| head.headers.all(name).count() == 1);
        if !once {
            return None;
        }
        *value = redact(value, &found).into();
    }
    Some(clean)
}

fn not(why: Why, findings: Vec<Finding>) -> Refusal {
    Refusal {
        cause: Cause::NotApproved(why.into()),
        findings,
    }
}

fn blocking(findings: &[Finding]) -> Vec<Finding> {
    findings
        .iter()
        .filter(|finding| inspect::blocks(finding))
        .cloned()
        .collect()
}

/// All that there is in a text, given what a first scan found; an error where it does not end.
fn exhausted(
    scanner: &Scanner,
    first: Vec<Finding>,
    text: &[u8],
) -> Result<Vec<Finding>, Vec<Finding>> {
    let mut found = first.clone();
    let mut round = first;
    let mut text = text.to_vec();
    for _ in 0..ROUNDS {
        text = redact(&text, &round);
        round = blocking(&scanner.scan(&Location::Body, &text));
        if round.is_empty() {
            return Ok(found);
        }
        found.extend(round.iter().cloned());
    }
    Err(found)
}

/// What stands in a head, for a finding that has no value of its own.
fn whole_head(head: &RequestHead) -> Vec<u8> {
    let mut whole = head.target.to_vec();
    for (name, value) in head.headers.iter() {
        whole.push(b'\n');
        whole.extend_from_slice(name);
        whole.push(b'\n');
        whole.extend_from_slice(value);
    }
    whole
}
