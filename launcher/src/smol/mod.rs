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
mod client;
mod demand;
mod image;
mod kvm;
mod listeners;
mod lock;
mod machine;
pub mod note;
mod pack;
mod place;
mod platform;
mod program;
mod remove;
mod row;
pub mod sweep;
pub mod tether;
mod version;
#[cfg(test)]
mod wrong_states;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use proxy::secrets::Secret;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

pub use channel::Kind as ChannelKind;
pub use program::{Smolvm, reach};

use crate::backend::canary::{Canaries, resolvers};
use crate::backend::claim::Claim;
use crate::backend::{
    Agent, Backend, BackendError, Bottle, Channel, Missing, Proof, Streams, Terminal,
};
use crate::environment;
use crate::exit::Exit;
use crate::guest::SOCKET;
use crate::guest::machine::{self as guest, Briefing};
use crate::guest::probe::{CHECKS, Network, Task};
use crate::local::etc::gitconfig;
use crate::owner::Owner;
use crate::parts::{DIRECTORY, Kept, Parts};
use crate::plan::Program;
use crate::sidecar::{INTERCEPTOR_TOKEN, Sidecar, SidecarError, SidecarStart};
use crate::state::{BottleDir, PROXY_PORT};
use crate::undo::UndoStack;
use crate::user::User;
use client::{Init, Io, Running};
use demand::{SIDECAR, Share, Way};
use machine::Machine;

/// An address of the host's own that nothing outside reaches, for the channel `cidr`.
pub const ADDRESS_VARIABLE: &str = "BOT_BOTTLE_SMOLVM_ADDRESS";
/// Where smolvm hands a guest's connections over, on the bottle's alias.
pub const INTERCEPTOR_PORT: u16 = 9098;
/// The probe's number, and the agent's.
const PROBE: u32 = 1;
const AGENT: u32 = 2;

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
    inside: Option<Inside>,
}

#[derive(Debug)]
struct Inside {
    machine: Machine,
    init: Init,
    command: Vec<String>,
    user: User,
    workspace: PathBuf,
    /// The image's own environment.
    env: Vec<String>,
    agent: Option<Running>,
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

