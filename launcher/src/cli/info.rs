//! `launcher info`.

use std::io::Write;

use super::{CliError, Format};
use crate::escape::Escaped;
use crate::exit::Exit;
use crate::state::{Standing, State};

pub(super) fn run(bottle: &str, format: Format) -> Result<Exit, CliError> {
    let state = State::locate()?;
    let found = state.find(bottle)?;
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        serde_json::to_writer_pretty(&mut out, &found)?;
        writeln!(out)?;
        return Ok(Exit::Ok);
    }
    writeln!(out, "name       {}", found.name)?;
    let standing = match found.standing {
        Standing::Running => "running",
        Standing::Dead => "dead; `launcher cleanup` removes what is left",
    };
    writeln!(out, "standing   {standing}")?;
    let Some(record) = &found.record else {
        writeln!(out, "record     missing or half-written")?;
        return Ok(Exit::Ok);
    };
    writeln!(
        out,
        "agent      {} in bottle {}",
        record.agent, record.bottle
    )?;
    writeln!(out, "backend    {}", record.backend)?;
    writeln!(out, "alias      {}", record.alias)?;
    writeln!(out, "since      {}", record.created)?;
    writeln!(out, "workspace  {}", record.workspace.display())?;
    writeln!(out, "launcher   process {}", record.launcher.pid)?;
    writeln!(
        out,
        "logs       {}",
        state.logs().join(&found.name).display()
    )?;
    for check in &record.proof {
        writeln!(out, "probe      {}", Escaped(&check.to_string()))?;
    }
    Ok(Exit::Ok)
}
