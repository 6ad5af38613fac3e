//! One bottle, from a plan to its end.
//!
//! State, alias, sidecar, boundary, probe, agent, in this order; undone in the reverse one, however it ends. The agent
//! starts only when everything before it stands and the probe has confirmed it.

mod environment;
mod signals;
mod streams;
pub mod terminal;
mod timings;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use proxy::config::{Control, OnMatch};
use proxy::policy::RouteSummary;
use tokio::time::timeout;

use crate::apple::MacosContainer;
use crate::backend::{Agent, Backend, BackendError, Bottle, ChooseError, Kind, Proof, Streams};
use crate::docker::Docker;
use crate::exit::Exit;
use crate::local::Local;
use crate::operator::{self, Access};
use crate::place::Private;
use crate::plan::{Plan, PlanError};
use crate::sidecar::{Handle, Sidecar, SidecarError, SidecarStart};
use crate::smol::SmolMachines;
use crate::state::bottle::write_private;
use crate::state::process::ProcessId;
use crate::state::{Alias, AliasError, BottleDir, NameError, Record, Slug, State, StateError};
use crate::undo::UndoStack;
use environment::Secrets;
use signals::{Event, Signals};
use timings::Timings;

/// What an agent has between a signal to the launcher and its end.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Alias(#[from] AliasError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Choose(#[from] ChooseError),
    #[error("the system has no randomness: {0}")]
    Random(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl SessionError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Backend(error) => error.exit(),
            Self::Choose(error) => error.exit(),
            Self::Plan(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// How a session is run; the default is what `start` does.
#[derive(Default)]
pub struct Options {
    pub attach: Attach,
    /// Leave the bottle's directory, with the sidecar's file and certificate, when it ends.
    pub keep: bool,
    /// More of the sidecar's environment.
    pub sidecar_env: Vec<(String, String)>,
    /// More of the agent's environment.
    pub agent_env: Vec<(String, String)>,
    /// Say how long each step took.
    pub timings: bool,
    /// Called with the host's address as the sidecar sees it, and with the sidecar's file, before the sidecar starts.
    pub on_ground: Option<OnGround>,
    /// Called when the agent runs. Must not block.
    pub on_started: Option<Box<dyn FnOnce(Started)>>,
}

pub type OnGround =
    Box<dyn FnOnce(std::net::Ipv4Addr, &mut proxy::config::File) -> std::io::Result<()>>;

/// What the agent's standard streams are joined to.
#[derive(Debug, Default)]
pub enum Attach {
    /// The terminal that the launcher runs in.
    Terminal,
    /// Nothing to read; its output is copied to ours.
    #[default]
    Headless,
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
}

/// A bottle whose agent runs.
#[derive(Clone, Debug)]
pub struct Started {
    pub slug: Slug,
    pub alias: std::net::Ipv4Addr,
    pub sidecar: Handle,
    pub proof: Proof,
    pub audit: PathBuf,
    /// The name and the value of the canary in the agent's environment.
    pub canary: (String, String),
}

/// A bottle that is no more.
#[derive(Debug)]
pub struct Outcome {
    /// The agent's, or that of the signal which ended the session; `TeardownIncomplete` where something is left.
    pub exit: Exit,
    pub slug: Slug,
    pub audit: PathBuf,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("attach", &self.attach)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

/// Runs the plan to its end. Must be awaited on the main thread: what it starts dies with the thread that did.
pub async fn run(
    plan: Plan,
    state: &State,
    private: &Private,
    options: Options,
) -> Result<Outcome, SessionError> {
    match plan.backend {
        Kind::Local => Box::pin(run_in(Local::default(), plan, state, private, options)).await,
        Kind::Smolmachines => {
            let backend = SmolMachines::new(state.guest(), state.machines());
            Box::pin(run_in(backend, plan, state, private, options)).await
        }
        Kind::MacosContainer => {
            let backend = MacosContainer::new(state.guest(), state.containers());
            Box::pin(run_in(backend, plan, state, private, options)).await
        }
        Kind::Docker => {
            Box::pin(run_in(
                Docker::new(state.guest()),
                plan,
                state,
                private,
                options,
            ))
            .await
        }
    }
}

async fn run_in<B: Backend>(
    mut backend: B,
    plan: Plan,
    state: &State,
    private: &Private,
    mut options: Options,
) -> Result<Outcome, SessionError> {
    let mut signals = Signals::listen()?;
    let mut timings = Timings::new(options.timings);
    let attach = std::mem::take(&mut options.attach);
    let on_started = options.on_started.take();
    let on_ground = options.on_ground.take();
    let missing = backend.preflight();
    if !missing.is_empty() {
        return Err(BackendError::Missing(missing).into());
    }
    timings.done("preflight");
    let held = backend.aliases_held()?;
    let start = Start {
        // Both locks outlive everything else: nobody gets the alias or sweeps the directory while anything is left.
        alias: Alias::acquire(&state.aliases(), &plan.slug, &held, |alias| {
            backend.is_taken(alias)
        })?,
        secrets: Secrets::generate(&plan)?,
        plan: &plan,
        state,
        private,
        options: &options,
    };
    timings.done("alias");
    let mut directory = None;
    let mut undo = UndoStack::default();
    let hooks = Hooks {
        attach,
        on_ground,
        on_started,
    };
    let ended = start
        .drive(
            &mut backend,
            hooks,
            &mut signals,
            &mut directory,
            &mut undo,
            &mut timings,
        )
        .await;
    drop(backend);
    timings.done("agent");
    // A second signal must not end the teardown half-way; `signals` goes on listening until it is done.
    let left = if options.keep {
        undo.unwind_but_files()
    } else {
        undo.unwind()
    };
    drop((directory, start, signals));
    timings.done("teardown");
    timings.say();
    for leftover in &left {
        say(&format!(
            "error: {leftover}\nhint: `launcher cleanup` removes it"
        ));
    }
    let exit = ended?;
    let audit = state.logs().join(plan.slug.as_str()).join("audit.jsonl");
    let exit = if left.is_empty() {
        exit
    } else {
        Exit::TeardownIncomplete
    };
    Ok(Outcome {
        exit,
        slug: plan.slug,
        audit,
    })
}

/// What a session has before anything of its bottle exists.
struct Start<'a> {
    plan: &'a Plan,
    state: &'a State,
    private: &'a Private,
    alias: Alias,
    secrets: Secrets,
    options: &'a Options,
}

/// What of the options is used up.
struct Hooks {
    attach: Attach,
    on_ground: Option<OnGround>,
    on_started: Option<Box<dyn FnOnce(Started)>>,
}

struct Prepared {
    sidecar: Sidecar,
    proof: Proof,
}

impl Start<'_> {
    async fn drive<B: Backend>(
        &self,
        backend: &mut B,
        hooks: Hooks,
        signals: &mut Signals,
        directory: &mut Option<BottleDir>,
        undo: &mut UndoStack,
        timings: &mut Timings,
    ) -> Result<Exit, SessionError> {
        let prepare = self.prepare(backend, hooks.on_ground, directory, undo, timings);
        let Prepared { mut sidecar, proof } = tokio::select! {
            prepared = prepare => prepared?,
            signal = signals.end() => return Ok(Exit::signalled(signal.as_raw())),
        };
        say(&format!(
            "bottle {}: {} ({}), alias {}, locked: no route but the alias (probe passed {n}/{n})",
            self.plan.slug,
            self.plan.backend,
            self.plan.backend.boundary(),
            self.alias.address,
            n = proof.checks().len(),
        ));

        let asks =
            |route: &RouteSummary| route.effect == "allow" && route.on_match == OnMatch::Supervise;
        if sidecar.control.is_some() && self.plan.routes.iter().any(asks) {
            say(
                "a request with a credential in it waits for your answer: `launcher supervise` in another terminal",
            );
        }

        let env = environment::agent(self.plan, &self.alias, &self.secrets, self.options)?;
        let agent = Agent {
            program: self.plan.program.clone(),
            env,
        };
        let (streams, joined) = streams::open(hooks.attach)?;
        let is_terminal = matches!(streams, Streams::Terminal);
        let master = tokio::select! {
            master = backend.attach(&agent, streams) => master?,
            signal = signals.end() => return Ok(Exit::signalled(signal.as_raw())),
        };
        timings.done("attach");
        let terminal = match master {
            Some(master) if is_terminal => Some(terminal::Attached::new(master, undo)?),
            _ => None,
        };
        if let Some(on_started) = hooks.on_started {
            on_started(Started {
                slug: self.plan.slug.clone(),
                alias: self.alias.address,
                sidecar: sidecar.handle.clone(),
                proof,
                audit: self
                    .state
                    .logs()
                    .join(self.plan.slug.as_str())
                    .join("audit.jsonl"),
                canary: self.secrets.canary.clone(),
            });
        }
        let exit = watch(backend, &mut sidecar, signals, terminal.as_ref()).await;
        // What the agent left running holds the other end of its output; it goes before the last of that is waited for.
        backend.end();
        let rest = tokio::task::spawn_blocking(move || {
            joined.finish();
            if let Some(terminal) = terminal {
                terminal.finish();
            }
        });
        tokio::select! {
            _ = rest => {}
            // Whoever reads our output may have stopped reading without closing it.
            _ = signals.end() => {}
        }
        exit
    }

    async fn prepare<B: Backend>(
        &self,
        backend: &mut B,
        on_ground: Option<OnGround>,
        slot: &mut Option<BottleDir>,
        undo: &mut UndoStack,
        timings: &mut Timings,
    ) -> Result<Prepared, SessionError> {
        let Self {
            plan,
            state,
            private,
            alias,
            secrets,
            options,
        } = self;
        let directory = &*slot.insert(BottleDir::create(state, &plan.slug, undo)?);
        let mut record = Record {
            slug: plan.slug.clone(),
            agent: plan.agent.clone(),
            bottle: plan.bottle.clone(),
            backend: plan.backend.to_string(),
            alias: alias.address,
            created: jiff::Timestamp::now().to_string(),
            workspace: plan.workspace.path().to_owned(),
            launcher: ProcessId::current()?,
            processes: Vec::new(),
            proof: Vec::new(),
            kept: options.keep,
            run: directory.run.clone(),
        };
        directory.write_record(&record)?;

        timings.done("directory");
        let host = backend.ground(plan, undo).await?;
        timings.done("ground");
        let mut file = plan.sidecar.clone();
        file.ca.certificate = directory.certificate();
        file.control = Some(Control {
            listen: operator::listen(&directory.control()),
            token_ref: operator::TOKEN_VARIABLE.into(),
        });
        if let Some(on_ground) = on_ground {
            on_ground(host, &mut file)?;
        }
        let start = SidecarStart {
            plan,
            directory,
            alias: alias.address,
            file,
            policy: &plan.policy,
            env: environment::sidecar(plan, secrets, options)?,
        };
        let sidecar = backend.sidecar(&start, undo).await?;
        timings.done("sidecar");
        if let Some(address) = &sidecar.control {
            let access = Access {
                address: address.clone(),
                token: secrets.control.clone(),
            };
            let text = serde_json::to_vec(&access).map_err(std::io::Error::from)?;
            write_private(&directory.control_file(), &text)?;
        }
        record.processes.extend(
            sidecar
                .process()
                .and_then(|pid| i32::try_from(pid).ok())
                .and_then(|pid| ProcessId::of(pid).ok()),
        );
        directory.write_record(&record)?;

        let hidden = private
            .paths()
            .chain([directory.path.as_path(), directory.run.as_path()])
            .map(Into::into)
            .collect();
        let bottle = Bottle {
            plan,
            alias: alias.address,
            directory,
            proxy_password: &secrets.proxy,
            hidden,
        };
        backend.isolate(&bottle, undo).await?;
        let started = backend.processes();
        record.processes.extend(
            started
                .iter()
                .filter_map(|pid| ProcessId::of(i32::try_from(*pid).ok()?).ok()),
        );
        directory.write_record(&record)?;
        timings.done("boundary");
        let proof = backend.probe(&bottle).await?;
        record.proof = proof.checks().to_vec();
        directory.write_record(&record)?;
        timings.done("probe");
        Ok(Prepared { sidecar, proof })
    }
}

async fn watch<B: Backend>(
    backend: &mut B,
    sidecar: &mut Sidecar,
    signals: &mut Signals,
    terminal: Option<&terminal::Attached>,
) -> Result<Exit, SessionError> {
    let mut sidecar_runs = true;
    loop {
        tokio::select! {
            exit = backend.wait() => return Ok(exit?),
            ended = sidecar.ended(), if sidecar_runs => {
                ended?;
                sidecar_runs = false;
                say("the sidecar has ended: the agent is offline from here on\r");
            }
            event = signals.next() => {
                let Event::End(signal) = event else {
                    if let Some(terminal) = terminal {
                        terminal.resize();
                    }
                    continue;
                };
                // It may have ended just now; then `wait` says so.
                let _ended = backend.signal(signal);
                let wait = timeout(GRACE, backend.wait()).await;
                tracing::debug!(in_time = wait.is_ok(), "the agent was told to end");
                return Ok(Exit::signalled(signal.as_raw()));
            }
        }
    }
}

/// To the user: stderr, because stdout is the agent's.
fn say(text: &str) {
    // A closed stderr must not end a session.
    let _closed = writeln!(std::io::stderr(), "{text}");
}
