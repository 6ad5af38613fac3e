//! The state that all connections of a sidecar share, and the swap of its policy.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use detectors::Finding;
use quick_cache::sync::Cache;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, Broken, Record};
use crate::ca::{Authority as CertificateAuthority, CaError};
use crate::config::File;
use crate::crew::Crew;
use crate::host::Authority;
use crate::limits;
use crate::logs::Limiter;
use crate::metrics::Metrics;
use crate::patience::within;
use crate::pieces::Pieces;
use crate::record::Entry;
use crate::secrets::Secrets;
use crate::settings::{ConfigError, Fixed, Listen, Ruling};
use crate::supervise::Desk;
use crate::tls::{self, TlsError};
use crate::upstream::address::Resolver;
use crate::upstream::corporate::CorporateProxy;
use crate::upstream::dial::Dialer;
use crate::verdict::{Cause, Refusal};
use crate::volume::Volumes;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("ca: {0}")]
    Ca(#[from] CaError),
    #[error("upstream.ca_files: {0}")]
    Tls(#[from] TlsError),
    #[error("audit: {}: {source}", path.display())]
    Audit {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the system has no randomness")]
    Randomness,
    #[error("no thread for scans could be started: {0}")]
    Crew(std::io::Error),
}

#[derive(Debug)]
pub struct Sidecar {
    pub fixed: Fixed,
    ruling: ArcSwap<Ruling>,
    secrets: Secrets,
    pub audit: Audit,
    pub dialer: Arc<Dialer>,
    /// Where an operator can be asked: only with a control API.
    pub desk: Option<Arc<Desk>>,
    pub metrics: Metrics,
    pub volumes: Volumes,
    pub pieces: Pieces,
    pub log_limit: Limiter,
    pub upstream_tls: tls::Upstream,
    pub agent_tls: tls::Agent,
    /// Whether the agent that last spoke to an origin could do HTTP/2; what is offered to the origin follows it.
    pub agent_h2: Cache<Authority, bool>,
    /// Of the last agent of all, where an origin is new: one that cannot speak HTTP/2 will not by the next host.
    pub last_agent_h2: AtomicBool,
    /// In units of [`limits::HELD_UNIT`].
    held: Arc<Semaphore>,
    /// Bodies that may be decoded at once: each may take [`limits::DECODE_BYTES`] twice.
    pub decoding: Arc<Semaphore>,
    /// Does what takes long.
    pub crew: Crew,
    /// Told of every connection of an agent's that has ended.
    pub ended: Arc<Notify>,
    pub stopping: CancellationToken,
    pub tasks: TaskTracker,
}

impl Sidecar {
    /// `file` with an `egress` that does not compile starts too: it denies everything, and says so.
    pub fn new(file: &File, secrets: Secrets) -> Result<Arc<Self>, StartError> {
        let fixed = Fixed::parse(file, &secrets)?;
        let ruling = match Ruling::parse(&file.egress, &secrets) {
            Ok(ruling) => ruling,
            Err(error @ (ConfigError::Policy(_) | ConfigError::Log(_))) => {
                tracing::error!(%error, "the policy is bad: EVERYTHING IS DENIED until it is mended and reloaded (SIGHUP)");
                Ruling::deny_all(&secrets)?
            }
            Err(error) => return Err(error.into()),
        };
        let authority = Arc::new(CertificateAuthority::open(&file.ca, &fixed.bottle)?);
        let audit = Audit::open(&file.audit).map_err(|source| StartError::Audit {
            path: file.audit.clone(),
            source,
        })?;
        let upstream = &file.upstream;
        let resolver = Resolver::new(fixed.upstream_hosts.clone(), upstream.nameservers.clone());
        let proxy = upstream
            .proxy
            .as_ref()
            .map(|typed| CorporateProxy::parse(typed, &secrets))
            .transpose()
            .map_err(ConfigError::from)?;
        let dialer = Dialer::new(resolver, proxy);
        let desk = match &fixed.control {
            Some(_) => Some(Desk::new(fixed.patience).map_err(|_| StartError::Randomness)?),
            None => None,
        };
        if let Some(Listen::Tcp(address)) = fixed.control.as_ref().map(|control| &control.listen) {
            dialer.forbid(address.port());
        }
        let started = Record::of_sidecar(
            &fixed.bottle,
            "start",
            concat!("sidecar ", env!("CARGO_PKG_VERSION"), " started"),
            ruling.policy.hash(),
        );
        // The queue is empty.
        let _queued = audit.note(started);
        Ok(Arc::new(Self {
            dialer: Arc::new(dialer),
            desk,
            metrics: Metrics::default(),
            volumes: Volumes::default(),
            pieces: Pieces::new(&secrets),
            log_limit: Limiter::default(),
            upstream_tls: tls::Upstream::new(&file.upstream.ca_files)?,
            agent_tls: tls::Agent::new(authority)?,
            fixed,
            ruling: ArcSwap::new(ruling),
            secrets,
            audit,
            agent_h2: Cache::new(1024),
            last_agent_h2: AtomicBool::new(true),
            decoding: Arc::new(Semaphore::new(limits::DECODES)),
            crew: Crew::start().map_err(StartError::Crew)?,
            held: Arc::new(Semaphore::new(limits::HELD_BYTES / limits::HELD_UNIT)),
            ended: Arc::new(Notify::new()),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    pub fn ruling(&self) -> Arc<Ruling> {
        self.ruling.load_full()
    }

    /// Replaces policy, detectors and credentials as one; on any error everything stays as it is.
    pub fn reload(&self, file: &File) -> Result<(), ConfigError> {
        let ruling = Ruling::parse(&file.egress, &self.secrets)?;
        self.ruling.store(ruling);
        Ok(())
    }

    pub fn check_ready(&self) -> Result<(), Cause> {
        if self.audit.is_broken() {
            return Err(Cause::Audit);
        }
        if self.stopping.is_cancelled() {
            return Err(Cause::Stopping);
        }
        Ok(())
    }

    /// Makes room for a held body to grow to `length`; the room is given back with `room`.
    pub async fn make_room(
        &self,
        room: &mut Option<OwnedSemaphorePermit>,
        length: usize,
    ) -> Result<(), Cause> {
        let units = length.div_ceil(limits::HELD_UNIT);
        let more = units.saturating_sub(room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).map_err(|_| Cause::Overloaded)?;
        let permit = Arc::clone(&self.held).acquire_many_owned(more);
        let Ok(Ok(permit)) = within(limits::HELD_WAIT, permit).await else {
            return Err(Cause::Overloaded);
        };
        match room {
            Some(room) => room.merge(permit),
            None => *room = Some(permit),
        }
        Ok(())
    }

    /// It is given back with the work, which may go on for a while when nobody waits for it any more.
    pub async fn turn_to_decode(&self) -> Result<OwnedSemaphorePermit, Cause> {
        let turn = Arc::clone(&self.decoding).acquire_owned().await;
        turn.map_err(|_| Cause::Internal)
    }

    /// A refusal stands even where it cannot be recorded.
    pub async fn record_refusal(&self, entry: &Entry, refusal: &Refusal) {
        for record in entry.refusal(refusal) {
            self.log(entry.log, &record);
            if self.audit.record(record).await.is_err() {
                tracing::error!(event = &*entry.event, "a refusal could not be recorded");
                return;
            }
        }
    }

    /// Returns once it is written: what cannot be recorded does not happen.
    pub async fn record_let_through(
        &self,
        entry: &Entry,
        redacted: &[Finding],
    ) -> Result<(), Broken> {
        let records = entry.let_through(redacted);
        for record in &records {
            self.log(entry.log, record);
        }
        self.audit.write(records).await
    }

    /// As [`Sidecar::record_let_through`], for a message of what was let through already.
    pub async fn record_noted(
        &self,
        entry: &mut Entry,
        redacted: &[Finding],
    ) -> Result<(), Broken> {
        let records = entry.noted(redacted);
        if records.is_empty() {
            return Ok(());
        }
        for record in &records {
            self.log(entry.log, record);
        }
        self.audit.write(records).await
    }

    /// Records of what is not a request's own verdict.
    pub async fn write(&self, records: Vec<Record>) -> Result<(), Broken> {
        let level = self.ruling().log;
        for record in &records {
            self.log(level, record);
        }
        self.audit.write(records).await
    }

    /// `egress.log`: 0 nothing, 1 what was not simply allowed, 2 everything. Counted in any case.
    fn log(&self, level: u8, record: &Record) {
        self.metrics.count(record);
        let needed = if record.verdict == "allow" { 2 } else { 1 };
        if level < needed {
            return;
        }
        let Some(suppressed) = self.log_limit.admit() else {
            return;
        };
        if suppressed > 0 {
            tracing::warn!(
                suppressed,
                "lines of verdicts were left out; the audit has them"
            );
        }
        tracing::info!(
            event = &*record.event,
            verdict = record.verdict,
            code = record.code,
            reason = &*record.reason,
            host = &*record.host,
            method = &*record.method,
            path = &*record.path,
            "verdict"
        );
    }
}
