//! Measures every row of the table of targets and prints it: what the README says is printed by this.
//!
//! ```sh
//! benches/corpus/gather
//! cargo run --release -p benches --bin targets -- --vectors cases.jsonl.gz
//! ```
//!
//! Times are CPU times of the one thread that scans, best of some repeats, so that another load on the machine
//! counts as little as it can.

mod adversarial;
mod clean;
mod evasions;
mod measure;
mod report;
mod secrets;
mod speed;
mod split;
mod start_up;
mod vectors;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use report::Report;

/// Measure the detectors against their targets.
///
/// Without a section's flag all are measured for which there is input.
#[derive(Debug, Parser)]
struct Arguments {
    /// Vectors, one JSON object a line: source, rule, kind (positive or negative), text. May be gzipped.
    #[arg(long)]
    vectors: Option<PathBuf>,
    /// A directory with one directory of clean files for each kind.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/clean-corpus"))]
    clean: PathBuf,
    /// Measure throughput on the clean files.
    #[arg(long)]
    speed: bool,
    /// Measure throughput on the worst inputs.
    #[arg(long)]
    adversarial: bool,
    /// Measure start-up time and memory.
    #[arg(long)]
    start_up: bool,
    /// Count the vectors that are found (needs --vectors).
    #[arg(long)]
    recall: bool,
    /// Count the findings in clean files.
    #[arg(long)]
    findings: bool,
    /// Count the evasions that are caught.
    #[arg(long)]
    evasions: bool,
    /// Compare every split of some inputs with the whole.
    #[arg(long)]
    split: bool,
    /// List what was missed.
    #[arg(long)]
    misses: bool,
    /// Print one JSON object instead of Markdown.
    #[arg(long)]
    json: bool,
    /// Exit with 1 if a target is missed.
    #[arg(long)]
    check: bool,
    /// Megabytes of each kind to time.
    #[arg(long, default_value_t = 8)]
    slice: usize,
    /// Megabytes of each kind to look for findings in; 0 is all.
    #[arg(long, default_value_t = 0)]
    limit: usize,
    /// How often each time is taken; the best counts.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// With how many fresh tokens each evasion must be caught.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// How many inputs are split.
    #[arg(long, default_value_t = 200)]
    samples: usize,
    /// Where tokens and contexts come from; a new one each run if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the bytes of the evasions whose name holds this, and nothing else.
    #[arg(long)]
    show: Option<String>,
    /// Build the scanner in this process and print what it took; what --start-up runs.
    #[arg(long, hide = true)]
    start_up_probe: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.start_up_probe {
        start_up::probe()?;
        return Ok(ExitCode::SUCCESS);
    }
    let seed = arguments.seed.unwrap_or_else(measure::now);
    if let Some(part) = &arguments.show {
        evasions::show(part, seed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = run(&arguments, seed)?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{:#}", report.json())?;
    } else {
        write!(out, "{}", report.markdown())?;
    }
    Ok(ExitCode::from(u8::from(arguments.check && report.missed())))
}

fn run(arguments: &Arguments, seed: u64) -> anyhow::Result<Report> {
    let chosen = [
        arguments.speed,
        arguments.adversarial,
        arguments.start_up,
        arguments.recall,
        arguments.findings,
        arguments.evasions,
        arguments.split,
    ];
    let every = !chosen.contains(&true);
    let clean = arguments.clean.is_dir();
    let mut report = Report::new(seed);
    // First, while this process is still small.
    if every || arguments.start_up {
        start_up::measure(&mut report, arguments.repeat).context("cannot measure start-up")?;
    }
    if arguments.speed || (every && clean) {
        speed::measure(
            &mut report,
            &arguments.clean,
            arguments.slice,
            arguments.repeat,
        )?;
    }
    if every || arguments.adversarial {
        adversarial::measure(&mut report, arguments.repeat)?;
    }
    if arguments.recall || (every && arguments.vectors.is_some()) {
        let path = arguments
            .vectors
            .as_deref()
            .context("--recall needs --vectors FILE")?;
        vectors::measure(&mut report, path, arguments.misses)?;
    }
    if arguments.findings || (every && clean) {
        clean::measure(&mut report, &arguments.clean, arguments.limit)?;
    }
    if every || arguments.evasions {
        evasions::measure(&mut report, seed, arguments.rounds, arguments.misses)?;
    }
    if every || arguments.split {
        split::measure(&mut report, seed, arguments.samples)?;
    }
    Ok(report)
}