    fn inside(&mut self) -> Result<&mut Inside, BackendError> {
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
        let kept = self.parts(&bottle.directory.path).await?;
        let archive = image::provide(&image.image, &bottle.directory.path).await?;
        let way = self.way(bottle.directory, bottle.alias)?;
        let command = kept.command();
        let order = machine::Order {
            slug: &plan.slug,
            owner: &Owner::current()?,
            image: &archive,
            command: &command,
            shares: shares(bottle, &kept)?,
            way: way.clone(),
            interceptor: self.token.clone().map(|token| machine::Interceptor {
                listen: SocketAddrV4::new(bottle.alias, INTERCEPTOR_PORT),
                token,
            }),
            notes: &self.notes,
        };
        let machine = machine::start(&smolvm, &order, undo).await?;
        let briefing = Briefing {
            alias: bottle.alias,
            port: PROXY_PORT,
            way: match way {
                Way::Socket { .. } => guest::Way::Socket,
                Way::Address(address) => guest::Way::Address(address),
                Way::Interceptor => guest::Way::Address(SIDECAR),
            },
            uid: user.uid,
            gid: user.gid,
            owned: archive.form == image::Form::Pack,
            command: command.clone(),
            certificate: std::fs::read_to_string(bottle.directory.certificate()).map_err(
                |error| BackendError::Isolate(format!("read the sidecar's certificate: {error}")),
            )?,
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
        };
        let init = Init::start(
            &smolvm.caller,
            &machine.name,
            &command,
            &briefing,
            machine::ready(),
        )
        .await
        .map_err(|why| BackendError::Isolate(format!("the machine {}: {why}", machine.name)))?;
        self.inside = Some(Inside {
            machine,
            init,
            command,
            user,
            workspace: plan.workspace.path().to_owned(),
            env: archive.env,
            agent: None,
        });
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
        let inside = self.inside()?;
        let refused =
            |why: String| BackendError::NotLocked(format!("the probe could not run: {why}"));
        let canaries = Canaries::listen_beside(bottle.alias, own.map(|own| *own.ip()))
            .map_err(|error| refused(error.to_string()))?;
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
        let mut argv = inside.command.clone();
        argv.push("__container-probe".into());
        let said = inside
            .run(&caller, PROBE, argv, Vec::new(), Io::piped())
            .await
            .map_err(|error| refused(error.to_string()))?
            .converse(
                &serde_json::to_vec(&task).map_err(io::Error::from)?,
                program::patience(),
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
        let proof = Proof::new(checks, &CHECKS).map_err(BackendError::NotLocked)?;
        // Whoever has our user id can widen a machine that runs; so it is looked at last.
        inside.machine.confirm(&caller).await?;
        Ok(proof)
    }

    async fn attach(
        &mut self,
        agent: &Agent,
        streams: Streams,
    ) -> Result<Option<Terminal>, BackendError> {
        let caller = self.reached()?.caller.clone();
        let inside = self.inside()?;
        let argv = match &agent.program {
            Program::Command(argv) => argv.clone(),
            Program::Own(arguments) => {
                let mut argv = inside.command.clone();
                argv.extend(arguments.iter().cloned());
                argv
            }
        };
        let env = environment::over_image(&inside.env, &agent.env);
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
        let running = inside
            .run(&caller, AGENT, argv, env, streams)
            .await
            .map_err(start)?;
        inside.agent = Some(running);
        Ok(match terminal {
            None => None,
            Some(ours) => Some(Terminal {
                input: ours.try_clone()?,
                output: ours.try_clone()?,
                resize: Box::new(move |size| {
                    // smolvm's client passes it on. A wrong size is no reason to end a session.
                    let _unchanged = tcsetwinsize(&ours, size);
                }),
            }),
        })
    }

    async fn wait(&mut self) -> Result<Exit, BackendError> {
        let agent = self
            .inside()?
            .agent
            .as_mut()
            .ok_or_else(|| BackendError::Gone("nothing was started".into()))?;
        agent.ended().await.map_err(BackendError::Gone)
    }

    fn end(&mut self) {
        if let Some(inside) = &self.inside {
            inside.init.cut();
        }
    }

    fn processes(&self) -> Vec<u32> {
        self.inside
            .iter()
            .filter_map(|inside| inside.init.process())
            .collect()
    }

    fn signal(&mut self, signal: Signal) -> Result<(), BackendError> {
        Ok(self.inside()?.init.signal(AGENT, signal)?)
    }
}

impl SmolMachines {
    /// A copy of the launcher's parts that is this bottle's alone: its guest may be stronger than "read-only".
    async fn parts(&self, bottle: &Path) -> Result<Kept, BackendError> {
        let (base, own) = (self.base.clone(), bottle.join("parts"));
        std::fs::create_dir_all(&base)?;
        Ok(
            tokio::task::spawn_blocking(move || Parts::own()?.keep(&base)?.copy_to(&own))
                .await
                .map_err(io::Error::other)??,
        )
    }
}

impl Inside {
    async fn run(
        &self,
        caller: &program::Caller,
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
            .run(
                caller,
                &self.machine.name,
                &self.command,
                number,
                program,
                streams,
            )
            .await
    }
}

/// The workspace, the launcher's parts, and what the bottle mounts.
fn shares(bottle: &Bottle<'_>, kept: &Kept) -> Result<Vec<Share>, BackendError> {
    let share = |host: &Path, guest: String, read_only| {
        if demand::is_tellable(host) {
            Ok(Share {
                host: host.to_owned(),
                guest,
                read_only,
            })
        } else {
            Err(BackendError::Isolate(format!(
                "{} has a colon or a comma in it, which smolvm takes for the end of a path",
                host.display()
            )))
        }
    };
    let same = |path: &Path| path.display().to_string();
    let workspace = bottle.plan.workspace.path();
    let mut all = vec![
        share(&kept.directory, DIRECTORY.to_owned(), true)?,
        share(workspace, same(workspace), false)?,
    ];
    for mount in &bottle.plan.mounts {
        if !mount.path().is_dir() {
            return Err(BackendError::Isolate(format!(
                "the mount {} is a file, and a machine is shared directories only; name its directory",
                mount.path().display()
            )));
        }
        all.push(share(mount.path(), same(mount.path()), true)?);
    }
    Ok(all)
}

/// A terminal: our end, and the bottle's. It has our size from the start.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    let size = tcgetwinsize(io::stdout()).unwrap_or(Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    });
    tcsetwinsize(&ours, size)?;
    Ok((ours, theirs))
}
