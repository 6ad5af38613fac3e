//! The table of targets, and the tables behind its figures.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// One row of the table of targets.
#[derive(Debug)]
pub struct Row {
    pub what: &'static str,
    /// What others publish or what was measured of them, on the same kind of machine.
    pub peers: &'static str,
    pub target: &'static str,
    pub figure: String,
    pub value: f64,
    pub pass: bool,
}

/// What was measured, in the order in which it was.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    rows: Vec<Row>,
    details: Vec<Detail>,
}

#[derive(Debug)]
struct Detail {
    title: String,
    columns: &'static [&'static str],
    lines: Vec<Vec<String>>,
}

impl Report {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            rows: Vec::new(),
            details: Vec::new(),
        }
    }

    pub fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A table below the table of targets.
    pub fn detail(
        &mut self,
        title: impl Into<String>,
        columns: &'static [&'static str],
        lines: Vec<Vec<String>>,
    ) {
        self.details.push(Detail {
            title: title.into(),
            columns,
            lines,
        });
    }

    pub fn missed(&self) -> bool {
        self.rows.iter().any(|row| !row.pass)
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let lines: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                vec![
                    row.what.into(),
                    row.peers.into(),
                    row.target.into(),
                    row.figure.clone(),
                    verdict(row).into(),
                ]
            })
            .collect();
        table(
            &mut text,
            &[
                "what",
                "best peer, measured on the same kind of machine",
                "target",
                "figure",
                "",
            ],
            &lines,
        );
        for detail in &self.details {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n### {}\n\n", detail.title);
            table(&mut text, detail.columns, &detail.lines);
        }
        let _ = writeln!(text, "\nSeed {}.", self.seed);
        text
    }

    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| json!({"what": row.what, "peers": row.peers, "target": row.target, "figure": row.figure, "value": row.value, "pass": row.pass}))
            .collect();
        let details: Vec<Value> = self
            .details
            .iter()
            .map(|detail| json!({"title": detail.title, "columns": detail.columns, "lines": detail.lines}))
            .collect();
        json!({"seed": self.seed, "targets": rows, "details": details})
    }
}

fn verdict(row: &Row) -> &'static str {
    if row.pass { "pass" } else { "**miss**" }
}

fn table(text: &mut String, columns: &[&str], lines: &[Vec<String>]) {
    let _ = writeln!(text, "| {} |", columns.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(columns.len()));
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .map(|cell| cell.replace('|', "\\|").replace(['\n', '\r'], " "))
            .collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
}
