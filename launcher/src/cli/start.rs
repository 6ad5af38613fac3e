//! `launcher start`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::{CliError, Format};
use crate::apple;
use crate::backend::choose;
use crate::demo;
use crate::docker;
use crate::exit::Exit;
use crate::manifest::{Home, ManifestError};
use crate::place::Private;
use crate::plan::{self, Draft, Git, Plan, PlanError};
use crate::session::{self, Attach, Options, terminal};
use crate::smol;
use crate::state::{Name, State};

/// The built-in agent, which needs no manifest.
const DEMO: &str = "demo";

#[derive(Debug, Args)]
pub struct StartArguments {
    /// The name of an agent: `agents/NAME.md` in ~/.bot-bottle, or in .bot-bottle of this repository
    pub agent: String,
    /// What the bottle is made of; default: the strongest that this host can run
    #[arg(long, env = "BOT_BOTTLE_BACKEND", value_name = "BACKEND")]
    pub backend: Option<String>,
    /// Use this bottle instead of the one that the agent's manifest names; of it, the demo takes the image
    #[arg(long, value_name = "NAME")]
    pub bottle: Option<String>,
    /// Without a terminal: the agent works on the prompt and ends
    #[arg(long)]
    pub headless: bool,
    /// What the agent is asked to do
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How --dry-run prints
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Say how long each step took, on stderr
    #[arg(long)]
    pub timings: bool,
    /// Leave the bottle's directory when it ends, for a look at it
    #[arg(long)]
    pub keep: bool,
    /// The directory that the agent works in; default: this one
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
}

pub(super) fn run(arguments: &StartArguments) -> Result<Exit, CliError> {
    // One thread: children die with the thread that started them, so that has to be the one that stays.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if is_demo(arguments)? {
        return runtime.block_on(demo::run(arguments));
    }
    let state = State::locate()?;
    let home = Home::locate()?;
    let private = Private::locate(state.root(), &home.path);
    let draft = draft(arguments, &home)?;
    let plan = plan::build(draft, &state, &private)?;
    if arguments.dry_run {
        return show(&plan, arguments.format);
    }
    let attach = if arguments.headless {
        Attach::Headless
    } else if terminal::is_there() {
        Attach::Terminal
    } else {
        return Err(PlanError::NoTerminal {
            what: format!("agent `{}`", arguments.agent),
        }
        .into());
    };
    for note in &plan.notes {
        writeln!(std::io::stderr(), "note: {note}")?;
    }
    say_backend(&plan)?;
    let state = State::open()?;
    sweep(&state)?;
    let options = Options {
        attach,
        keep: arguments.keep,
        timings: arguments.timings,
        ..Options::default()
    };
    let outcome = runtime.block_on(session::run(plan, &state, &private, options))?;
    // A thread may still sleep in a read of the terminal.
    runtime.shutdown_background();
    Ok(outcome.exit)
}

/// Which boundary it is going to be, and why: before anything of it is there.
pub(crate) fn say_backend(plan: &Plan) -> std::io::Result<()> {
    writeln!(
        std::io::stderr(),
        "backend {}: {} ({})",
        plan.backend,
        plan.strength,
        plan.why
    )
}

/// Removes what killed launchers left, containers and machines first: a bottle's directory is gone last.
pub(crate) fn sweep(state: &State) -> Result<(), CliError> {
    let mut names = Vec::new();
    let swept = [
        docker::sweep_leftovers(),
        smol::sweep::sweep(&state.machines(), false),
        apple::sweep::sweep(&state.containers(), false),
    ];
    for swept in swept {
        match swept {
            Ok(swept) => names.extend(swept),
            // What is dead does not get stronger by staying; this bottle can start without it.
            Err(error) => writeln!(
                std::io::stderr(),
                "note: leftovers could not be removed: {error}; try `launcher cleanup`"
            )?,
        }
    }
    names.extend(state.sweep()?);
    names.sort();
    names.dedup();
    for name in names {
        writeln!(
            std::io::stderr(),
            "removed what is left of bottle {name}, whose launcher was killed"
        )?;
    }
    Ok(())
}

/// The user's own agent of that name is meant first.
fn is_demo(arguments: &StartArguments) -> Result<bool, CliError> {
    if arguments.agent != DEMO {
        return Ok(false);
    }
    let own = Home::locate()
        .map(|home| home.path.join("agents").join("demo.md"))
        .is_ok_and(|path| path.exists());
    Ok(!own)
}

fn draft(arguments: &StartArguments, home: &Home) -> Result<Draft, CliError> {
    let workspace = match &arguments.workspace {
        Some(directory) => directory.clone(),
        None => std::env::current_dir()?,
    };
    let name: Name = arguments.agent.parse()?;
    let agent = home.agent(&name, &workspace)?;
    let bottle = match (&arguments.bottle, &agent.bottle) {
        (Some(asked), _) => home.bottle(&asked.parse()?)?,
        (None, Some(named)) => home.bottle(named)?,
        (None, None) => return Err(ManifestError::NoBottle(name.to_string(), agent.file).into()),
    };
    let mut notes = Vec::new();
    if let Some(other) = &agent.shadowed {
        notes.push(format!(
            "your own {} is used; {} is not",
            agent.file.display(),
            other.display()
        ));
    }
    Ok(Draft {
        agent: name,
        agent_file: Some(agent.file),
        bottle: bottle.name.to_string(),
        bottle_file: Some(bottle.file),
        backend: choose(arguments.backend.as_deref(), bottle.image.as_ref())?,
        template: bottle.template,
        system_prompt: agent.body,
        prompt: arguments.prompt.clone(),
        headless: arguments.headless,
        workspace,
        env: bottle.env,
        mounts: bottle.mounts,
        egress: bottle.egress,
        git: Git {
            name: agent.git.name,
            email: agent.git.email,
        },
        notes,
    })
}

fn show(plan: &Plan, format: Format) -> Result<Exit, CliError> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Text => write!(out, "{plan}")?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, plan)?;
            writeln!(out)?;
        }
    }
    Ok(Exit::Ok)
}
