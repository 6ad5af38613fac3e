//! CONNECT: from the agent's question for a host to requests inside TLS. Never a raw tunnel.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use detectors::Location;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::h1::agent as h1agent;
use crate::h1::write;
use crate::h2agent;
use crate::host::{Authority, Host, Scheme};
use crate::inspect;
use crate::limits;
use crate::net::Prefixed;
use crate::record::Entry;
use crate::sidecar::Sidecar;
use crate::tls;
use crate::upstream::pool::Pool;
use crate::verdict::{Cause, Refusal};

/// Decides on a CONNECT and reaches its origin, before the agent is answered: what is answered with 200 has been
/// allowed, dialled and verified.
///
/// The `Host` beside it decides nothing and goes nowhere (RFC 9112 §3.2.2); Node writes the proxy's own there.
pub async fn open(
    sidecar: &Arc<Sidecar>,
    raw: &Bytes,
) -> Result<(Authority, Pool), (Option<Authority>, Refusal)> {
    let none = |cause: Cause| (None, cause.into());
    let text = std::str::from_utf8(raw)
        .map_err(|_| none(Cause::Malformed("the authority is not text".into())))?;
    if !text.rsplit(']').next().unwrap_or_default().contains(':') {
        return Err(none(Cause::Malformed("CONNECT without a port".into())));
    }
    let authority = Authority::parse(text, 443).map_err(|error| none(Cause::Host(error)))?;
    match admitted(sidecar, raw, &authority).await {
        Ok(pool) => Ok((authority, pool)),
        Err(refusal) => Err((Some(authority), refusal)),
    }
}

async fn admitted(
    sidecar: &Arc<Sidecar>,
    raw: &Bytes,
    authority: &Authority,
) -> Result<Pool, Refusal> {
    sidecar.check_ready()?;
    let ruling = sidecar.ruling();
    // Before any look-up: a secret in a label leaks by the question alone.
    let findings = inspect::caseless(ruling.scanners.all(), &Location::Host, raw);
    if !findings.is_empty() {
        return Err(Refusal {
            cause: Cause::Credential,
            findings,
        });
    }
    let route = ruling
        .policy
        .admits(Scheme::Https, authority)
        .map_err(|denial| Cause::from(&denial))?;
    let last = || sidecar.last_agent_h2.load(Ordering::Relaxed);
    let offer_h2 = sidecar.agent_h2.get(authority).unwrap_or_else(last);
    let pool = Pool::open(
        Arc::clone(&sidecar.dialer),
        sidecar.upstream_tls.clone(),
        Scheme::Https,
        authority.clone(),
        route.allow_private,
        offer_h2,
    )
    .await?;
    Ok(pool)
}

/// The inside of a tunnel whose CONNECT was answered with 200.
pub async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    sidecar: &Arc<Sidecar>,
    mut pool: Pool,
    stream: S,
    ahead: BytesMut,
) {
    // In a box, so that a tunnel that waits has no room for its own beginning.
    let Some(stream) = Box::pin(intercept(sidecar, &mut pool, stream, ahead)).await else {
        return;
    };
    if stream.get_ref().1.alpn_protocol() == Some(tls::H2) {
        Box::pin(h2agent::serve(sidecar, Arc::new(pool), stream)).await;
    } else {
        h1agent::serve(sidecar, &pool, stream).await;
    }
}

