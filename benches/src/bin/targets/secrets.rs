//! The scanner as it runs in production: token rules and 50 known secrets.

use anyhow::Context as _;
use detectors::{KnownSecret, Scanner};
use fixtures::evasions::Random;
use fixtures::fresh::{TOKEN_KINDS, password};

pub const SECRETS: usize = 50;

/// Token rules, and these values with others until they are 50.
pub fn scanner(values: &[String], random: &mut Random) -> anyhow::Result<Scanner> {
    let mut values = values.to_vec();
    while values.len() < SECRETS {
        values.push(one(values.len(), random));
    }
    build(&values)
}

/// Token rules and nothing else.
pub fn without_secrets() -> anyhow::Result<Scanner> {
    build(&[])
}

fn build(values: &[String]) -> anyhow::Result<Scanner> {
    let secrets = values
        .iter()
        .enumerate()
        .map(|(number, value)| {
            KnownSecret::new(&format!("EGRESS_TOKEN_{number}"), value.as_bytes())
        })
        .collect::<Result<Vec<_>, _>>()
        .context("a made-up secret was refused")?;
    Scanner::builder()
        .token_patterns(true)
        .known_secrets(secrets)
        .build()
        .context("the scanner cannot be built")
}

/// What people keep in variables: passwords, random characters, digests, UUIDs, tokens.
fn one(number: usize, random: &mut Random) -> String {
    match number % 5 {
        0 => password(random),
        1 => random.alphanumeric(40),
        2 => random.text(b"0123456789abcdef", 64),
        3 => [8, 4, 4, 4, 12]
            .map(|length| random.text(b"0123456789abcdef", length))
            .join("-"),
        _ => TOKEN_KINDS[number / 5 % TOKEN_KINDS.len()].fresh(random),
    }
}
