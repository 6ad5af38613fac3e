//! The agent's container: no network, no resolver, no privilege, the workspace and its image.
//!
//! It has a loopback interface of its own. On it, at the bottle's alias, its first process relays to the sidecar's Unix
//! socket, which is the one thing of the sidecar's that is mounted. So nothing depends on an engine's firewall: Docker
//! 20.10 gives even an internal network a default route, and a host's bridge is an address of the host.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, Mount};
use bollard::query_parameters::ResizeExecOptionsBuilder;
use rustix::process::Signal;
use rustix::termios::Winsize;
use serde_json::json;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::build::Image;
use super::container::{self, Lifeline};
use super::engine::{Engine, EngineError};
use super::hijack::{self, Source, Writer};
use super::names::{Owner, Role};
use crate::backend::{BackendError, Bottle, Streams, Terminal};
use crate::environment::{self, AGENT_HOME, LOADER_VARIABLES};
use crate::exit::Exit;
use crate::guest::{self, InitBriefing, InitReport, Order, RUN};
use crate::parts::{DIRECTORY, Kept};
use crate::state::PROXY_PORT;
use crate::undo::UndoStack;
use crate::user::User;

const PIDS: i64 = 4096;
/// Of the host's memory; the host has to stay usable.
const MEMORY_SHARE: (i64, i64) = (3, 4);
const READY: Duration = Duration::from_secs(20);
/// Between two questions whether a program runs, where nothing else says so.
const POLL: Duration = Duration::from_millis(200);
/// Every byte is the agent's: an engine's own keys to get off a terminal begin with ^P, which shells use. This has to be
/// something, and is nothing that anybody types.
const NO_DETACH: &str = "ctrl-@,ctrl-^,ctrl-@,ctrl-^,ctrl-@,ctrl-^,ctrl-@";
const MAX_REPORT: usize = 1024 * 1024;
/// For the last of a program's output to come from the engine.
const LAST: Duration = Duration::from_millis(500);
/// The container, running its first process.
#[derive(Debug)]
pub struct Contained {
    pub name: String,
    lifeline: Lifeline,
    user: User,
    workspace: String,
    env: Vec<String>,
    program: Option<Exec>,
}

/// A program that the engine started in there.
#[derive(Clone, Debug)]
struct Exec {
    id: String,
    output: watch::Receiver<Flow>,
}

/// What a program's output is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// We wait for the engine.
    Reading,
    /// We wait for whoever reads it here.
    Writing,
    Closed,
}

/// What the container is made of.
#[derive(Debug)]
pub struct Place<'a> {
    pub engine: &'a Engine,
    pub image: &'a Image,
    pub kept: &'a Kept,
    pub owner: &'a Owner,
    pub user: User,
    pub runtime: Option<&'a str>,
    /// Of the engine's host, in bytes.
    pub memory: i64,
    /// Files over the image's own.
    pub files: Vec<Mount>,
}

