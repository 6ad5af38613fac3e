//! Backend `docker`: containers of an engine of this host.
//!
//! ```text
//! launcher ── engine ── sidecar's container   bridge 192.168.X.0/24, published on the alias; file, log and socket mounted
//!                  └─── agent's container     no network; workspace and the sidecar's socket mounted, a relay on the alias
//! ```
//!
//! Both run as the caller's user, with a read-only root, without capabilities, and end with the launcher: their first
//! processes hang on its connection. The engine's firewall holds nothing here, because there is nothing to be held back.

mod agent;
mod build;
mod container;
pub mod engine;
mod facts;
mod files;
mod hijack;
mod image;
mod names;
mod network;
mod sidecar;
pub mod sweep;
mod trial;

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::StreamExt;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;

pub use engine::Engine;
pub use facts::Facts;
pub use sidecar::Contained as ContainedSidecar;

use crate::backend::claim::Claim;
use crate::backend::{
    Agent, Backend, BackendError, Bottle, Channel, Missing, Proof, Streams, Terminal,
};
use crate::exit::Exit;
use crate::owner::Owner;
use crate::parts::{self, Kept, Parts};
use crate::plan::{ImageSource, Plan, Program};
use crate::sidecar::{Handle, Sidecar, SidecarError, SidecarStart};
use crate::state::{BottleDir, PROXY_PORT, pool};
use crate::undo::UndoStack;
use crate::user::User;
use agent::Contained;
use engine::EngineError;
use network::Network;

/// For an image of gigabytes, on a slow disk.
const SAVE: Duration = Duration::from_secs(1800);

impl From<EngineError> for BackendError {
    fn from(error: EngineError) -> Self {
        Self::Isolate(error.to_string())
    }
}

impl From<EngineError> for SidecarError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error.to_string())
    }
}

/// An engine that answers, and what it is.
#[derive(Clone, Debug)]
pub struct Reached {
    pub engine: Engine,
    pub facts: Facts,
}

/// Connects, and looks whether it can hold a bottle.
pub fn reach() -> Result<Reached, Vec<Missing>> {
    let engine = Engine::connect().map_err(|missing| vec![missing])?;
    let failed = |error: String| {
        vec![Missing {
            what: error,
            remedy: "look at `docker info`".into(),
        }]
    };
    let asked = engine.clone();
    let facts = engine
        .blocking(async move { Facts::ask(&asked).await })
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))??;
    Ok(Reached { engine, facts })
}

/// The backend, from nothing to its end.
#[derive(Debug)]
pub struct Docker {
    reached: Result<Reached, Vec<Missing>>,
    /// Where copies of the launcher for containers are kept.
    base: PathBuf,
    /// Ours on the whole host, whatever state directories others have.
    claim: Claim,
    ground: Option<Ground>,
    agent: Option<Contained>,
}

/// What both containers stand on.
#[derive(Debug)]
struct Ground {
    kept: Kept,
    image: String,
    network: Network,
    owner: Owner,
    user: User,
}

impl Docker {
    pub fn new(base: PathBuf) -> Self {
        Self {
            reached: reach(),
            base,
            claim: Claim::default(),
            ground: None,
            agent: None,
        }
    }

    fn reached(&self) -> Result<&Reached, BackendError> {
        self.reached
            .as_ref()
            .map_err(|missing| BackendError::Missing(missing.clone()))
    }

    fn standing(&self) -> Result<&Ground, BackendError> {
        self.ground
            .as_ref()
            .ok_or_else(|| BackendError::Gone("its network was not made".into()))
    }

    fn agent(&self) -> Result<&Contained, BackendError> {
        self.agent
            .as_ref()
            .ok_or_else(|| BackendError::Gone("its container was not made".into()))
    }

    fn command(&self, program: &Program) -> Result<Vec<String>, BackendError> {
        Ok(match program {
            Program::Command(argv) => argv.clone(),
            Program::Own(arguments) => {
                let mut command = self.standing()?.kept.command();
                command.extend(arguments.iter().cloned());
                command
            }
        })
    }
}

impl Backend for Docker {
    fn preflight(&self) -> Vec<Missing> {
        match &self.reached {
            Ok(_) => Vec::new(),
            Err(missing) => missing.clone(),
        }
    }

