//! What was typed.

mod check;
mod cleanup;
mod doctor;
mod info;
mod list;
mod log;
pub mod start;
mod stop;
mod supervise;
mod why;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::backend::ChooseError;
use crate::exit::Exit;
use crate::explain::ExplainError;
use crate::manifest::ManifestError;
use crate::operator::OperatorError;
use crate::plan::PlanError;
use crate::session::SessionError;
use crate::state::{NameError, StateError};
use crate::{demo, guest, local, sidecar, smol, vm};

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage or manifest, 3 preflight, 4 boundary not confirmed, \
5 teardown incomplete, 10 findings; otherwise the agent's own.";

/// Runs a coding agent in a bottle whose only way out is a scanning, default-deny proxy.
#[derive(Debug, Parser)]
#[command(name = "launcher", version, after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start an agent in a new bottle; `demo` is built in.
    Start(start::StartArguments),
    /// Show the bottles that run.
    List {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show what is known of a bottle, with what its probe found.
    Info {
        /// A bottle's name as `list` shows it, or its agent's where that has one bottle.
        bottle: String,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// End a bottle in order, as ^C in its terminal would.
    Stop {
        /// A bottle's name as `list` shows it, or its agent's where that has one bottle.
        bottle: String,
    },
    /// Remove what launchers that were killed left behind; running bottles and logs stay.
    Cleanup {
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Look at what this host has and lacks.
    Doctor,
    /// Read manifests and compile their policies; starts nothing.
    Check {
        /// Default: all of yours, and those of this repository.
        files: Vec<std::path::PathBuf>,
    },
    /// Show what bottles asked for and what was decided.
    Log {
        /// Leave out what was let through.
        #[arg(long)]
        blocked: bool,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// A bottle's name as `list` shows it, or an agent's; default: all.
        bottle: Option<String>,
    },
    /// Explain an event of the log, or whether a bottle would let a request through.
    Why(why::WhyArguments),
    /// Show the requests that wait for an answer and ask for it; `--once` only lists them.
    Supervise(supervise::SuperviseArguments),
    /// Let a waiting request through: this value, on its route, in its place, for a while.
    Approve(supervise::ApproveArguments),
    /// Refuse a waiting request, and tell the agent why.
    Reject(supervise::RejectArguments),
    /// Take an approval or a rejection back.
    Revoke(supervise::RevokeArguments),
    /// Say whether an audit log is whole, or which line is the first that is not as it was written.
    VerifyAudit {
        /// Such as ~/.local/state/bot-bottle/logs/NAME/audit.jsonl
        #[arg(value_name = "FILE")]
        file: std::path::PathBuf,
    },
    /// Look for credentials in files, directories or standard input; needs no bottle.
    Scan(proxy::scan::Arguments),

    #[command(name = "__sidecar", hide = true, disable_help_flag = true)]
    Sidecar {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    #[command(name = "__bottle-stage1", hide = true)]
    Stage1 { launcher: u32, mode: Option<String> },
    #[command(name = "__bottle-init", hide = true)]
    Init,
    #[command(name = "__bottle-become", hide = true)]
    Become,
    #[command(name = "__bottle-probe", hide = true)]
    Probe,
    #[command(name = "__demo-agent", hide = true)]
    DemoAgent,
    #[command(name = "__container-sidecar", hide = true)]
    ContainerSidecar,
    #[command(name = "__container-init", hide = true)]
    ContainerInit,
    #[command(name = "__container-run", hide = true, disable_help_flag = true)]
    ContainerRun {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    #[command(name = "__container-probe", hide = true)]
    ContainerProbe,
    #[command(name = "__container-health", hide = true)]
    ContainerHealth,
    #[command(name = "__machine-init", hide = true)]
    MachineInit,
    #[command(name = "__machine-idle", hide = true)]
    MachineIdle,
    #[command(name = "__machine-run", hide = true)]
    MachineRun { number: u32 },
    #[command(name = "__machine-become", hide = true)]
    MachineBecome { number: u32 },
    #[command(name = "__machine-watchdog", hide = true)]
    MachineWatchdog { note: std::path::PathBuf },
    #[command(name = "__tether", hide = true, disable_help_flag = true)]
    Tether {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Choose(#[from] ChooseError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Explain(#[from] ExplainError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error("the demo could not be run: {0:#}")]
    Demo(#[from] anyhow::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl CliError {
    fn exit(&self) -> Exit {
        match self {
            Self::Manifest(_)
            | Self::Plan(_)
            | Self::Name(_)
            | Self::Operator(OperatorError::NoTerminal | OperatorError::NoToken)
            | Self::Explain(ExplainError::Usage(_)) => Exit::Usage,
            Self::Choose(error) => error.exit(),
            Self::State(StateError::NoBottle { .. } | StateError::Ambiguous { .. }) => Exit::Usage,
            Self::Session(error) => error.exit(),
            // Whoever reads our output may stop at any time.
            Self::Io(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Ok,
            _ => Exit::Failed,
        }
    }
}

/// Runs with the given arguments, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no error; clap knows which.
            let _closed = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            }
            .into();
        }
    };
    // The stages come before anything that could start a thread.
    match cli.command {
        Command::Sidecar { arguments } => return sidecar::main(&arguments),
        Command::Stage1 { launcher, mode } => {
            return local::stage1::main(launcher, mode.as_deref() == Some("check"));
        }
        Command::Init => return local::init::main(),
        Command::Become => return local::become_main(),
        Command::Probe => return local::probe::main(),
        Command::DemoAgent => return demo::agent().into(),
        Command::ContainerSidecar => return guest::sidecar::main(),
        Command::ContainerInit => return guest::init::main(),
        Command::ContainerRun { arguments } => return guest::run::main(&arguments),
        Command::ContainerProbe => return guest::probe::main(),
        Command::ContainerHealth => return guest::health::main(),
        Command::MachineInit => return guest::machine::main(),
        Command::MachineIdle => return guest::idle::main(),
        Command::MachineRun { number } => return guest::program::run(number),
        Command::MachineBecome { number } => return guest::program::r#become(number),
        Command::MachineWatchdog { note } => return smol::sweep::watchdog(&note),
        Command::Tether { arguments } => return vm::tether::main(&arguments),
        // Its exit code for findings is the user's to choose, so it is not one of `Exit`.
        Command::Scan(arguments) => return proxy::scan::main(&arguments),
        Command::VerifyAudit { file } => {
            let arguments = ["sidecar".into(), "verify-audit".into(), file.into()];
            return proxy::cli::main(arguments);
        }
        _ => {}
    }
    start_logging();
    let outcome = local::sys::close_inherited_on_exec()
        .map_err(CliError::from)
        .and_then(|()| run(cli.command));
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = error.exit();
            if exit != Exit::Ok {
                // With stderr closed the exit code has to do.
                let _closed = writeln!(std::io::stderr(), "error: {error}");
            }
            exit.into()
        }
    }
}

/// Off unless `BOT_BOTTLE_LOG` says otherwise: what a user has to know is written for users.
fn start_logging() {
    let filter =
        EnvFilter::try_from_env("BOT_BOTTLE_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    // A second call in one process would fail; the first one's logging then serves.
    let _already = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}

fn run(command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Start(arguments) => start::run(&arguments),
        Command::List { format } => list::run(format),
        Command::Info { bottle, format } => info::run(&bottle, format),
        Command::Stop { bottle } => stop::run(&bottle),
        Command::Cleanup { dry_run } => cleanup::run(dry_run),
        Command::Doctor => doctor::run(),
        Command::Check { files } => check::run(&files),
        Command::Log {
            blocked,
            format,
            bottle,
        } => log::run(blocked, format, bottle.as_deref()),
        Command::Why(arguments) => why::run(&arguments),
        Command::Supervise(arguments) => supervise::supervise(&arguments),
        Command::Approve(arguments) => supervise::approve(&arguments),
        Command::Reject(arguments) => supervise::reject(&arguments),
        Command::Revoke(arguments) => supervise::revoke(&arguments),
        // Were answered before; none of them gets here.
        Command::Sidecar { .. }
        | Command::Stage1 { .. }
        | Command::Init
        | Command::Become
        | Command::Probe
        | Command::DemoAgent
        | Command::ContainerSidecar
        | Command::ContainerInit
        | Command::ContainerRun { .. }
        | Command::ContainerProbe
        | Command::ContainerHealth
        | Command::MachineInit
        | Command::MachineIdle
        | Command::MachineRun { .. }
        | Command::MachineBecome { .. }
        | Command::MachineWatchdog { .. }
        | Command::Tether { .. }
        | Command::VerifyAudit { .. }
        | Command::Scan(_) => Ok(Exit::Usage),
    }
}
