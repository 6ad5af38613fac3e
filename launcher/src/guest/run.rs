//! `__container-run PROGRAM …`: the last step before a program of the agent's.
//!
//! The engine has taken capabilities and privileges and put its own filter of system calls; ours comes on top, because an
//! engine's lets through what no namespace fences: vsock above all, which leads to whoever runs this host as a VM.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::termios::tcgetwinsize;

use crate::local::{seccomp, sys};

/// As shells say it.
pub const NOT_FOUND: u8 = 127;

pub fn main(arguments: &[OsString]) -> ExitCode {
    let Some((program, arguments)) = arguments.split_first() else {
        return crate::exit::Exit::Usage.into();
    };
    await_size();
    let error = become_it(program, arguments);
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "\nhint: a container has the programs of its image and nothing of the host's; put it into the image"
        }
        _ => "",
    };
    let text = format!(
        "error: the program `{}` cannot be run: {error}{hint}\n",
        crate::escape::Escaped(&program.to_string_lossy())
    );
    let _closed = io::Write::write_all(&mut io::stderr(), text.as_bytes());
    ExitCode::from(NOT_FOUND)
}

/// An engine gives a terminal its size only after it has started the program, which would ask too early.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing else runs in this process yet"
)]
fn await_size() {
    let terminal = io::stdin();
    for _ in 0..100 {
        match tcgetwinsize(&terminal) {
            Ok(size) if size.ws_row == 0 => std::thread::sleep(Duration::from_millis(10)),
            // No terminal, or one that has its size.
            _ => return,
        }
    }
}

fn become_it(program: &OsStr, arguments: &[OsString]) -> io::Error {
    // Not 0: a handler that the host's core_pattern names runs on the host for every limit but 1 (core(5)).
    let no_core = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    let confined = setrlimit(Resource::Core, no_core)
        .map_err(io::Error::from)
        .and_then(|()| sys::close_inherited_on_exec())
        .and_then(|()| seccomp::apply());
    match confined {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}
