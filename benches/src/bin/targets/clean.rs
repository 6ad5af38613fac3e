//! Findings in text that holds no credential.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use detectors::{Location, Severity};
use fixtures::evasions::Random;

use crate::report::{Report, Row};
use crate::{secrets, speed};

pub fn measure(report: &mut Report, clean: &Path, megabytes: usize) -> anyhow::Result<()> {
    let scanner = secrets::scanner(&[], &mut Random::new(2))?;
    let limit = match megabytes {
        0 => usize::MAX,
        some => some.saturating_mul(1_000_000),
    };
    let (mut whole, mut blocked, mut lines) = (0, 0, Vec::new());
    let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for kind in speed::kinds(clean)? {
        let name = kind
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let count = kinds.entry(name.clone()).or_default();
        for file in speed::entries(&kind)? {
            let content =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            if count.0 + content.len() > limit {
                continue;
            }
            count.0 += content.len();
            for finding in scanner.scan(&Location::Body, &content) {
                let severity = match finding.severity {
                    Severity::Block => {
                        blocked += 1;
                        count.1 += 1;
                        "block"
                    }
                    Severity::Warn => "warn",
                };
                let via: Vec<String> = finding.via.iter().map(ToString::to_string).collect();
                lines.push(vec![
                    format!(
                        "{name}/{}",
                        file.file_name().unwrap_or_default().to_string_lossy()
                    ),
                    finding.rule.to_string(),
                    severity.into(),
                    finding.span.start.to_string(),
                    via.join(", "),
                    format!("`{}`", finding.context.escape_debug()),
                ]);
            }
        }
        whole += count.0;
    }
    let rate = blocked as f64 / (whole as f64).max(1.0) * 1e8;
    report.row(Row {
        what: "findings per 100 MB of clean, real developer text",
        peers: "ripsecrets 6, Kingfisher 15, betterleaks 82",
        target: "<= 1",
        figure: format!(
            "{rate:.2} ({blocked} in {:.0} MB of {} kinds)",
            whole as f64 / 1e6,
            kinds.len()
        ),
        value: rate,
        pass: rate <= 1.0,
    });
    report.detail(
        "Findings in clean files, by kind",
        &["kind", "MB", "findings"],
        kinds
            .into_iter()
            .map(|(kind, (size, found))| {
                vec![kind, format!("{:.1}", size as f64 / 1e6), found.to_string()]
            })
            .collect(),
    );
    report.detail(
        "Findings in clean files",
        &["file", "rule", "severity", "offset", "via", "context"],
        lines,
    );
    Ok(())
}
