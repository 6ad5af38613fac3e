//! A body that is short enough to be held whole until the verdict on it.

use bytes::{Bytes, BytesMut};
use detectors::{Finding, Format};

use super::{Exchange, RequestBody, body_failed, outright};
use crate::config::OnOversize;
use crate::content::Codings;
use crate::inspect::{self, BodyScan};
use crate::limits;
use crate::message::{Frame, Headers, Size};
use crate::policy::Route;
use crate::verdict::{Cause, Refusal};

pub(super) enum Held {
    Whole {
        body: Bytes,
        trailers: Option<Headers>,
    },
    TooLong {
        begun: Bytes,
    },
}

impl Exchange<'_> {
    /// Reads a body until it is whole, or too long for that.
    pub(super) async fn hold<B: RequestBody>(
        &mut self,
        route: &Route,
        body: &mut B,
    ) -> Result<Held, Refusal> {
        let limit = self.sidecar.fixed.hold;
        let oversize = match (route.max_request_bytes, route.on_oversize) {
            (Some(limit), OnOversize::Block) => Some(limit),
            _ => None,
        };
        // Room for what is said to come, in steps: a promise alone takes no more than twice what was kept of it.
        if let Size::Exact(length) = body.size() {
            let all = usize::try_from(length).unwrap_or(usize::MAX);
            let all = all.min(limit.saturating_add(1));
            let mut step = limits::HELD_UNIT.min(all);
            loop {
                self.sidecar.make_room(&mut self.room, step).await?;
                body.gather(step, all).await.map_err(body_failed)?;
                if step == all {
                    break;
                }
                step = step.saturating_mul(2).min(all);
            }
        }
        let mut whole: Option<Bytes> = None;
        let mut held = BytesMut::new();
        let mut trailers = None;
        while let Some(frame) = body.frame().await.map_err(body_failed)? {
            match frame {
                Frame::Trailers(fields) => trailers = Some(fields),
                // A body that came in one piece is not copied.
                Frame::Data(data) if whole.is_none() && held.is_empty() => whole = Some(data),
                Frame::Data(data) => {
                    if let Some(first) = whole.take() {
                        held.extend_from_slice(&first);
                    }
                    held.extend_from_slice(&data);
                }
            }
            let length = held.len() + whole.as_ref().map_or(0, Bytes::len);
            self.sidecar.make_room(&mut self.room, length).await?;
            if let Some(limit) = oversize.filter(|limit| length as u64 > *limit) {
                return Err(Cause::Oversize { limit }.into());
            }
            if length > limit {
                return Ok(Held::TooLong {
                    begun: whole.unwrap_or_else(|| held.freeze()),
                });
            }
        }
        Ok(Held::Whole {
            body: whole.unwrap_or_else(|| held.freeze()),
            trailers,
        })
    }

    /// What of a whole body goes on: all of it, or what is left where something was redacted.
    pub(super) async fn judge_whole(
        &mut self,
        route: &Route,
        codings: &Codings,
        format: &Format,
        body: Bytes,
        redacted: &mut Vec<Finding>,
    ) -> Result<Bytes, Refusal> {
        if body.is_empty() || (route.detectors.none() && codings.is_plain()) {
            return Ok(body);
        }
        let scanner = self.ruling.scanners.of(route.detectors);
        if codings.is_plain() && scanner.knows(&body) {
            self.body_is_known = true;
            return Ok(body);
        }
        let judged = match route.max_request_bytes {
            // Only `noscan` lets a body come here that is longer than its limit.
            Some(limit) if codings.is_plain() => {
                body.slice(..body.len().min(usize::try_from(limit).unwrap_or(usize::MAX)))
            }
            _ => body.clone(),
        };
        let all = self.ruling.scanners.all();
        let mut found = if codings.is_plain() && judged.len() <= limits::ASIDE_BYTES {
            inspect::body(scanner, all, format, &judged)
        } else {
            let (own, of, body) = (scanner.clone(), format.clone(), judged.clone());
            let all = all.clone();
            self.decoding(codings, &judged, move |layers| {
                let mut scan = BodyScan::new(&own, &all, &of, &body, layers);
                move || scan.step()
            })
            .await?
        };
        if let Some(place) = &self.place {
            found.move_to(place);
        }
        let blocked = |cause| Refusal {
            cause,
            findings: found.raw.iter().chain(&found.decoded).cloned().collect(),
        };
        let every = || found.raw.iter().chain(&found.decoded);
        if every().any(|finding| finding.structural) {
            return Err(blocked(Cause::Structural));
        }
        // A message has no place to wait in: its connection goes on.
        let may_wait = self.place.is_none() && every().any(inspect::blocks);
        if let Some(desk) = self.desk(route).filter(|_| may_wait) {
            self.ask_about_body(&desk, route, codings, &judged, &found)
                .await?;
            self.entry.warn(&found.raw);
            return Ok(body);
        }
        if found.decoded.iter().any(inspect::blocks) {
            return Err(blocked(
                outright(route.on_match).unwrap_or(Cause::Unredactable),
            ));
        }
        self.entry.warn(&found.raw);
        self.entry.warn(&found.decoded);
        if !found.raw.iter().any(inspect::blocks) {
            return Ok(body);
        }
        if let Some(cause) = outright(route.on_match) {
            return Err(blocked(cause));
        }
        if !codings.is_plain() {
            return Err(blocked(Cause::Unredactable));
        }
        let blocking: Vec<Finding> = found
            .raw
            .iter()
            .filter(|finding| inspect::blocks(finding))
            .cloned()
            .collect();
        let clean = {
            let (scanner, format) = (scanner.clone(), format.clone());
            let (body, judged, found) = (body.clone(), judged.len(), blocking.clone());
            self.aside_once(body.len(), move || {
                inspect::redact_body(&scanner, &format, &body, judged, &found)
            })
            .await?
        };
        let clean = clean.ok_or_else(|| blocked(Cause::Unredactable))?;
        redacted.extend(blocking);
        Ok(clean.into())
    }
}
