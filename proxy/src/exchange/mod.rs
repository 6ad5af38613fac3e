//! One request, from its head to the last byte of its response: judge, hold or stream, forward, relay.
//!
//! The same for both protocols on both sides. Nothing of a request is sent before the verdict on it; of a body that
//! is too long to hold, nothing is sent that a later finding could begin in.

mod aside;
mod ask;
mod forward;
mod grpc;
mod hold;
mod inbound;
mod leave;
mod message;
mod relay;
mod stream;
mod websocket;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use detectors::{Finding, Location};
use tokio::sync::OwnedSemaphorePermit;

use crate::config::{OnMatch, OnOversize};
use crate::content::Codings;
use crate::credential;
use crate::inspect::{self};
use crate::message::{BodyError, Frame, Headers, RequestHead, ResponseHead, Size};
use crate::policy::{Decision, Question, Route};
use crate::record::Entry;
use crate::settings::Ruling;
use crate::sidecar::Sidecar;
use crate::upstream::pool::Pool;
use crate::verdict::{Cause, Refusal};
use ask::Asked;
use forward::cause;
pub use grpc::is_grpc;
use hold::Held;
pub use inbound::Inbound;
pub use message::Message;
pub use stream::Window;
pub use websocket::{H2Reply, run as websocket, run_over_h2 as websocket_over_h2};

/// The agent's request body.
pub trait RequestBody: Send {
    fn size(&self) -> Size;
    /// Between its pieces any time may pass.
    fn take_your_time(&mut self) {}
    /// Waits for so many bytes of it, of `all` that are wanted, where they can be kept in one piece.
    fn gather(
        &mut self,
        _bytes: usize,
        _all: usize,
    ) -> impl Future<Output = Result<(), BodyError>> + Send {
        std::future::ready(Ok(()))
    }
    fn frame(&mut self) -> impl Future<Output = Result<Option<Frame>, BodyError>> + Send;
    /// After the last frame: returns once the agent is known to send nothing more; where that cannot be known here,
    /// never. What it sends instead is kept.
    fn closed(&mut self) -> impl Future<Output = ()> + Send;
}

/// Where the agent waits for its answer. An error means that it is gone.
pub trait Reply: Send {
    /// `100 Continue`.
    fn proceed(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;
    /// `reusable`: nothing of the request is still to come.
    fn refuse(
        &mut self,
        refusal: &Refusal,
        body: Vec<u8>,
        reusable: bool,
    ) -> impl Future<Output = Result<(), Gone>> + Send;
    /// `size` is `None` where the response has no body at all.
    fn head(
        &mut self,
        head: ResponseHead,
        size: Option<Size>,
    ) -> impl Future<Output = Result<(), Gone>> + Send;
    fn data(&mut self, data: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;
    /// After a head was sent: ends the answer so that it says why, where the protocol has a way to. An error means that
    /// it has none.
    fn cut_off(
        &mut self,
        _refusal: &Refusal,
        _body: &[u8],
    ) -> impl Future<Output = Result<(), Gone>> + Send {
        std::future::ready(Err(Gone))
    }
    fn end(&mut self, trailers: Option<Headers>) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Returns once the agent is known to wait no longer; where that cannot be known, never.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;
}

/// The agent took no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent is gone")]
pub struct Gone;

/// What the connection of the agent is good for afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The request was read to its end and answered to its end.
    Reusable,
    /// Answered to its end; of the request something may still come.
    Unread,
    /// An answer was begun that cannot be ended: cut it off.
    Broken,
}

/// Runs one request.
pub async fn run<B: RequestBody, R: Reply>(
    sidecar: &Arc<Sidecar>,
    pool: &Pool,
    host: &[u8],
    head: RequestHead,
    body: &mut B,
    reply: &mut R,
) -> After {
    let ruling = sidecar.ruling();
    let mut exchange = Exchange::new(sidecar, &ruling, pool);
    exchange.read = body.size() == Size::Empty;
    exchange.entry.request(&ruling, host, &head);
    match exchange.judged(host, head, body, reply).await {
        Ok(after) => after,
        Err(refusal) => {
            let refusal = exchange.explained(refusal);
            exchange.refuse(&refusal, reply).await
        }
    }
}

pub struct Exchange<'a> {
    sidecar: &'a Arc<Sidecar>,
    ruling: &'a Arc<Ruling>,
    pool: &'a Pool,
    entry: Entry,
    /// The request body was read to its end.
    read: bool,
    /// Its body proved too long to be held.
    streaming: bool,
    /// What is judged are messages of a connection that goes on.
    messages: bool,
    /// What waits for an operator's word.
    asked: Asked,
    /// What the held body takes of the memory that all bodies share.
    room: Option<OwnedSemaphorePermit>,
    /// The request asks for a WebSocket.
    switching: bool,
    /// What is judged, where it is not a body.
    place: Option<Location>,
    /// The head came before, and has neither a finding nor a short piece of a secret.
    head_is_known: bool,
    /// So has the body that was held.
    body_is_known: bool,
}

