//! What runs in a guest: the launcher's own first process there, the probe, and the agent.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use rustix::termios::tcsetwinsize;

use super::Door;
use super::client::{Init, Io, Running};
use super::terminal::pair;
use crate::backend::canary::Canaries;
use crate::backend::{Agent, BackendError, Bottle, Proof, Streams, Terminal};
use crate::environment;
use crate::exit::Exit;
use crate::guest::machine::{self as guest, Briefing, Way};
use crate::guest::probe::{CHECKS, Task};
use crate::local::etc::gitconfig;
use crate::parts::{Kept, Parts};
use crate::plan::Program;
use crate::state::PROXY_PORT;
use crate::user::User;

/// The probe's number, and the agent's.
const PROBE: u32 = 1;
const AGENT: u32 = 2;

/// What a guest has to be told before anything of the agent's is in it.
#[derive(Debug)]
pub struct Guest<'a> {
    pub bottle: &'a Bottle<'a>,
    pub user: User,
    /// The other end of its relay.
    pub way: Way,
    /// Whether the image's files are this user's.
    pub owned: bool,
    /// Runs the launcher in there.
    pub command: Vec<String>,
    /// The image's own environment.
    pub env: Vec<String>,
}

/// A guest in which the launcher's first process runs.
#[derive(Debug)]
pub struct Inside {
    door: Door,
    init: Init,
    command: Vec<String>,
    user: User,
    workspace: PathBuf,
    env: Vec<String>,
    agent: Option<Running>,
}

/// How the first process is started.
#[derive(Debug)]
pub struct First {
    pub line: Vec<String>,
    pub patience: Duration,
    /// Whether one that did not answer may be started once more: a machine that runs already.
    pub again: bool,
}

impl Inside {
    pub async fn start(door: Door, first: First, guest: Guest<'_>) -> Result<Self, String> {
        let briefing = briefing(&guest).map_err(|error| error.to_string())?;
        let init = Init::start(&door, &first, &briefing).await?;
        Ok(Self {
            door,
            init,
            command: guest.command,
            user: guest.user,
            workspace: guest.bottle.plan.workspace.path().to_owned(),
            env: guest.env,
            agent: None,
        })
    }

    /// Tries every way out from in there, with the `canaries` as judges.
    pub async fn probe(
        &self,
        task: &Task,
        canaries: &Canaries,
        patience: Duration,
    ) -> Result<Proof, BackendError> {
        let refused =
            |why: String| BackendError::NotLocked(format!("the probe could not run: {why}"));
        let mut argv = self.command.clone();
        argv.push("__container-probe".into());
        let said = self
            .run(PROBE, argv, Vec::new(), Io::piped())
            .await
            .map_err(|error| refused(error.to_string()))?
            .converse(
                &serde_json::to_vec(task).map_err(io::Error::from)?,
                patience,
            )
            .await
            .map_err(refused)?;
        let mut checks: Vec<_> = serde_json::from_slice(&said)
            .map_err(|error| refused(format!("its report cannot be read: {error}")))?;
        checks.extend(
            canaries
                .complaints()
                .map_err(|error| refused(error.to_string()))?,
        );
        Proof::new(checks, &CHECKS).map_err(BackendError::NotLocked)
    }

    pub async fn attach(
        &mut self,
        agent: &Agent,
        streams: Streams,
    ) -> Result<Option<Terminal>, BackendError> {
        let argv = match &agent.program {
            Program::Command(argv) => argv.clone(),
            Program::Own(arguments) => {
                let mut argv = self.command.clone();
                argv.extend(arguments.iter().cloned());
                argv
            }
        };
        let env = environment::over_image(&self.env, &agent.env);
        let start = |error: io::Error| BackendError::Start(error.to_string());
        let (streams, terminal) = match streams {
            Streams::Pipes {
                stdin,
                stdout,
                stderr,
            } => (Io::of(stdin, stdout, stderr), None),
            Streams::Terminal => {
                let (ours, theirs) = pair().map_err(start)?;
                (Io::terminal(&theirs).map_err(start)?, Some(ours))
            }
        };
        let running = self.run(AGENT, argv, env, streams).await.map_err(start)?;
        self.agent = Some(running);
        Ok(match terminal {
            None => None,
            Some(ours) => Some(Terminal {
                input: ours.try_clone()?,
                output: ours.try_clone()?,
                resize: Box::new(move |size| {
                    // The engine's client passes it on. A wrong size is no reason to end a session.
                    let _unchanged = tcsetwinsize(&ours, size);
                }),
            }),
        })
    }

    pub async fn wait(&mut self) -> Result<Exit, BackendError> {
        let agent = self
            .agent
            .as_mut()
            .ok_or_else(|| BackendError::Gone("nothing was started".into()))?;
        agent.ended().await.map_err(BackendError::Gone)
    }

    /// Cuts the guest's lifeline.
    pub fn end(&self) {
        self.init.cut();
    }

    pub fn process(&self) -> Option<u32> {
        self.init.process()
    }

    pub fn signal(&self, signal: Signal) -> Result<(), BackendError> {
        Ok(self.init.signal(AGENT, signal)?)
    }

    async fn run(
        &self,
        number: u32,
        argv: Vec<String>,
        env: Vec<(String, String)>,
        streams: Io,
    ) -> io::Result<Running> {
        let program = guest::Program {
            argv,
            env,
            directory: self.workspace.clone(),
            uid: self.user.uid,
            gid: self.user.gid,
        };
        self.init
            .run(&self.door, &self.command, number, program, streams)
            .await
    }
}

/// A copy of the launcher's parts that is one bottle's alone: its guest may be stronger than "read-only".
pub async fn parts(base: &Path, bottle: &Path) -> Result<Kept, BackendError> {
    let (base, own) = (base.to_owned(), bottle.join("parts"));
    std::fs::create_dir_all(&base)?;
    Ok(
        tokio::task::spawn_blocking(move || Parts::own()?.keep(&base)?.copy_to(&own))
            .await
            .map_err(io::Error::other)??,
    )
}

fn briefing(guest: &Guest<'_>) -> io::Result<Briefing> {
    let Guest { bottle, user, .. } = guest;
    let plan = bottle.plan;
    Ok(Briefing {
        alias: bottle.alias,
        port: PROXY_PORT,
        way: guest.way,
        uid: user.uid,
        gid: user.gid,
        owned: guest.owned,
        command: guest.command.clone(),
        certificate: std::fs::read_to_string(bottle.directory.certificate()).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("read the sidecar's certificate: {error}"),
            )
        })?,
        bundle: match crate::local::host_bundle() {
            Some(path) => std::fs::read_to_string(path)?,
            None => String::new(),
        },
        gitconfig: gitconfig(
            plan.workspace.path(),
            plan.git.name.as_deref(),
            plan.git.email.as_deref(),
        ),
        workspace: plan.workspace.path().to_owned(),
    })
}
