//! Sends a request that was judged to its origin, once more where that is safe, and gives the connection back.

use std::sync::Arc;

use bytes::Bytes;

use super::relay::Relayed;
use super::{After, Exchange, Reply};
use crate::message::{Headers, RequestHead};
use crate::policy::Route;
use crate::upstream::lane::{Lane, SendFailure};
use crate::upstream::pool::RouteKey;
use crate::verdict::{Cause, Refusal};

impl Exchange<'_> {
    /// Sends what was judged and relays the answer.
    pub(super) async fn forward_whole<R: Reply>(
        &mut self,
        route: &Route,
        head: &RequestHead,
        body: Bytes,
        trailers: Option<&Headers>,
        reply: &mut R,
    ) -> Result<After, Refusal> {
        let mut lane = self.lane(route).await?;
        let mut retried = false;
        loop {
            let may_retry = !retried
                && match &lane {
                    Lane::H1(connection) => connection.reused && head.method.is_idempotent(),
                    // There a dead request is one that the origin says it never looked at.
                    Lane::H2(_) => true,
                };
            let sent = match lane.send_whole(self.pool, head, &body, trailers).await {
                Ok(pending) => tokio::select! {
                    biased;
                    answer = pending.response() => answer,
                    // The origin is told, and need not go on with what nobody reads.
                    () = reply.gone() => return Ok(After::Broken),
                },
                Err(failure) => Err(failure),
            };
            match sent {
                Ok(response) => {
                    // It is not sent again; an answer may flow for minutes.
                    drop(body);
                    self.room = None;
                    let after = self.relay(route, response, reply).await;
                    return Ok(self.finish(lane, after));
                }
                // An idle connection that the origin closed under us; the request is repeated where that is safe.
                Err(SendFailure::Dead(_)) if may_retry => {
                    retried = true;
                    lane = self.fresh_lane(route, &lane).await?;
                }
                Err(failure) => return Err(cause(failure).into()),
            }
        }
    }

    pub(super) async fn lane(&self, route: &Route) -> Result<Lane, Refusal> {
        let lane = self.pool.lane(&self.route_key(route)).await?;
        self.check_address(route)?;
        Ok(lane)
    }

    pub(super) fn route_key(&self, route: &Route) -> RouteKey {
        RouteKey {
            policy: Arc::clone(self.ruling.policy.hash()),
            index: route.index,
        }
    }

    pub(super) async fn fresh_lane(&self, route: &Route, dead: &Lane) -> Result<Lane, Refusal> {
        let key = self.route_key(route);
        let lane = match dead {
            Lane::H1(_) => self.pool.fresh_h1(&key).await?,
            Lane::H2(_) => self.pool.lane(&key).await?,
        };
        self.check_address(route)?;
        Ok(lane)
    }

    /// The tunnel was opened for a host, this request is judged by a route, and the policy may be another one by now.
    pub(super) fn check_address(&self, route: &Route) -> Result<(), Cause> {
        match self.pool.private_address() {
            Some(address) if !route.allow_private => {
                Err(Cause::PrivateAddress(address.to_string()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn finish(&self, lane: Lane, relayed: Relayed) -> After {
        match relayed {
            Relayed::Whole { keep_alive } => {
                if let (Lane::H1(connection), true) = (lane, keep_alive) {
                    self.pool.park(*connection);
                }
                if self.read {
                    After::Reusable
                } else {
                    After::Unread
                }
            }
            Relayed::Cut => After::Broken,
            Relayed::Refused(after) => after,
        }
    }
}

pub(super) fn cause(failure: SendFailure) -> Cause {
    match failure {
        SendFailure::Dead(why) => Cause::Connect(why),
        SendFailure::Failed(cause) => cause,
    }
}