pub async fn start(
    place: Place<'_>,
    bottle: &Bottle<'_>,
    undo: &mut UndoStack,
) -> Result<Contained, BackendError> {
    let engine = place.engine;
    let name = Role::Agent.name(&bottle.plan.slug);
    let body = body(&place, bottle);
    container::create(engine, &name, body, undo).await?;
    let briefing = guest::frame(&InitBriefing {
        alias: bottle.alias,
        port: PROXY_PORT,
    })?;
    let (lifeline, mut output) = container::start(engine, &name, briefing).await?;
    let report = engine.spawn(async move {
        let mut said = Vec::new();
        while let Some((source, piece)) = hijack::next(&mut output).await? {
            if source == Source::Err || said.len() > MAX_REPORT {
                continue;
            }
            said.extend_from_slice(&piece);
            if said.contains(&b'\n') {
                break;
            }
        }
        // The stream stays open with the lifeline; nothing more is said on it.
        io::Result::Ok((said, output))
    });
    let (said, output) = timeout(READY, report)
        .await
        .map_err(|_| BackendError::Isolate("the container's first process says nothing".into()))?
        .map_err(io::Error::other)??;
    engine.spawn(async move {
        let mut output = output;
        while let Ok(Some(_)) = hijack::next(&mut output).await {}
    });
    match serde_json::from_slice::<InitReport>(&said) {
        Ok(InitReport { ready: true, .. }) => {}
        Ok(InitReport { error, .. }) => {
            return Err(BackendError::Isolate(format!(
                "the container's first process: {}",
                error.unwrap_or_default()
            )));
        }
        Err(_) => {
            return Err(BackendError::Isolate(format!(
                "the container's first process did not start: {}",
                crate::escape::Escaped(&String::from_utf8_lossy(&said))
            )));
        }
    }
    Ok(Contained {
        name,
        lifeline,
        user: place.user,
        workspace: bottle.plan.workspace.path().display().to_string(),
        env: place.image.env.clone(),
        program: None,
    })
}

fn body(place: &Place<'_>, bottle: &Bottle<'_>) -> ContainerCreateBody {
    let plan = bottle.plan;
    let mut command = place.kept.command();
    command.push("__container-init".into());
    let workspace = plan.workspace.path();
    let mut mounts = place.files.clone();
    mounts.push(container::bind(&place.kept.directory, DIRECTORY, true));
    mounts.push(container::bind(&bottle.directory.run, RUN, true));
    mounts.push(Mount {
        // Submounts of the workspace are part of it.
        bind_options: None,
        ..container::bind(workspace, &workspace.to_string_lossy(), false)
    });
    for mount in &plan.mounts {
        mounts.push(container::bind(
            mount.path(),
            &mount.path().to_string_lossy(),
            true,
        ));
    }
    let User { uid, gid } = place.user;
    let scratch = |size, mode| container::tmpfs(size, mode, uid, gid);
    let tmpfs = container::owned(&[
        (AGENT_HOME, scratch("4g", 0o700)),
        ("/tmp", scratch("2g", 0o1777)),
        ("/var/tmp", scratch("1g", 0o1777)),
        ("/run/user", scratch("64m", 0o700)),
    ]);
    let (share, of) = MEMORY_SHARE;
    ContainerCreateBody {
        image: Some(place.image.id.clone()),
        entrypoint: Some(command),
        cmd: Some(Vec::new()),
        user: Some(place.user.to_string()),
        hostname: Some(plan.slug.to_string()),
        working_dir: Some("/".into()),
        // A name without a value takes the image's away.
        env: Some(LOADER_VARIABLES.map(String::from).to_vec()),
        labels: Some(Role::Agent.labels(&plan.slug, place.owner)),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(true),
        // What an image wants looked at runs programs beside the agent's.
        healthcheck: Some(bollard::models::HealthConfig {
            test: Some(vec!["NONE".into()]),
            ..Default::default()
        }),
        host_config: Some(HostConfig {
            network_mode: Some("none".into()),
            mounts: Some(mounts),
            tmpfs: Some(tmpfs),
            runtime: place.runtime.map(str::to_owned),
            shm_size: Some(256 << 20),
            ..container::confined(place.memory / of * share, PIDS)
        }),
        ..ContainerCreateBody::default()
    }
}

