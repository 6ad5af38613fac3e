//! One line of an audit log, as the sidecar writes it.

use std::fmt;

use serde::Deserialize;

use crate::escape::Escaped;

/// Fields that we do not know are newer than we are, and skipped.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AuditRecord {
    pub time: String,
    pub event: String,
    pub bottle: String,
    pub verdict: String,
    pub code: String,
    pub reason: String,
    pub rule: Option<String>,
    pub location: Option<String>,
    pub via: Vec<String>,
    pub context: Option<String>,
    pub host: String,
    pub port: Option<u16>,
    pub scheme: Option<String>,
    pub method: String,
    pub path: String,
    pub status: u16,
    pub asks: Vec<String>,
    pub by: Option<String>,
    pub until: Option<String>,
    pub policy: String,
}

impl AuditRecord {
    /// The request's address; parts that are not known are left out.
    pub fn url(&self) -> String {
        if self.host.is_empty() {
            return String::new();
        }
        let scheme = self.scheme.as_deref().unwrap_or("https");
        let default = if scheme == "http" { 80 } else { 443 };
        let port = self
            .port
            .filter(|port| *port != default)
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        format!("{scheme}://{}{port}{}", self.host, self.path)
    }
}

impl fmt::Display for AuditRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}  {}  {:6}  {}  {} {}  {}",
            Escaped(&self.time),
            Escaped(&self.bottle),
            Escaped(&self.verdict),
            Escaped(&self.event),
            Escaped(&self.method),
            Escaped(&self.url()),
            Escaped(&self.reason)
        )
    }
}
