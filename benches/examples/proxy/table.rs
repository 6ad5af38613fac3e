//! Medians, and the table.

use std::fmt::Write as _;

use super::systems::System;
use super::work::{Figures, Work};

pub struct Table {
    systems: Vec<System>,
    rows: Vec<(Work, Vec<Vec<Figures>>)>,
}

impl Table {
    pub fn new(systems: &[System]) -> Self {
        Self {
            systems: systems.to_vec(),
            rows: Vec::new(),
        }
    }

    pub fn add(&mut self, work: &Work, system: &System, figures: Figures) {
        let column = self.systems.iter().position(|own| own == system);
        let column = column.expect("a system of the table");
        let row = match self.rows.iter().position(|(own, _)| own == work) {
            Some(row) => row,
            None => {
                self.rows
                    .push((*work, vec![Vec::new(); self.systems.len()]));
                self.rows.len() - 1
            }
        };
        self.rows[row].1[column].push(figures);
    }

    /// CPU time as a ratio to the floor's, everything else as it is.
    pub fn markdown(&self, repeat: usize) -> String {
        let mut out = String::from("| work |");
        for system in &self.systems {
            write!(out, " {} |", system.name()).expect("a string");
        }
        out.push_str(" target |\n|---|");
        out.push_str(&"---|".repeat(self.systems.len() + 1));
        out.push('\n');
        let mut absolute = Vec::new();
        for (work, cells) in &self.rows {
            write!(out, "| {} |", work.name()).expect("a string");
            let floor = cells.first().and_then(|times| median(times));
            for times in cells {
                let cell = match (median(times), floor) {
                    (Some(Figures::Cpu(own)), Some(Figures::Cpu(floor))) => {
                        format!("{:.2}", own / floor)
                    }
                    (Some(figures), _) => show(figures),
                    (None, _) => "–".into(),
                };
                write!(out, " {cell} |").expect("a string");
            }
            if let Some(figures @ Figures::Cpu(_)) = floor {
                absolute.push(format!("{} {}", work.name(), show(figures)));
            }
            writeln!(out, " {} |", work.target()).expect("a string");
        }
        writeln!(
            out,
            "\nCPU time of the proxy as a ratio to the floor's, medians of {repeat}. The floor: {}.",
            absolute.join(", ")
        )
        .expect("a string");
        out
    }
}

fn show(figures: Figures) -> String {
    match figures {
        Figures::Cpu(seconds) => format!("{:.0} µs", seconds * 1e6),
        Figures::Delay(half, most) => format!("{:.2} / {:.1} ms", half * 1e3, most * 1e3),
        Figures::Memory(kib) if kib >= 10_240.0 => format!("{:.0} MiB", kib / 1024.0),
        Figures::Memory(kib) => format!("{kib:.0} KiB"),
    }
}

fn median(times: &[Figures]) -> Option<Figures> {
    let middle = |of: fn(Figures) -> f64| {
        let mut values: Vec<f64> = times.iter().copied().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Some(match times.first()? {
        Figures::Cpu(_) => Figures::Cpu(middle(first)),
        Figures::Delay(..) => Figures::Delay(middle(first), middle(second)),
        Figures::Memory(_) => Figures::Memory(middle(first)),
    })
}

fn first(figures: Figures) -> f64 {
    match figures {
        Figures::Cpu(value) | Figures::Memory(value) | Figures::Delay(value, _) => value,
    }
}

fn second(figures: Figures) -> f64 {
    match figures {
        Figures::Delay(_, value) => value,
        Figures::Cpu(_) | Figures::Memory(_) => 0.0,
    }
}
