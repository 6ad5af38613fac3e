//! Backend `smolmachines`: the agent in a micro-VM of smolvm's (libkrun), which has no network.
//!
//! ```text
//! launcher ── sidecar                        a process of the host, as for `local`
//!     ├────── smolvm machine create, start   the machine: its own kernel, on KVM or Hypervisor.framework
//!     │           └── __machine-init         the guest's root: relay from the alias to the sidecar's mounted socket
//!     │                └── __machine-run     the probe, then the agent
//!     └────── __machine-watchdog             removes the machine when the launcher dies
//! ```
//!
//! In the channels `interceptor` and `cidr`, where one is asked for, the machine has a network that leads to the sidecar alone,
//! and the relay's other end is an address.
//!
//! What smolvm is asked for is not believed: its row is read before the start and after, and a probe inside tries
//! every way out that we know, with listeners of the host's as judges. smolvm's versions differ in what they enforce;
//! `channel` says which of them are used, and how.

mod channel;
mod demand;
mod kvm;
mod listeners;
mod lock;
mod machine;
pub mod note;
pub mod pack;
mod place;
mod platform;
mod program;
mod remove;
mod row;
pub mod sweep;
pub mod version;
#[cfg(test)]
mod wrong_states;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use proxy::secrets::Secret;
use rustix::process::Signal;

pub use channel::Kind as ChannelKind;
pub use program::{Smolvm, reach};

use crate::backend::canary::{Canaries, resolvers};
use crate::backend::claim::Claim;
use crate::backend::{
    Agent, Backend, BackendError, Bottle, Channel, Missing, Proof, Streams, Terminal,
};
use crate::exit::Exit;
use crate::guest::SOCKET;
use crate::guest::machine as guest;
use crate::guest::probe::{Network, Task};
use crate::owner::Owner;
use crate::sidecar::{INTERCEPTOR_TOKEN, Sidecar, SidecarError, SidecarStart};
use crate::state::{BottleDir, PROXY_PORT};
use crate::undo::UndoStack;
use crate::user::User;
use crate::vm::inside::{First, Guest, Inside};
use crate::vm::{self, share};
use demand::{SIDECAR, Way};
use machine::Machine;

/// An address of the host's own that nothing outside reaches, for the channel `cidr`.
pub const ADDRESS_VARIABLE: &str = "BOT_BOTTLE_SMOLVM_ADDRESS";
/// Where smolvm hands a guest's connections over, on the bottle's alias.
pub const INTERCEPTOR_PORT: u16 = 9098;

/// What can be known of this host without starting anything.
pub fn preflight() -> Result<Smolvm, Vec<Missing>> {
    let mut missing = Vec::new();
    if rustix::process::geteuid().is_root() {
        missing.push(Missing {
            what: "smolvm gives a machine that root starts a user id of its own, which can write nothing of the workspace".into(),
            remedy: "start the launcher as an ordinary user, who is in the group kvm".into(),
        });
    }
    let smolvm = reach().map_err(|more| missing.extend(more)).ok();
    missing.extend(platform::hypervisor());
    missing.extend(vm::linux::missing());
    if let Some(smolvm) = &smolvm
        && smolvm.channel == ChannelKind::Cidr
        && let Err(lack) = address()
    {
        missing.push(lack);
    }
    match smolvm {
        Some(smolvm) if missing.is_empty() => Ok(smolvm),
        _ => Err(missing),
    }
}