impl Contained {
    /// Runs one of our own helpers under the agent's confinement; its output.
    pub async fn ask(
        &self,
        engine: &Engine,
        kept: &Kept,
        command: &[String],
        input: &[u8],
        patience: Duration,
    ) -> io::Result<Vec<u8>> {
        // The image's environment is not the helper's.
        let env = self.cleared();
        let exec = self.create(engine, kept, command, env, false).await?;
        let (mut reader, mut writer) = open(engine, &exec, false).await?;
        let input = input.to_vec();
        let conversation = engine.spawn(async move {
            writer.write_all(&input).await?;
            writer.shutdown().await?;
            let mut said = Vec::new();
            while let Some((source, piece)) = hijack::next(&mut reader).await? {
                if source == Source::Out && said.len() < MAX_REPORT {
                    said.extend_from_slice(&piece);
                }
            }
            io::Result::Ok(said)
        });
        let said = timeout(patience, conversation)
            .await
            .map_err(|_| {
                io::Error::other(format!("it was not done after {} s", patience.as_secs()))
            })?
            .map_err(io::Error::other)??;
        let ended = timeout(patience, ended(engine, &exec, None))
            .await
            .map_err(|_| io::Error::other("its end is not known"))??;
        if ended != Exit::Ok {
            return Err(io::Error::other(format!("it ended with {}", ended.code())));
        }
        Ok(said)
    }

    /// Starts the agent and joins its streams to ours.
    pub async fn attach(
        &mut self,
        engine: &Engine,
        kept: &Kept,
        command: &[String],
        env: &[(String, String)],
        streams: Streams,
    ) -> Result<Option<Terminal>, BackendError> {
        let start = |error: io::Error| BackendError::Start(error.to_string());
        let terminal = matches!(streams, Streams::Terminal);
        let env = environment::over_image(&self.env, env)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let exec = self.create(engine, kept, command, env, terminal).await?;
        let (reader, writer) = open(engine, &exec, terminal).await.map_err(start)?;
        let (flow, output) = watch::channel(Flow::Reading);
        self.program = Some(Exec {
            id: exec.clone(),
            output,
        });
        match streams {
            Streams::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                engine.spawn(feed(stdin, writer));
                engine.spawn(async move {
                    let mut reader = reader;
                    let (mut out, mut err) = (file(stdout), file(stderr));
                    while let Ok(Some((source, piece))) = hijack::next(&mut reader).await {
                        let to = match source {
                            Source::Out => &mut out,
                            Source::Err => &mut err,
                        };
                        flow.send_replace(Flow::Writing);
                        // Where nobody reads any more the rest is thrown away.
                        let _closed = to.write_all(&piece).await;
                        let _closed = to.flush().await;
                        flow.send_replace(Flow::Reading);
                    }
                    // Closed first: whoever hears of the end may read to the end.
                    drop((out, err));
                    flow.send_replace(Flow::Closed);
                });
                Ok(None)
            }
            Streams::Terminal => {
                let (from_keyboard, keyboard) = io::pipe()?;
                let (screen, to_screen) = io::pipe()?;
                engine.spawn(feed(from_keyboard.into(), writer));
                engine.spawn(async move {
                    let (mut reader, mut screen) = (reader, file(to_screen.into()));
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                        let piece = buffer.get(..length).unwrap_or_default();
                        flow.send_replace(Flow::Writing);
                        if screen.write_all(piece).await.is_err() || screen.flush().await.is_err() {
                            break;
                        }
                        flow.send_replace(Flow::Reading);
                    }
                    drop(screen);
                    flow.send_replace(Flow::Closed);
                });
                let engine = engine.clone();
                Ok(Some(Terminal {
                    input: keyboard.into(),
                    output: screen.into(),
                    resize: Box::new(move |size| resize(&engine, &exec, size)),
                }))
            }
        }
    }

    /// Waits for the end of the agent.
    pub async fn wait(&self, engine: &Engine) -> Result<Exit, BackendError> {
        let Some(exec) = &self.program else {
            return Err(BackendError::Gone("nothing was started".into()));
        };
        Ok(ended(engine, &exec.id, Some(exec.output.clone())).await?)
    }

    pub fn signal(&self, engine: &Engine, signal: Signal) -> io::Result<()> {
        let order = guest::frame(&Order::Signal(signal.as_raw()))?;
        let lifeline = self.lifeline.clone();
        // It is there before the grace time ends, or the container goes with it.
        engine.spawn(async move { lifeline.send(order).await });
        Ok(())
    }

    async fn create(
        &self,
        engine: &Engine,
        kept: &Kept,
        command: &[String],
        env: Vec<String>,
        terminal: bool,
    ) -> Result<String, EngineError> {
        let mut line = kept.command();
        line.push("__container-run".into());
        line.extend(command.iter().cloned());
        let options = bollard::exec::CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(!terminal),
            tty: Some(terminal),
            detach_keys: Some(NO_DETACH.into()),
            env: Some(env),
            cmd: Some(line),
            privileged: Some(false),
            user: Some(self.user.to_string()),
            working_dir: Some(self.workspace.clone()),
        };
        let name = self.name.clone();
        let created = engine
            .change(
                "prepare a program in the agent's container",
                |docker| async move { docker.create_exec(&name, options).await },
            )
            .await?;
        Ok(created.id)
    }

    fn cleared(&self) -> Vec<String> {
        self.env
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .filter(|(name, _)| name.starts_with("LD_"))
            .map(|(name, _)| format!("{name}="))
            .collect()
    }
}

