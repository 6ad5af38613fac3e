//! Whether the verdict hangs on where the input was cut.

use detectors::{Finding, Location, Scanner};
use fixtures::evasions::{self, Random};
use fixtures::fresh::{TOKEN_KINDS, password};

use crate::report::{Report, Row};
use crate::secrets;

/// Longer inputs are cut at some offsets, shorter ones at every.
const EVERY_OFFSET: usize = 2048;

pub fn measure(report: &mut Report, seed: u64, samples: usize) -> anyhow::Result<()> {
    let mut random = Random::new(seed ^ 0x5911);
    let secret = password(&mut random);
    let scanner = secrets::scanner(std::slice::from_ref(&secret), &mut random)?;
    let evasions = evasions::all();
    let (mut cuts, mut found, mut lines) = (0_usize, 0_usize, Vec::new());
    for sample in 0..samples {
        let evasion = random.pick(&evasions);
        let token = if sample % 2 == 0 {
            random.pick(TOKEN_KINDS).fresh(&mut random)
        } else {
            secret.clone()
        };
        let mut input = evasion.apply(token.as_bytes(), &mut random);
        if sample % 20 == 0 {
            // Around where the windows of the stream end, wherever that is.
            let before = 65_536 * (1 + random.below(2)) - random.below(200);
            input = [
                random.prose(before).into_bytes(),
                input,
                random.prose(20_000).into_bytes(),
            ]
            .concat();
        }
        let whole = verdict(&scanner.scan(&Location::Body, &input));
        found += usize::from(!whole.is_empty());
        let mut tries: Vec<Vec<usize>> = if input.len() <= EVERY_OFFSET {
            (0..=input.len()).map(|cut| vec![cut]).collect()
        } else {
            (0..20).map(|_| vec![random.below(input.len())]).collect()
        };
        // Many cuts at once; a byte at a time among them.
        for pieces in [2, 7, input.len().min(EVERY_OFFSET)] {
            let step = (input.len() / pieces).max(1);
            tries.push((1..input.len()).step_by(step).collect());
        }
        let differing = tries
            .iter()
            .filter(|cuts| verdict(&streamed(&scanner, &input, cuts)) != whole)
            .count();
        cuts += tries.len();
        if differing > 0 {
            lines.push(vec![
                evasion.name.into(),
                input.len().to_string(),
                differing.to_string(),
                tries.len().to_string(),
            ]);
        }
    }
    let differing = lines
        .iter()
        .filter_map(|line| line.get(2)?.parse::<usize>().ok())
        .sum::<usize>();
    report.row(Row {
        what: "verdict changed by splitting the input at any offset",
        peers: "not tested by anyone",
        target: "0",
        figure: format!(
            "{differing} of {cuts} ways to split {samples} inputs ({found} with findings)"
        ),
        value: differing as f64,
        pass: differing == 0,
    });
    if !lines.is_empty() {
        report.detail(
            "Inputs whose verdict a split changes",
            &["evasion", "bytes", "differing", "ways"],
            lines,
        );
    }
    Ok(())
}

fn streamed(scanner: &Scanner, input: &[u8], cuts: &[usize]) -> Vec<Finding> {
    let mut stream = scanner.stream(Location::Body);
    let mut findings = Vec::new();
    let mut from = 0;
    for &cut in cuts {
        findings.extend(stream.push(&input[from..cut]));
        from = cut;
    }
    findings.extend(stream.push(&input[from..]));
    findings.extend(stream.finish());
    findings
}

/// What is said, without the order in which it is said.
fn verdict(findings: &[Finding]) -> Vec<(&'static str, u64, u64)> {
    let mut verdict: Vec<_> = findings
        .iter()
        .map(|finding| (finding.rule.0, finding.span.start, finding.span.end))
        .collect();
    verdict.sort_unstable();
    verdict
}
