//! A finding that an operator is asked about, as the sidecar tells it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::escape::Escaped;

/// Fields that we do not know are newer than we are, and skipped.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pending {
    pub id: String,
    pub state: String,
    pub event: String,
    pub bottle: String,
    pub credential: String,
    pub rule: String,
    pub location: String,
    pub via: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
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

impl Pending {
    pub fn is_waiting(&self) -> bool {
        self.state == "waiting"
    }

    fn url(&self) -> String {
        let default = if self.scheme == "http" { 80 } else { 443 };
        let port = self
            .port
            .filter(|port| *port != default)
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        format!("{}://{}{port}{}", self.scheme, self.host, self.path)
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state.as_str() {
            "waiting" => format!("waits, {} s left", self.seconds_left),
            "timed-out" => "was refused unanswered".into(),
            "no-room" => "was refused, too many waited".into(),
            _ => "no longer waits".into(),
        };
        writeln!(f, "{}  {state}", Escaped(&self.id))?;
        writeln!(f, "  bottle    {}", Escaped(&self.bottle))?;
        writeln!(
            f,
            "  found     {} in {} ({})",
            Escaped(&self.credential),
            Escaped(&self.location),
            Escaped(&self.rule)
        )?;
        if !self.via.is_empty() {
            writeln!(f, "  decoded   {}", Escaped(&self.via.join(", then ")))?;
        }
        writeln!(
            f,
            "  request   {} {}",
            Escaped(&self.method),
            Escaped(&self.url())
        )?;
        if let Some(context) = &self.context {
            writeln!(f, "  context   {}", Escaped(context))?;
        }
        writeln!(
            f,
            "  value     #{} (a keyed hash; the value itself is never shown)",
            Escaped(&self.value)
        )?;
        let then = if self.is_waiting() {
            ""
        } else {
            "   (for its next try)"
        };
        writeln!(f, "  launcher approve {}{then}", Escaped(&self.id))?;
        writeln!(f, "  launcher reject {} --reason TEXT", Escaped(&self.id))
    }
}