impl std::fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("event", &self.entry.event)
            .finish_non_exhaustive()
    }
}

impl<'a> Exchange<'a> {
    fn new(sidecar: &'a Arc<Sidecar>, ruling: &'a Arc<Ruling>, pool: &'a Pool) -> Self {
        Self {
            entry: Entry::new(sidecar, ruling, pool.scheme, &pool.authority),
            sidecar,
            ruling,
            pool,
            read: false,
            streaming: false,
            messages: false,
            asked: Asked::default(),
            room: None,
            switching: false,
            place: None,
            head_is_known: false,
            body_is_known: false,
        }
    }

    async fn refuse<R: Reply>(&mut self, refusal: &Refusal, reply: &mut R) -> After {
        self.sidecar.record_refusal(&self.entry, refusal).await;
        let body = self.body_of(refusal);
        match reply.refuse(refusal, body, self.read).await {
            Err(Gone) => After::Broken,
            Ok(()) if self.read => After::Reusable,
            Ok(()) => After::Unread,
        }
    }

    fn body_of(&self, refusal: &Refusal) -> Vec<u8> {
        refusal.body(
            &self.entry.event,
            &self.entry.host,
            self.sidecar.fixed.explain.as_deref(),
        )
    }

    /// Judges the head: by which route it goes, what of it goes on, and what was cut out.
    fn judged_head(
        &mut self,
        host: &[u8],
        mut head: RequestHead,
    ) -> Result<(&'a Route, RequestHead, Vec<Finding>), Refusal> {
        self.sidecar.check_ready()?;
        let ruling = self.ruling;
        let route = self.admit(ruling, &head)?;
        let scanner = ruling.scanners.of(route.detectors);

        let joined = inspect::joined(host, &head);
        if scanner.knows_head(&joined) {
            self.head_is_known = true;
            return Ok((route, head, Vec::new()));
        }
        let findings = inspect::head(scanner, ruling.scanners.all(), host, &head, &joined);
        if findings.iter().any(|finding| finding.structural) {
            return Err(Refusal {
                cause: Cause::Structural,
                findings,
            });
        }
        let mut redacted = Vec::new();
        if findings.iter().any(inspect::blocks) {
            match self.desk(route) {
                Some(desk) => self.ask_about_head(&desk, route, host, &head, &findings)?,
                None => {
                    head = self.redacted_head(route, host, &head, &findings)?;
                    redacted.clone_from(&findings);
                }
            }
        }
        self.entry.warn(&findings);
        Ok((route, head, redacted))
    }

