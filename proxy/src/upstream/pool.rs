//! The connections of one tunnel to its origin.
//!
//! A pool belongs to one tunnel: nothing of one agent's connection is ever used by another. An HTTP/1.1 connection
//! goes back only after a request and a response that both ended properly.

use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::address::{self, Resolver};
use super::dial;
use super::lane::{H1, Lane};
use crate::host::{Authority, Scheme};
use crate::limits;
use crate::net::Origin;
use crate::tls;
use crate::verdict::Cause;

/// How a tunnel reaches its origin.
#[derive(Debug)]
pub struct Pool {
    resolver: Resolver,
    tls: tls::Upstream,
    pub scheme: Scheme,
    pub authority: Authority,
    allow_private: bool,
    idle: Mutex<Vec<H1>>,
    h2: AsyncMutex<Option<SendRequest<Bytes>>>,
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
        resolver: Resolver,
        tls: tls::Upstream,
        scheme: Scheme,
        authority: Authority,
        allow_private: bool,
        offer_h2: bool,
    ) -> Result<Self, Cause> {
        let mut pool = Self {
            resolver,
            tls,
            scheme,
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
            pool.h2 = AsyncMutex::new(Some(sender));
            pool.speaks_h2 = true;
        } else {
            pool.park(H1::new(stream));
        }
        Ok(pool)
    }

    pub fn speaks_h2(&self) -> bool {
        self.speaks_h2
    }

    pub fn private_address(&self) -> Option<IpAddr> {
        self.private.get().copied()
    }

    /// A connection that can take a request now.
    pub async fn lane(&self) -> Result<Lane, Cause> {
        if self.speaks_h2 {
            return self.h2_lane().await.map(Lane::H2);
        }
        loop {
            let Some(mut connection) = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
            else {
                break;
            };
            if connection.is_quiet() {
                connection.reused = true;
                return Ok(Lane::H1(Box::new(connection)));
            }
        }
        self.fresh_h1().await
    }

    /// A connection that nothing was sent on yet.
    pub async fn fresh_h1(&self) -> Result<Lane, Cause> {
        let (stream, _) = self.dial(false).await?;
        Ok(Lane::H1(Box::new(H1::new(stream))))
    }

    pub fn park(&self, connection: H1) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < 8 {
            idle.push(connection);
        }
    }

    async fn h2_lane(&self) -> Result<SendRequest<Bytes>, Cause> {
        let mut slot = self.h2.lock().await;
        if let Some(sender) = slot.clone()
            && let Ok(Ok(sender)) = timeout(limits::WRITE, sender.ready()).await
        {
            return Ok(sender);
        }
        let (stream, h2) = self.dial(true).await?;
        if !h2 {
            return Err(Cause::UpstreamProtocol(
                "it spoke HTTP/2 before and does not any more".into(),
            ));
        }
        let sender = self.handshake(stream).await?;
        *slot = Some(sender.clone());
        sender
            .ready()
            .await
            .map_err(|error| Cause::UpstreamProtocol(error.to_string()))
    }

    async fn dial(&self, offer_h2: bool) -> Result<(Origin, bool), Cause> {
        let stream = dial::tcp(&self.resolver, &self.authority, self.allow_private).await?;
        let address = stream
            .peer_addr()
            .map_err(|error| Cause::Connect(error.to_string()))?
            .ip();
        if !address::is_public(address) {
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
