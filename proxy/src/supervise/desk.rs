//! The operator's desk: what waits, what was missed, and what was decided.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::decisions::{Decided, Decision, Decisions, Verdict};
use super::scope::{NoRandomness, Scope, Values};
use super::{NotApproved, Why};
use crate::audit::Record;
use crate::limits;

/// Events that a follower may lag behind.
const EVENTS: usize = 256;

#[derive(Debug)]
pub struct Desk {
    pub values: Values,
    pub patience: Duration,
    state: Mutex<State>,
    /// Counts answers; what is parked looks again when it grows.
    answers: watch::Sender<u64>,
    events: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first. Those that wait are bounded by the requests that are parked, the others by their number.
    asks: VecDeque<Ask>,
    decisions: Decisions,
    parked: usize,
    bytes: usize,
}

/// A finding that a request is about to be parked for.
#[derive(Debug)]
pub struct Question {
    pub scope: Scope,
    /// What may be shown of it.
    pub record: Record,
}

/// A finding that an operator was asked about.
#[derive(Clone, Debug)]
pub struct Ask {
    pub id: String,
    pub scope: Scope,
    /// Of the request, as far as it may be shown.
    pub record: Record,
    pub asked: jiff::Timestamp,
    pub until: jiff::Timestamp,
    pub missed: Option<Missed>,
    /// Approved for the request that waits, and for nothing else.
    once: Option<Decision>,
}

/// Why nobody's answer can reach the request any more; an approval still helps the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    TimedOut,
    NoRoom,
    Ended,
}

/// An ask, for people. Nothing in it is the value.
#[derive(Clone, Debug, Serialize)]
pub struct Pending {
    pub id: String,
    /// `waiting`, or why it no longer does.
    pub state: &'static str,
    pub event: String,
    pub bottle: String,
    pub credential: String,
    pub rule: String,
    pub location: String,
    pub via: Vec<String>,
    /// What stands around the value, redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Keyed hash of the value, to tell two apart.
    pub value: String,
    pub method: String,
    pub scheme: String,
    pub host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    pub asked: String,
    pub until: String,
    pub seconds_left: u64,
}

/// What followers are told.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "event", content = "data")]
pub enum Event {
    Waiting(Box<Pending>),
    Missed {
        id: String,
    },
    Decided {
        id: String,
        verdict: Verdict,
        by: String,
        reason: String,
    },
    Revoked {
        id: String,
        by: String,
    },
    Reloaded {
        policy: String,
    },
}

/// What an operator says.
#[derive(Clone, Debug)]
pub struct Answer {
    pub decision: Decision,
    /// How long it holds beyond the request that waits; `None`: for that one alone.
    pub lasting: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    #[error("nothing waits under the name {0}, and nothing was missed; it may have been answered")]
    Unknown(String),
    #[error("{0} names a request with several findings; answer each: {1}")]
    Several(String, String),
    #[error(
        "the request of {0} no longer waits, so an approval for it alone would let nothing through; leave out `once`"
    )]
    NotWaiting(String),
    #[error("as many decisions hold as there is room for; revoke some")]
    Full,
}

