//! Throughput on clean files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fixtures::evasions::Random;

use crate::report::{Report, Row};
use crate::{measure, secrets};

const LLM_JSON: &str = "llm-json";

pub fn measure(
    report: &mut Report,
    clean: &Path,
    megabytes: usize,
    repeat: usize,
) -> anyhow::Result<()> {
    let scanner = secrets::scanner(&[], &mut Random::new(1))?;
    let (mut lines, mut whole, mut seconds, mut llm) = (Vec::new(), 0.0, 0.0, None);
    for kind in kinds(clean)? {
        let name = kind
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let (input, size) = head(&kind, megabytes.saturating_mul(1_000_000))?;
        if input.is_empty() {
            continue;
        }
        let timed = input.len();
        let speed = measure::gigabytes_a_second(&scanner, input, repeat)
            .with_context(|| format!("scanning {name}"))?;
        whole += size as f64;
        seconds += size as f64 / speed;
        if name == LLM_JSON {
            llm = Some(speed);
        }
        lines.push(vec![
            name,
            format!("{:.1}", timed as f64 / 1e6),
            format!("{:.1}", size as f64 / 1e6),
            format!("{speed:.3}"),
        ]);
    }
    lines.push(vec![
        "**all, weighted by size**".into(),
        String::new(),
        format!("{:.1}", whole / 1e6),
        format!("{:.3}", whole / seconds.max(1e-9)),
    ]);
    report.detail(
        "Throughput on clean files",
        &["kind", "MB timed", "MB there", "GB/s"],
        lines,
    );
    if let Some(speed) = llm {
        report.row(Row {
            what: "throughput on LLM request JSON, token rules + 50 known secrets + decoding, one core",
            peers: "Kingfisher 0.05 GB/s (turbo about 0.2), betterleaks 0.035, gitleaks 0.006",
            target: ">= 1.5 GB/s",
            figure: format!("{speed:.2} GB/s"),
            value: speed,
            pass: speed >= 1.5,
        });
    }
    Ok(())
}

/// The directories of a corpus, in order.
pub fn kinds(clean: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut kinds = entries(clean)?;
    kinds.retain(|path| path.is_dir());
    Ok(kinds)
}

/// The files of a kind, in order.
pub fn entries(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || {
        format!(
            "cannot list {}; benches/corpus/gather makes it",
            directory.display()
        )
    };
    let mut paths = fs::read_dir(directory)
        .with_context(context)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(context)?;
    paths.sort();
    Ok(paths)
}

/// `limit` bytes out of the kind's files, spread over all of them, and how many there are in all.
fn head(kind: &Path, limit: usize) -> anyhow::Result<(Vec<u8>, u64)> {
    let files = entries(kind)?;
    let mut size = 0;
    for file in &files {
        size += fs::metadata(file)?.len();
    }
    // Every so many-th file first, then the ones between: neighbours are of one package.
    let step = ((size / limit.max(1) as u64) as usize).clamp(1, files.len().max(1));
    let mut input = Vec::new();
    for file in (0..step).flat_map(|first| files.iter().skip(first).step_by(step)) {
        if input.len() >= limit {
            break;
        }
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        input.extend_from_slice(&content[..content.len().min(limit - input.len())]);
    }
    Ok((input, size))
}
