//! `__machine-init`: the first of ours in a micro-VM, as the guest's root.
//!
//! It makes of an image the bottle that the agent expects: its user, certificates, no resolver, and the relay from the
//! alias to the sidecar. It takes orders on its standard input, which is a lifeline too, and passes each program that
//! the launcher starts in here what it is to be (`guest::program`), through a socket that only root can reach.
//!
//! What it holds back is the agent in the guest. What holds back the guest is the hypervisor, and that there is
//! nothing else on the other side of it: an agent that makes itself root in here has gained nothing outside.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount_remount};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{
    DumpableBehavior, Pid, Signal, getpgid, kill_process, kill_process_group, set_dumpable_behavior,
};
use serde::{Deserialize, Serialize};

use super::etc::{BUNDLES, group, passwd};
use super::{InitReport, RUN, frame, read_frame, say};
use crate::environment::{AGENT_HOME, CA_BUNDLE, CA_CERTIFICATE};
use crate::local::relay::{self, To};
use crate::user::User;

/// Only root gets in.
const DIRECTORY: &str = "/run/bot-bottle-init";
pub const SOCKET: &str = "/run/bot-bottle-init/programs.sock";
/// For the order of a program that has been started already.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the launcher says first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Briefing {
    pub alias: Ipv4Addr,
    pub port: u16,
    pub way: Way,
    pub uid: u32,
    pub gid: u32,
    /// Whether the image's files are this user's, as those of a pack are: smolvm unpacks it as whoever starts it.
    pub owned: bool,
    /// Runs the launcher in here.
    pub command: Vec<String>,
    /// The sidecar's, PEM.
    pub certificate: String,
    /// The host's certificates, for an image without any.
    pub bundle: String,
    pub gitconfig: String,
    pub workspace: PathBuf,
}

/// The other end of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// The sidecar's socket, in [`RUN`].
    Socket,
    /// The sidecar's own address, of the host's.
    Address(SocketAddrV4),
}

/// What it says later.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// What the program of this number is to be; it is started by smolvm.
    Program { number: u32, program: Program },
    /// For the program of this number, and what it has started.
    Signal { number: u32, signal: i32 },
}

/// A program of the agent's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub directory: PathBuf,
    pub uid: u32,
    pub gid: u32,
}

/// From what smolvm has started to us.
#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// Tell me what I am to be; the answer is an [`Answer`].
    What { number: u32 },
    Ended {
        number: u32,
        code: Option<i32>,
        signal: Option<i32>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub program: Program,
    /// As in [`Briefing`].
    pub owned: bool,
    /// Runs the launcher in here.
    pub command: Vec<String>,
}

/// A line of ours, after the first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ended {
    pub ended: u32,
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

pub fn main() -> ExitCode {
    super::told(start())
}

fn start() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let briefing: Briefing = read_frame(io::stdin().lock())?
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    step("prepare the image", furnish(&briefing))?;
    let to = match briefing.way {
        Way::Address(address) => To::Address(address),
        Way::Socket => To::Directory(
            rustix::fs::open(
                RUN,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|error| io::Error::other(format!("open {RUN}: {error}")))?,
        ),
    };
    let alias = SocketAddrV4::new(briefing.alias, briefing.port);
    step("listen on the alias", relay::start(alias, to))?;

    let desk = Arc::new(Desk {
        command: briefing.command,
        owned: briefing.owned,
        state: Mutex::default(),
        came: Condvar::new(),
    });
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(DIRECTORY)?;
    // Of an earlier try.
    let _absent = fs::remove_file(SOCKET);
    let listener = UnixListener::bind(SOCKET)?;
    let serving = Arc::clone(&desk);
    std::thread::Builder::new()
        .name("programs".into())
        .spawn(move || serving.serve(&listener))?;
    say(&InitReport {
        ready: true,
        error: None,
    })?;
    desk.obey();
    // The lifeline is cut. Everything in the image's container ends; the machine itself is the host's to remove.
    end_all();
    Ok(())
}

fn step<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

