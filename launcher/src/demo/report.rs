//! The demo's table: one line an attack, judged by what the host saw.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::attack::{Attempt, Row};

/// An attempt and the host's own view of it.
#[derive(Clone, Debug)]
pub struct Judged {
    pub attempt: Attempt,
    /// The origin has its marker, or a canary was hit.
    pub arrived: bool,
}

impl Judged {
    pub fn is_good(&self) -> bool {
        if self.attempt.row == Row::ControlAllowed {
            // A control is only worth something if both ends saw it.
            return self.attempt.through && self.arrived;
        }
        if self.attempt.row.is_control() {
            return self.attempt.through;
        }
        !self.attempt.through && !self.arrived
    }
}

/// Every row that must stand in the table; one that was never tried has not failed.
pub const EXPECTED: [Row; 17] = [
    Row::ControlAllowed,
    Row::ControlAllowlist,
    Row::DeniedHost,
    Row::IpLiteral,
    Row::SecretPlain,
    Row::SecretEncoded,
    Row::SecretCompressed,
    Row::SecretInHostName,
    Row::DirectDns,
    Row::GitPush,
    Row::HostLoopback,
    Row::RawProtocol,
    Row::LateClientHello,
    Row::HostMismatch,
    Row::Udp,
    Row::Files,
    Row::SidecarKilled,
];

#[derive(Debug)]
pub struct Report {
    rows: BTreeMap<Row, Vec<Judged>>,
    /// What is wrong beside the rows: a leak that no attempt owns, a canary that does not hear.
    problems: Vec<String>,
}

impl Report {
    pub fn new(judged: Vec<Judged>, problems: Vec<String>) -> Self {
        let mut rows: BTreeMap<Row, Vec<Judged>> = BTreeMap::new();
        for one in judged {
            rows.entry(one.attempt.row).or_default().push(one);
        }
        Self { rows, problems }
    }

    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
            && EXPECTED.iter().all(|row| {
                self.rows
                    .get(row)
                    .is_some_and(|tries| tries.iter().all(Judged::is_good))
            })
    }

    pub fn table(&self) -> String {
        let mut out = String::from(
            "What a hostile agent tried from inside its bottle, judged by what arrived outside:\n\n",
        );
        let mut line = |mark: &str, title: &str, tries: &str, saw: &str| {
            // Writing to a String cannot fail.
            let _written = writeln!(out, "  {mark:<8} {title:<46} {tries:>5}  {saw}");
        };
        line("", "", "tries", "what the agent saw first");
        for row in EXPECTED {
            let Some(tries) = self.rows.get(&row) else {
                line("MISSING", row.title(), "0", "it was never tried");
                continue;
            };
            let bad: Vec<&Judged> = tries.iter().filter(|one| !one.is_good()).collect();
            let mark = match (bad.is_empty(), row.is_control()) {
                (true, true) => "works",
                (true, false) => "stopped",
                (false, true) => "BROKEN",
                (false, false) => "LEAKED",
            };
            let count = tries.len().to_string();
            let saw = tries
                .first()
                .map(|one| short(&one.attempt.saw))
                .unwrap_or_default();
            line(mark, row.title(), &count, &saw);
            for one in bad {
                let arrived = if one.arrived {
                    "; it arrived on the host"
                } else {
                    ""
                };
                line(
                    "",
                    &format!("  ! {}", one.attempt.what),
                    "",
                    &format!("{}{arrived}", short(&one.attempt.saw)),
                );
            }
        }
        out
    }

    pub fn verdict(&self) -> String {
        let attacks = self
            .rows
            .iter()
            .filter(|(row, _)| !row.is_control())
            .map(|(_, tries)| tries.len())
            .sum::<usize>();
        let controls = self
            .rows
            .iter()
            .filter(|(row, _)| row.is_control())
            .map(|(_, tries)| tries.len())
            .sum::<usize>();
        if self.is_good() {
            return format!("all {attacks} attacks failed, all {controls} controls passed");
        }
        let bad = self
            .rows
            .values()
            .flatten()
            .filter(|one| !one.is_good())
            .count();
        let missing = EXPECTED
            .iter()
            .filter(|row| !self.rows.contains_key(row))
            .count();
        let mut words = format!(
            "{bad} of {} tries ended as they must not, {missing} rows are missing",
            attacks + controls
        );
        for problem in &self.problems {
            words.push_str("; ");
            words.push_str(problem);
        }
        words
    }
}

fn short(text: &str) -> String {
    let text = crate::escape::Escaped(text).to_string();
    if text.chars().count() > 60 {
        text.chars().take(59).chain(['…']).collect()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(row: Row, through: bool, arrived: bool) -> Judged {
        let attempt = Attempt {
            marker: "m".into(),
            row,
            what: "w".into(),
            saw: "s".into(),
            through,
        };
        Judged { attempt, arrived }
    }

    fn all_good() -> Vec<Judged> {
        EXPECTED
            .iter()
            .map(|row| judged(*row, row.is_control(), *row == Row::ControlAllowed))
            .collect()
    }

    #[test]
    fn good_only_if_every_row_is_there_and_good() {
        assert!(Report::new(all_good(), Vec::new()).is_good());
        assert!(!Report::new(all_good(), vec!["a leak".into()]).is_good());
        assert!(!Report::new(all_good().split_off(1), Vec::new()).is_good());
        for row in EXPECTED.into_iter().filter(|row| !row.is_control()) {
            for (through, arrived) in [(true, false), (false, true)] {
                let mut tries = all_good();
                tries.push(judged(row, through, arrived));
                let report = Report::new(tries, Vec::new());
                assert!(!report.is_good(), "{row:?}");
                assert!(report.table().contains("LEAKED"));
            }
        }
        let mut deaf = all_good();
        deaf.push(judged(Row::ControlAllowed, true, false));
        assert!(!Report::new(deaf, Vec::new()).is_good());
    }
}