fn address() -> Result<Ipv4Addr, Missing> {
    let text = std::env::var(ADDRESS_VARIABLE).unwrap_or_default();
    let lack = |why: &str| Missing {
        what: format!(
            "the channel `cidr` needs an address of this host's for the sidecar: {ADDRESS_VARIABLE} {why}"
        ),
        remedy: format!(
            "`sudo ip link add bottle0 type dummy && sudo ip address add 192.168.255.1/32 dev bottle0 && sudo ip link set bottle0 up`, then `export {ADDRESS_VARIABLE}=192.168.255.1`"
        ),
    };
    if text.is_empty() {
        return Err(lack("is not set"));
    }
    let address =
        demand::check_cidr(&format!("{text}/32")).map_err(|why| lack(&format!("is {why}")))?;
    if address.is_loopback() {
        return Err(lack("is a loopback address, which is the guest's own"));
    }
    if std::net::TcpListener::bind((address, 0)).is_err() {
        return Err(lack("is not an address of this host's"));
    }
    Ok(address)
}

/// The backend, from nothing to its end.
#[derive(Debug)]
pub struct SmolMachines {
    reached: Result<Smolvm, Vec<Missing>>,
    /// Where copies of the launcher for guests are kept, and notes of machines.
    base: PathBuf,
    notes: PathBuf,
    /// Of the channel `interceptor`, once there is a sidecar that knows it.
    token: Option<Secret>,
    claim: Claim,
    inside: Option<(Machine, Inside)>,
}

impl SmolMachines {
    pub fn new(base: PathBuf, notes: PathBuf) -> Self {
        Self {
            reached: preflight(),
            base,
            notes,
            token: None,
            claim: Claim::default(),
            inside: None,
        }
    }

    fn reached(&self) -> Result<&Smolvm, BackendError> {
        self.reached
            .as_ref()
            .map_err(|missing| BackendError::Missing(missing.clone()))
    }

    fn inside(&mut self) -> Result<&mut (Machine, Inside), BackendError> {
        self.inside
            .as_mut()
            .ok_or_else(|| BackendError::Gone("its machine was not started".into()))
    }

    fn way(&self, directory: &BottleDir, alias: Ipv4Addr) -> Result<Way, BackendError> {
        Ok(match self.reached()?.channel {
            ChannelKind::Socket => Way::Socket {
                host: directory.socket(),
                guest: SOCKET,
            },
            ChannelKind::Cidr => Way::Address(sidecar_address(alias)?),
            ChannelKind::Interceptor => Way::Interceptor,
            ChannelKind::Tsi => {
                return Err(BackendError::Isolate(
                    "this channel is not available".into(),
                ));
            }
        })
    }
}

/// One port for each alias: all bottles share the address.
fn sidecar_address(alias: Ipv4Addr) -> Result<SocketAddrV4, BackendError> {
    let address = address().map_err(|missing| BackendError::Missing(vec![missing]))?;
    let [.., last] = alias.octets();
    Ok(SocketAddrV4::new(address, PROXY_PORT + u16::from(last)))
}

/// New for each bottle, as smolvm wants it.
fn new_token() -> io::Result<Secret> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(Secret::new(HEXLOWER.encode(&random)))
}

impl Backend for SmolMachines {
    fn preflight(&self) -> Vec<Missing> {
        match &self.reached {
            Ok(_) => Vec::new(),
            Err(missing) => missing.clone(),
        }
    }

    /// Where the sidecar would have to listen on the alias, and something else does.
    fn is_taken(&self, alias: Ipv4Addr) -> bool {
        let intercepts = self
            .reached()
            .is_ok_and(|smolvm| smolvm.channel == ChannelKind::Interceptor);
        intercepts && self.claim.is_taken(alias, INTERCEPTOR_PORT)
    }

    fn channel(&self, directory: &BottleDir, alias: Ipv4Addr) -> Channel {
        match self.way(directory, alias) {
            Ok(Way::Address(address)) => Channel::Address(address),
            Ok(Way::Interceptor) => Channel::Interceptor {
                listen: SocketAddrV4::new(alias, INTERCEPTOR_PORT),
                destination: SIDECAR,
            },
            // What stands in the way of another is said by `isolate`.
            _ => Channel::Socket(directory.socket()),
        }
    }

