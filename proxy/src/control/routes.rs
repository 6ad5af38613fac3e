//! The requests of the control API, one by one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::sync::broadcast::error::RecvError;

use super::Control;
use crate::audit::{self, Record, printable};
use crate::limits;
use crate::run;
use crate::supervise::{Answer, Ask, Decision, Desk, DeskError, Verdict};

pub type Body = BoxBody<Bytes, Infallible>;

/// How long an approval holds where nothing else is said: for a retry, not for a day.
const LASTING: Duration = Duration::from_secs(600);
/// How long a rejection answers for the operator, so that an agent cannot ask again and again.
const REJECTED: Duration = Duration::from_secs(600);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// A follower that hears nothing else hears this, and a dead one is found.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("a bearer token is needed: `Authorization: Bearer …`")]
    Unauthorized,
    #[error("there is nothing here; the requests are in docs/CONTROL.md")]
    NotFound,
    #[error("{0}")]
    Bad(String),
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error("the audit log cannot be written, so nothing was changed")]
    Audit,
    #[error("the new policy is bad, so the last good one stays in force: {0}")]
    Reload(String),
    #[error("as many follow the events as there is room for")]
    Followers,
    #[error("the request took too long")]
    TooSlow,
    #[error("the metrics could not be written")]
    Metrics,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound | Self::Desk(DeskError::Unknown(_)) => StatusCode::NOT_FOUND,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Desk(DeskError::Several(..) | DeskError::NotWaiting(_)) => StatusCode::CONFLICT,
            Self::Reload(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Desk(DeskError::Full) | Self::Audit | Self::Followers => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Metrics => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub fn into_response(self) -> Response<Body> {
        let mut response = json_response(&json!({ "error": self.to_string() }));
        *response.status_mut() = self.status();
        response
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    by: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    for_seconds: Option<u64>,
    #[serde(default)]
    once: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reject {
    by: String,
    reason: String,
}

/// `peer`: the uid at the other end of a Unix socket, as the kernel knows it.
pub async fn route(
    control: &Arc<Control>,
    peer: Option<u32>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if let (&Method::GET, ["health"]) = (&method, parts.as_slice()) {
        return Ok(json_response(&json!({ "ok": true })));
    }
    authorised(control, &request)?;
    let sidecar = &control.sidecar;
    let desk = || sidecar.desk.as_ref().ok_or(Problem::NotFound);
    match (&method, parts.as_slice()) {
        (&Method::GET, ["v1", "status"]) => status(control),
        (&Method::GET, ["v1", "pending"]) => Ok(json_response(&desk()?.pending())),
        (&Method::GET, ["v1", "pending", id]) => Ok(json_response(&desk()?.find(id)?.shown())),
        (&Method::POST, ["v1", "pending", id, "approve"]) => {
            let ask = desk()?.find(id)?;
            let asked: Approve = read(request).await?;
            let lasting = match (asked.once, asked.for_seconds) {
                (true, Some(_)) => {
                    return Err(Problem::Bad(
                        "`once` and `for_seconds` exclude each other".into(),
                    ));
                }
                (true, None) => None,
                (false, None) => Some(LASTING),
                (false, Some(seconds)) => match Duration::from_secs(seconds) {
                    Duration::ZERO => {
                        return Err(Problem::Bad("for_seconds is 0; say `once`".into()));
                    }
                    long if long > LONGEST => {
                        let most = LONGEST.as_secs();
                        return Err(Problem::Bad(format!("for_seconds is at most {most}")));
                    }
                    lasting => Some(lasting),
                },
            };
            let by = operator(&asked.by, peer)?;
            decide(
                control,
                desk()?,
                &ask,
                Verdict::Approve,
                by,
                &asked.reason,
                lasting,
            )
            .await
        }
        (&Method::POST, ["v1", "pending", id, "reject"]) => {
            let ask = desk()?.find(id)?;
            let asked: Reject = read(request).await?;
            if asked.reason.trim().is_empty() {
                return Err(Problem::Bad(
                    "a rejection needs a reason: the agent reads it".into(),
                ));
            }
            let by = operator(&asked.by, peer)?;
            let lasting = Some(REJECTED);
            decide(
                control,
                desk()?,
                &ask,
                Verdict::Reject,
                by,
                &asked.reason,
                lasting,
            )
            .await
        }
        (&Method::GET, ["v1", "decisions"]) => Ok(json_response(&desk()?.decisions())),
        (&Method::DELETE, ["v1", "decisions", id]) => {
            let by = request
                .uri()
                .query()
                .and_then(|query| query.strip_prefix("by="));
            let by = operator(by.unwrap_or("operator"), peer)?;
            let words = format!("the decision {} was taken back", printable(id.as_bytes()));
            let policy = sidecar.ruling().policy.hash().to_owned();
            let mut record = Record::of_sidecar(&sidecar.fixed.bottle, "revoke", &words, &policy);
            record.asks = vec![printable(id.as_bytes())];
            record.by = Some(by.clone());
            // Taking an approval back must work even where nothing can be recorded.
            let revoked = desk()?.revoke(id, &by)?;
            let _broken = sidecar.write(vec![record]).await;
            Ok(json_response(&revoked))
        }
        (&Method::GET, ["v1", "events"]) => follow(control, desk()?),
        (&Method::POST, ["v1", "reload"]) => {
            run::reload(sidecar, &control.config)
                .map_err(|error| Problem::Reload(error.to_string()))?;
            status(control)
        }
        (&Method::GET, ["metrics"]) => {
            let text = sidecar
                .metrics
                .text(sidecar)
                .map_err(|_| Problem::Metrics)?;
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            Ok(response(kind, Full::new(text.into()).boxed()))
        }
        _ => Err(Problem::NotFound),
    }
}

fn authorised(control: &Control, request: &Request<Incoming>) -> Result<(), Problem> {
    let mut given = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(Problem::Unauthorized);
    };
    let token = value
        .as_bytes()
        .strip_prefix(b"Bearer ")
        .ok_or(Problem::Unauthorized)?;
    // Of two lengths nothing is compared; the token's is no secret.
    if bool::from(token.ct_eq(control.token.expose().as_bytes())) {
        Ok(())
    } else {
        Err(Problem::Unauthorized)
    }
}

/// Who answers, as he calls himself and as the kernel knows him.
fn operator(name: &str, peer: Option<u32>) -> Result<String, Problem> {
    let name = printable(name.trim().as_bytes());
    if name.is_empty() {
        return Err(Problem::Bad(
            "`by` is empty: an answer is somebody's".into(),
        ));
    }
    Ok(match peer {
        Some(uid) => format!("{name} (uid {uid})"),
        None => name,
    })
}

async fn read<T: for<'de> Deserialize<'de>>(request: Request<Incoming>) -> Result<T, Problem> {
    let body = Limited::new(request.into_body(), limits::CONTROL_BODY);
    let body = body
        .collect()
        .await
        .map_err(|error| Problem::Bad(format!("the body cannot be read: {error}")))?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| Problem::Bad(format!("the body is not what is asked for: {error}")))
}