/// From the first byte in a tunnel to TLS with its agent. What is not TLS, or for another host, is refused, recorded,
/// and `None`.
async fn intercept<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    sidecar: &Arc<Sidecar>,
    pool: &mut Pool,
    stream: S,
    ahead: BytesMut,
) -> Option<TlsStream<Prefixed<S>>> {
    let deadline = Instant::now() + limits::HANDSHAKE;
    let mut stream = stream;
    let ahead = match sniff(&mut stream, ahead, deadline).await {
        Ok(Some(ahead)) => ahead,
        Ok(None) => return None,
        Err((cause, readable)) => {
            let refusal = Refusal::from(cause);
            let answer = record(sidecar, pool, &refusal).await;
            if readable {
                let out = write::own(
                    refusal.status(),
                    "Bad Request",
                    &h1agent::own_headers(&refusal),
                    &answer,
                    false,
                );
                let _gone = timeout(limits::WRITE, async {
                    stream.write_all(&out).await?;
                    stream.shutdown().await
                })
                .await;
                drain(&mut stream).await;
            }
            return None;
        }
    };
    let acceptor =
        LazyConfigAcceptor::new(Acceptor::default(), Prefixed::new(ahead.freeze(), stream));
    let start = match timeout_at(deadline, acceptor).await {
        Ok(Ok(start)) => start,
        Ok(Err(error)) => return refuse(sidecar, pool, Cause::Tls(error.to_string())).await,
        Err(_) => return refuse(sidecar, pool, Cause::AgentTimeout).await,
    };
    let hello = start.client_hello();
    if let Err(cause) = same_host(hello.server_name(), &pool.authority) {
        return refuse(sidecar, pool, cause).await;
    }
    let offers = |protocol: &[u8]| {
        hello
            .alpn()
            .is_some_and(|mut list| list.any(|own| own == protocol))
    };
    let (offers_h2, offers_h1) = (
        offers(tls::H2),
        offers(tls::HTTP1) || hello.alpn().is_none(),
    );
    sidecar.agent_h2.insert(pool.authority.clone(), offers_h2);
    sidecar.last_agent_h2.store(offers_h2, Ordering::Relaxed);
    // The origin was offered what the agent before could do; gRPC has no use for a translation.
    if offers_h2 && !offers_h1 && !pool.speaks_h2() {
        let _out_of_time = timeout_at(deadline, pool.try_h2()).await;
    }
    // As the origin speaks it; an agent that can do nothing else is translated for.
    let h2 = offers_h2 && (pool.speaks_h2() || !offers_h1);
    let config = match &pool.authority.host {
        Host::Name(_) => Ok(Arc::clone(if h2 {
            &sidecar.agent_tls.h2
        } else {
            &sidecar.agent_tls.http1
        })),
        host @ Host::Ip(_) => sidecar.agent_tls.for_address(host, h2),
    };
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "no leaf certificate");
            return refuse(sidecar, pool, Cause::Internal).await;
        }
    };
    match timeout_at(deadline, start.into_stream(config)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => refuse(sidecar, pool, Cause::Tls(error.to_string())).await,
        Err(_) => refuse(sidecar, pool, Cause::AgentTimeout).await,
    }
}

/// Reads until it is sure that TLS begins here. The bytes are kept; `None` when the agent closed without a word.
///
/// An error says whether the agent would understand an answer in plain text.
async fn sniff<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut ahead: BytesMut,
    deadline: Instant,
) -> Result<Option<BytesMut>, (Cause, bool)> {
    loop {
        // A TLS record: handshake (22), major version 3 (RFC 8446 §5.1).
        match (ahead.first(), ahead.get(1)) {
            (Some(0x16), Some(0x03)) => return Ok(Some(ahead)),
            (Some(0x16), None) | (None, _) => {}
            (Some(first), _) => {
                let http = first.is_ascii_uppercase();
                let what = if ahead.starts_with(b"SSH-") {
                    "SSH"
                } else if ahead.starts_with(b"PRI ") {
                    "HTTP/2 without TLS"
                } else if http {
                    "plain text, probably HTTP without TLS"
                } else {
                    "an unknown protocol"
                };
                return Err((Cause::UnknownProtocol(what), http));
            }
        }
        match timeout_at(deadline, stream.read_buf(&mut ahead)).await {
            Err(_) => return Err((Cause::AgentTimeout, false)),
            Ok(Err(_)) => return Ok(None),
            Ok(Ok(0)) if ahead.is_empty() => return Ok(None),
            Ok(Ok(0)) => {
                return Err((
                    Cause::UnknownProtocol("cut off before its protocol was clear"),
                    false,
                ));
            }
            Ok(Ok(_)) => {}
        }
    }
}

fn same_host(sni: Option<&str>, authority: &Authority) -> Result<(), Cause> {
    match (sni, &authority.host) {
        (None, Host::Ip(_)) => Ok(()),
        (None, Host::Name(_)) => Err(Cause::Identity("the ClientHello names no host".into())),
        (Some(name), host) => {
            let named: Host = name.parse().map_err(Cause::Host)?;
            if named == *host {
                Ok(())
            } else {
                Err(Cause::Identity(
                    "the ClientHello names another host than CONNECT".into(),
                ))
            }
        }
    }
}

async fn refuse<T>(sidecar: &Arc<Sidecar>, pool: &Pool, cause: Cause) -> Option<T> {
    record(sidecar, pool, &cause.into()).await;
    None
}

async fn record(sidecar: &Arc<Sidecar>, pool: &Pool, refusal: &Refusal) -> Vec<u8> {
    let mut entry = Entry::new(sidecar, &sidecar.ruling(), pool.scheme, &pool.authority);
    entry.method("CONNECT");
    sidecar.record_refusal(&entry, refusal).await;
    refusal.body(&entry.event, &entry.host, sidecar.fixed.explain.as_deref())
}

async fn drain<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut left = limits::DRAIN_BYTES;
    let mut sink = [0u8; 4096];
    let _ended = timeout(limits::DRAIN, async {
        while left > 0 {
            match stream.read(&mut sink).await {
                Ok(0) | Err(_) => break,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    })
    .await;
}
