//! `launcher cleanup`.

use std::io::Write;

use super::CliError;
use crate::apple;
use crate::docker;
use crate::exit::Exit;
use crate::smol;
use crate::state::{Standing, State};

pub(super) fn run(dry_run: bool) -> Result<Exit, CliError> {
    let found = docker::find_leftovers()?.unwrap_or_default();
    let machines = smol::sweep::look(&State::locate()?.machines(), true)?;
    let containers = apple::sweep::look(&State::locate()?.containers())?;
    let spared = found.spared.iter().chain(&machines.spared);
    for name in spared.chain(&containers.spared) {
        writeln!(
            std::io::stderr(),
            "note: {name} is left alone: its launcher is another user's or runs in another container"
        )?;
    }
    let mut removed: Vec<String>;
    if dry_run {
        removed = State::locate()?
            .bottles_found()?
            .into_iter()
            .filter(|bottle| bottle.standing == Standing::Dead)
            .map(|bottle| bottle.name)
            .collect();
        removed.extend(found.dead.into_keys());
        removed.extend(machines.dead);
        removed.extend(containers.dead);
    } else {
        let state = State::open()?;
        removed = docker::sweep_leftovers()?;
        removed.extend(smol::sweep::sweep(&state.machines(), true)?);
        removed.extend(apple::sweep::sweep(&state.containers(), true)?);
        removed.extend(state.sweep_all()?);
        docker::forget_old_launchers(&state.guest())?;
    }
    removed.sort();
    removed.dedup();
    let mut out = std::io::stdout().lock();
    for name in &removed {
        writeln!(
            out,
            "{}{name}",
            if dry_run { "would remove " } else { "removed " }
        )?;
    }
    if removed.is_empty() {
        writeln!(std::io::stderr(), "nothing is left behind")?;
    }
    Ok(Exit::Ok)
}
