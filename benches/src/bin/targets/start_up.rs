//! What it takes until the first byte can be scanned. A process of its own, for this one's memory is used already.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use detectors::Location;
use fixtures::evasions::Random;

use crate::report::{Report, Row};
use crate::secrets;

pub fn measure(report: &mut Report, repeat: usize) -> anyhow::Result<()> {
    let this = std::env::current_exe()?;
    let mut best: Option<(f64, f64, f64)> = None;
    for _ in 0..repeat.max(3) {
        let output = Command::new(&this).arg("--start-up-probe").output()?;
        let text = String::from_utf8(output.stdout)?;
        let figures: Vec<f64> = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let &[milliseconds, resident, peak] = figures.as_slice() else {
            anyhow::bail!(
                "the probe said {text:?} {}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        best = Some(match best {
            Some(old) => (
                old.0.min(milliseconds),
                old.1.min(resident),
                old.2.min(peak),
            ),
            None => (milliseconds, resident, peak),
        });
    }
    let (milliseconds, resident, peak) = best.context("nothing was measured")?;
    report.row(Row {
        what: "start-up (tables built, 50 secrets, first KiB scanned)",
        peers: "betterleaks 0.2 s CPU, Kingfisher 6.8 s",
        target: "<= 50 ms, <= 32 MiB",
        figure: format!(
            "{milliseconds:.1} ms, {resident:.1} MiB resident ({peak:.1} MiB at the peak)"
        ),
        value: milliseconds,
        pass: milliseconds <= 50.0 && peak <= 32.0,
    });
    Ok(())
}

/// Prints milliseconds, and how many MiB the resident set has grown and had grown at its largest.
pub fn probe() -> anyhow::Result<()> {
    let before = resident("VmRSS:")?;
    let start = Instant::now();
    let mut random = Random::new(1);
    let scanner = secrets::scanner(&[], &mut random)?;
    let prose = random.prose(1024);
    let found = scanner.scan(&Location::Body, prose.as_bytes()).len();
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    anyhow::ensure!(found == 0, "found something in prose");
    let (after, peak) = (resident("VmRSS:")?, resident("VmHWM:")?);
    writeln!(
        std::io::stdout(),
        "{milliseconds} {} {}",
        after - before,
        peak - before
    )?;
    Ok(())
}

/// A field of /proc/self/status, in MiB.
fn resident(field: &str) -> anyhow::Result<f64> {
    let status =
        fs::read_to_string("/proc/self/status").context("memory is measured on Linux only")?;
    let kibibytes: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("/proc/self/status has no {field}"))?
        .parse()?;
    Ok(kibibytes / 1024.0)
}
