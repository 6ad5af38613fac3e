//! Recall on vectors: texts of which somebody says that they are, or are not, a credential.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use detectors::Location;
use serde::Deserialize;

use crate::report::{Report, Row};
use crate::{measure, secrets};

#[derive(Debug, Deserialize)]
struct Vector {
    source: String,
    rule: String,
    kind: String,
    text: String,
}

#[derive(Debug, Default)]
struct Count {
    positives: usize,
    found: usize,
    negatives: usize,
    flagged: usize,
}

pub fn measure(report: &mut Report, path: &Path, misses: bool) -> anyhow::Result<()> {
    let scanner = secrets::without_secrets()?;
    let mut sources: BTreeMap<String, Count> = BTreeMap::new();
    let mut missed = Vec::new();
    for vector in read(path)? {
        let found = measure::blocked(&scanner.scan(&Location::Body, vector.text.as_bytes()));
        let count = sources.entry(vector.source.clone()).or_default();
        if vector.kind == "positive" {
            count.positives += 1;
            count.found += usize::from(found);
            if !found {
                missed.push(vec![
                    vector.source,
                    vector.rule,
                    format!("`{}`", vector.text.escape_debug()),
                ]);
            }
        } else {
            count.negatives += 1;
            count.flagged += usize::from(found);
        }
    }
    let sum = |of: fn(&Count) -> usize| sources.values().map(of).sum::<usize>();
    let (found, positives) = (sum(|count| count.found), sum(|count| count.positives));
    let percent = 100.0 * found as f64 / (positives as f64).max(1.0);
    report.row(Row {
        what: "recall on static positive vectors of shape rules of six peers",
        peers: "betterleaks 61.6 % (57.9 % on vectors not its own)",
        target: ">= 95 %",
        figure: format!("{percent:.1} % ({found} of {positives})"),
        value: percent,
        pass: percent >= 95.0,
    });
    let lines = sources
        .iter()
        .map(|(source, count)| {
            vec![
                source.clone(),
                format!("{} of {}", count.found, count.positives),
                format!("{} of {}", count.flagged, count.negatives),
            ]
        })
        .collect();
    report.detail(
        "Recall on vectors",
        &["source", "positives found", "negatives flagged"],
        lines,
    );
    if misses {
        report.detail("Vectors missed", &["source", "rule", "text"], missed);
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<Vector>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let reader: Box<dyn Read> = if path.extension().is_some_and(|extension| extension == "gz") {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let mut vectors = Vec::new();
    for (number, line) in BufReader::new(reader).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if !line.is_empty() {
            vectors.push(
                serde_json::from_str(&line)
                    .with_context(|| format!("{}, line {}", path.display(), number + 1))?,
            );
        }
    }
    Ok(vectors)
}
