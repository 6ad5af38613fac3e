//! What operators have decided, while it holds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Scope;
use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Approve,
    Reject,
}

/// An answer, as it was given.
#[derive(Clone, Debug)]
pub struct Decision {
    pub verdict: Verdict,
    /// The ask that was answered; also the name of the decision.
    pub id: String,
    pub by: String,
    pub reason: String,
}

/// A decision that holds, for people.
#[derive(Clone, Debug, Serialize)]
pub struct Decided {
    pub id: String,
    pub verdict: Verdict,
    pub by: String,
    pub reason: String,
    pub credential: String,
    pub location: String,
    pub value: String,
    pub host: String,
    pub seconds_left: u64,
}

#[derive(Debug)]
struct Entry {
    decision: Decision,
    credential: String,
    host: String,
    until: Instant,
}

/// By scope: the later answer replaces the earlier.
#[derive(Debug, Default)]
pub(super) struct Decisions(HashMap<Scope, Entry>);

impl Decisions {
    pub(super) fn of(&self, scope: &Scope) -> Option<&Decision> {
        self.0
            .get(scope)
            .filter(|entry| entry.until > Instant::now())
            .map(|entry| &entry.decision)
    }

    pub(super) fn has_room(&mut self, scope: &Scope) -> bool {
        self.purge();
        self.0.len() < limits::DECISIONS || self.0.contains_key(scope)
    }

    pub(super) fn put(
        &mut self,
        scope: Scope,
        decision: Decision,
        credential: String,
        host: String,
        lasting: Duration,
    ) {
        if !self.has_room(&scope) {
            // `has_room` was asked before; what came in between is refused by not being remembered.
            return;
        }
        self.0.insert(
            scope,
            Entry {
                decision,
                credential,
                host,
                until: Instant::now() + lasting,
            },
        );
    }

    /// Returns what was taken back.
    pub(super) fn revoke(&mut self, id: &str) -> Option<Decided> {
        let scope = self
            .0
            .iter()
            .find(|(_, entry)| entry.decision.id == id)
            .map(|(scope, _)| scope.clone())?;
        let entry = self.0.remove(&scope)?;
        Some(shown(&scope, &entry))
    }

    /// Those that hold longest first.
    pub(super) fn list(&mut self) -> Vec<Decided> {
        self.purge();
        let mut list: Vec<_> = self
            .0
            .iter()
            .map(|(scope, entry)| shown(scope, entry))
            .collect();
        list.sort_by(|a, b| (b.seconds_left, &a.id).cmp(&(a.seconds_left, &b.id)));
        list
    }

    pub(super) fn approvals(&self) -> usize {
        let now = Instant::now();
        self.0
            .values()
            .filter(|entry| entry.decision.verdict == Verdict::Approve && entry.until > now)
            .count()
    }

    fn purge(&mut self) {
        let now = Instant::now();
        self.0.retain(|_, entry| entry.until > now);
    }
}

fn shown(scope: &Scope, entry: &Entry) -> Decided {
    let decision = &entry.decision;
    Decided {
        id: decision.id.clone(),
        verdict: decision.verdict,
        by: decision.by.clone(),
        reason: decision.reason.clone(),
        credential: entry.credential.clone(),
        location: scope.surface().to_owned(),
        value: scope.short(),
        host: entry.host.clone(),
        seconds_left: entry
            .until
            .saturating_duration_since(Instant::now())
            .as_secs(),
    }
}
