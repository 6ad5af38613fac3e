//! `scan`: the detectors over files, directories and standard input, with nothing in between.
//!
//! Top down: [`Arguments`] are what was typed, [`walk`] finds the files, [`input`] streams each through the detectors, [`lines`] turns offsets into lines, [`report`] writes what was found
//! to stdout and [`talk`] everything else to stderr.
//!
//! What holds everywhere: no credential is shown, not even one that is a file's name; memory does not grow with the
//! size of a file; the same tree gives the same report, byte by byte. What a comment or a baseline allows here the
//! proxy never lets through: it does not know this module.

mod arguments;
mod baseline;
mod entry;
mod escape;
mod input;
mod lines;
mod report;
mod rules;
mod talk;
mod walk;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::secrets::SecretError;
use baseline::Baseline;
use entry::Gathered;
use input::Reading;
use report::Report;
use talk::Talk;

pub use arguments::{Arguments, ByteSize, Format};

/// Runs `scan` and says in words why it could not, if it could not.
pub fn main(arguments: &Arguments) -> ExitCode {
    let code = match run(arguments) {
        Ok(outcome) => outcome.code(),
        Err(error) => {
            // With stderr closed the exit code has to do.
            let _closed = writeln!(io::stderr(), "error: {error}");
            error.code()
        }
    };
    ExitCode::from(code)
}

/// How a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Clean,
    /// Something could not be read, and nothing was found in the rest.
    Incomplete,
    /// With the code that was asked for.
    Found(u8),
}

impl Outcome {
    fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Incomplete => 1,
            Self::Found(code) => code,
        }
    }
}

/// Why nothing was scanned, or why the report is not there.
#[derive(Debug, thiserror::Error)]
enum ScanError {
    #[error("the rules in {} cannot be used: {reason}", escape::path(path))]
    Rules { path: PathBuf, reason: String },
    #[error(
        "{} is no baseline: {reason}\nhint: a baseline is what `scan --format json --output FILE` wrote",
        escape::path(path)
    )]
    Baseline { path: PathBuf, reason: String },
    #[error(transparent)]
    Known(#[from] SecretError),
    #[error("the scanner cannot be built: {0}")]
    Scanner(#[from] detectors::BuildError),
    #[error("--list-rules has no SARIF form\nhint: use --format json")]
    ListFormat,
    #[error("{} cannot be written: {error}", escape::path(path))]
    Output { path: PathBuf, error: io::Error },
    #[error("the report cannot be written: {0}")]
    Write(io::Error),
}

impl ScanError {
    fn code(&self) -> u8 {
        match self {
            Self::Rules { .. } | Self::Baseline { .. } | Self::Known(_) | Self::ListFormat => 2,
            Self::Scanner(_) | Self::Output { .. } | Self::Write(_) => 1,
        }
    }
}

fn run(arguments: &Arguments) -> Result<Outcome, ScanError> {
    let talk = Talk::new(arguments.quiet, arguments.verbose);
    let mut scanner = rules::Choice::default();
    if let Some(path) = &arguments.rules {
        scanner.user = rules::load_rules(path)?;
    }
    let listed = rules::listed();
    if arguments.list_rules {
        let text = match arguments.format {
            Format::Text => rules::table(&listed),
            Format::Json => report::pretty(&listed).map_err(ScanError::Write)?,
            Format::Sarif => return Err(ScanError::ListFormat),
        };
        deliver(&mut output(arguments.output.as_deref())?, &text)?;
        if !scanner.user.is_empty() {
            talk.remark(&format!("and the {} of --rules", scanner.user.len()));
        }
        return Ok(Outcome::Clean);
    }
    let baseline = match &arguments.baseline {
        Some(path) => Baseline::read(path)?,
        None => Baseline::default(),
    };
    if arguments.known_from_env {
        scanner.known = rules::known(&talk)?;
    }
    let scanner = scanner.build()?;
    // Before the work, so that a report that cannot be written costs no time.
    let mut out = output(arguments.output.as_deref())?;

    let reading = Reading {
        scanner: &scanner,
        allow_comments: !arguments.no_allow_comments,
        max_file_size: arguments.max_file_size.map(ByteSize::bytes),
        talk: &talk,
    };
    let gathered = Gathered::default();
    let roots = reading.roots(&arguments.paths);
    for pipe in &roots.pipes {
        reading.pipe(pipe, &gathered);
    }
    let tree = walk::Rules {
        ignore_files: !arguments.no_ignore,
        hidden: arguments.hidden,
    };
    let hidden = walk::walk(&roots.walked, tree, &reading, &gathered);
    let mut totals = gathered.into_totals();
    totals.known = baseline.remove_from(&mut totals.entries);
    let problems = talk.end_of_files();

    let report = Report {
        entries: &totals.entries,
        problems: &problems,
        rules: &listed,
    };
    let text = match arguments.format {
        Format::Text => report.text(),
        Format::Json => report.json().map_err(ScanError::Write)?,
        Format::Sarif => report.sarif().map_err(ScanError::Write)?,
    };
    deliver(&mut out, &text)?;
    if hidden > 0 {
        talk.remark(&format!(
            "{hidden} hidden files and directories were skipped; --hidden scans them"
        ));
    }
    if totals.opaque > 0 {
        talk.remark(&format!(
            "{} files hold compressed or nested data that was not looked into; --verbose names them",
            totals.opaque
        ));
    }
    if totals.files == 0 && problems.is_empty() {
        talk.remark("there was no file to scan; --no-ignore and --hidden leave less out");
    }
    talk.sum(&totals, problems.len());

    let clean = totals.entries.is_empty();
    Ok(match arguments.exit_code {
        // With `--exit-code 0` findings are fine; what was not looked at is not.
        code if !clean && (code != 0 || problems.is_empty()) => Outcome::Found(code),
        _ if problems.is_empty() => Outcome::Clean,
        _ => Outcome::Incomplete,
    })
}

/// Where the report goes.
#[derive(Debug)]
enum Output {
    Stdout,
    File(PathBuf, File),
}

fn output(path: Option<&Path>) -> Result<Output, ScanError> {
    let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
        return Ok(Output::Stdout);
    };
    // Emptied only when there is something to put into it: it may be the baseline, or be scanned.
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| ScanError::Output {
            path: path.to_owned(),
            error,
        })?;
    Ok(Output::File(path.to_owned(), file))
}

fn deliver(output: &mut Output, text: &str) -> Result<(), ScanError> {
    match output {
        Output::Stdout => match write_all(&mut io::stdout().lock(), text) {
            // Whoever reads our output may stop at any time; the exit code still says what was found.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ScanError::Write(error)),
            _ => Ok(()),
        },
        Output::File(path, file) => {
            let written = file.metadata().and_then(|metadata| {
                if metadata.is_file() {
                    file.set_len(0)?;
                }
                write_all(file, text)
            });
            written.map_err(|error| ScanError::Output {
                path: path.clone(),
                error,
            })
        }
    }
}

fn write_all(to: &mut impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}
