//! A body that is too long to hold: what the scanner has released goes on, a hit cuts the request off.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use detectors::{Finding, Location};
use tokio::sync::OwnedSemaphorePermit;

use super::relay::Relayed;
use super::{
    After, Exchange, Gone, Reply, RequestBody, body_failed, cause, judged_trailers, outright,
};
use crate::config::OnOversize;
use crate::crew::Burden;
use crate::inspect;
use crate::limits;
use crate::message::{Frame, Headers, RequestHead, Size};
use crate::pieces::Found;
use crate::policy::Route;
use crate::settings::Ruling;
use crate::sidecar::Sidecar;
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
        let mut window = Window::new(
            self.sidecar,
            self.ruling,
            route,
            self.pool.number,
            Location::Body,
        );
        // What is held already is judged before the origin is even spoken to.
        let first = window.push(begun).await?;
        let size = body.size();
        let mut source = Streamed {
            window,
            first,
            room: self.room.take(),
            trailers: None,
            ended: false,
            body,
        };
        self.carry(route, head, size, &mut source, reply).await
    }

    /// Sends what `source` gives as it gives it, and relays the answer at the same time.
    pub(super) async fn carry<S: Source, R: Reply>(
        &mut self,
        route: &Route,
        head: &RequestHead,
        size: Size,
        source: &mut S,
        reply: &mut R,
    ) -> Result<After, Refusal> {
        let mut lane = self.lane(route).await?;
        let (relayed, complete) = {
            let (mut sink, pending) = lane.start(self.pool, head, size).await.map_err(cause)?;
            let mut response = std::pin::pin!(pending.response());
            let mut pump = Box::pin(pump(source, &mut sink));
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
                    self.relay(route, response.await.map_err(cause)?, reply)
                        .await,
                    ended.is_ok(),
                ),
                // The origin answered before it had all of the request; both go on.
                Raced::Answered(answer) => {
                    let mut relaying = Box::pin(self.relay(route, answer, reply));
                    let ended = tokio::select! {
                        biased;
                        ended = &mut pump => Some(ended),
                        relayed = &mut relaying => {
                            drop(pump);
                            sink.abort();
                            return Ok(match relayed {
                                Relayed::Cut => After::Broken,
                                Relayed::Refused(after) => after,
                                Relayed::Whole { .. } => After::Unread,
                            });
                        }
                    };
                    match ended {
                        Some(Err(Stop::Refused(refusal))) => {
                            drop(relaying);
                            drop(pump);
                            sink.abort();
                            let refusal = self.explained(refusal);
                            self.sidecar.record_refusal(&self.entry, &refusal).await;
                            let body = self.body_of(&refusal);
                            return Ok(match reply.cut_off(&refusal, &body).await {
                                Ok(()) => After::Unread,
                                Err(Gone) => After::Broken,
                            });
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
            Relayed::Refused(after) => after,
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

/// What of a request goes on, piece by piece, each after its verdict.
pub(super) trait Source: Send {
    fn next(&mut self) -> impl Future<Output = Result<Piece, Refusal>> + Send;
}

pub(super) enum Piece {
    Data(Bytes),
    /// The request is over.
    End(Option<Headers>),
}

async fn pump<S: Source>(source: &mut S, sink: &mut Sink<'_>) -> Result<(), Stop> {
    loop {
        match source.next().await? {
            Piece::Data(data) if data.is_empty() => {}
            Piece::Data(data) => sink.data(data).await.map_err(|_| Stop::Origin)?,
            Piece::End(trailers) => {
                return sink.end(trailers.as_ref()).await.map_err(|_| Stop::Origin);
            }
        }
    }
}

/// A body behind its look-behind window.
struct Streamed<'a, B> {
    window: Window<'a>,
    /// What the window has released already, and what it takes of the memory that all bodies share until it has left.
    first: Bytes,
    room: Option<OwnedSemaphorePermit>,
    trailers: Option<Headers>,
    /// The window gave what it held to the end.
    ended: bool,
    body: &'a mut B,
}

impl<B: RequestBody> Source for Streamed<'_, B> {
    async fn next(&mut self) -> Result<Piece, Refusal> {
        if !self.first.is_empty() {
            return Ok(Piece::Data(std::mem::take(&mut self.first)));
        }
        self.room = None;
        match self.body.frame().await.map_err(body_failed)? {
            Some(Frame::Data(data)) => self.window.push(data).await.map(Piece::Data),
            Some(Frame::Trailers(fields)) => {
                self.trailers = self.window.trailers(fields)?;
                Ok(Piece::Data(Bytes::new()))
            }
            None if self.ended => Ok(Piece::End(self.trailers.take())),
            None => {
                self.ended = true;
                self.window.finish().await.map(Piece::Data)
            }
        }
    }
}

/// One less than the characters of a secret that are a piece.
const TAIL: usize = 7;

/// Whether a body is looked at.
#[derive(Debug)]
enum Scan {
    On(Box<detectors::Stream>),
    /// No detector is on, or `noscan` let the rest go unscanned.
    Off,
    /// It was given to the crew, and has not come back: nothing more leaves.
    Away,
}

/// What the crew does of it at once.
struct Push {
    stream: Option<Box<detectors::Stream>>,
    data: Bytes,
    last: bool,
    findings: Vec<Finding>,
}

impl Push {
    fn step(&mut self) -> Option<(Box<detectors::Stream>, Vec<Finding>)> {
        let stream = self.stream.as_mut()?;
        // What was held before may be a mebibyte.
        let piece = self.data.split_to(self.data.len().min(limits::READ_BYTES));
        self.findings.extend(stream.push(&piece));
        if !self.data.is_empty() {
            return None;
        }
        if self.last {
            self.findings.extend(stream.finish());
        }
        Some((self.stream.take()?, std::mem::take(&mut self.findings)))
    }
}

/// The bytes of a streamed body that a finding may still begin in.
#[derive(Debug)]
pub struct Window<'a> {
    sidecar: &'a Sidecar,
    ruling: &'a Ruling,
    route: &'a Route,
    connection: u64,
    burden: Burden,
    scan: Scan,
    held: BytesMut,
    /// The end of what was looked at for short pieces of secrets.
    tail: Vec<u8>,
    /// Offset of the first held byte in the body.
    base: u64,
    pushed: u64,
    /// Before it may lie what the scanner did not remember.
    new_until: u64,
}

impl<'a> Window<'a> {
    pub fn new(
        sidecar: &'a Sidecar,
        ruling: &'a Ruling,
        route: &'a Route,
        connection: u64,
        location: Location,
    ) -> Self {
        let scanner = ruling.scanners.of(route.detectors);
        let scan = if route.detectors.none() {
            Scan::Off
        } else {
            Scan::On(Box::new(scanner.stream(location)))
        };
        Self {
            sidecar,
            ruling,
            route,
            connection,
            burden: sidecar.crew.burden(),
            scan,
            held: BytesMut::new(),
            tail: Vec::new(),
            base: 0,
            pushed: 0,
            new_until: 0,
        }
    }

    /// What may leave now.
    pub async fn push(&mut self, data: Bytes) -> Result<Bytes, Refusal> {
        let before = self.pushed;
        self.pushed += data.len() as u64;
        self.sidecar.volumes.charge(self.route, data.len())?;
        self.sidecar.metrics.request_bytes.inc_by(data.len() as u64);
        let mut scanned = data.clone();
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
            scanned.truncate(room);
            last = true;
        }
        let Some((released, findings)) = self.scanned(scanned, last).await? else {
            self.check_pieces(&data).await?;
            return Ok(data);
        };
        if last {
            self.new_until = self.pushed;
        }
        self.judge(findings)?;
        let ready = usize::try_from(released.saturating_sub(self.base)).unwrap_or(0);
        let ready = if last { usize::MAX } else { ready };
        let ready = ready.min(self.held.len() + data.len());
        if last {
            self.scan = Scan::Off;
        }
        // What goes on at once is not copied: the first piece may be all that was held before.
        let leaves = if self.held.is_empty() {
            self.held
                .extend_from_slice(data.get(ready..).unwrap_or_default());
            data.slice(..ready)
        } else {
            self.held.extend_from_slice(&data);
            let leaves = self.held.split_to(ready).freeze();
            if !leaves.is_empty() {
                // Into a buffer of its own: beside what leaves, it would double that one's size time and again.
                let mut rest = BytesMut::with_capacity(limits::TURN_BYTES);
                rest.extend_from_slice(&self.held);
                self.held = rest;
            }
            leaves
        };
        self.look_at(&leaves).await?;
        Ok(leaves)
    }

    pub async fn finish(&mut self) -> Result<Bytes, Refusal> {
        if let Some((_, findings)) = self.scanned(Bytes::new(), true).await? {
            self.judge(findings)?;
            self.scan = Scan::Off;
        }
        let leaves = self.held.split().freeze();
        self.look_at(&leaves).await?;
        Ok(leaves)
    }

    /// Looks for short pieces of secrets in what is about to leave, unless the scanner remembers all windows that it lies in:
    /// those have none, nor has what goes over their edges, which they see.
    async fn look_at(&mut self, leaves: &[u8]) -> Result<(), Cause> {
        let begin = self.base;
        self.base += leaves.len() as u64;
        if begin < self.new_until {
            return self.check_pieces(leaves).await;
        }
        self.pass(leaves);
        Ok(())
    }

    /// Up to where the body may leave, and what was found. `None` where nothing is looked for.
    async fn scanned(
        &mut self,
        data: Bytes,
        last: bool,
    ) -> Result<Option<(u64, Vec<Finding>)>, Cause> {
        let mut stream = match std::mem::replace(&mut self.scan, Scan::Away) {
            Scan::On(stream) => stream,
            Scan::Off => {
                self.scan = Scan::Off;
                return Ok(None);
            }
            Scan::Away => return Err(Cause::Internal),
        };
        let mut findings = Vec::new();
        if last || stream.completes_window(data.len()) {
            let mut work = Push {
                stream: Some(stream),
                data: data.clone(),
                last,
                findings,
            };
            let crew = &self.sidecar.crew;
            let scan = crew.scan(&self.burden, self.connection, move || work.step());
            (stream, findings) = scan.await?;
        } else {
            findings.extend(stream.push(&data));
        }
        let released = stream.released();
        if stream.has_read() {
            self.new_until = self.pushed;
        }
        self.scan = Scan::On(stream);
        Ok(Some((released, findings)))
    }

    async fn check_pieces(&mut self, data: &[u8]) -> Result<(), Cause> {
        if !self.route.detectors.known_secrets {
            return Ok(());
        }
        let pieces = &self.sidecar.pieces;
        let mut found = Found::new();
        for (turn, data) in data.chunks(limits::TURN_BYTES).enumerate() {
            if turn > 0 {
                tokio::task::yield_now().await;
            }
            let head = data.get(..TAIL.min(data.len())).unwrap_or_default();
            pieces.find(&[&self.tail, head].concat(), &mut found);
            pieces.find(data, &mut found);
            self.pass(data);
        }
        pieces.release(&found)
    }

    /// Keeps what a piece may begin in.
    fn pass(&mut self, data: &[u8]) {
        self.tail.extend_from_slice(
            data.get(data.len().saturating_sub(TAIL)..)
                .unwrap_or_default(),
        );
        let gone = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..gone);
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