    async fn judged<B: RequestBody, R: Reply>(
        &mut self,
        host: &[u8],
        head: RequestHead,
        body: &mut B,
        reply: &mut R,
    ) -> Result<After, Refusal> {
        let (route, mut head, mut redacted) = self.judged_head(host, head)?;
        let ruling = self.ruling;

        let codings = Codings::parse(&head.headers).map_err(Cause::ContentEncoding)?;
        let format = inspect::format(&head.headers);
        if let (Size::Exact(length), Some(limit)) = (body.size(), route.max_request_bytes)
            && length > limit
            && route.on_oversize == OnOversize::Block
        {
            return Err(Cause::Oversize { limit }.into());
        }
        let unread = body.size() != Size::Empty;
        if head.expects_continue && unread {
            reply
                .proceed()
                .await
                .map_err(|Gone| Cause::BodyFailed("the agent is gone".into()))?;
        }
        head.headers.strip_hop_by_hop();
        credential::replace(&mut head.headers, ruling.credentials.get(&route.index));
        self.ask_for_plain(route, &mut head);

        if codings.is_plain() && grpc::is_asked(&head) {
            self.messages = true;
            self.check_nothing_asked()?;
            self.charge(route, &head, 0)?;
            self.check_pieces(route, &head, &[])?;
            let codec = grpc::Codec::parse(&head.headers)?;
            self.record_let_through(&redacted).await?;
            self.entry.recorded();
            return Box::pin(self.grpc(route, &head, codec, body, reply)).await;
        }
        let source = body;
        match self.hold(route, source).await? {
            Held::Whole { body, trailers } => {
                self.read = true;
                let body = self
                    .judge_whole(route, &codings, &format, body, &mut redacted)
                    .await?;
                let trailers = match trailers {
                    Some(trailers) => judged_trailers(ruling, route, trailers)?,
                    None => None,
                };
                self.approved(body.len(), source, reply).await?;
                self.entry.request_bytes = Some(body.len() as u64);
                self.charge(route, &head, body.len())?;
                self.check_pieces(route, &head, &body)?;
                self.record_let_through(&redacted).await?;
                self.forward_whole(route, &head, body, trailers.as_ref(), reply)
                    .await
            }
            Held::TooLong { begun } => {
                if !codings.is_plain() {
                    return Err(Cause::ContentEncoding("it is longer than what is held").into());
                }
                self.streaming = true;
                self.check_nothing_asked()?;
                self.charge(route, &head, 0)?;
                self.check_pieces(route, &head, &[])?;
                self.record_let_through(&redacted).await?;
                Box::pin(self.stream(route, &head, begun, source, reply)).await
            }
        }
    }

