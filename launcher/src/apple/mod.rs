//! Backend `macos-container`: the agent in a container of Apple's `container`, each of which is a micro-VM of its own,
//! without a network.
//!
//! ```text
//! launcher ── sidecar                                      a process of the host, as for `local`
//!     ├────── container image load, create, inspect        the machine, which does not run yet
//!     ├────── container start --attach --interactive       stays: the guest's lifeline
//!     │           └── __machine-init                       the guest's root: relay from the alias to the sidecar's socket
//!     └────── container exec --interactive
//!                 └── __machine-run                        the probe, then the agent
//! ```
//!
//! **None of this was run on a Mac.** It follows the documents and the source of `container` 1.1.0 to 1.2.2, and what others
//! have seen of them:
//!
//! * A host-only network (`network create --internal`) is no boundary: it lets TCP out to any address that is not asked for
//!   by name (apple/container#2062, seen on 1.2.0), and its gateway is the host, all of it (#1320). So there is no
//!   network: `--network none` attaches no interface.
//! * A socket of the host's gets in over vsock, as a volume whose source is a socket or by `--ssh`. It is a volume here: its
//!   path can be read back, while of `--ssh` only that it was asked for can, and whose agent's socket it
//!   will be is decided by the environment of whoever starts the container next (#2196).
//! * What is asked for is not believed: `inspect` is held against it before the start, after, and after the probe
//!   (`demand`), and the probe decides.

mod demand;
mod image;
mod machine;
mod note;
mod platform;
mod program;
mod remove;
pub mod sweep;
mod version;
#[cfg(test)]
mod wrong_states;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use rustix::process::Signal;

pub use program::Reached;

use crate::backend::canary::{Canaries, resolvers};
use crate::backend::{
    Agent, Backend, BackendError, Bottle, Channel, Missing, Proof, Streams, Terminal,
};
use crate::exit::Exit;
use crate::guest::machine::Way;
use crate::guest::probe::{Network, Task};
use crate::owner::Owner;
use crate::state::{BottleDir, PROXY_PORT};
use crate::undo::UndoStack;
use crate::user::User;
use crate::vm::inside::{First, Guest, Inside};
use crate::vm::{self, share};
use demand::Moment;
use machine::Machine;

/// What can be known of this host without starting anything.
pub fn preflight() -> Result<Reached, Vec<Missing>> {
    let reached = program::reach()?;
    let mut missing = Vec::new();
    if rustix::process::geteuid().is_root() {
        missing.push(Missing {
            what: "Apple's `container` has its services and containers for each user, and root's are not yours".into(),
            remedy: "start the launcher as an ordinary user".into(),
        });
    }
    missing.extend(vm::linux::missing());
    if missing.is_empty() {
        Ok(reached)
    } else {
        Err(missing)
    }
}

/// The backend, from nothing to its end.
#[derive(Debug)]
pub struct MacosContainer {
    reached: Result<Reached, Vec<Missing>>,
    /// Where copies of the launcher for guests are kept, and notes of containers.
    base: PathBuf,
    notes: PathBuf,
    inside: Option<(Machine, Inside)>,
}

impl MacosContainer {
    pub fn new(base: PathBuf, notes: PathBuf) -> Self {
        Self {
            reached: preflight(),
            base,
            notes,
            inside: None,
        }
    }

    fn reached(&self) -> Result<&Reached, BackendError> {
        self.reached
            .as_ref()
            .map_err(|missing| BackendError::Missing(missing.clone()))
    }

    fn inside(&mut self) -> Result<&mut (Machine, Inside), BackendError> {
        self.inside
            .as_mut()
            .ok_or_else(|| BackendError::Gone("its container was not started".into()))
    }
}

impl Backend for MacosContainer {
    fn preflight(&self) -> Vec<Missing> {
        match &self.reached {
            Ok(_) => Vec::new(),
            Err(missing) => missing.clone(),
        }
    }

    fn channel(&self, directory: &BottleDir, _alias: Ipv4Addr) -> Channel {
        Channel::Socket(directory.socket())
    }

    async fn isolate(
        &mut self,
        bottle: &Bottle<'_>,
        undo: &mut UndoStack,
    ) -> Result<(), BackendError> {
        let caller = self.reached()?.caller.clone();
        let plan = bottle.plan;
        let image = plan
            .machine
            .as_ref()
            .ok_or_else(|| BackendError::Isolate("the plan names no image".into()))?;
        let user = User::of(plan.workspace.path())
            .map_err(|missing| BackendError::Missing(vec![missing]))?;
        let directory = &bottle.directory.path;
        let kept = vm::inside::parts(&self.base, directory).await?;
        let archive = vm::image::provide(&image.image, directory).await?;
        // Through no link: what it is told is what it says of it, and links to sockets it does not follow
        // (apple/container#357).
        let socket = std::fs::canonicalize(bottle.directory.socket())?;
        if !share::is_tellable(&socket) {
            return Err(BackendError::Isolate(format!(
                "{} has a colon or a comma in it; set BOT_BOTTLE_STATE to a directory without",
                socket.display()
            )));
        }
        let mut first = kept.command();
        first.push("__machine-init".into());
        let order = machine::Order {
            slug: &plan.slug,
            owner: &Owner::current()?,
            archive: &archive.path,
            directory,
            shares: share::all("Apple's `container`", bottle, &kept)?,
            socket,
            command: first,
            notes: &self.notes,
        };
        let machine = machine::create(&caller, &order, undo).await?;
        let first = First {
            line: machine.start(),
            patience: program::patience(),
            again: false,
        };
        let guest = Guest {
            bottle,
            user,
            way: Way::Socket,
            owned: false,
            command: kept.command(),
            env: archive.env,
        };
        let inside = Inside::start(caller.door(machine.name()), first, guest)
            .await
            .map_err(|why| {
                BackendError::Isolate(format!("the container {}: {why}", machine.name()))
            })?;
        machine.confirm(&caller, Moment::Running).await?;
        self.inside = Some((machine, inside));
        Ok(())
    }

    async fn probe(&mut self, bottle: &Bottle<'_>) -> Result<Proof, BackendError> {
        let caller = self.reached()?.caller.clone();
        let (machine, inside) = self.inside()?;
        let canaries = Canaries::listen(bottle.alias).map_err(|error| {
            BackendError::NotLocked(format!("the probe could not run: {error}"))
        })?;
        let task = Task {
            alias: bottle.alias,
            port: PROXY_PORT,
            password: bottle.proxy_password.to_owned(),
            canaries: canaries.addresses(),
            resolvers: resolvers(),
            gvisor: false,
            network: Network::None,
            hidden: bottle.hidden.clone(),
        };
        let proof = inside.probe(&task, &canaries, program::patience()).await?;
        // Whoever has our user id can change a container; so it is looked at last.
        machine.confirm(&caller, Moment::Running).await?;
        Ok(proof)
    }

    async fn attach(
        &mut self,
        agent: &Agent,
        streams: Streams,
    ) -> Result<Option<Terminal>, BackendError> {
        self.inside()?.1.attach(agent, streams).await
    }

    async fn wait(&mut self) -> Result<Exit, BackendError> {
        self.inside()?.1.wait().await
    }

    fn end(&mut self) {
        if let Some((_, inside)) = &self.inside {
            inside.end();
        }
    }

    fn processes(&self) -> Vec<u32> {
        self.inside
            .iter()
            .filter_map(|(_, inside)| inside.process())
            .collect()
    }

    fn signal(&mut self, signal: Signal) -> Result<(), BackendError> {
        self.inside()?.1.signal(signal)
    }
}