    /// With the token that its machine will show, which nobody else is told.
    async fn sidecar(
        &mut self,
        start: &SidecarStart<'_>,
        undo: &mut UndoStack,
    ) -> Result<Sidecar, SidecarError> {
        let channel = self.channel(start.directory, start.alias);
        if !matches!(channel, Channel::Interceptor { .. }) {
            return Sidecar::start(start, &channel, undo).await;
        }
        let token = self.token.insert(new_token()?);
        let mut env = start.env.clone();
        env.push((INTERCEPTOR_TOKEN.to_owned(), token.expose().to_owned()));
        let start = SidecarStart {
            plan: start.plan,
            directory: start.directory,
            alias: start.alias,
            file: start.file.clone(),
            policy: start.policy,
            env,
        };
        Sidecar::start(&start, &channel, undo).await
    }

    async fn isolate(
        &mut self,
        bottle: &Bottle<'_>,
        undo: &mut UndoStack,
    ) -> Result<(), BackendError> {
        let smolvm = self.reached()?.clone();
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
        let way = self.way(bottle.directory, bottle.alias)?;
        let command = kept.command();
        let order = machine::Order {
            slug: &plan.slug,
            owner: &Owner::current()?,
            image: &archive,
            command: &command,
            shares: share::all("smolvm", bottle, &kept)?,
            way: way.clone(),
            interceptor: self.token.clone().map(|token| machine::Interceptor {
                listen: SocketAddrV4::new(bottle.alias, INTERCEPTOR_PORT),
                token,
            }),
            notes: &self.notes,
        };
        let machine = machine::start(&smolvm, &order, undo).await?;
        let door = smolvm.caller.door(&machine.name);
        let first = First {
            line: door.exec(false, &command, &["__machine-init"]),
            patience: machine::ready(),
            again: true,
        };
        let guest = Guest {
            bottle,
            user,
            way: match way {
                Way::Socket { .. } => guest::Way::Socket,
                Way::Address(address) => guest::Way::Address(address),
                Way::Interceptor => guest::Way::Address(SIDECAR),
            },
            owned: archive.form == vm::image::Form::Pack,
            command,
            env: archive.env,
        };
        let inside = Inside::start(door, first, guest)
            .await
            .map_err(|why| BackendError::Isolate(format!("the machine {}: {why}", machine.name)))?;
        self.inside = Some((machine, inside));
        Ok(())
    }

    async fn probe(&mut self, bottle: &Bottle<'_>) -> Result<Proof, BackendError> {
        let caller = self.reached()?.caller.clone();
        let way = self.way(bottle.directory, bottle.alias)?;
        let own = match way {
            Way::Address(address) => Some(address),
            Way::Socket { .. } | Way::Interceptor => None,
        };
        if let Some(address) = own {
            let others = listeners::beside(*address.ip(), address.port());
            if !others.is_empty() {
                return Err(BackendError::NotLocked(format!(
                    "the machine may talk to everything on {}, and not only the sidecar listens there: {}",
                    address.ip(),
                    others.join(", ")
                )));
            }
        }
        let (machine, inside) = self.inside()?;
        let canaries =
            Canaries::listen_beside(bottle.alias, own.map(|own| *own.ip())).map_err(|error| {
                BackendError::NotLocked(format!("the probe could not run: {error}"))
            })?;
        let task = Task {
            alias: bottle.alias,
            port: PROXY_PORT,
            password: bottle.proxy_password.to_owned(),
            canaries: canaries.addresses(),
            resolvers: resolvers(),
            gvisor: false,
            network: match way {
                Way::Socket { .. } => Network::None,
                Way::Address(_) => Network::List,
                Way::Interceptor => Network::Interceptor,
            },
            hidden: bottle.hidden.clone(),
        };
        let proof = inside.probe(&task, &canaries, program::patience()).await?;
        // Whoever has our user id can widen a machine that runs; so it is looked at last.
        machine.confirm(&caller).await?;
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
