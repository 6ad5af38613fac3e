//! What comes back: repeated credentials are scrubbed, and text that would turn the agent against its user is stopped.
//!
//! Nothing is held back for either but what could be the beginning of a credential, and short bodies of a known
//! length, so that a stopped one can be answered for. Where one of the two is asked for, the origin is asked for plain
//! bodies: to undo a coding and apply it again would cost more than it saves here, and would delay every event of a
//! stream. An origin that compresses all the same is read up to the hold limit, and refused beyond.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use detectors::{Finding, InjectionStream, Location};

use super::Exchange;
use crate::content::Codings;
use crate::echo;
use crate::inspect;
use crate::limits;
use crate::message::{Frame, Headers, RequestHead, Size};
use crate::policy::Route;
use crate::sidecar::Sidecar;
use crate::upstream::response::Response;
use crate::verdict::{Cause, Refusal};

/// Bodies of a known length up to this wait for their end where the detector is on.
const SHORT: u64 = 64 * 1024;

/// The judge of one response.
pub struct Inbound {
    sidecar: Arc<Sidecar>,
    connection: u64,
    echo: Option<echo::Scrubber>,
    body: Option<echo::Stream>,
    detector: Option<detectors::InjectionDetector>,
    injection: Option<InjectionStream>,
    /// A body that cannot be read does not go on.
    strict: bool,
    hold: usize,
    echoes: u64,
    /// Of those, what was found in bodies.
    counted: u64,
    warnings: Vec<Finding>,
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").finish_non_exhaustive()
    }
}

/// A body that was read to its end before its head goes on.
pub(super) struct Held {
    pub(super) body: Bytes,
    pub(super) trailers: Option<Headers>,
}

impl Exchange<'_> {
    pub fn inbound(&self, route: &Route) -> Inbound {
        let echo = self.ruling.scrubber.clone();
        let detector = route
            .injection_detector
            .then(|| self.ruling.injection.clone());
        Inbound {
            sidecar: Arc::clone(self.sidecar),
            connection: self.pool.number,
            body: echo.as_ref().map(echo::Scrubber::stream),
            echo,
            injection: detector
                .as_ref()
                .map(|detector| detector.stream(Location::Body)),
            detector,
            strict: self.needs_plain(route),
            hold: self.sidecar.fixed.hold,
            echoes: 0,
            counted: 0,
            warnings: Vec::new(),
        }
    }

    /// Records what was found in what was passed on.
    pub async fn remark(&self, inbound: &Inbound) {
        self.sidecar.metrics.echoes.inc_by(inbound.echoes);
        let remarks = self.entry.inbound(inbound.echoes, &inbound.warnings);
        if !remarks.is_empty() {
            // It has gone on already; a log that is broken stops the next request.
            let _broken = self.sidecar.write(remarks).await;
        }
    }

    /// Whether the origin is asked for bodies without a coding: it has a credential of ours, by this route or by
    /// another one, or what it says is looked at.
    fn needs_plain(&self, route: &Route) -> bool {
        let authority = &self.pool.authority;
        route.injection_detector
            || self
                .ruling
                .policy
                .routes()
                .iter()
                .any(|own| own.auth.is_some() && own.host.matches(&authority.host))
    }

    pub(super) fn ask_for_plain(&self, route: &Route, head: &mut RequestHead) {
        if self.needs_plain(route) {
            head.headers.remove("accept-encoding");
            // Without it messages are not compressed.
            head.headers.remove("grpc-accept-encoding");
            head.headers.push(&b"accept-encoding"[..], &b"identity"[..]);
        }
    }
}

impl Inbound {
    /// Judges a head and changes what has to be changed. What `Held` is returned for goes on as it is.
    pub(super) async fn begin(
        &mut self,
        response: &mut Response<'_>,
    ) -> Result<Option<Held>, Refusal> {
        self.fields(&mut response.head.headers);
        if let Some(detector) = &self.detector {
            let findings = detector.scan(&Location::HeaderName, &joined(&response.head.headers));
            self.judge(findings)?;
        }
        let Some(size) = response.size else {
            return Ok(None);
        };
        if self.strict && is_coded(&response.head.headers) {
            return self.coded(response).await.map(Some);
        }
        match size {
            Size::Exact(length) if self.detector.is_some() && length <= SHORT => {
                let held = read(response, usize::try_from(SHORT).unwrap_or(usize::MAX)).await?;
                let mut body = BytesMut::from(self.data(held.body)?);
                body.extend_from_slice(&self.finish()?);
                Ok(Some(Held {
                    body: body.freeze(),
                    trailers: held.trailers,
                }))
            }
            _ => Ok(None),
        }
    }

    /// A piece of the body; what may go on of it.
    pub fn data(&mut self, data: Bytes) -> Result<Bytes, Refusal> {
        let data = match &mut self.body {
            Some(stream) => stream.push(data),
            None => data,
        };
        self.look(data)
    }

