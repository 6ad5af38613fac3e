//! A request that asks for a WebSocket: its head is judged as any other's, and the agent gets its 101 after the origin
//! gave a valid one.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf};

use super::{After, Exchange, Gone, Reply, cause};
use crate::credential;
use crate::h1::agent::Writer;
use crate::h1::body::Reader;
use crate::h1::parse::{Framing, Request};
use crate::h2duplex::{Receiving, Sending};
use crate::message::{RequestHead, Size};
use crate::policy::Route;
use crate::sidecar::Sidecar;
use crate::upstream::lane::{H1, Lane, SendFailure};
use crate::upstream::pool::Pool;
use crate::verdict::{Cause, Refusal};
use crate::ws::deflate::Parameters;
use crate::ws::handshake::{Asked, Asking};
use crate::ws::session;

/// Runs the handshake, and where both sides agree, the WebSocket to its end.
pub async fn run<S: AsyncRead + AsyncWrite + Send + Unpin>(
    sidecar: &Arc<Sidecar>,
    pool: &Pool,
    host: &[u8],
    request: Request,
    target: Bytes,
    reader: &mut Reader<ReadHalf<S>>,
    writer: &mut Writer<S>,
) -> After {
    let ruling = sidecar.ruling();
    let framing = request.framing;
    let http10 = request.http10;
    let head = request.into_head(target);
    let mut exchange = Exchange::new(sidecar, &ruling, pool);
    exchange.switching = true;
    exchange.read = framing == Framing::Empty;
    exchange.entry.request(&ruling, host, &head);
    let body = if framing == Framing::Empty && !http10 {
        Ok(())
    } else {
        Err(
            Cause::Malformed("a WebSocket is asked for in HTTP/1.1 and without a body".into())
                .into(),
        )
    };
    let asked = body.and_then(|()| Asked::parse(&head).map_err(malformed));
    let outcome = match asked {
        Ok(asked) => exchange.switched(&asked, host, head, writer).await,
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Ok(Switched::No(after)) => after,
        Ok(Switched::Yes(open)) => {
            let ahead = reader.take_ahead();
            let agent = session::Side::new(reader.io_mut(), ahead, writer.io_mut());
            session::run(exchange, open, agent).await;
            // All that there was to say is said; HTTP is not spoken here any more.
            After::Broken
        }
        Err(refusal) => {
            let refusal = exchange.explained(refusal);
            exchange.refuse(&refusal, writer).await
        }
    }
}

/// The same for an extended CONNECT (RFC 8441). The origin is asked over HTTP/1.1.
pub async fn run_over_h2<P: H2Reply>(
    sidecar: &Arc<Sidecar>,
    pool: &Pool,
    host: &[u8],
    mut head: RequestHead,
    recv: h2::RecvStream,
    reply: &mut P,
) -> After {
    let ruling = sidecar.ruling();
    // What a WebSocket is to HTTP/1.1 and to every rule.
    head.method = http::Method::GET;
    let mut exchange = Exchange::new(sidecar, &ruling, pool);
    exchange.switching = true;
    exchange.entry.request(&ruling, host, &head);
    let outcome = match Asked::over_h2(&head).map_err(malformed) {
        Ok(asked) => exchange.switched(&asked, host, head, reply).await,
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Ok(Switched::No(after)) => after,
        Ok(Switched::Yes(open)) => {
            let Some(stream) = reply.take_stream() else {
                return After::Broken;
            };
            let (mut reader, mut writer) = (Receiving::new(recv), Sending::new(stream));
            let agent = session::Side::new(&mut reader, BytesMut::new(), &mut writer);
            session::run(exchange, open, agent).await;
            After::Unread
        }
        Err(refusal) => {
            let refusal = exchange.explained(refusal);
            exchange.refuse(&refusal, reply).await
        }
    }
}

/// A reply whose stream another protocol can take over, once its head was sent.
pub trait H2Reply: Reply {
    fn take_stream(&mut self) -> Option<h2::SendStream<Bytes>>;
}

enum Switched<'a> {
    Yes(session::Open<'a>),
    /// The origin answered as to any request.
    No(After),
}

impl<'a> Exchange<'a> {
    async fn switched<R: Reply>(
        &mut self,
        asked: &Asked,
        host: &[u8],
        head: RequestHead,
        reply: &mut R,
    ) -> Result<Switched<'a>, Refusal> {
        let (route, mut head, redacted) = self.judged_head(host, head)?;
        self.check_nothing_asked()?;
        self.charge(route, &head, 0)?;
        self.check_pieces(route, &head, &[])?;
        head.headers.strip_hop_by_hop();
        credential::replace(&mut head.headers, self.ruling.credentials.get(&route.index));
        self.ask_for_plain(route, &mut head);
        let asking = Asking::write(asked, &mut head).map_err(malformed)?;
        self.record_let_through(&redacted).await?;
        self.entry.recorded();

        let mut lane = self.http1(route).await?;
        let mut retried = false;
        loop {
            let may_retry = !retried && matches!(&lane, Lane::H1(connection) if connection.reused);
            let sent = match lane.send_whole(self.pool, &head, &Bytes::new(), None).await {
                Ok(pending) => pending.or_switched().response().await,
                Err(failure) => Err(failure),
            };
            let response = match sent {
                Ok(response) => response,
                Err(SendFailure::Dead(_)) if may_retry => {
                    retried = true;
                    lane = self.fresh_lane(route, &lane).await?;
                    continue;
                }
                Err(failure) => return Err(cause(failure).into()),
            };
            if response.head.status != http::StatusCode::SWITCHING_PROTOCOLS {
                // To an extended CONNECT it would mean yes.
                if asked.is_over_h2() && response.head.status.is_success() {
                    let why = "it answered as if no WebSocket had been asked for";
                    return Err(Cause::UpstreamProtocol(why.into()).into());
                }
                let relayed = self.relay(route, response, reply).await;
                return Ok(Switched::No(self.finish(lane, relayed)));
            }
            let answered = response.head;
            drop(response.body);
            let (deflate, mut told) = asking
                .answered(asked, answered)
                .map_err(|why| Cause::UpstreamProtocol(why.into()))?;
            let Lane::H1(connection) = lane else {
                return Err(Cause::Internal.into());
            };
            self.inbound(route).fields(&mut told.headers);
            let size = asked.is_over_h2().then_some(Size::Unknown);
            if reply.head(told, size).await == Err(Gone) {
                return Ok(Switched::No(After::Broken));
            }
            return Ok(Switched::Yes(open(route, deflate, *connection)));
        }
    }

    /// A WebSocket goes over HTTP/1.1, whatever else the origin speaks.
    async fn http1(&self, route: &Route) -> Result<Lane, Refusal> {
        if self.pool.speaks_h2() {
            let lane = self.pool.fresh_h1(&self.route_key(route)).await?;
            self.check_address(route)?;
            Ok(lane)
        } else {
            self.lane(route).await
        }
    }
}

fn open(route: &Route, deflate: Option<Parameters>, connection: H1) -> session::Open<'_> {
    session::Open {
        route,
        deflate,
        connection,
    }
}

fn malformed(why: &str) -> Refusal {
    Cause::Malformed(why.into()).into()
}
