//! The connections of one tunnel to its origin.
//!
//! A pool belongs to one tunnel: nothing of one agent's connection is ever used by another. An HTTP/1.1 connection
//! goes back only after a request and a response that both ended properly.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::address;
use super::dial::{self, Dialer};
use super::lane::{H1, Lane};
use crate::host::{Authority, Host, Scheme};
use crate::limits;
use crate::net::Origin;
use crate::tls;
use crate::verdict::Cause;

/// The route by which a request was let through, in the policy of that moment. A connection that carried one route's
/// credential is never used for another's: some origins remember on a connection who spoke on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteKey {
    pub policy: Arc<str>,
    pub index: usize,
}

static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// HTTP/2 connections of one tunnel, one for each route that its requests went by.
const H2_ROUTES: usize = 4;

/// How a tunnel reaches its origin.
#[derive(Debug)]
pub struct Pool {
    /// No other pool's: what is done for the tunnel takes turns with what is done for others.
    pub number: u64,
    dialer: Arc<Dialer>,
    tls: tls::Upstream,
    pub scheme: Scheme,
    pub authority: Authority,
    /// The authority as `Host` has it.
    host_header: Box<str>,
    allow_private: bool,
    idle: Mutex<Vec<H1>>,
    /// `None` where nothing was sent on it yet.
    h2: AsyncMutex<Vec<(Option<RouteKey>, SendRequest<Bytes>)>>,
    drivers: Mutex<Vec<JoinHandle<()>>>,
    speaks_h2: bool,
    /// An address that was dialled and is not public.
    private: OnceLock<IpAddr>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        for driver in self
            .drivers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            driver.abort();
        }
    }
}

impl Pool {
    /// Dials and verifies before the agent is told anything, so that no leaf is made for an origin that fails.
    pub async fn open(
        dialer: Arc<Dialer>,
        tls: tls::Upstream,
        scheme: Scheme,
        authority: Authority,
        allow_private: bool,
        offer_h2: bool,
    ) -> Result<Self, Cause> {
        let mut pool = Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            dialer,
            tls,
            scheme,
            host_header: authority.to_header(scheme).into(),
            authority,
            allow_private,
            idle: Mutex::default(),
            h2: AsyncMutex::default(),
            drivers: Mutex::default(),
            speaks_h2: false,
            private: OnceLock::new(),
        };
        let (stream, h2) = match pool.dial(offer_h2).await {
            // It speaks HTTP/2 only; an agent that does not is translated for.
            Err(Cause::UpstreamTls(tls::NO_ALPN, _)) if !offer_h2 => pool.dial(true).await?,
            other => other?,
        };
        if h2 {
            let sender = pool.handshake(stream).await?;
            pool.h2 = AsyncMutex::new(vec![(None, sender)]);
            pool.speaks_h2 = true;
        } else {
            pool.park(H1::new(stream));
        }
        Ok(pool)
    }

    /// Before anything was sent: another connection, in HTTP/2, in place of the first, where the origin can do that.
    pub async fn try_h2(&mut self) {
        if let Ok((stream, true)) = self.dial(true).await
            && let Ok(sender) = self.handshake(stream).await
        {
            self.idle = Mutex::default();
            self.h2 = AsyncMutex::new(vec![(None, sender)]);
            self.speaks_h2 = true;
        }
    }

    /// `Host` as most clients write it: the host that was asked for, with or without its port. What is written in
    /// another way may still be the same.
    pub fn is_named_by(&self, host: &[u8]) -> bool {
        host == self.host_header.as_bytes()
            || matches!(&self.authority.host, Host::Name(name) if name.as_str().as_bytes() == host)
    }

    pub fn host_header(&self) -> &str {
        &self.host_header
    }

    pub fn speaks_h2(&self) -> bool {
        self.speaks_h2
    }

    pub fn private_address(&self) -> Option<IpAddr> {
        self.private.get().copied()
    }

    /// A connection that can take a request of that route now.
    pub async fn lane(&self, route: &RouteKey) -> Result<Lane, Cause> {
        if self.speaks_h2 {
            return self.h2_lane(route).await.map(Lane::H2);
        }
        while let Some(mut connection) = self.idle_for(route) {
            if connection.is_quiet() {
                connection.reused = true;
                connection.route = Some(route.clone());
                return Ok(Lane::H1(Box::new(connection)));
            }
        }
        self.fresh_h1(route).await
    }

    fn idle_for(&self, route: &RouteKey) -> Option<H1> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle
            .iter()
            .rposition(|own| own.route.as_ref().is_none_or(|own| own == route))?;
        Some(idle.remove(at))
    }

    /// A connection that nothing was sent on yet.
    pub async fn fresh_h1(&self, route: &RouteKey) -> Result<Lane, Cause> {
        let (stream, _) = Box::pin(self.dial(false)).await?;
        let mut connection = H1::new(stream);
        connection.route = Some(route.clone());
        Ok(Lane::H1(Box::new(connection)))
    }

    pub fn park(&self, connection: H1) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= 8 {
            idle.remove(0);
        }
        idle.push(connection);
    }

    async fn h2_lane(&self, route: &RouteKey) -> Result<SendRequest<Bytes>, Cause> {
        let mut open = self.h2.lock().await;
        let at = open
            .iter()
            .position(|(own, _)| own.as_ref().is_none_or(|own| own == route));
        if let Some((own, sender)) = at.and_then(|at| open.get_mut(at)) {
            *own = Some(route.clone());
            let sender = sender.clone();
            if let Ok(Ok(sender)) = timeout(limits::WRITE, sender.ready()).await {
                return Ok(sender);
            }
        }
        if let Some(dead) = at {
            open.remove(dead);
        }
        let (stream, h2) = Box::pin(self.dial(true)).await?;
        if !h2 {
            return Err(Cause::UpstreamProtocol(
                "it spoke HTTP/2 before and does not any more".into(),
            ));
        }
        let sender = Box::pin(self.handshake(stream)).await?;
        if open.len() >= H2_ROUTES {
            open.remove(0);
        }
        open.push((Some(route.clone()), sender.clone()));
        sender
            .ready()
            .await
            .map_err(|error| Cause::UpstreamProtocol(error.to_string()))
    }

    async fn dial(&self, offer_h2: bool) -> Result<(Origin, bool), Cause> {
        let dialled = self.dialer.tcp(&self.authority, self.allow_private).await?;
        let stream = dialled.stream;
        if let Some(address) = dialled.address.filter(|ip| !address::is_public(*ip)) {
            self.private.get_or_init(|| address);
        }
        match self.scheme {
            Scheme::Http => Ok((Origin::Plain(stream), false)),
            Scheme::Https => {
                let config = if offer_h2 {
                    &self.tls.both
                } else {
                    &self.tls.http1
                };
                let (stream, h2) = dial::tls(config, &self.authority, stream).await?;
                Ok((Origin::Tls(Box::new(stream)), h2))
            }
        }
    }

    async fn handshake(&self, stream: Origin) -> Result<SendRequest<Bytes>, Cause> {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(limits::H2_STREAM_WINDOW)
            .initial_connection_window_size(limits::H2_CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(limits::HEAD_BYTES).unwrap_or(u32::MAX))
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(|error| Cause::UpstreamProtocol(error.to_string()))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an origin's connection ended");
            }
        });
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|driver| !driver.is_finished());
        drivers.push(driver);
        drop(drivers);
        Ok(sender)
    }
}
