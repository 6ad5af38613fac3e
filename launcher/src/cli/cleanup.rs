//! `launcher cleanup`.

use std::io::Write;

use super::CliError;
use crate::exit::Exit;
use crate::state::{Standing, State};

pub(super) fn run(dry_run: bool) -> Result<Exit, CliError> {
    let removed = if dry_run {
        let found = State::locate()?.bottles_found()?;
        found
            .into_iter()
            .filter(|bottle| bottle.standing == Standing::Dead)
            .map(|bottle| bottle.name)
            .collect()
    } else {
        State::open()?.sweep_all()?
    };
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
