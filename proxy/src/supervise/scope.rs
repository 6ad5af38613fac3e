//! What a decision is about.

use std::sync::Arc;

use detectors::{Finding, Location};
use ring::hmac;
use ring::rand::SystemRandom;

/// One value, on one route, in one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    value: [u8; 32],
    route: Arc<str>,
    surface: Box<str>,
}

impl Scope {
    /// Enough of the value's hash to tell two values apart; without the key it says nothing about them.
    pub fn short(&self) -> String {
        self.value
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    pub fn surface(&self) -> &str {
        &self.surface
    }
}

/// Hashes values with a key that lives as long as the process, so that a hash cannot be guessed back from outside.
#[derive(Debug)]
pub struct Values(hmac::Key);

#[derive(Debug, thiserror::Error)]
#[error("the system has no randomness")]
pub struct NoRandomness;

impl Values {
    pub fn new() -> Result<Self, NoRandomness> {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map(Self)
            .map_err(|_| NoRandomness)
    }

    /// `whole` is all of the text that the finding stands in. What could not be decoded is no value of its own: then
    /// only the very same text is meant.
    pub fn scope(&self, finding: &Finding, route: &Arc<str>, whole: &[u8]) -> Scope {
        let matched = finding.matched.expose();
        let (kind, value) = if finding.rule.0 == "undecodable" || matched.is_empty() {
            (b'w', whole)
        } else {
            (b'v', matched)
        };
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[kind]);
        context.update(value);
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        Scope {
            value: hash,
            route: Arc::clone(route),
            surface: surface(&finding.location).into(),
        }
    }
}

fn surface(location: &Location) -> String {
    match location {
        Location::Header(name) => format!("header {}", name.to_ascii_lowercase()),
        // Its field's number grows with a conversation; the value is the same.
        Location::Body | Location::BodyField(_) => "body".into(),
        other => other.to_string(),
    }
}
