//! A body that is too long to hold: what the scanner has released goes on, a hit cuts the request off.

use bytes::{Bytes, BytesMut};
use detectors::{Finding, Location};

use super::relay::{Relayed, relay};
use super::{After, Exchange, Reply, RequestBody, body_failed, cause, judged_trailers, outright};
use crate::config::OnOversize;
use crate::inspect;
use crate::message::{Frame, Headers, RequestHead};
use crate::policy::Route;
use crate::settings::Ruling;
use crate::upstream::lane::Sink;
use crate::upstream::response::Response;
use crate::verdict::{Cause, Refusal};

impl Exchange<'_> {
    /// `begun` is what was held before it proved too long.
    pub(super) async fn stream<B: RequestBody, R: Reply>(
        &mut self,
        route: &Route,
        head: &RequestHead,
        begun: Bytes,
        body: &mut B,
        reply: &mut R,
    ) -> Result<After, Refusal> {
        let mut window = Window::new(self.ruling, route);
        // What is held already is judged before the origin is even spoken to.
        let first = window.push(&begun)?;
        drop(begun);
        self.room = None;
        let size = body.size();
        let mut lane = self.lane(route).await?;
        let (relayed, complete) = {
            let (mut sink, pending) = lane.start(self.pool, head, size).await.map_err(cause)?;
            let mut response = std::pin::pin!(pending.response());
            let mut pump = Box::pin(pump(&mut window, &mut sink, first, body));
            let raced = tokio::select! {
                biased;
                ended = &mut pump => Raced::Sent(ended),
                answer = &mut response => Raced::Answered(answer.map_err(cause)?),
            };
            match raced {
                Raced::Sent(Err(Stop::Refused(refusal))) => {
                    drop(pump);
                    sink.abort();
                    return Err(refusal);
                }
                // Where the origin took no more, its answer says why.
                Raced::Sent(ended) => (
                    relay(response.await.map_err(cause)?, reply).await,
                    ended.is_ok(),
                ),
                // The origin answered before it had all of the request; both go on.
                Raced::Answered(answer) => {
                    let mut relaying = Box::pin(relay(answer, reply));
                    let ended = tokio::select! {
                        biased;
                        ended = &mut pump => Some(ended),
                        relayed = &mut relaying => {
                            drop(pump);
                            sink.abort();
                            return Ok(if relayed == Relayed::Cut { After::Broken } else { After::Unread });
                        }
                    };
                    match ended {
                        Some(Err(Stop::Refused(refusal))) => {
                            drop(pump);
                            sink.abort();
                            self.sidecar.record_refusal(&self.entry, &refusal).await;
                            return Ok(After::Broken);
                        }
                        Some(ended) => (relaying.await, ended.is_ok()),
                        None => (relaying.await, false),
                    }
                }
            }
        };
        self.read = complete;
        Ok(match relayed {
            Relayed::Whole { keep_alive } => self.finish(
                lane,
                Relayed::Whole {
                    keep_alive: keep_alive && complete,
                },
            ),
            Relayed::Cut => After::Broken,
        })
    }
}

enum Raced<'a> {
    Sent(Result<(), Stop>),
    Answered(Response<'a>),
}

/// Why a streamed body went no further.
enum Stop {
    Refused(Refusal),
    Origin,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

async fn pump<B: RequestBody>(
    window: &mut Window<'_>,
    sink: &mut Sink<'_>,
    first: Bytes,
    body: &mut B,
) -> Result<(), Stop> {
    let mut released = first;
    let mut trailers = None;
    loop {
        if !released.is_empty() {
            sink.data(released).await.map_err(|_| Stop::Origin)?;
        }
        match body.frame().await.map_err(body_failed)? {
            Some(Frame::Data(data)) => released = window.push(&data)?,
            Some(Frame::Trailers(fields)) => {
                trailers = window.trailers(fields)?;
                released = Bytes::new();
            }
            None => break,
        }
    }
    sink.data(window.finish()?)
        .await
        .map_err(|_| Stop::Origin)?;
    sink.end(trailers.as_ref()).await.map_err(|_| Stop::Origin)
}

/// The bytes of a streamed body that a finding may still begin in.
struct Window<'a> {
    ruling: &'a Ruling,
    route: &'a Route,
    /// `None` once `noscan` let the rest go unscanned.
    stream: Option<detectors::Stream>,
    held: BytesMut,
    /// Offset of the first held byte in the body.
    base: u64,
    pushed: u64,
}

impl<'a> Window<'a> {
    fn new(ruling: &'a Ruling, route: &'a Route) -> Self {
        let stream = ruling.scanners.of(route.detectors).stream(Location::Body);
        Self {
            ruling,
            route,
            stream: Some(stream),
            held: BytesMut::new(),
            base: 0,
            pushed: 0,
        }
    }

    /// What may leave now.
    fn push(&mut self, data: &[u8]) -> Result<Bytes, Refusal> {
        let before = self.pushed;
        self.pushed += data.len() as u64;
        let mut scanned = data;
        let mut last = false;
        if let Some(limit) = self
            .route
            .max_request_bytes
            .filter(|limit| self.pushed > *limit)
        {
            if self.route.on_oversize == OnOversize::Block {
                return Err(Cause::Oversize { limit }.into());
            }
            let room = usize::try_from(limit.saturating_sub(before)).unwrap_or(usize::MAX);
            scanned = data.get(..room.min(data.len())).unwrap_or_default();
            last = true;
        }
        let Some(stream) = &mut self.stream else {
            return Ok(Bytes::copy_from_slice(data));
        };
        let mut findings = stream.push(scanned);
        if last {
            findings.extend(stream.finish());
        }
        let released = stream.released();
        self.judge(findings)?;
        self.held.extend_from_slice(data);
        if last {
            self.stream = None;
            return Ok(self.held.split().freeze());
        }
        let ready = usize::try_from(released.saturating_sub(self.base))
            .unwrap_or(0)
            .min(self.held.len());
        self.base += ready as u64;
        Ok(self.held.split_to(ready).freeze())
    }

    fn finish(&mut self) -> Result<Bytes, Refusal> {
        if let Some(mut stream) = self.stream.take() {
            self.judge(stream.finish())?;
        }
        Ok(self.held.split().freeze())
    }

    fn judge(&self, findings: Vec<Finding>) -> Result<(), Refusal> {
        if !findings.iter().any(inspect::blocks) {
            return Ok(());
        }
        // The head is on its way: what was found here can be stopped, not rewritten.
        Err(Refusal {
            cause: outright(self.route.on_match).unwrap_or(Cause::Unredactable),
            findings,
        })
    }

    fn trailers(&self, trailers: Headers) -> Result<Option<Headers>, Refusal> {
        judged_trailers(self.ruling, self.route, trailers)
    }
}
