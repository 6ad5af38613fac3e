//! `launcher list`.

use std::io::Write;

use super::{CliError, Format};
use crate::exit::Exit;
use crate::state::{Standing, State};

pub(super) fn run(format: Format) -> Result<Exit, CliError> {
    let found = State::locate()?.bottles_found()?;
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        serde_json::to_writer_pretty(&mut out, &found)?;
        writeln!(out)?;
        return Ok(Exit::Ok);
    }
    for bottle in &found {
        let standing = match bottle.standing {
            Standing::Running => "running",
            Standing::Dead => "dead (launcher cleanup)",
        };
        match &bottle.record {
            Some(record) => writeln!(
                out,
                "{}  {standing}  {}  {}  {}  {}",
                bottle.name,
                record.backend,
                record.alias,
                record.created,
                record.workspace.display()
            )?,
            None => writeln!(out, "{}  {standing}", bottle.name)?,
        }
    }
    if found.is_empty() {
        writeln!(std::io::stderr(), "no bottle runs")?;
    }
    Ok(Exit::Ok)
}
