//! `__tether PARENT terminal|pipes PROGRAM …`: becomes a program that dies with the launcher, with its standard input
//! as its controlling terminal where it has one.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{ioctl_tiocsctty, setsid};

use crate::exit::Exit;
use crate::local::{parent, sys};

pub fn main(arguments: &[OsString]) -> ExitCode {
    let [parent, kind, program, rest @ ..] = arguments else {
        return Exit::Usage.into();
    };
    let Some(parent) = parent.to_str().and_then(|text| text.parse().ok()) else {
        return Exit::Usage.into();
    };
    let ready = || -> io::Result<()> {
        parent::die_with(parent)?;
        // Away from the launcher's terminal, whose ^C is not for it.
        setsid()?;
        if kind == "terminal" {
            ioctl_tiocsctty(io::stdin())?;
        }
        sys::close_inherited_on_exec()
    };
    let error = match ready() {
        Ok(()) => Command::new(program).args(rest).exec(),
        Err(error) => error,
    };
    let _closed = writeln!(
        io::stderr(),
        "error: {} cannot be run: {error}",
        program.to_string_lossy()
    );
    ExitCode::FAILURE
}
