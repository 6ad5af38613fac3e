//! A plan, for people.

use std::fmt;

use super::{Plan, Program};
use crate::escape::Escaped;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = |file: &Option<std::path::PathBuf>| match file {
            Some(file) => format!(" ({})", file.display()),
            None => " (built in)".into(),
        };
        writeln!(f, "agent      {}{}", self.agent, file(&self.agent_file))?;
        writeln!(f, "bottle     {}{}", self.bottle, file(&self.bottle_file))?;
        writeln!(f, "name       {} (a new one at each start)", self.slug)?;
        writeln!(f, "backend    {}: {}", self.backend, self.strength)?;
        writeln!(f, "chosen     {}", self.why)?;
        if let Some(container) = &self.container {
            writeln!(f, "image      {}", container.image)?;
            writeln!(
                f,
                "engine     Docker {} on {}, runtime {}",
                Escaped(&container.engine),
                container.socket.display(),
                container.runtime.as_deref().unwrap_or("the engine's own")
            )?;
        }
        if let Some(machine) = &self.machine {
            writeln!(f, "image      {}", machine.image)?;
            writeln!(
                f,
                "machine    {} {} ({}), channel {}",
                machine.engine,
                machine.version,
                machine.program.display(),
                machine.channel
            )?;
        }
        match self.alias {
            Some(alias) => writeln!(f, "alias      {alias} (the lowest that is free now)")?,
            None => writeln!(f, "alias      none is free now")?,
        }
        writeln!(
            f,
            "workspace  {} (read and write)",
            self.workspace.path().display()
        )?;
        for mount in &self.mounts {
            writeln!(f, "mount      {} (read only)", mount.path().display())?;
        }
        writeln!(f, "command    {}", self.program)?;
        writeln!(
            f,
            "attached   {}",
            if self.headless {
                "headless"
            } else {
                "to this terminal"
            }
        )?;
        for (name, value) in &self.env {
            writeln!(f, "env        {name}={}", Escaped(value))?;
        }
        for (name, host) in &self.env_from_host {
            writeln!(f, "env        {name} (the value of your {host})")?;
        }
        for (name, host) in &self.credentials {
            writeln!(
                f,
                "credential {name} (the value of your {host}; in the sidecar only)"
            )?;
        }
        for name in &self.known_secrets {
            writeln!(
                f,
                "secret     {name} (in the sidecar only, to be recognised on the way out)"
            )?;
        }
        if self.routes.is_empty() {
            writeln!(f, "egress     nothing is allowed")?;
        }
        for route in &self.routes {
            writeln!(f, "egress     {}", Escaped(&route.to_string()))?;
        }
        writeln!(f, "policy     {}", self.policy)?;
        for note in &self.notes {
            writeln!(f, "note       {note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments = match self {
            Self::Command(argv) => argv,
            Self::Own(arguments) => {
                f.write_str("launcher ")?;
                arguments
            }
        };
        for (at, argument) in arguments.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            let plain = !argument.is_empty()
                && argument
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&b));
            if plain {
                f.write_str(argument)?;
            } else {
                write!(f, "'{}'", Escaped(&argument.replace('\'', "'\\''")))?;
            }
        }
        Ok(())
    }
}
