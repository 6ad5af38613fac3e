//! Requests that wait for an operator.
//!
//! A finding on a route with `supervise` becomes an *ask*; the request that holds it is *parked* until every one of
//! its asks is answered. An answer is a *decision* about a [`Scope`]: this value, on this route, in this place. It
//! lets nothing else pass, and not for ever. Whatever goes wrong while a request is parked refuses it.

mod decisions;
mod desk;
mod scope;

pub use decisions::{Decision, Verdict};
pub use desk::{Answer, Ask, Desk, DeskError, Question};
pub use scope::Scope;

use std::time::Duration;

/// Why a request with a finding was not let through, where an operator was to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotApproved {
    pub why: Why,
    /// What can still be approved, for the next try.
    pub asks: Vec<String>,
    pub commands: Vec<String>,
}

impl From<Why> for NotApproved {
    fn from(why: Why) -> Self {
        Self {
            why,
            asks: Vec::new(),
            commands: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// An operator said no, in these words.
    Rejected(String),
    TimedOut(Duration),
    /// As many requests wait as there is room for.
    Full,
    /// More findings than anybody could be asked about.
    TooMany,
    /// The body is too long to be held, so it cannot wait.
    Streamed,
    /// A WebSocket or a gRPC call goes on: its messages cannot wait.
    Messages,
    /// Where it stands it cannot be told from what else may stand there.
    Place,
    /// The agent went away.
    Gone,
    Stopping,
    /// It was judged by a policy that is no longer in force.
    PolicyChanged,
}

impl Why {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "supervise-rejected",
            Self::TimedOut(_) => "supervise-timeout",
            Self::Full => "supervise-full",
            Self::TooMany => "supervise-too-many",
            Self::Streamed => "supervise-streamed",
            Self::Messages => "supervise-messages",
            Self::Place => "supervise-place",
            Self::Gone => "supervise-gone",
            Self::Stopping => "supervise-stopping",
            Self::PolicyChanged => "supervise-policy-changed",
        }
    }

    pub fn words(&self) -> String {
        match self {
            Self::Rejected(reason) => format!("an operator rejected it: {reason}"),
            Self::TimedOut(after) if after.is_zero() => {
                "it needs an operator's approval, and requests do not wait for one here".into()
            }
            Self::TimedOut(after) => {
                format!("no operator answered within {} s", after.as_secs())
            }
            Self::Full => "it needs an operator's approval, and as many requests wait for one as there is room for".into(),
            Self::TooMany => "it holds more findings than an operator is asked about".into(),
            Self::Streamed => "it needs an operator's approval, and its body is too long to be held until there is one; a shorter request can be approved".into(),
            Self::Messages => "it needs an operator's approval, and what belongs to a WebSocket or a gRPC call cannot wait for one".into(),
            Self::Place => "no approval covers this place: it may stand in a path, a query, the value of a header or a body that is not compressed".into(),
            Self::Gone => "the agent went away while it waited for an operator".into(),
            Self::Stopping => "the sidecar stopped while it waited for an operator".into(),
            Self::PolicyChanged => "the policy was replaced while it waited for an operator; send it again".into(),
        }
    }
}