    fn aliases_held(&self) -> Result<Vec<(Ipv4Addr, String)>, BackendError> {
        pool::ensure()?;
        let engine = self.reached()?.engine.clone();
        let caller = engine.clone();
        let published = engine.blocking(async move { published(&caller).await })??;
        Ok(published)
    }

    fn is_taken(&self, alias: Ipv4Addr) -> bool {
        self.claim.is_taken(alias, PROXY_PORT)
    }

    fn channel(&self, directory: &BottleDir, _alias: Ipv4Addr) -> Channel {
        Channel::Socket(directory.socket())
    }

    async fn ground(
        &mut self,
        plan: &Plan,
        undo: &mut UndoStack,
    ) -> Result<Ipv4Addr, BackendError> {
        let engine = self.reached()?.engine.clone();
        let user = User::of(plan.workspace.path())
            .map_err(|missing| BackendError::Missing(vec![missing]))?;
        let base = self.base.clone();
        std::fs::create_dir_all(&base)?;
        let kept = tokio::task::spawn_blocking(move || Parts::own()?.keep(&base))
            .await
            .map_err(io::Error::other)??;
        let image = image::provide(&engine, &kept).await?;
        let owner = Owner::current()?;
        let network = Network::create(&engine, &plan.slug, &owner, undo).await?;
        let gateway = network.gateway();
        self.ground = Some(Ground {
            kept,
            image,
            network,
            owner,
            user,
        });
        Ok(gateway)
    }

    async fn sidecar(
        &mut self,
        start: &SidecarStart<'_>,
        undo: &mut UndoStack,
    ) -> Result<Sidecar, SidecarError> {
        let engine = match &self.reached {
            Ok(reached) => &reached.engine,
            Err(_) => return Err(SidecarError::Engine("it is gone".into())),
        };
        let Some(ground) = &self.ground else {
            return Err(SidecarError::Engine("there is no network".into()));
        };
        let place = sidecar::Place {
            engine,
            image: &ground.image,
            kept: &ground.kept,
            network: &ground.network,
            owner: &ground.owner,
            user: ground.user,
        };
        let contained = sidecar::start(&place, start, undo).await?;
        let handle = Handle::Container {
            engine: engine.clone(),
            name: contained.name.clone(),
        };
        Ok(Sidecar::contained(handle, contained))
    }

    async fn isolate(
        &mut self,
        bottle: &Bottle<'_>,
        undo: &mut UndoStack,
    ) -> Result<(), BackendError> {
        let reached = self.reached()?;
        let engine = &reached.engine;
        let ground = self.standing()?;
        let container = bottle
            .plan
            .container
            .as_ref()
            .ok_or_else(|| BackendError::Isolate("the plan names no image".into()))?;
        let image = build::provide(engine, &container.image, &ground.image).await?;
        let found = files::look(engine, &image.id, bottle.plan, &ground.owner, undo).await?;
        let certificate =
            std::fs::read_to_string(bottle.directory.certificate()).map_err(|error| {
                BackendError::Isolate(format!("read the sidecar's certificate: {error}"))
            })?;
        let files = files::provide(
            &bottle.directory.path.join("etc"),
            &found,
            &certificate,
            bottle.plan,
            ground.user,
        )?;
        let place = agent::Place {
            engine,
            image: &image,
            kept: &ground.kept,
            owner: &ground.owner,
            user: ground.user,
            runtime: container.runtime.as_deref(),
            memory: reached.facts.memory,
            files,
        };
        self.agent = Some(agent::start(place, bottle, undo).await?);
        Ok(())
    }

    async fn probe(&mut self, bottle: &Bottle<'_>) -> Result<Proof, BackendError> {
        trial::run(
            &self.reached()?.engine,
            self.agent()?,
            &self.standing()?.kept,
            bottle,
        )
        .await
    }

    async fn attach(
        &mut self,
        agent: &Agent,
        streams: Streams,
    ) -> Result<Option<Terminal>, BackendError> {
        let command = self.command(&agent.program)?;
        let engine = self.reached()?.engine.clone();
        let kept = self.standing()?.kept.clone();
        let contained = self
            .agent
            .as_mut()
            .ok_or_else(|| BackendError::Gone("its container was not made".into()))?;
        contained
            .attach(&engine, &kept, &command, &agent.env, streams)
            .await
    }