async fn open(engine: &Engine, exec: &str, terminal: bool) -> io::Result<(hijack::Reader, Writer)> {
    let path = format!("/exec/{exec}/start");
    let body = serde_json::to_vec(&json!({"Detach": false, "Tty": terminal}))?;
    let caller = engine.clone();
    engine
        .spawn(async move { hijack::open(&caller, &path, body.into()).await })
        .await
        .map_err(io::Error::other)?
}

async fn feed(from: OwnedFd, mut to: Writer) {
    let mut from = file(from);
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let piece = buffer.get(..length).unwrap_or_default();
        if to.write_all(piece).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    // The program may have ended already.
    let _closed = to.shutdown().await;
}

fn file(descriptor: OwnedFd) -> File {
    File::from_std(std::fs::File::from(descriptor))
}

/// The end of a program, and of its output. That may stay open longer, in a child of the program's.
async fn ended(
    engine: &Engine,
    exec: &str,
    mut output: Option<watch::Receiver<Flow>>,
) -> Result<Exit, EngineError> {
    loop {
        let id = exec.to_owned();
        let state = engine
            .ask("ask for a program's end", |docker| async move {
                docker.inspect_exec(&id).await
            })
            .await?;
        if state.running == Some(false)
            && let Some(code) = state.exit_code
        {
            if let Some(output) = &mut output {
                drained(output).await;
            }
            return Ok(match u8::try_from(code) {
                Ok(0) => Exit::Ok,
                Ok(code) => Exit::Agent(code),
                Err(_) => Exit::Failed,
            });
        }
        let closed = |flow: &Flow| *flow == Flow::Closed;
        match &mut output {
            Some(output) if !closed(&output.borrow()) => {
                // The sender goes when the output does.
                let _either = timeout(POLL, output.wait_for(closed)).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Waits until the engine has no more of a program that has ended, however slowly it is read here.
async fn drained(output: &mut watch::Receiver<Flow>) {
    loop {
        let flow = *output.borrow_and_update();
        let changed = match flow {
            Flow::Closed => return,
            Flow::Writing => output.changed().await.is_ok(),
            Flow::Reading => timeout(LAST, output.changed())
                .await
                .is_ok_and(|changed| changed.is_ok()),
        };
        if !changed {
            return;
        }
    }
}

fn resize(engine: &Engine, exec: &str, size: Winsize) {
    let options = ResizeExecOptionsBuilder::default()
        .w(i32::from(size.ws_col))
        .h(i32::from(size.ws_row))
        .build();
    let (caller, id) = (engine.clone(), exec.to_owned());
    engine.spawn(async move {
        // A wrong size is no reason to end a session.
        caller
            .ask("resize the terminal", |docker| async move {
                docker.resize_exec(&id, options).await
            })
            .await
    });
}
