//! The control API: how the host's side sees what waits, and answers. On a listener of its own, for the operator alone.
//!
//! | request | |
//! |---|---|
//! | `GET /health` | `{"ok":true}`; the only one that needs no token |
//! | `GET /v1/status` | policy, audit, load |
//! | `GET /v1/pending`, `/v1/pending/ID` | what waits, and what was missed and can be approved for the next try |
//! | `POST /v1/pending/ID/approve` | `{"by", "reason"?, "for_seconds"? or "once"?}` |
//! | `POST /v1/pending/ID/reject` | `{"by", "reason"}` |
//! | `GET /v1/decisions`, `DELETE /v1/decisions/ID?by=NAME` | what holds; take one back |
//! | `GET /v1/events` | server-sent events: `waiting`, `missed`, `decided`, `revoked`, `reloaded` |
//! | `POST /v1/reload` | as SIGHUP |
//! | `GET /metrics` | Prometheus text |

mod routes;
pub mod setting;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::limits;
use crate::net::Socket;
use crate::secrets::Secret;
use crate::server::Listener;
use crate::sidecar::Sidecar;
use routes::{Body, Problem};

/// What every connection of the API works with.
#[derive(Debug)]
pub struct Control {
    sidecar: Arc<Sidecar>,
    token: Secret,
    /// Read again on a reload.
    config: PathBuf,
    followers: Arc<Semaphore>,
}

impl Control {
    pub fn new(sidecar: Arc<Sidecar>, token: Secret, config: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            sidecar,
            token,
            config,
            followers: Arc::new(Semaphore::new(limits::CONTROL_FOLLOWERS)),
        })
    }
}

/// Accepts until the sidecar stops.
pub async fn accept(control: Arc<Control>, listener: Listener) {
    let room = Arc::new(Semaphore::new(limits::CONTROL_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = control.sidecar.stopping.cancelled() => return,
        };
        match accepted {
            Ok(socket) => {
                let control = Arc::clone(&control);
                tokio::spawn(async move {
                    serve(control, socket).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the control API could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(control: Arc<Control>, socket: Socket) {
    let peer = match &socket {
        Socket::Unix(stream) => stream.peer_cred().ok().map(|peer| peer.uid()),
        Socket::Tcp(_) => None,
    };
    let stopping = control.sidecar.stopping.clone();
    let service = service_fn(move |request| answer(Arc::clone(&control), peer, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::CONTROL_REQUEST)
        .max_buf_size(limits::CONTROL_BODY)
        .max_headers(32)
        .serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the control API failed");
            }
        }
        () = stopping.cancelled() => {}
    }
}

async fn answer(
    control: Arc<Control>,
    peer: Option<u32>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let answered = timeout(
        limits::CONTROL_REQUEST,
        routes::route(&control, peer, request),
    )
    .await;
    Ok(match answered {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => problem.into_response(),
        Err(_) => Problem::TooSlow.into_response(),
    })
}