    async fn wait(&mut self) -> Result<Exit, BackendError> {
        self.agent()?.wait(&self.reached()?.engine).await
    }

    fn end(&mut self) {
        let (Ok(reached), Ok(agent)) = (&self.reached, self.agent()) else {
            return;
        };
        let (engine, name) = (reached.engine.clone(), agent.name.clone());
        let caller = engine.clone();
        // What it cannot do now the undo does, and says.
        engine.spawn(async move { container::remove_now(caller, name).await });
    }

    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    fn signal(&mut self, signal: Signal) -> Result<(), BackendError> {
        Ok(self.agent()?.signal(&self.reached()?.engine, signal)?)
    }
}

/// Writes an image of an engine's into a file, as `docker save` does; it is built first where it has to be.
pub async fn save(source: &ImageSource, to: &Path) -> Result<(), BackendError> {
    let engine = Engine::connect().map_err(|missing| BackendError::Missing(vec![missing]))?;
    let image = build::provide(&engine, source, "").await?;
    let file = tokio::fs::File::create(to).await?;
    Ok(engine
        .change_within(SAVE, "save the image", |docker| async move {
            write_image(&docker, &image.id, file).await
        })
        .await?)
}

async fn write_image(
    docker: &bollard::Docker,
    image: &str,
    mut file: tokio::fs::File,
) -> Result<(), bollard::errors::Error> {
    let mut pieces = docker.export_image(image);
    while let Some(piece) = pieces.next().await {
        file.write_all(&piece?).await?;
    }
    Ok(file.flush().await?)
}

/// Aliases that containers of any user's are published on, and whose they are.
async fn published(engine: &Engine) -> Result<Vec<(Ipv4Addr, String)>, EngineError> {
    let options = ListContainersOptionsBuilder::default().build();
    let containers = engine
        .ask("list containers", |docker| async move {
            docker.list_containers(Some(options)).await
        })
        .await?;
    let mut held = Vec::new();
    for container in containers {
        let holder = container
            .labels
            .as_ref()
            .and_then(|labels| labels.get(crate::owner::SLUG).cloned())
            .or_else(|| container.names.as_ref()?.first().cloned())
            .unwrap_or_else(|| "a container".into());
        for port in container.ports.unwrap_or_default() {
            if let Some(ip) = port.ip.and_then(|ip| ip.parse().ok())
                && pool::ALL.contains(&ip)
            {
                held.push((ip, holder.clone()));
            }
        }
    }
    Ok(held)
}

/// Removes what dead launchers left in an engine, where there is one; the bottles' names.
pub fn sweep_leftovers() -> io::Result<Vec<String>> {
    let Ok(engine) = Engine::connect() else {
        return Ok(Vec::new());
    };
    let caller = engine.clone();
    engine
        .blocking(async move { sweep::sweep(&caller).await })?
        .map_err(io::Error::from)
}

/// As `launcher cleanup` shows it.
pub fn find_leftovers() -> io::Result<Option<sweep::Found>> {
    let Ok(engine) = Engine::connect() else {
        return Ok(None);
    };
    let caller = engine.clone();
    Ok(Some(
        engine.blocking(async move { sweep::look(&caller).await })??,
    ))
}

/// Removes copies and images of earlier launchers.
pub fn forget_old_launchers(base: &Path) -> io::Result<()> {
    if !base.exists() {
        return Ok(());
    }
    let kept = Parts::own()?.keep(base)?;
    if let Ok(engine) = Engine::connect() {
        let (caller, current) = (engine.clone(), kept.content.clone());
        engine.blocking(async move { sweep::old_images(&caller, &current).await })??;
    }
    parts::forget_others(base, &kept.content)
}

/// Kills a container at once, as an attack would; waits until its processes are gone.
pub(crate) async fn kill(engine: &Engine, name: &str) -> io::Result<()> {
    let (caller, name) = (engine.clone(), name.to_owned());
    engine
        .spawn(async move { container::remove_now(caller, name).await })
        .await
        .map_err(io::Error::other)?
        .map_err(Into::into)
}
