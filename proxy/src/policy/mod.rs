//! The one engine that decides: the sidecar, `check`, `why` and `--dry-run` all ask it.
//!
//! Default deny. A deny rule wins over every route. What cannot be read in one way only is denied.

mod compile;
mod git;
mod path;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub use compile::PolicyError;
pub use git::Service as GitService;

use crate::config::{Auth, OnMatch, OnOversize};
use crate::host::{Authority, HostPattern, Scheme};
use crate::message::Headers;

/// A compiled `egress` section.
#[derive(Debug)]
pub struct Policy {
    routes: Vec<Route>,
    hash: Arc<str>,
}

/// One route, compiled.
#[derive(Debug)]
pub struct Route {
    pub index: usize,
    /// The same for a route that a reload left as it was, and for no other.
    pub key: Arc<str>,
    pub host: HostPattern,
    pub port: u16,
    pub scheme: Scheme,
    deny: bool,
    matches: Vec<compile::Match>,
    pub auth: Option<Auth>,
    git_fetch: bool,
    pub websocket: bool,
    pub detectors: Detectors,
    pub on_match: OnMatch,
    pub max_request_bytes: Option<u64>,
    pub on_oversize: OnOversize,
    pub max_total_bytes: Option<u64>,
    pub allow_private: bool,
    /// Responses are looked at for prompt injection.
    pub injection_detector: bool,
}

/// The detectors of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Detectors {
    pub token_patterns: bool,
    pub known_secrets: bool,
    /// What cannot be decoded within bounds blocks; otherwise it only warns.
    pub undecodable: bool,
    pub entropy: bool,
}

impl Detectors {
    /// All are switched off.
    pub fn none(self) -> bool {
        !(self.token_patterns || self.known_secrets || self.undecodable || self.entropy)
    }
}

/// A request, as far as policy looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub scheme: Scheme,
    pub authority: &'a Authority,
    pub method: &'a str,
    /// Path and query.
    pub target: &'a [u8],
    pub headers: &'a Headers,
}

#[derive(Clone, Copy, Debug)]
pub enum Decision<'p> {
    Allow(&'p Route),
    Deny(Denial<'p>),
}

/// Why a request is not let through.
#[derive(Clone, Copy, Debug)]
pub enum Denial<'p> {
    /// No route names the host, its port and its scheme.
    Host,
    /// A route names the host; none of its `matches` fits.
    Request,
    /// This route says `deny`.
    Rule(&'p Route),
    /// The route matches on paths, and this path can be read in more than one way.
    AmbiguousPath(&'static str),
    GitPush,
    GitFetch,
}

impl Policy {
    /// The rules in their order, for people: names only, no values of credentials.
    pub fn table(&self) -> Vec<RouteSummary> {
        self.routes.iter().map(Route::summary).collect()
    }

    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Stands in every audit record: the first 16 hex digits of SHA-256 over the section's canonical JSON.
    pub fn hash(&self) -> &Arc<str> {
        &self.hash
    }

    /// Whether any request to this authority could be allowed: what CONNECT is answered by.
    pub fn admits(&self, scheme: Scheme, authority: &Authority) -> Result<&Route, Denial<'_>> {
        let mut found = None;
        for route in self
            .routes
            .iter()
            .filter(|route| route.is_for(scheme, authority))
        {
            if route.deny && route.matches.is_empty() {
                return Err(Denial::Rule(route));
            }
            if !route.deny && found.is_none() {
                found = Some(route);
            }
        }
        found.ok_or(Denial::Host)
    }

    pub fn decide(&self, question: &Question<'_>) -> Decision<'_> {
        if let Err(denial) = self.admits(question.scheme, question.authority) {
            return Decision::Deny(denial);
        }
        let mut allowed = None;
        let mut ambiguous = None;
        for route in self
            .routes
            .iter()
            .filter(|route| route.is_for(question.scheme, question.authority))
        {
            match route.fits(question) {
                // A deny rule that cannot read the path must not be walked around by writing it unreadably.
                Err(why) if route.deny => return Decision::Deny(Denial::AmbiguousPath(why)),
                Err(why) => ambiguous = ambiguous.or(Some(why)),
                Ok(true) if route.deny => return Decision::Deny(Denial::Rule(route)),
                Ok(true) => allowed = allowed.or(Some(route)),
                Ok(false) => {}
            }
        }
        let Some(route) = allowed else {
            return Decision::Deny(ambiguous.map_or(Denial::Request, Denial::AmbiguousPath));
        };
        match git::service(question.target) {
            Some(GitService::Push) => Decision::Deny(Denial::GitPush),
            Some(GitService::Fetch) if !route.git_fetch => Decision::Deny(Denial::GitFetch),
            Some(GitService::Fetch) | None => Decision::Allow(route),
        }
    }
}

impl Route {
    fn is_for(&self, scheme: Scheme, authority: &Authority) -> bool {
        self.scheme == scheme && self.port == authority.port && self.host.matches(&authority.host)
    }

    fn fits(&self, question: &Question<'_>) -> Result<bool, &'static str> {
        if self.matches.is_empty() {
            return Ok(true);
        }
        let mut ambiguous = None;
        for entry in &self.matches {
            match entry.fits(question) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(why) => ambiguous = Some(why),
            }
        }
        ambiguous.map_or(Ok(false), Err)
    }

    pub fn summary(&self) -> RouteSummary {
        RouteSummary {
            host: self.host.to_string(),
            port: self.port,
            scheme: self.scheme,
            effect: if self.deny { "deny" } else { "allow" },
            matches: self.matches.iter().map(ToString::to_string).collect(),
            credential: self.auth.as_ref().map(|auth| auth.token_ref.clone()),
            git_fetch: self.git_fetch,
            websocket: self.websocket,
            on_match: self.on_match,
        }
    }
}

/// A route as it is shown: by `_egress.local/allowlist`, `check` and `--dry-run`.
#[derive(Clone, Debug, Serialize)]
pub struct RouteSummary {
    pub host: String,
    pub port: u16,
    pub scheme: Scheme,
    pub effect: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<String>,
    /// The name of the credential that is injected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    pub git_fetch: bool,
    pub websocket: bool,
    pub on_match: OnMatch,
}

impl fmt::Display for RouteSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:5} {}://{}:{}",
            self.effect,
            self.scheme.as_str(),
            self.host,
            self.port
        )?;
        for entry in &self.matches {
            write!(f, "  [{entry}]")?;
        }
        if let Some(name) = &self.credential {
            write!(f, "  injects {name}")?;
        }
        if self.git_fetch {
            f.write_str("  git fetch")?;
        }
        if self.websocket {
            f.write_str("  websocket")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
