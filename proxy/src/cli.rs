//! The command line of the sidecar, the same as a binary of its own and inside the launcher.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::audit;
use crate::audit::verify::{self, Flaw};
use crate::config::File;
use crate::policy::Policy;
use crate::run;
use crate::scan;
use crate::secrets::Secrets;
use crate::settings::{Fixed, Ruling};

/// Exit code for a command line or a file that cannot be used.
const USAGE: u8 = 2;

/// A TLS-intercepting, default-deny egress proxy that scans what leaves and injects credentials.
#[derive(Debug, Parser)]
#[command(name = "sidecar", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM; SIGHUP reloads the policy.
    Run {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Read a configuration as `run` would and print the effective routes; starts nothing.
    Check {
        #[arg(value_name = "FILE")]
        config: PathBuf,
        /// Also require every variable that the file names to be set.
        #[arg(long)]
        secrets: bool,
    },
    /// Say whether an audit log is whole, or which line is the first that is not as it was written.
    VerifyAudit {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Look for credentials in files, directories or standard input.
    Scan(scan::Arguments),
}

/// Runs with the given arguments, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no error; clap knows which.
            let _closed = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let outcome = match &cli.command {
        Command::Run { config } => serve(config),
        Command::Check { config, secrets } => check(config, *secrets),
        Command::VerifyAudit { file } => verify_audit(file),
        Command::Scan(arguments) => return scan::main(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            let _closed = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(code)
        }
    }
}

fn serve(config: &Path) -> Result<(), (u8, anyhow::Error)> {
    let filter =
        EnvFilter::try_from_env("BOT_BOTTLE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call in one process would fail; the first one's logging then serves.
    let _already = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
    run::run(config).map_err(|error| match error {
        run::RunError::Config(_) | run::RunError::Start(_) => (USAGE, error.into()),
        _ => (1, error.into()),
    })
}

fn verify_audit(file: &Path) -> Result<(), (u8, anyhow::Error)> {
    let whole = match verify::verify(file) {
        Ok(whole) => whole,
        Err(Flaw::Read(error)) => {
            return Err((USAGE, anyhow::anyhow!("{}: {error}", file.display())));
        }
        Err(flaw) => return Err((1, anyhow::anyhow!("{}: {flaw}", file.display()))),
    };
    let counts: Vec<String> = whole
        .verdicts
        .iter()
        .map(|(verdict, count)| format!("{count} {}", audit::printable(verdict.as_bytes())))
        .collect();
    let end = match (whole.closed, whole.anchored) {
        (true, true) => "closed by an orderly stop",
        (false, true) => "no orderly stop: the sidecar still runs, or was killed",
        (_, false) => "its .head file is missing, so lines taken away at the end could not be seen",
    };
    let mut out = std::io::stdout().lock();
    let records = whole.records;
    writeln!(out, "ok: {records} records ({}); {end}", counts.join(", "))
        .map_err(|error| (1, error.into()))
}

fn check(config: &Path, with_secrets: bool) -> Result<(), (u8, anyhow::Error)> {
    let usage = |error: anyhow::Error| (USAGE, error);
    let file = File::read(config).map_err(|error| usage(error.into()))?;
    let policy = Policy::compile(&file.egress).map_err(|error| usage(error.into()))?;
    if with_secrets {
        let secrets = Secrets::from_environment(std::env::vars());
        Fixed::parse(&file, &secrets).map_err(|error| usage(error.into()))?;
        Ruling::parse(&file.egress, &secrets).map_err(|error| usage(error.into()))?;
    }
    let mut out = std::io::stdout().lock();
    let printed = (|| {
        writeln!(
            out,
            "policy {} with {} routes; everything else is denied",
            policy.hash(),
            policy.table().len()
        )?;
        policy
            .table()
            .iter()
            .try_for_each(|route| writeln!(out, "{route}"))
    })();
    printed.map_err(|error| (1, error.into()))
}
