//! Evasions: of a token that nobody told the scanner, and of a secret that it knows.

use std::io::Write as _;

use detectors::{Location, Scanner};
use fixtures::evasions::{self, Class, Evasion, Random};
use fixtures::fresh::{self, TOKEN_KINDS};

use crate::report::{Report, Row};
use crate::{measure, secrets};

type MakeSecret = fn(&mut Random) -> String;

/// For each evasion, in how many rounds it was caught.
struct Caught(Vec<(Evasion, u64)>);

impl Caught {
    /// How many of these were caught in every round, and how many there are.
    fn of(&self, rounds: u64, which: impl Fn(&Evasion) -> bool) -> (usize, usize) {
        let chosen = self.0.iter().filter(|(evasion, _)| which(evasion));
        let count = chosen.clone().count();
        (
            chosen.filter(|(_, caught)| *caught == rounds).count(),
            count,
        )
    }
}

pub fn measure(report: &mut Report, seed: u64, rounds: u64, misses: bool) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    let unknown = secrets::without_secrets()?;
    for (number, kind) in TOKEN_KINDS.iter().enumerate() {
        let caught = try_all(rounds, seed, |random| {
            Ok((kind.fresh(random), unknown.clone()))
        })?;
        let title = format!("unknown: {}", kind.name);
        if number == 0 {
            let (matrix, of) = caught.of(rounds, |evasion| evasion.in_matrix);
            report.row(Row {
                what: "evasions of one unknown token caught (100 encodings)",
                peers: "betterleaks and gitleaks 28, Kingfisher 19",
                target: ">= 75",
                figure: figure(&caught, rounds, matrix, of),
                value: matrix as f64,
                pass: matrix >= 75,
            });
            if misses {
                missed(report, &title, &caught, rounds);
            }
        }
        lines.push(line(title, &caught, rounds));
    }
    let known: [(&str, MakeSecret); 2] = [
        ("known: 40 characters with punctuation", fresh::password),
        ("known: 40 letters and digits", |random| {
            random.alphanumeric(40)
        }),
    ];
    for (number, (title, make)) in known.into_iter().enumerate() {
        let caught = try_all(rounds, seed ^ 0x5ec_4e7, |random| {
            let value = make(random);
            let scanner = secrets::scanner(std::slice::from_ref(&value), random)?;
            Ok((value, scanner))
        })?;
        if number == 0 {
            let (matrix, of) = caught.of(rounds, |evasion| evasion.in_matrix);
            report.row(Row {
                what: "evasions of a known secret caught (the same 100)",
                peers: "none has the notion, Pipelock's decoders apart",
                target: ">= 90",
                figure: figure(&caught, rounds, matrix, of),
                value: matrix as f64,
                pass: matrix >= 90,
            });
        }
        if misses {
            missed(report, title, &caught, rounds);
        }
        lines.push(line(title.to_owned(), &caught, rounds));
    }
    report.detail(
        format!("Evasions caught with each of {rounds} fresh tokens"),
        &[
            "token",
            "of the matrix",
            "of all",
            "of the reversible",
            "of the lossy",
            "of the keyed",
        ],
        lines,
    );
    Ok(())
}

/// Prints what the evasions make of a token, to see why one is missed.
pub fn show(part: &str, seed: u64) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for evasion in evasions::all()
        .iter()
        .filter(|evasion| evasion.name.contains(part))
    {
        let mut random = Random::new(seed);
        let token = TOKEN_KINDS[0].fresh(&mut random);
        writeln!(out, "--- {} of {token}", evasion.name)?;
        out.write_all(&evasion.apply(token.as_bytes(), &mut random))?;
        writeln!(out)?;
    }
    Ok(())
}

fn try_all(
    rounds: u64,
    seed: u64,
    make: impl Fn(&mut Random) -> anyhow::Result<(String, Scanner)>,
) -> anyhow::Result<Caught> {
    let mut caught: Vec<(Evasion, u64)> = evasions::all()
        .into_iter()
        .map(|evasion| (evasion, 0))
        .collect();
    for round in 0..rounds {
        let mut random = Random::new(seed.wrapping_add(round));
        let (token, scanner) = make(&mut random)?;
        for (evasion, count) in &mut caught {
            let bytes = evasion.apply(token.as_bytes(), &mut random);
            *count += u64::from(measure::blocked(&scanner.scan(&Location::Body, &bytes)));
        }
    }
    Ok(Caught(caught))
}

fn figure(caught: &Caught, rounds: u64, matrix: usize, of: usize) -> String {
    let (all, all_of) = caught.of(rounds, |_| true);
    format!("{matrix} of {of}; {all} of all {all_of}")
}

fn line(title: String, caught: &Caught, rounds: u64) -> Vec<String> {
    let share = |which: &dyn Fn(&Evasion) -> bool| {
        let (some, all) = caught.of(rounds, which);
        format!("{some} of {all}")
    };
    vec![
        title,
        share(&|evasion| evasion.in_matrix),
        share(&|_| true),
        share(&|evasion| evasion.class == Class::Reversible),
        share(&|evasion| evasion.class == Class::Lossy),
        share(&|evasion| evasion.class == Class::Keyed),
    ]
}

fn missed(report: &mut Report, title: &str, caught: &Caught, rounds: u64) {
    let lines = caught
        .0
        .iter()
        .filter(|(_, count)| *count < rounds)
        .map(|(evasion, count)| {
            vec![
                evasion.name.into(),
                format!("{:?}", evasion.class).to_lowercase(),
                if evasion.in_matrix { "yes" } else { "" }.into(),
                format!("{count} of {rounds}"),
            ]
        })
        .collect();
    report.detail(
        format!("Evasions missed, {title}"),
        &["evasion", "class", "in the matrix", "rounds caught"],
        lines,
    );
}