/// On record first, in force second.
async fn decide(
    control: &Control,
    desk: &Arc<Desk>,
    ask: &Ask,
    verdict: Verdict,
    by: String,
    reason: &str,
    lasting: Option<Duration>,
) -> Result<Response<Body>, Problem> {
    let sidecar = &control.sidecar;
    let reason = printable(reason.trim().as_bytes());
    let decision = Decision {
        verdict,
        id: ask.id.clone(),
        by: by.clone(),
        reason: reason.clone(),
    };
    let answer = Answer { decision, lasting };
    desk.check(ask, &answer)?;
    let mut record = ask.record.clone();
    record.time = audit::now();
    (record.verdict, record.code) = match verdict {
        Verdict::Approve => ("approve", "approve"),
        Verdict::Reject => ("reject", "reject"),
    };
    if !reason.is_empty() {
        record.reason = format!("{}: {reason}", record.reason).into();
    }
    record.asks = vec![ask.id.clone()];
    record.by = Some(by);
    let until = lasting
        .and_then(|lasting| jiff::SignedDuration::try_from(lasting).ok())
        .and_then(|lasting| jiff::Timestamp::now().checked_add(lasting).ok());
    record.until = until.map(|until| until.to_string());
    record.policy = Arc::clone(sidecar.ruling().policy.hash());
    sidecar
        .write(vec![record])
        .await
        .map_err(|_| Problem::Audit)?;
    let waited = ask.missed.is_none();
    desk.answer(ask, answer);
    Ok(json_response(&json!({
        "id": ask.id,
        "verdict": verdict,
        "waiting": waited,
        "until": until.map(|until| until.to_string()),
        "credential": ask.shown().credential,
        "host": ask.record.host,
    })))
}

fn status(control: &Control) -> Result<Response<Body>, Problem> {
    let sidecar = &control.sidecar;
    let (parked, bytes, approvals) = sidecar.desk.as_ref().map_or((0, 0, 0), |desk| desk.load());
    Ok(json_response(&json!({
        "bottle": sidecar.fixed.bottle,
        "policy": sidecar.ruling().policy.hash(),
        "audit": if sidecar.audit.is_broken() { "broken" } else { "ok" },
        "connections": sidecar.tasks.len(),
        "parked": parked,
        "parked_bytes": bytes,
        "approvals": approvals,
        "patience_seconds": sidecar.fixed.patience.as_secs(),
    })))
}

fn follow(control: &Arc<Control>, desk: &Arc<Desk>) -> Result<Response<Body>, Problem> {
    let permit = Arc::clone(&control.followers)
        .try_acquire_owned()
        .map_err(|_| Problem::Followers)?;
    let mut events = desk.follow();
    let (mut sender, body) = Channel::new(8);
    let stopping = control.sidecar.stopping.clone();
    tokio::spawn(async move {
        let _permit = permit;
        loop {
            let text = tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(HEARTBEAT) => ":\n\n".to_owned(),
                event = events.recv() => match event {
                    Ok(event) => {
                        let json = serde_json::to_value(&event).unwrap_or_default();
                        let part = |name: &str| json.get(name).cloned().unwrap_or_default();
                        let (name, data) = (part("event"), part("data"));
                        let name = name.as_str().unwrap_or("message");
                        format!("event: {name}\ndata: {data}\n\n")
                    }
                    // The follower asks for what is pending, and knows all again.
                    Err(RecvError::Lagged(missed)) => format!("event: lagged\ndata: {missed}\n\n"),
                    Err(RecvError::Closed) => return,
                },
            };
            let sent = tokio::time::timeout(limits::WRITE, sender.send_data(Bytes::from(text)));
            if !matches!(sent.await, Ok(Ok(()))) {
                return;
            }
        }
    });
    Ok(response("text/event-stream", body.boxed()))
}

fn json_response(value: &impl Serialize) -> Response<Body> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    response("application/json", Full::new(text.into()).boxed())
}

fn response(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
