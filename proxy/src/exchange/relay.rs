//! The response, judged and passed on as it comes.

use bytes::Bytes;

use super::inbound::{Held, Inbound};
use super::{After, Exchange, Gone, Reply};
use crate::message::Frame;
use crate::policy::Route;
use crate::upstream::response::Response;
use crate::verdict::Refusal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relayed {
    Whole {
        keep_alive: bool,
    },
    Cut,
    /// It was not passed on, and the agent was told why.
    Refused(After),
}

impl Exchange<'_> {
    /// Passes the response on piece by piece, and records what was found in it.
    pub(super) async fn relay<R: Reply>(
        &self,
        route: &Route,
        response: Response<'_>,
        reply: &mut R,
    ) -> Relayed {
        let mut inbound = self.inbound(route);
        let relayed = match relay(&mut inbound, response, reply).await {
            Ok(relayed) => relayed,
            Err(Stopped::Before(refusal)) => {
                self.sidecar.record_refusal(&self.entry, &refusal).await;
                let body = self.body_of(&refusal);
                Relayed::Refused(match reply.refuse(&refusal, body, self.read).await {
                    Err(Gone) => After::Broken,
                    Ok(()) if self.read => After::Reusable,
                    Ok(()) => After::Unread,
                })
            }
            Err(Stopped::Amidst(refusal)) => {
                self.sidecar.record_refusal(&self.entry, &refusal).await;
                match reply.cut_off(&refusal, &self.body_of(&refusal)).await {
                    Ok(()) => Relayed::Refused(After::Unread),
                    Err(Gone) => Relayed::Cut,
                }
            }
        };
        self.remark(&inbound).await;
        relayed
    }
}

enum Stopped {
    /// Nothing was said to the agent yet.
    Before(Refusal),
    Amidst(Refusal),
}

async fn relay<R: Reply>(
    inbound: &mut Inbound,
    mut response: Response<'_>,
    reply: &mut R,
) -> Result<Relayed, Stopped> {
    let held = tokio::select! {
        biased;
        held = inbound.begin(&mut response) => held.map_err(Stopped::Before)?,
        () = reply.gone() => return Ok(Relayed::Cut),
    };
    let mut head = response.head;
    // Of what was read to its end already the last part is judged before anything of it goes on.
    let (body, mut trailers) = match held {
        None => (None, None),
        Some(Held { body, trailers }) => {
            let fields = trailers.map(|fields| inbound.trailers(fields));
            (Some(body), fields.transpose().map_err(Stopped::Before)?)
        }
    };
    head.strip(response.size.is_some());
    if reply.head(head, response.size).await.is_err() {
        return Ok(Relayed::Cut);
    }
    if let Some(body) = body {
        if send(reply, body).await.is_err() {
            return Ok(Relayed::Cut);
        }
    } else if response.size.is_some() {
        loop {
            let frame = tokio::select! {
                biased;
                frame = response.body.frame() => frame,
                () = reply.gone() => return Ok(Relayed::Cut),
            };
            let sent = match frame {
                Ok(None) => break,
                Ok(Some(Frame::Data(data))) => {
                    let data = inbound.data(data).map_err(Stopped::Amidst)?;
                    send(reply, data).await
                }
                Ok(Some(Frame::Trailers(fields))) => {
                    trailers = Some(inbound.trailers(fields).map_err(Stopped::Amidst)?);
                    Ok(())
                }
                Err(error) => {
                    tracing::debug!(%error, "a response ended early");
                    Err(Gone)
                }
            };
            if sent.is_err() {
                return Ok(Relayed::Cut);
            }
        }
        let rest = inbound.finish().map_err(Stopped::Amidst)?;
        if send(reply, rest).await.is_err() {
            return Ok(Relayed::Cut);
        }
    }
    Ok(match reply.end(trailers).await {
        Ok(()) => Relayed::Whole {
            keep_alive: response.keep_alive && response.body.is_done(),
        },
        Err(Gone) => Relayed::Cut,
    })
}

async fn send<R: Reply>(reply: &mut R, data: Bytes) -> Result<(), Gone> {
    if data.is_empty() {
        return Ok(());
    }
    reply.data(data).await
}
