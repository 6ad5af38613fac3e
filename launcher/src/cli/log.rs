//! `launcher log`.

use std::io::Write;

use super::{CliError, Format};
use crate::exit::Exit;
use crate::explain;
use crate::state::State;

pub(super) fn run(blocked: bool, format: Format, bottle: Option<&str>) -> Result<Exit, CliError> {
    let logs = State::locate()?.logs();
    let mut out = std::io::stdout().lock();
    let mut shown = 0usize;
    for log in explain::logs(&logs, bottle)? {
        explain::each(&log, |record, line| {
            let passed = ["allow", "start", "stop", "reload"];
            if blocked && passed.contains(&record.verdict.as_str()) {
                return Ok(true);
            }
            shown += 1;
            match format {
                Format::Text => writeln!(out, "{record}")?,
                Format::Json => writeln!(out, "{line}")?,
            }
            Ok(true)
        })?;
    }
    if shown == 0 {
        writeln!(std::io::stderr(), "nothing is recorded")?;
    }
    Ok(Exit::Ok)
}
