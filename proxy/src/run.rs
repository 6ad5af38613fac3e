//! A sidecar's life: start, ready, reload, stop.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::audit::Record;
use crate::config::File;
use crate::confine;
use crate::control::{self, Control};
use crate::descriptors;
use crate::interceptor;
use crate::limits;
use crate::memory;
use crate::secrets::Secrets;
use crate::server::{self, Listener};
use crate::settings::{ConfigError, Listen};
use crate::sidecar::{Sidecar, StartError};

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        listen: String,
        source: std::io::Error,
    },
    #[error("the sidecar could not be confined: {0}")]
    Confine(#[from] confine::ConfineError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The one line on stdout, once every listener is open.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    ready: bool,
    listen: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interceptor: Option<String>,
    ca_certificate: &'a Path,
    policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<String>,
}

/// Reads the file; one whose `egress` section is not even of the right shape still starts, and denies everything.
pub fn read_at_boot(path: &Path) -> Result<File, ConfigError> {
    let error = match File::read(path) {
        Ok(file) => return Ok(file),
        Err(error @ ConfigError::Syntax { .. }) => error,
        Err(error) => return Err(error),
    };
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let rest = serde_saphyr::from_str::<HashMap<String, serde_json::Value>>(&text)
        .ok()
        .and_then(|mut document| {
            document.remove("egress")?;
            let rest = serde_json::to_string(&document).ok()?;
            serde_saphyr::from_str::<File>(&rest).ok()
        });
    let Some(rest) = rest else { return Err(error) };
    tracing::error!(%error, "the policy is bad: EVERYTHING IS DENIED until it is mended and reloaded (SIGHUP)");
    Ok(rest)
}

/// Confines the process and serves until it is told to stop. Call it before any thread was started.
pub fn run(path: &Path) -> Result<(), RunError> {
    let file = read_at_boot(path)?;
    if file.confine {
        confine::apply(path, &file)?;
    } else {
        tracing::warn!("the sidecar runs unconfined (confine: false)");
    }
    memory::bound();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Each thread that scanned has a scanner's buffers, until it ends.
        .thread_keep_alive(memory::PAUSE / 2)
        .build()?;
    let outcome = runtime.block_on(serve(path, &file));
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    outcome
}

async fn serve(path: &Path, file: &File) -> Result<(), RunError> {
    let secrets = Secrets::from_environment(std::env::vars());
    let sidecar = Sidecar::new(file, secrets)?;

    let mut listeners = Vec::new();
    for listen in &sidecar.fixed.listen {
        let listener = Listener::bind(listen)
            .await
            .map_err(|source| RunError::Listen {
                listen: format!("{listen:?}"),
                source,
            })?;
        listeners.push(listener);
    }
    let interceptor = match &sidecar.fixed.interceptor {
        None => None,
        Some(setting) => {
            let listener =
                Listener::bind(&Listen::Tcp(setting.listen))
                    .await
                    .map_err(|source| RunError::Listen {
                        listen: format!("interceptor {}", setting.listen),
                        source,
                    })?;
            Some(listener)
        }
    };
    let control = match &sidecar.fixed.control {
        None => None,
        Some(setting) => {
            let listener =
                Listener::bind(&setting.listen)
                    .await
                    .map_err(|source| RunError::Listen {
                        listen: format!("control {:?}", setting.listen),
                        source,
                    })?;
            if let Some(port) = listener.port() {
                sidecar.dialer.forbid(port);
            }
            let control =
                Control::new(Arc::clone(&sidecar), setting.token.clone(), path.to_owned());
            Some((control, listener))
        }
    };
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ready = Ready {
        ready: true,
        listen: listeners.iter().map(Listener::describe).collect(),
        interceptor: interceptor.as_ref().map(Listener::describe),
        ca_certificate: &file.ca.certificate,
        policy: sidecar.ruling().policy.hash().to_string(),
        control: control.as_ref().map(|(_, listener)| listener.describe()),
    };
    let room = Arc::new(Semaphore::new(descriptors::connections()));
    for listener in listeners {
        tokio::spawn(server::accept(
            Arc::clone(&sidecar),
            listener,
            Arc::clone(&room),
        ));
    }
    if let Some(listener) = interceptor {
        tokio::spawn(interceptor::accept(
            Arc::clone(&sidecar),
            listener,
            Arc::clone(&room),
        ));
    }
    if let Some((control, listener)) = control {
        tokio::spawn(control::accept(control, listener));
    }
    tokio::spawn(memory::give_back(Arc::clone(&sidecar.ended)));
    announce(&ready)?;

    loop {
        tokio::select! {
            // A policy that is bad has said so, and changes nothing.
            _ = hangup.recv() => drop(reload(&sidecar, path)),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    stop(&sidecar).await;
    Ok(())
}

fn announce(ready: &Ready<'_>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, ready)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Puts the file's policy in force, or leaves the last good one there.
pub(crate) fn reload(sidecar: &Sidecar, path: &Path) -> Result<(), ConfigError> {
    let outcome = File::read(path).and_then(|file| sidecar.reload(&file));
    let ruling = sidecar.ruling();
    let policy = ruling.policy.hash();
    match &outcome {
        Ok(()) => {
            sidecar.metrics.reloads.inc();
            if let Some(desk) = &sidecar.desk {
                desk.reloaded(policy);
            }
            tracing::warn!(policy = &**policy, "the policy was reloaded");
        }
        Err(error) => {
            tracing::error!(%error, "the new policy is bad; the last good one stays in force");
        }
    }
    let words = match &outcome {
        Ok(()) => "the policy was replaced".to_owned(),
        Err(_) => "a new policy was bad; the last good one stays in force".to_owned(),
    };
    let record = Record::of_sidecar(&sidecar.fixed.bottle, "reload", &words, policy);
    // A full queue: every request's record names its policy too.
    let _queued = sidecar.audit.note(record);
    outcome
}

/// No new requests; those in flight have [`limits::GRACE`].
async fn stop(sidecar: &Sidecar) {
    sidecar.stopping.cancel();
    sidecar.tasks.close();
    if timeout(limits::GRACE, sidecar.tasks.wait()).await.is_err() {
        tracing::warn!(
            connections = sidecar.tasks.len(),
            "connections were cut off at the end of the grace time"
        );
    }
    let ruling = sidecar.ruling();
    let stopped = Record::of_sidecar(
        &sidecar.fixed.bottle,
        "stop",
        "the sidecar was told to stop",
        ruling.policy.hash(),
    );
    // A log that is broken has said so.
    let _broken = sidecar.audit.write(vec![stopped]).await;
    sidecar.audit.flush().await;
}
