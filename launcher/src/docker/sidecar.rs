//! The sidecar's container: on a network of its own, published on the bottle's alias and nowhere else.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use proxy::config;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::container::{self, Lifeline};
use super::engine::Engine;
use super::hijack::{self, Source};
use super::names::{Owner, Role};
use super::network::Network;
use crate::guest::{self, CERTIFICATE, CONFIGURATION, CONTROL, LOGS, RUN, SOCKET, SidecarBriefing};
use crate::operator;
use crate::parts::Kept;
use crate::sidecar::{READY, SidecarError, SidecarStart, check_ready};
use crate::state::{PROXY_PORT, bottle};
use crate::undo::UndoStack;
use crate::user::User;

/// Held bodies, decoded ones and connections have their own bounds inside (`proxy::limits`).
const MEMORY: i64 = 1024 * 1024 * 1024;
/// Threads: two a core, and those that wait for disks.
const PIDS: i64 = 1024;
const MAX_LINE: usize = 64 * 1024;
const ROOTS: &str = "host-roots.pem";

/// Where a port of the sidecar's is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// For the bottle.
    Alias,
}

/// Everything that is published. What only the operator may reach is for 127.0.0.1, never for an alias.
const PORTS: [(u16, On); 1] = [(PROXY_PORT, On::Alias)];

/// A sidecar in a container that is ready.
#[derive(Debug)]
pub struct Contained {
    pub name: String,
    /// Where its control API listens, as the host sees it.
    pub control: Option<String>,
    /// Its end ends the sidecar.
    _lifeline: Lifeline,
    ended: oneshot::Receiver<()>,
}

impl Contained {
    /// Returns when it has ended, whoever ended it.
    pub async fn ended(&mut self) {
        // An error is the end of the task that would have said it.
        let _ended = (&mut self.ended).await;
    }
}

/// What it is started with, beside what every sidecar is.
#[derive(Debug)]
pub struct Place<'a> {
    pub engine: &'a Engine,
    pub image: &'a str,
    pub kept: &'a Kept,
    pub network: &'a Network,
    pub owner: &'a Owner,
    pub user: User,
}

pub async fn start(
    place: &Place<'_>,
    start: &SidecarStart<'_>,
    undo: &mut UndoStack,
) -> Result<Contained, SidecarError> {
    let Place { engine, .. } = place;
    let directory = start.directory;
    let configuration = directory.path.join("config");
    configure(&configuration, start)?;
    let control = directory.control();
    for path in [&configuration, &directory.run, &directory.logs, &control] {
        place.user.give(path)?;
    }
    let name = Role::Sidecar.name(&start.plan.slug);
    let body = body(place, start, &configuration);
    container::create(engine, &name, body, undo).await?;
    let mut env = start.env.to_vec();
    // The host's own roots: a developer behind a corporate CA has it there, and nowhere else.
    if configuration.join(ROOTS).exists() {
        env.push(("SSL_CERT_FILE".into(), format!("{CONFIGURATION}/{ROOTS}")));
    }
    let briefing = guest::frame(&SidecarBriefing {
        command: place.kept.command(),
        env,
    })?;
    let (lifeline, mut output) = container::start(engine, &name, briefing).await?;

    let log_path = directory.logs.join("sidecar.log");
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log_path)?;
    let (first, first_line) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    // Goes on reading for the sidecar's life: nobody else empties its output.
    engine.spawn(async move {
        let (mut line, mut first) = (Vec::new(), Some(first));
        while let Ok(Some((source, piece))) = hijack::next(&mut output).await {
            if source == Source::Err {
                // A full disk must not end the bottle; the audit log has its own rule.
                let _full = log.write_all(&piece);
                continue;
            }
            if first.is_none() || line.len() > MAX_LINE {
                continue;
            }
            line.extend_from_slice(&piece);
            if line.contains(&b'\n')
                && let Some(first) = first.take()
            {
                let _unheard = first.send(String::from_utf8_lossy(&line).into_owned());
            }
        }
        drop(first);
        let _unheard = end.send(());
    });
    let line = timeout(READY, first_line)
        .await
        .map_err(|_| SidecarError::Late(log_path.clone()))?
        // It has ended without a word, which is no line.
        .unwrap_or_default();
    let listens = check_ready(&line, start.policy, &log_path)?;
    Ok(Contained {
        name,
        // What listens is the same socket, by its path in the container.
        control: listens.map(|_| operator::listen(&control)),
        _lifeline: lifeline,
        ended,
    })
}

fn body(place: &Place<'_>, start: &SidecarStart<'_>, configuration: &Path) -> ContainerCreateBody {
    let directory = start.directory;
    let mut bindings = HashMap::new();
    for (port, on) in PORTS {
        let address = match on {
            On::Alias => start.alias,
        };
        bindings.insert(
            format!("{port}/tcp"),
            Some(vec![PortBinding {
                host_ip: Some(address.to_string()),
                host_port: Some(port.to_string()),
            }]),
        );
    }
    let mut command = place.kept.command();
    command.push("__container-sidecar".into());
    ContainerCreateBody {
        image: Some(place.image.to_owned()),
        entrypoint: Some(command),
        cmd: Some(Vec::new()),
        user: Some(place.user.to_string()),
        hostname: Some("sidecar".into()),
        exposed_ports: Some(bindings.keys().cloned().collect()),
        labels: Some(Role::Sidecar.labels(&start.plan.slug, place.owner)),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        // Closed with the launcher's connection: the lifeline.
        stdin_once: Some(true),
        host_config: Some(HostConfig {
            network_mode: Some(place.network.name.clone()),
            port_bindings: Some(bindings),
            mounts: Some(vec![
                container::bind(configuration, CONFIGURATION, true),
                container::bind(&directory.run, RUN, false),
                container::bind(&directory.logs, LOGS, false),
                container::bind(&directory.control(), CONTROL, false),
            ]),
            ..container::confined(MEMORY, PIDS)
        }),
        ..ContainerCreateBody::default()
    }
}

/// Writes the sidecar's file, with paths and addresses as they are in its container. It names secrets and holds none.
fn configure(directory: &Path, start: &SidecarStart<'_>) -> Result<(), SidecarError> {
    fs::create_dir(directory)?;
    let mut file: config::File = start.file.clone();
    file.listen = vec![
        format!("unix:{SOCKET}"),
        format!("{}:{PROXY_PORT}", Ipv4Addr::UNSPECIFIED),
    ];
    // Where the host's path is too long for a socket there is no way to it from outside: nobody can be asked.
    file.control = file
        .control
        .filter(|control| control.listen.starts_with("unix:"))
        .map(|control| config::Control {
            listen: format!("unix:{CONTROL}/control.sock"),
            ..control
        });
    file.ca.certificate = CERTIFICATE.into();
    file.audit = Path::new(LOGS).join("audit.jsonl");
    for (at, path) in file.upstream.ca_files.iter_mut().enumerate() {
        let name = format!("ca-{at}.pem");
        fs::copy(&*path, directory.join(&name))?;
        *path = PathBuf::from(CONFIGURATION).join(name);
    }
    if let Some(bundle) = crate::local::host_bundle() {
        fs::copy(bundle, directory.join(ROOTS))?;
    }
    let text =
        serde_saphyr::to_string(&file).map_err(|error| SidecarError::Write(error.to_string()))?;
    bottle::write_private(&directory.join("sidecar.yaml"), text.as_bytes())?;
    Ok(())
}