    /// Method, upgrade and policy.
    fn admit<'r>(&self, ruling: &'r Ruling, head: &RequestHead) -> Result<&'r Route, Refusal> {
        // Some origins read a method without case.
        let method = head.method.as_str();
        if let Some(name) = NOT_FORWARDED
            .iter()
            .find(|name| method.eq_ignore_ascii_case(name))
        {
            return Err(Cause::Method(name).into());
        }
        // On HTTP/2 such a name was not refused where the head was read.
        if head.headers.imitates_framing() {
            let why = "a field that some software takes for Content-Length or Transfer-Encoding";
            return Err(Cause::Malformed(why.into()).into());
        }
        if head.headers.first("upgrade").is_some() && !self.switching {
            return Err(Cause::Upgrade.into());
        }
        // What `Connection` names does not go on, so it cannot be what a rule asks for either.
        let mut forwarded = None;
        if head.headers.first("connection").is_some() {
            forwarded.insert(head.headers.clone()).strip_hop_by_hop();
        }
        let headers = forwarded.as_ref().unwrap_or(&head.headers);
        let question = Question {
            scheme: self.pool.scheme,
            authority: &self.pool.authority,
            method: head.method.as_str(),
            target: &head.target,
            headers,
        };
        let decide = |question: &Question<'_>| match ruling.policy.decide(question) {
            Decision::Allow(route) => Ok(route),
            Decision::Deny(denial) => Err(Cause::from(&denial)),
        };
        let route = decide(&question)?;
        let same = |question: &Question<'_>| match decide(question)? {
            other if other.index == route.index => Ok(()),
            _ => Err(Cause::RequestDenied),
        };
        // What some origins take instead of the method or the target must be allowed as well, and by the same route.
        for value in INSTEAD_OF_METHOD.iter().flat_map(|name| headers.all(name)) {
            let method = std::str::from_utf8(value)
                .map_err(|_| Cause::RequestDenied)?
                .trim();
            same(&Question { method, ..question })?;
        }
        for target in INSTEAD_OF_TARGET.iter().flat_map(|name| headers.all(name)) {
            same(&Question { target, ..question })?;
        }
        if self.switching && !route.websocket {
            return Err(Cause::WebSocketDenied.into());
        }
        Ok(route)
    }

    fn redacted_head(
        &self,
        route: &Route,
        host: &[u8],
        head: &RequestHead,
        findings: &[Finding],
    ) -> Result<RequestHead, Refusal> {
        let blocked = |cause| Refusal {
            cause,
            findings: findings.to_vec(),
        };
        if let Some(cause) = outright(route.on_match) {
            return Err(blocked(cause));
        }
        let scanner = self.ruling.scanners.of(route.detectors);
        let clean = inspect::redact_head(scanner, findings, head)
            .ok_or_else(|| blocked(Cause::Unredactable))?;
        let joined = inspect::joined(host, &clean);
        if inspect::head(scanner, self.ruling.scanners.all(), host, &clean, &joined)
            .iter()
            .any(inspect::blocks)
        {
            return Err(blocked(Cause::Unredactable));
        }
        // What was cut out may have been what a rule matched on; another route has another credential.
        if self.admit(self.ruling, &clean)?.index != route.index {
            return Err(blocked(Cause::Unredactable));
        }
        Ok(clean)
    }

    /// Recorded before a byte is sent: what cannot be recorded does not happen.
    async fn record_let_through(&self, redacted: &[Finding]) -> Result<(), Refusal> {
        self.sidecar
            .record_let_through(&self.entry, redacted)
            .await
            .map_err(|_| Cause::Audit.into())
    }
}

/// TRACE, by both its names, would echo the injected credential to the agent; CONNECT would be a tunnel in a tunnel.
const NOT_FORWARDED: [&str; 3] = ["CONNECT", "TRACE", "TRACK"];

const INSTEAD_OF_METHOD: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];
const INSTEAD_OF_TARGET: [&str; 2] = ["x-original-url", "x-rewrite-url"];

/// What of the trailers goes on.
fn judged_trailers(
    ruling: &Ruling,
    route: &Route,
    mut trailers: Headers,
) -> Result<Option<Headers>, Refusal> {
    let findings = inspect::trailers(
        ruling.scanners.of(route.detectors),
        ruling.scanners.all(),
        &trailers,
    );
    if findings.iter().any(|finding| finding.structural) {
        return Err(Refusal {
            cause: Cause::Structural,
            findings,
        });
    }
    if findings.iter().any(inspect::blocks) {
        return Err(Refusal {
            cause: outright(route.on_match).unwrap_or(Cause::Unredactable),
            findings,
        });
    }
    credential::strip_trailers(&mut trailers, ruling.credentials.get(&route.index));
    Ok(Some(trailers).filter(|trailers| !trailers.is_empty()))
}

/// What a match means where it is not redacted.
fn outright(on_match: OnMatch) -> Option<Cause> {
    match on_match {
        OnMatch::Block => Some(Cause::Credential),
        OnMatch::Supervise => Some(Cause::Unsupervised),
        OnMatch::Redact => None,
    }
}

fn body_failed(error: BodyError) -> Refusal {
    match error {
        BodyError::Timeout => Cause::AgentTimeout.into(),
        BodyError::Malformed(why) => Cause::Malformed(why.into()).into(),
        other => Cause::BodyFailed(other.to_string()).into(),
    }
}
