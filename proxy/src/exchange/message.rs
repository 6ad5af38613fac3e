//! One message of a connection that carries many: judged as a held body is, and together with those before it.

use bytes::Bytes;
use detectors::{Finding, Format, Location};
use tokio_util::sync::CancellationToken;

use super::{Exchange, outright};
use crate::across::Across;
use crate::config::OnOversize;
use crate::content::Codings;
use crate::policy::Route;
use crate::verdict::{Cause, Refusal};

/// A whole message before its verdict.
#[derive(Debug)]
pub struct Message {
    /// The words that name it in a report.
    pub what: &'static str,
    pub data: Bytes,
    pub codings: Codings,
    /// It is text and stays what it is with a part replaced.
    pub redactable: bool,
    /// What of it a receiver may put together with that of others.
    pub essence: fn(&[u8]) -> Vec<u8>,
}

impl<'a> Exchange<'a> {
    /// Another of the same request, for the task that judges its messages.
    pub(super) fn for_messages(&self) -> Self {
        Self {
            entry: self.entry.clone(),
            sidecar: self.sidecar,
            ruling: self.ruling,
            pool: self.pool,
            read: self.read,
            streaming: false,
            messages: true,
            asked: super::Asked::default(),
            room: None,
            switching: self.switching,
            place: None,
            head_is_known: self.head_is_known,
            body_is_known: false,
        }
    }

    /// What of the message may go on. Of `kind` are the messages that a receiver may put together.
    pub async fn judge_message<const KINDS: usize>(
        &mut self,
        route: &Route,
        message: Message,
        across: &mut Across<KINDS>,
        kind: Option<usize>,
    ) -> Result<Bytes, Refusal> {
        let Message {
            what,
            data,
            codings,
            redactable,
            essence,
        } = message;
        self.sidecar.check_ready()?;
        self.check_length(route, data.len())?;
        let place = Location::Message(what);
        self.place = Some(place.clone());
        let mut redacted = Vec::new();
        let sent = self
            .judge_whole(route, &codings, &Format::Unknown, data, &mut redacted)
            .await?;
        let still_text = redactable && std::str::from_utf8(&sent).is_ok();
        if !redacted.is_empty() && !still_text {
            return Err(Refusal {
                cause: Cause::Unredactable,
                findings: redacted,
            });
        }
        let plain = if codings.is_plain() {
            sent.clone()
        } else {
            self.decoding(&codings, &sent, |mut layers| {
                // There is one at least.
                move || Some(layers.by_ref().last().unwrap_or(Ok(Bytes::new())))
            })
            .await?
        };
        let plain = essence(&plain);
        let scanner = self.ruling.scanners.of(route.detectors);
        let findings = across.judge(scanner, &place, kind, &plain);
        self.cut_in_messages(route, findings)?;
        self.check_message(route, sent.len(), &plain)?;
        self.note(&redacted).await?;
        across.passed(kind, &plain);
        Ok(sent)
    }

    /// A part of it has left with an earlier message, so it cannot be redacted.
    pub fn cut_in_messages(&self, route: &Route, findings: Vec<Finding>) -> Result<(), Refusal> {
        if findings.is_empty() {
            return Ok(());
        }
        Err(Refusal {
            cause: outright(route.on_match).unwrap_or(Cause::Unredactable),
            findings,
        })
    }

    pub fn check_length(&self, route: &Route, length: usize) -> Result<(), Cause> {
        match (route.max_request_bytes, route.on_oversize) {
            (Some(limit), OnOversize::Block) if length as u64 > limit => {
                Err(Cause::Oversize { limit })
            }
            _ => Ok(()),
        }
    }

    /// Makes room for a message that is held; [`Exchange::let_go`] gives it back.
    pub async fn hold_more(&mut self, length: usize) -> Result<(), Cause> {
        self.sidecar.make_room(&mut self.room, length).await
    }

    pub fn let_go(&mut self) {
        self.room = None;
    }

    pub fn hold_limit(&self) -> usize {
        self.sidecar.fixed.hold
    }

    pub fn window(&self, route: &'a Route, what: &'static str) -> super::Window<'a> {
        super::Window::new(
            self.sidecar,
            self.ruling,
            route,
            self.pool.number,
            Location::Message(what),
        )
    }

    pub fn scan_across<const KINDS: usize>(
        &self,
        route: &Route,
        what: &'static str,
        across: &Across<KINDS>,
        kind: Option<usize>,
        begun: &[u8],
    ) -> Result<(), Refusal> {
        let scanner = self.ruling.scanners.of(route.detectors);
        let findings = across.judge(scanner, &Location::Message(what), kind, begun);
        self.cut_in_messages(route, findings)
    }

    pub fn stopping(&self) -> CancellationToken {
        self.sidecar.stopping.clone()
    }

    pub async fn record(&self, refusal: &Refusal) {
        self.sidecar.record_refusal(&self.entry, refusal).await;
    }

    /// For the side that is told in a few words: the rule, or the code, and the event.
    pub fn short_reason(&self, refusal: &Refusal) -> String {
        let what = match refusal.findings.first() {
            Some(finding) => finding.rule.0,
            None => refusal.cause.code(),
        };
        format!("blocked by policy: {what} ({})", self.entry.event)
    }

    /// Warnings and redactions of a message; the connection itself is on record.
    async fn note(&mut self, redacted: &[Finding]) -> Result<(), Refusal> {
        self.sidecar
            .record_noted(&mut self.entry, redacted)
            .await
            .map_err(|_| Cause::Audit.into())
    }
}
