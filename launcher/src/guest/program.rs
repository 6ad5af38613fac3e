//! `__machine-run NUMBER`: what smolvm starts for each program of the agent's, as the guest's root and with its
//! streams.
//!
//! It starts `__machine-become NUMBER`, which gives everything up and becomes the program, and says how that ended:
//! smolvm's own exit code cannot be told from the program's.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::mount::{
    MountFlags, MountPropagationFlags, mount_bind_recursive, mount_change, mount_remount,
};
use rustix::process::{Resource, Rlimit, chdir, setrlimit};
use rustix::thread::{UnshareFlags, set_thread_gid, set_thread_groups, set_thread_uid};
use tokio::signal::unix::{SignalKind, signal};

use super::machine::{Answer, SOCKET, Word, hide_resolvers};
use super::run::NOT_FOUND;
use super::{frame, read_frame};
use crate::environment::AGENT_HOME;
use crate::local::program::{bound_capabilities, give_up_capabilities};
use crate::local::{seccomp, sys};

const PATIENCE: Duration = Duration::from_secs(30);

pub fn run(number: u32) -> ExitCode {
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(wait(number)));
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&format!("it cannot be started: {error}")),
    }
}

async fn wait(number: u32) -> io::Result<u8> {
    // Signals are for the program, which is in the same group; handlers, unlike ignored signals, do not pass to it.
    let _handlers = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
        signal(SignalKind::quit())?,
    ];
    let own: Vec<_> = own_command()?;
    let (program, arguments) = own
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .arg("__machine-become")
        .arg(number.to_string())
        .status()
        .await?;
    let (code, signal) = (status.code(), status.signal());
    // Where the launcher is gone there is nobody to tell.
    let _unheard = tell(number, code, signal);
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    Ok(match (code, signal) {
        (Some(code), _) => byte(code),
        (None, Some(signal)) => byte(128 + signal),
        (None, None) => u8::MAX,
    })
}

/// How this program was started, up to its arguments: a loader may stand in front.
fn own_command() -> io::Result<Vec<String>> {
    let line = std::fs::read("/proc/self/cmdline")?;
    let words = line.split(|byte| *byte == 0);
    Ok(words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .take_while(|word| word != "__machine-run")
        .collect())
}

fn tell(number: u32, code: Option<i32>, signal: Option<i32>) -> io::Result<()> {
    let mut stream = connect()?;
    stream.write_all(&frame(&Word::Ended {
        number,
        code,
        signal,
    })?)?;
    let mut heard = [0; 1];
    stream.read_exact(&mut heard)
}

fn connect() -> io::Result<UnixStream> {
    let stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// `__machine-become NUMBER`.
pub fn r#become(number: u32) -> ExitCode {
    let answer = match ask(number) {
        Ok(answer) => answer,
        Err(error) => return fail(&format!("what it is to be is not known: {error}")),
    };
    let name = answer.program.argv.first().cloned().unwrap_or_default();
    let error = become_it(answer);
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "\nhint: a machine has the programs of its image and nothing of the host's; put it into the image"
        }
        _ => "",
    };
    fail(&format!(
        "the program `{}` cannot be run: {error}{hint}",
        crate::escape::Escaped(&name)
    ))
}

fn fail(why: &str) -> ExitCode {
    let _closed = writeln!(io::stderr(), "error: {why}");
    ExitCode::from(NOT_FOUND)
}

fn ask(number: u32) -> io::Result<Answer> {
    let mut stream = connect()?;
    stream.write_all(&frame(&Word::What { number })?)?;
    read_frame(&mut stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The order matters, as in `local::program`: what a step needs goes after it.
fn become_it(answer: Answer) -> io::Error {
    let program = answer.program;
    let Some((name, arguments)) = program.argv.split_first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    let no_core = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    let confined = || -> io::Result<()> {
        hide_resolvers()?;
        if answer.owned {
            keep_image()?;
        }
        setrlimit(Resource::Core, no_core)?;
        // One thread: what holds for it holds for the process.
        set_thread_groups(&[])?;
        set_thread_gid(rustix::process::Gid::from_raw(program.gid))?;
        drop_as(program.uid)?;
        chdir(&program.directory)?;
        sys::close_inherited_on_exec()?;
        seccomp::apply()
    };
    if let Err(error) = confined() {
        return error;
    }
    // Looked up on the program's own PATH.
    Command::new(name)
        .args(arguments)
        .env_clear()
        .envs(program.env)
        .exec()
}

/// What of an image's files belongs to the program's user is not its to change: the image is read-only for it, but for
/// where it has to write.
fn keep_image() -> io::Result<()> {
    sys::unshare(UnshareFlags::NEWNS)?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    // Recursively: a workspace can lie below one of them.
    for path in [AGENT_HOME, "/tmp", "/var/tmp"] {
        mount_bind_recursive(path, path)?;
    }
    Ok(mount_remount(
        "/",
        MountFlags::BIND | MountFlags::RDONLY,
        c"",
    )?)
}

/// Gives up root: capabilities out of the bounding set first, which needs one, then the user, which needs another.
fn drop_as(uid: u32) -> io::Result<()> {
    bound_capabilities()?;
    set_thread_uid(rustix::process::Uid::from_raw(uid))?;
    give_up_capabilities()
}
