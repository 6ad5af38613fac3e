//! `launcher stop`.

use std::io::Write;
use std::time::Duration;

use rustix::process::Signal;

use super::CliError;
use crate::exit::Exit;
use crate::state::{Standing, State};

/// For the agent's grace time, the sidecar's, and an engine that takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends a bottle as a signal to its launcher does.
pub(super) fn run(bottle: &str) -> Result<Exit, CliError> {
    let state = State::open()?;
    let found = state.find(bottle)?;
    let mut err = std::io::stderr();
    let launcher = found.record.as_ref().map(|record| &record.launcher);
    let Some(launcher) = launcher.filter(|_| found.standing == Standing::Running) else {
        writeln!(
            err,
            "bottle {} has no launcher any more; `launcher cleanup` removes what is left",
            found.name
        )?;
        return Ok(Exit::Ok);
    };
    if !launcher.end(Signal::TERM, PATIENCE)? {
        writeln!(
            err,
            "error: the launcher of {} (process {}) has not ended within {} s\nhint: `kill -9 {}`, then `launcher cleanup`",
            found.name,
            launcher.pid,
            PATIENCE.as_secs(),
            launcher.pid
        )?;
        return Ok(Exit::TeardownIncomplete);
    }
    writeln!(std::io::stdout(), "stopped {}", found.name)?;
    Ok(Exit::Ok)
}
