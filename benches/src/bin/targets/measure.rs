//! Clocks.

use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use detectors::{Finding, Location, Scanner, Severity};
use fixtures::evasions::Random;
use fixtures::fresh::TOKEN_KINDS;
use rustix::time::{ClockId, clock_gettime};

/// A seed that is new each run.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The best of `repeat` scans, in GB/s. A scan that takes seconds is not repeated.
///
/// A token is planted at the input's end: a scanner that gives up before it is fast too, and counts for nothing.
pub fn gigabytes_a_second(
    scanner: &Scanner,
    mut input: Vec<u8>,
    repeat: usize,
) -> anyhow::Result<f64> {
    let token = TOKEN_KINDS
        .first()
        .context("there is no kind of token")?
        .fresh(&mut Random::new(input.len() as u64));
    input.extend_from_slice(format!("\n\n token = \"{token}\"\n").as_bytes());
    let mut best = Duration::MAX;
    for _ in 0..repeat.max(1) {
        let start = cpu();
        let findings = black_box(scanner.scan(&Location::Body, black_box(&input)));
        let took = cpu().saturating_sub(start);
        anyhow::ensure!(
            blocked(&findings),
            "the token at the end of {} bytes was not found",
            input.len()
        );
        best = best.min(took);
        if took > Duration::from_secs(2) {
            break;
        }
    }
    Ok(input.len() as f64 / best.as_secs_f64().max(1e-9) / 1e9)
}

/// Whether anything would have been stopped.
pub fn blocked(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Block)
}