/// The image's own files, and ours over them.
fn furnish(briefing: &Briefing) -> io::Result<()> {
    let user = User {
        uid: briefing.uid,
        gid: briefing.gid,
    };
    let own = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let system = BUNDLES
        .iter()
        .map(|path| own(path))
        .find(|text| text.contains("-----BEGIN CERTIFICATE-----"))
        .unwrap_or_else(|| briefing.bundle.clone());
    let bundle = format!("{}\n{}", system.trim_end(), briefing.certificate);
    let git = format!(
        "{}\n{}",
        own("/etc/gitconfig").trim_end(),
        briefing.gitconfig
    );
    write("/etc/passwd", &passwd(&own("/etc/passwd"), user))?;
    write("/etc/group", &group(&own("/etc/group"), user))?;
    write("/etc/gitconfig", &git)?;
    hide_resolvers()?;
    // A library that the image has put into every program would be in our helpers too.
    let _absent = fs::remove_file("/etc/ld.so.preload");
    write(CA_CERTIFICATE, &briefing.certificate)?;
    write(CA_BUNDLE, &bundle)?;
    for path in BUNDLES.iter().take(2) {
        write(path, &bundle)?;
    }
    fs::create_dir_all(AGENT_HOME)?;
    chown(AGENT_HOME, Some(user.uid), Some(user.gid))?;
    for path in ["/tmp", "/var/tmp"] {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
    }
    // The agent sees its own processes; those of root's are nobody else's business.
    let invisible = c"hidepid=2";
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount("/proc", flags, invisible)
        .map_err(|error| io::Error::other(format!("hide processes: {error}")))?;
    if !briefing.workspace.is_dir() {
        return Err(io::Error::other(format!(
            "the workspace {} is not in the machine",
            briefing.workspace.display()
        )));
    }
    Ok(())
}

/// Names are resolved by the sidecar; a query of the agent's own would be a channel. smolvm writes its resolvers into
/// this file whenever it starts a program in the machine, so each of ours takes them out again.
pub(super) fn hide_resolvers() -> io::Result<()> {
    write("/etc/resolv.conf", "# Names are resolved by the sidecar.\n")
}

/// A file of ours where the image has one, or a link, or nothing.
fn write(path: &str, content: &str) -> io::Result<()> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
    if let Some(parent) = Path::new(path).parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    // Not through a link: it could lead into the workspace, which is the host's.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(failed)
}

struct Desk {
    command: Vec<String>,
    owned: bool,
    state: Mutex<Programs>,
    came: Condvar,
}

#[derive(Default)]
struct Programs {
    waiting: HashMap<u32, Program>,
    running: HashMap<u32, Pid>,
}

impl Desk {
    fn obey(&self) {
        let mut orders = BufReader::new(io::stdin().lock());
        while let Ok(Some(order)) = read_frame(&mut orders) {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            match order {
                Order::Program { number, program } => {
                    state.waiting.insert(number, program);
                    self.came.notify_all();
                }
                Order::Signal { number, signal } => {
                    if let (Some(pid), Some(signal)) =
                        (state.running.get(&number), Signal::from_named_raw(signal))
                    {
                        pass_on(*pid, signal);
                    }
                }
            }
        }
    }

    fn serve(&self, listener: &UnixListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            // It may have ended meanwhile; the launcher sees that by itself.
            let _gone = self.attend(stream);
        }
    }

    fn attend(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Some(word) = read_frame::<Word>(&mut stream)? else {
            return Ok(());
        };
        match word {
            Word::What { number } => {
                let pid = socket_peercred(&stream)?.pid;
                let program = self.take(number, pid)?;
                let answer = Answer {
                    program,
                    owned: self.owned,
                    command: self.command.clone(),
                };
                stream.write_all(&frame(&answer)?)
            }
            Word::Ended {
                number,
                code,
                signal,
            } => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.running.remove(&number);
                drop(state);
                say(&Ended {
                    ended: number,
                    code,
                    signal,
                })?;
                // It goes when the launcher has been told.
                stream.write_all(b".")
            }
        }
    }

    fn take(&self, number: u32, pid: Pid) -> io::Result<Program> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = self
            .came
            .wait_timeout_while(state, PATIENCE, |state| {
                !state.waiting.contains_key(&number)
            })
            .unwrap_or_else(PoisonError::into_inner);
        let program = state
            .waiting
            .remove(&number)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        state.running.insert(number, pid);
        Ok(program)
    }
}

/// To the group of what was started; the leader's parent, `guest::program`, lets it pass by.
fn pass_on(pid: Pid, signal: Signal) {
    let group = getpgid(Some(pid)).unwrap_or(pid);
    // It may have ended by itself.
    let _ended = kill_process_group(group, signal);
}

/// Everything but the container's own first process and this one.
fn end_all() {
    let own = rustix::process::getpid();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|pid| *pid != own && pid.as_raw_nonzero().get() != 1) {
            // It may have ended by itself.
            let _ended = kill_process(pid, Signal::KILL);
        }
    }
}