impl Desk {
    pub fn new(patience: Duration) -> Result<Arc<Self>, NoRandomness> {
        Ok(Arc::new(Self {
            values: Values::new()?,
            patience,
            state: Mutex::default(),
            answers: watch::Sender::new(0),
            events: broadcast::Sender::new(EVENTS),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn standing(&self, scope: &Scope) -> Option<Decision> {
        self.state().decisions.of(scope).cloned()
    }

    /// Parks a request. Where there is no room its findings can still be approved for the next try.
    pub fn park(
        self: &Arc<Self>,
        event: &str,
        questions: Vec<Question>,
        bytes: usize,
    ) -> (Vec<String>, Result<Parked, Why>) {
        let mut state = self.state();
        let room = state.parked < limits::PARKED
            && state.bytes.saturating_add(bytes) <= limits::PARKED_BYTES;
        let missed = if self.patience.is_zero() {
            Some(Missed::TimedOut)
        } else if room {
            None
        } else {
            Some(Missed::NoRoom)
        };
        let ids = self.place(&mut state, event, questions, missed);
        match missed {
            Some(Missed::NoRoom | Missed::Ended) => (ids, Err(Why::Full)),
            Some(Missed::TimedOut) => (ids, Err(Why::TimedOut(self.patience))),
            None => {
                state.parked += 1;
                state.bytes += bytes;
                let parked = Parked {
                    desk: Arc::clone(self),
                    ids: ids.clone(),
                    bytes,
                    deadline: Instant::now() + self.patience,
                    timed_out: false,
                    answered: false,
                };
                (ids, Ok(parked))
            }
        }
    }

    /// Takes down what cannot wait, so that it can be approved for the next try.
    pub fn miss(&self, event: &str, questions: Vec<Question>) -> Vec<String> {
        self.place(&mut self.state(), event, questions, Some(Missed::Ended))
    }

    fn place(
        &self,
        state: &mut State,
        event: &str,
        questions: Vec<Question>,
        missed: Option<Missed>,
    ) -> Vec<String> {
        let asked = jiff::Timestamp::now();
        let until = asked
            .checked_add(jiff::SignedDuration::try_from(self.patience).unwrap_or_default())
            .unwrap_or(asked);
        let mut ids = Vec::new();
        for (at, question) in questions.into_iter().enumerate() {
            let id = format!("{event}.{}", at + 1);
            ids.push(id.clone());
            let ask = Ask {
                id,
                scope: question.scope,
                record: question.record,
                asked,
                until,
                missed,
                once: None,
            };
            if missed.is_none() {
                // Nobody may follow.
                let _unheard = self.events.send(Event::Waiting(Box::new(ask.shown())));
            }
            state.asks.push_back(ask);
        }
        state.trim();
        ids
    }

    /// Those that wait, and those that were missed, the oldest first.
    pub fn pending(&self) -> Vec<Pending> {
        self.state().asks.iter().map(Ask::shown).collect()
    }

    pub fn decisions(&self) -> Vec<Decided> {
        self.state().decisions.list()
    }

    /// The ask that an identifier names, its own or its event's.
    pub fn find(&self, id: &str) -> Result<Ask, DeskError> {
        let state = self.state();
        if let Some(ask) = state.asks.iter().find(|ask| ask.id == id) {
            return Ok(ask.clone());
        }
        let of_event: Vec<&Ask> = state
            .asks
            .iter()
            .filter(|ask| *ask.record.event == *id)
            .collect();
        match of_event.as_slice() {
            [] => Err(DeskError::Unknown(crate::audit::printable(id.as_bytes()))),
            [one] => Ok((*one).clone()),
            several => {
                let ids: Vec<&str> = several.iter().map(|ask| ask.id.as_str()).collect();
                Err(DeskError::Several(id.to_owned(), ids.join(", ")))
            }
        }
    }

    /// Whether an answer can take effect; asked before it is recorded.
    pub fn check(&self, ask: &Ask, answer: &Answer) -> Result<(), DeskError> {
        let mut state = self.state();
        if answer.lasting.is_some() && !state.decisions.has_room(&ask.scope) {
            return Err(DeskError::Full);
        }
        if answer.lasting.is_none() && ask.missed.is_some() {
            return Err(DeskError::NotWaiting(ask.id.clone()));
        }
        Ok(())
    }

    /// Puts an answer in force. It must be on record before.
    pub fn answer(&self, ask: &Ask, answer: Answer) {
        let decision = answer.decision;
        let mut state = self.state();
        match answer.lasting {
            Some(lasting) => {
                let host = ask.record.host.to_string();
                state.decisions.put(
                    ask.scope.clone(),
                    decision.clone(),
                    credential(&ask.record),
                    host,
                    lasting,
                );
                // What was missed is answered for good; what waits is taken away by its request.
                state
                    .asks
                    .retain(|own| own.missed.is_none() || own.scope != ask.scope);
            }
            None => {
                if let Some(own) = state.asks.iter_mut().find(|own| own.id == ask.id) {
                    own.once = Some(decision.clone());
                }
            }
        }
        drop(state);
        self.answers.send_modify(|count| *count += 1);
        let _unheard = self.events.send(Event::Decided {
            id: ask.id.clone(),
            verdict: decision.verdict,
            by: decision.by,
            reason: decision.reason,
        });
    }

    pub fn revoke(&self, id: &str, by: &str) -> Result<Decided, DeskError> {
        let revoked = self.state().decisions.revoke(id);
        let revoked =
            revoked.ok_or_else(|| DeskError::Unknown(crate::audit::printable(id.as_bytes())))?;
        let _unheard = self.events.send(Event::Revoked {
            id: revoked.id.clone(),
            by: by.to_owned(),
        });
        Ok(revoked)
    }

    pub fn reloaded(&self, policy: &str) {
        let _unheard = self.events.send(Event::Reloaded {
            policy: policy.to_owned(),
        });
    }

    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Requests that wait, the bytes that they hold, and approvals in force.
    pub fn load(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.parked, state.bytes, state.decisions.approvals())
    }

    /// Ends when every ask is answered, or when none can be any more.
    pub async fn wait(
        &self,
        parked: &mut Parked,
        stopping: &CancellationToken,
    ) -> Result<Vec<Decision>, Why> {
        let mut answers = self.answers.subscribe();
        loop {
            answers.mark_unchanged();
            if let Some(outcome) = self.outcome(&parked.ids) {
                parked.answered = true;
                return outcome;
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => return Err(Why::Stopping),
                () = tokio::time::sleep_until(parked.deadline) => {
                    parked.timed_out = true;
                    return Err(Why::TimedOut(self.patience));
                }
                // The sender lives as long as we do.
                _ = answers.changed() => {}
            }
        }
    }

    fn outcome(&self, ids: &[String]) -> Option<Result<Vec<Decision>, Why>> {
        let state = self.state();
        let mut approved = Vec::new();
        let mut open = false;
        for id in ids {
            // An ask that is gone was never answered: the request stays until it times out.
            let ask = state.asks.iter().find(|ask| ask.id == *id)?;
            let decision = ask.once.as_ref().or_else(|| state.decisions.of(&ask.scope));
            match decision {
                None => open = true,
                Some(decision) if decision.verdict == Verdict::Reject => {
                    return Some(Err(Why::Rejected(decision.reason.clone())));
                }
                Some(decision) => approved.push(decision.clone()),
            }
        }
        (!open).then_some(Ok(approved))
    }
}

impl State {
    fn trim(&mut self) {
        let mut over = self
            .asks
            .iter()
            .filter(|ask| ask.missed.is_some())
            .count()
            .saturating_sub(limits::MISSED);
        self.asks.retain(|ask| {
            let drop = over > 0 && ask.missed.is_some();
            over -= usize::from(drop);
            !drop
        });
    }
}

impl Ask {
    pub fn shown(&self) -> Pending {
        let record = &self.record;
        let left = self.until.duration_since(jiff::Timestamp::now()).as_secs();
        Pending {
            id: self.id.clone(),
            state: match self.missed {
                None => "waiting",
                Some(Missed::TimedOut) => "timed-out",
                Some(Missed::NoRoom) => "no-room",
                Some(Missed::Ended) => "ended",
            },
            event: record.event.to_string(),
            bottle: record.bottle.to_string(),
            credential: credential(record),
            rule: record.rule.unwrap_or_default().to_owned(),
            location: record.location.clone().unwrap_or_default(),
            via: record.via.clone(),
            context: record.context.clone(),
            value: self.scope.short(),
            method: record.method.to_string(),
            scheme: record.scheme.unwrap_or_default().to_owned(),
            host: record.host.to_string(),
            port: record.port,
            path: record.path.to_string(),
            request_bytes: record.request_bytes,
            asked: self.asked.to_string(),
            until: self.until.to_string(),
            seconds_left: match self.missed {
                None => u64::try_from(left).unwrap_or(0),
                Some(_) => 0,
            },
        }
    }
}

/// `GitHub token (classic)` of `GitHub token (classic) found in body`.
fn credential(record: &Record) -> String {
    match record.reason.rsplit_once(" found in ") {
        Some((credential, _)) => credential.to_owned(),
        None => record.reason.to_string(),
    }
}

/// A request's place on the desk, given back however the request ends.
#[derive(Debug)]
pub struct Parked {
    desk: Arc<Desk>,
    ids: Vec<String>,
    bytes: usize,
    deadline: Instant,
    timed_out: bool,
    answered: bool,
}

impl Drop for Parked {
    fn drop(&mut self) {
        let mut state = self.desk.state();
        state.parked = state.parked.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(self.bytes);
        if self.answered {
            state.asks.retain(|ask| !self.ids.contains(&ask.id));
            return;
        }
        let why = if self.timed_out {
            Missed::TimedOut
        } else {
            Missed::Ended
        };
        for ask in &mut state.asks {
            if self.ids.contains(&ask.id) {
                ask.missed = Some(why);
            }
        }
        state.trim();
        drop(state);
        for id in &self.ids {
            let _unheard = self.desk.events.send(Event::Missed { id: id.clone() });
        }
    }
}

impl NotApproved {
    /// With what can still be approved, and the commands that do it.
    pub fn missed(why: Why, asks: Vec<String>, command: Option<&str>) -> Self {
        let commands = match command {
            Some(command) => asks.iter().map(|id| command.replace("{id}", id)).collect(),
            None => Vec::new(),
        };
        Self {
            why,
            asks,
            commands,
        }
    }
}
