//! The launcher's half of the probe.

use std::io;
use std::time::Duration;

use super::agent::Contained;
use super::engine::Engine;
use crate::backend::canary::{Canaries, resolvers};
use crate::backend::{BackendError, Bottle, Proof};
use crate::guest::probe::{CHECKS, Network, Task};
use crate::parts::Kept;
use crate::state::PROXY_PORT;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a probe cannot be run for is a refusal, as is everything that it finds.
pub async fn run(
    engine: &Engine,
    agent: &Contained,
    kept: &Kept,
    bottle: &Bottle<'_>,
) -> Result<Proof, BackendError> {
    let refused =
        |error: io::Error| BackendError::NotLocked(format!("the probe could not run: {error}"));
    let canaries = Canaries::listen(bottle.alias).map_err(refused)?;
    let task = Task {
        alias: bottle.alias,
        port: PROXY_PORT,
        password: bottle.proxy_password.to_owned(),
        canaries: canaries.addresses(),
        resolvers: resolvers(),
        gvisor: bottle
            .plan
            .container
            .as_ref()
            .is_some_and(|container| container.runtime.is_some()),
        network: Network::None,
        hidden: bottle.hidden.clone(),
    };
    let mut command = kept.command();
    command.push("__container-probe".into());
    let said = agent
        .ask(
            engine,
            kept,
            &command,
            &serde_json::to_vec(&task).map_err(io::Error::from)?,
            PATIENCE,
        )
        .await
        .map_err(|error| BackendError::NotLocked(format!("the probe could not run: {error}")))?;
    let mut checks: Vec<_> = serde_json::from_slice(&said).map_err(|error| {
        BackendError::NotLocked(format!(
            "the probe could not run: its report cannot be read: {error}"
        ))
    })?;
    checks.extend(canaries.complaints().map_err(refused)?);
    Proof::new(checks, &CHECKS).map_err(BackendError::NotLocked)
}
