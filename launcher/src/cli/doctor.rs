//! `launcher doctor`.

use std::io::Write;

use super::CliError;
use crate::apple;
use crate::backend::Backend;
use crate::docker;
use crate::exit::Exit;
use crate::local::Local;
use crate::manifest::Home;
use crate::smol;
use crate::state::{Alias, State};

pub(super) fn run() -> Result<Exit, CliError> {
    let mut out = std::io::stdout().lock();
    let missing = Local::default().preflight();
    if missing.is_empty() {
        writeln!(out, "ok       backend local: namespaces can be made here")?;
    }
    for thing in &missing {
        writeln!(out, "missing  backend local: {thing}")?;
    }
    let engine = docker::reach();
    match &engine {
        Ok(reached) => {
            writeln!(
                out,
                "ok       backend docker: version {} answers on {}",
                reached.facts.version,
                reached.engine.socket.display()
            )?;
            match (&reached.facts.runtime, &reached.facts.gvisor) {
                (Some(runtime), _) => writeln!(
                    out,
                    "ok       backend docker: agents run on gVisor ({runtime})"
                )?,
                (None, Some(why)) => writeln!(out, "note     backend docker: {why}")?,
                (None, None) => writeln!(
                    out,
                    "note     backend docker: without gVisor, containers share the host's kernel"
                )?,
            }
        }
        Err(missing) => {
            for thing in missing {
                writeln!(out, "missing  backend docker: {thing}")?;
            }
        }
    }
    let smolvm = smol::preflight();
    match &smolvm {
        Ok(smolvm) => writeln!(
            out,
            "ok       backend smolmachines: smolvm {} ({}), channel {}",
            smolvm.version,
            smolvm.caller.program.display(),
            smolvm.channel
        )?,
        Err(missing) => {
            for thing in missing {
                writeln!(out, "missing  backend smolmachines: {thing}")?;
            }
        }
    }
    let apples = apple::preflight();
    match &apples {
        Ok(reached) => writeln!(
            out,
            "ok       backend macos-container: container {} ({}); not yet seen on a Mac: the probe decides",
            reached.release,
            reached.caller.program.display()
        )?,
        Err(missing) => {
            for thing in missing {
                match cfg!(target_os = "macos") {
                    true => writeln!(out, "missing  backend macos-container: {thing}")?,
                    // Elsewhere it is nothing that could be mended.
                    false => writeln!(out, "note     backend macos-container: {}", thing.what)?,
                }
            }
        }
    }
    let state = State::open()?;
    writeln!(out, "ok       state in {}", state.root().display())?;
    match Alias::peek(&state.aliases()) {
        Some(alias) => writeln!(out, "ok       loopback aliases: {alias} is free")?,
        None => writeln!(
            out,
            "missing  loopback aliases: all are in use; `launcher list` shows by which bottles"
        )?,
    }
    match Home::locate() {
        Ok(home) if home.path.is_dir() => {
            writeln!(out, "ok       manifests in {}", home.path.display())?
        }
        Ok(home) => writeln!(
            out,
            "note     no manifests yet in {}; `launcher start demo` needs none",
            home.path.display()
        )?,
        Err(error) => writeln!(out, "missing  manifests: {error}")?,
    }
    // One backend is enough.
    let some = missing.is_empty() || engine.is_ok() || smolvm.is_ok() || apples.is_ok();
    Ok(if some { Exit::Ok } else { Exit::Preflight })
}