    /// The end of a body, or of one message of many.
    pub fn finish(&mut self) -> Result<Bytes, Refusal> {
        let rest = match &mut self.body {
            Some(stream) => stream.finish(),
            None => Bytes::new(),
        };
        let rest = self.look(rest)?;
        if let Some(stream) = &mut self.injection {
            let findings = stream.finish();
            self.judge(findings)?;
        }
        if let Some(stream) = &self.body {
            self.echoes += stream.found() - self.counted;
            self.counted = stream.found();
        }
        Ok(rest)
    }

    /// A short text of its own, such as a close's reason.
    pub fn scrub(&mut self, text: Bytes) -> Bytes {
        match self.echo.as_ref().and_then(|echo| echo.scrub(&text)) {
            Some(clean) => {
                self.echoes += 1;
                clean
            }
            None => text,
        }
    }

    /// Headers or trailers: both may repeat a credential, in a value or a name.
    pub(super) fn fields(&mut self, headers: &mut Headers) {
        let Some(scrubber) = &self.echo else {
            return;
        };
        let mut clean = Headers::default();
        let mut found = 0;
        for (name, value) in headers.iter() {
            let (own_name, own_value) = (scrubber.scrub(name), scrubber.scrub(value));
            found += u64::from(own_name.is_some()) + u64::from(own_value.is_some());
            clean.push(
                own_name.unwrap_or_else(|| name.clone()),
                own_value.unwrap_or_else(|| value.clone()),
            );
        }
        if found > 0 {
            *headers = clean;
            self.echoes += found;
        }
    }

    /// As a head, at a body's end.
    pub(super) fn trailers(&mut self, mut fields: Headers) -> Result<Headers, Refusal> {
        fields.strip_trailers();
        self.fields(&mut fields);
        if let Some(detector) = &self.detector {
            let findings = detector.scan(&Location::HeaderName, &joined(&fields));
            self.judge(findings)?;
        }
        Ok(fields)
    }

    fn look(&mut self, data: Bytes) -> Result<Bytes, Refusal> {
        if let Some(stream) = &mut self.injection {
            let findings = stream.push(&data);
            self.judge(findings)?;
        }
        Ok(data)
    }

    fn judge(&mut self, findings: Vec<Finding>) -> Result<(), Refusal> {
        if findings.iter().any(inspect::blocks) {
            return Err(Refusal {
                cause: Cause::Injection,
                findings,
            });
        }
        self.warnings.extend(findings.into_iter().take(16));
        Ok(())
    }

    /// A body with a coding that nobody asked for: read whole, judged decoded, passed on as it came or not at all.
    async fn coded(&mut self, response: &mut Response<'_>) -> Result<Held, Refusal> {
        let unreadable = |why: &str| Refusal::from(Cause::ResponseEncoding(why.into()));
        let codings = Codings::parse(&response.head.headers).map_err(unreadable)?;
        let held = read(response, self.hold).await?;
        let (echo, detector) = (self.echo.clone(), self.detector.clone());
        let turn = self.sidecar.turn_to_decode().await?;
        let (mut layers, mut echoed, mut findings) = (
            codings.layers(held.body.clone(), limits::DECODE_BYTES),
            false,
            Vec::new(),
        );
        let crew = &self.sidecar.crew;
        let looked = crew.run(self.connection, move || {
            let _turn = &turn;
            match layers.next() {
                None => Some(Ok((echoed, std::mem::take(&mut findings)))),
                Some(Err(why)) => Some(Err(why)),
                Some(Ok(layer)) => {
                    if let Some(scrubber) = &echo {
                        echoed |= scrubber.scrub(&layer).is_some();
                    }
                    if let Some(detector) = &detector {
                        findings.extend(detector.scan(&Location::Body, &layer));
                    }
                    None
                }
            }
        });
        let looked = looked.await.map_err(Cause::from)?;
        let (echoed, findings) = looked.map_err(unreadable)?;
        self.judge(findings)?;
        if echoed {
            self.echoes += 1;
            return Err(unreadable(
                "it repeats an injected credential, in a coding in which it cannot be cut out",
            ));
        }
        Ok(held)
    }
}

async fn read(response: &mut Response<'_>, limit: usize) -> Result<Held, Refusal> {
    let mut body = BytesMut::new();
    let mut trailers = None;
    loop {
        match response.body.frame().await {
            Ok(None) => break,
            Ok(Some(Frame::Data(data))) => {
                if body.len() + data.len() > limit {
                    return Err(
                        Cause::ResponseEncoding("it is longer than what is held".into()).into(),
                    );
                }
                body.extend_from_slice(&data);
            }
            Ok(Some(Frame::Trailers(fields))) => trailers = Some(fields),
            Err(error) => return Err(Cause::UpstreamProtocol(error.to_string()).into()),
        }
    }
    Ok(Held {
        body: body.freeze(),
        trailers,
    })
}

fn is_coded(headers: &Headers) -> bool {
    headers
        .all("content-encoding")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

fn joined(headers: &Headers) -> Vec<u8> {
    let mut joined = Vec::new();
    for (name, value) in headers.iter() {
        joined.extend_from_slice(name);
        joined.extend_from_slice(b": ");
        joined.extend_from_slice(value);
        joined.push(b'\n');
    }
    joined
}
