//! What the containers of a bottle have in common: how they are confined, started with a lifeline, and removed.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use super::engine::{Engine, EngineError, Kind};
use super::hijack::{self, Reader, Writer};
use crate::undo::UndoStack;

/// For the kernel and the engine to end a container's processes.
const GONE: Duration = Duration::from_secs(20);

/// Standard input of a container's first process, and its lifeline.
#[derive(Clone, Debug)]
pub struct Lifeline(Arc<Mutex<Option<Writer>>>);

impl Lifeline {
    pub async fn send(&self, frame: Vec<u8>) -> io::Result<()> {
        let mut writer = self.0.lock().await;
        let writer = writer
            .as_mut()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        writer.write_all(&frame).await?;
        writer.flush().await
    }
}

/// Nothing that a container has by itself and that an agent could use.
pub fn confined(memory: i64, pids: i64) -> HostConfig {
    HostConfig {
        // Goes when its first process ends, however that happens.
        auto_remove: Some(true),
        readonly_rootfs: Some(true),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        memory: Some(memory),
        // As much as memory: no swap on top.
        memory_swap: Some(memory),
        pids_limit: Some(pids),
        ipc_mode: Some("private".into()),
        // Output goes to the launcher; a copy on the engine's disk would grow without bound.
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".into()),
            config: None,
        }),
        // Not 0: a handler that the host's core_pattern names runs on the host for every limit but 1 (core(5)).
        ulimits: Some(vec![ResourcesUlimits {
            name: Some("core".into()),
            soft: Some(1),
            hard: Some(1),
        }]),
        ..HostConfig::default()
    }
}

/// A directory or file of the host's. What is mounted below it on the host is not shown where it must not be written:
/// "read-only" does not reach that far in older engines.
pub fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            non_recursive: Some(read_only),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

/// Creates a container whose removal is registered first.
pub async fn create(
    engine: &Engine,
    name: &str,
    body: ContainerCreateBody,
    undo: &mut UndoStack,
) -> Result<(), EngineError> {
    undo.push(format!("container {name}"), {
        let (engine, name) = (engine.clone(), name.to_owned());
        move || {
            engine
                .clone()
                .blocking(remove(engine, name))?
                .map_err(Into::into)
        }
    });
    create_untracked(engine, name, body).await
}

pub async fn create_untracked(
    engine: &Engine,
    name: &str,
    body: ContainerCreateBody,
) -> Result<(), EngineError> {
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    engine
        .change(
            format!("create the container {name}"),
            |docker| async move { docker.create_container(Some(options), body).await },
        )
        .await?;
    Ok(())
}

/// Attaches to a created container, starts it, and tells its first process what it needs to know.
pub async fn start(
    engine: &Engine,
    name: &str,
    briefing: Vec<u8>,
) -> Result<(Lifeline, Reader), EngineError> {
    let failed = |error: io::Error| EngineError {
        what: format!("start the container {name}"),
        why: error.to_string(),
        kind: Kind::Other,
    };
    let path = format!("/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1");
    let caller = engine.clone();
    let attached = engine.spawn(async move { hijack::open(&caller, &path, Bytes::new()).await });
    let (reader, writer) = attached
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(failed)?;
    let container = name.to_owned();
    engine
        .change(format!("start the container {name}"), |docker| async move {
            docker.start_container(&container, None).await
        })
        .await?;
    let lifeline = Lifeline(Arc::new(Mutex::new(Some(writer))));
    let sender = lifeline.clone();
    engine
        .spawn(async move { sender.send(briefing).await })
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(failed)?;
    Ok((lifeline, reader))
}

/// Ends it in order, then for certain, and waits until it is no more. `NotFound` where it was not there.
pub async fn remove(engine: Engine, name: String) -> Result<(), EngineError> {
    let options = StopContainerOptionsBuilder::default().t(10).build();
    let stopped = name.clone();
    let stop = engine
        .change_within(
            engine.patience() + Duration::from_secs(10),
            format!("stop the container {name}"),
            |docker| async move { docker.stop_container(&stopped, Some(options)).await },
        )
        .await;
    match stop {
        Err(error) if error.kind == Kind::NotFound => return Err(error),
        // Not started yet, or something that the removal does not mind.
        _ => {}
    }
    remove_now(engine, name).await
}

/// Kills it and waits until it is no more.
pub async fn remove_now(engine: Engine, name: String) -> Result<(), EngineError> {
    let until = tokio::time::Instant::now() + GONE;
    loop {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        let gone = name.clone();
        let removed = engine
            .change(
                format!("remove the container {name}"),
                |docker| async move { docker.remove_container(&gone, Some(options)).await },
            )
            .await;
        match removed {
            // Once more: it is gone when the engine does not know it any more.
            Ok(()) => {}
            Err(error) if error.kind == Kind::NotFound => return Ok(()),
            Err(error) if error.kind == Kind::Conflict && tokio::time::Instant::now() < until => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// A memory file system that its user can write to.
pub fn tmpfs(size: &str, mode: u32, uid: u32, gid: u32) -> String {
    format!("rw,exec,nosuid,nodev,size={size},mode={mode:o},uid={uid},gid={gid}")
}

pub fn owned(pairs: &[(&str, String)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}
