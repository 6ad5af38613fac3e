//! From the text of an `egress` section to a [`Policy`].

use std::fmt;

use http::Method;
use regex_automata::meta::Regex;
use sha2::{Digest, Sha256};

use super::{Detectors, Policy, Question, Route, path};
use crate::config;
use crate::host::{Authority, HostError, HostPattern};

/// A route that cannot be understood. Nothing of such a section is used.
#[derive(Debug, thiserror::Error)]
#[error("egress.routes[{index}] ({host}): {problem}")]
pub struct PolicyError {
    pub index: usize,
    pub host: String,
    pub problem: Problem,
}

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("host: {0}")]
    Host(#[from] HostError),
    #[error("methods: {0:?} is not a method")]
    Method(String),
    #[error("paths: {0:?} does not start with a slash")]
    Path(String),
    #[error("{place}: the expression does not compile: {source}")]
    Regex {
        place: &'static str,
        source: Box<regex_automata::meta::BuildError>,
    },
    #[error("headers: {0:?} is not a header name")]
    HeaderName(String),
    #[error("headers: {0} needs either `exact` or `regex`")]
    HeaderValue(String),
    #[error("matches: an empty entry would match everything; leave `matches` out if that is meant")]
    EmptyMatch,
    #[error("auth: the scheme `header` needs `name`, the others take none")]
    AuthName,
    #[error("auth: a credential is injected over https only")]
    AuthPlain,
    #[error("a `deny` route takes host, scheme and matches only")]
    DenyExtra,
    #[error("dlp.outbound_detectors: {name:?} is not one of {KNOWN:?}{hint}")]
    Detector { name: String, hint: String },
    #[error("dlp.{0}: write `false` or a list of detectors, not `true`")]
    DetectorsTrue(&'static str),
    #[error("dlp.inbound_detectors: {0:?} is not {INJECTION:?}")]
    Inbound(String),
    #[error("dlp.on_oversize has no effect without max_request_bytes")]
    Oversize,
}

const KNOWN: [&str; 4] = ["token_patterns", "known_secrets", "undecodable", "entropy"];

const INJECTION: &str = "naive_injection_detection";

impl Policy {
    /// Parses every route or none.
    pub fn compile(egress: &config::Egress) -> Result<Self, PolicyError> {
        let routes = egress
            .routes
            .iter()
            .enumerate()
            .map(|(index, raw)| {
                route(index, raw).map_err(|problem| PolicyError {
                    index,
                    host: raw.host.clone(),
                    problem,
                })
            })
            .collect::<Result<_, _>>()?;
        let canonical = serde_json::to_vec(egress).unwrap_or_default();
        Ok(Self {
            routes,
            hash: short_hash(&canonical).into(),
        })
    }

    /// What stands in for a policy that could not be read.
    pub fn deny_all() -> Self {
        Self {
            routes: Vec::new(),
            hash: "deny-all".into(),
        }
    }
}

fn short_hash(text: &[u8]) -> String {
    Sha256::digest(text)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn route(index: usize, raw: &config::Route) -> Result<Route, Problem> {
    let (host, port) = match raw.host.strip_prefix("*.") {
        None => {
            let authority = Authority::parse(&raw.host, raw.scheme.default_port())?;
            (HostPattern::Exact(authority.host), authority.port)
        }
        Some(parent) => {
            let (name, port) = parent.split_once(':').unwrap_or((parent, ""));
            let port = if port.is_empty() {
                raw.scheme.default_port()
            } else {
                Authority::parse(parent, 0)?.port
            };
            (format!("*.{name}").parse()?, port)
        }
    };
    let dlp = &raw.dlp;
    let extras = raw.auth.is_some()
        || raw.git.is_some()
        || raw.websocket
        || *dlp != config::Dlp::default()
        || raw.allow_private;
    if raw.deny && extras {
        return Err(Problem::DenyExtra);
    }
    if let Some(auth) = &raw.auth {
        let wants_name = auth.scheme == config::AuthScheme::Header;
        if wants_name != auth.name.is_some() {
            return Err(Problem::AuthName);
        }
        if let Some(name) = &auth.name {
            header_name(name)?;
        }
        if raw.scheme == crate::host::Scheme::Http {
            return Err(Problem::AuthPlain);
        }
    }
    let injection_detector = inbound(dlp.inbound_detectors.as_ref())?;
    if dlp.on_oversize.is_some() && dlp.max_request_bytes.is_none() {
        return Err(Problem::Oversize);
    }
    Ok(Route {
        index,
        key: short_hash(&serde_json::to_vec(raw).unwrap_or_default()).into(),
        host,
        port,
        scheme: raw.scheme,
        deny: raw.deny,
        matches: raw
            .matches
            .iter()
            .map(Match::compile)
            .collect::<Result<_, _>>()?,
        auth: raw.auth.clone(),
        websocket: raw.websocket,
        git_fetch: raw.git.as_ref().is_some_and(|git| git.fetch),
        detectors: detectors(dlp.outbound_detectors.as_ref())?,
        on_match: dlp.outbound_on_match.unwrap_or_default(),
        max_request_bytes: dlp.max_request_bytes,
        on_oversize: dlp.on_oversize.unwrap_or_default(),
        max_total_bytes: dlp.max_total_bytes,
        allow_private: raw.allow_private,
        injection_detector,
    })
}

/// Off where it is not asked for: it reads English and knows phrases.
fn inbound(raw: Option<&config::Detectors>) -> Result<bool, Problem> {
    match raw {
        None | Some(config::Detectors::Off(false)) => Ok(false),
        Some(config::Detectors::Off(true)) => Err(Problem::DetectorsTrue("inbound_detectors")),
        Some(config::Detectors::List(list)) => match list.iter().find(|name| *name != INJECTION) {
            Some(name) => Err(Problem::Inbound(name.clone())),
            None => Ok(!list.is_empty()),
        },
    }
}

fn detectors(raw: Option<&config::Detectors>) -> Result<Detectors, Problem> {
    let list = match raw {
        None => {
            return Ok(Detectors {
                token_patterns: true,
                known_secrets: true,
                undecodable: true,
                entropy: false,
            });
        }
        Some(config::Detectors::Off(false)) => &Vec::new(),
        Some(config::Detectors::Off(true)) => {
            return Err(Problem::DetectorsTrue("outbound_detectors"));
        }
        Some(config::Detectors::List(list)) => list,
    };
    if let Some(name) = list.iter().find(|name| !KNOWN.contains(&name.as_str())) {
        let nearest = KNOWN
            .iter()
            .max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
        let hint = nearest
            .map(|near| format!("; did you mean {near:?}?"))
            .unwrap_or_default();
        return Err(Problem::Detector {
            name: name.clone(),
            hint,
        });
    }
    let has = |name: &str| list.iter().any(|own| own == name);
    Ok(Detectors {
        token_patterns: has("token_patterns"),
        known_secrets: has("known_secrets"),
        undecodable: has("undecodable"),
        entropy: has("entropy"),
    })
}

fn header_name(name: &str) -> Result<(), Problem> {
    match http::HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(Problem::HeaderName(name.to_owned())),
    }
}

/// One entry of `matches`.
#[derive(Debug)]
pub(super) struct Match {
    paths: Vec<PathRule>,
    methods: Vec<Method>,
    headers: Vec<HeaderRule>,
}

#[derive(Debug)]
enum PathRule {
    Exact(String),
    Prefix(String),
    Regex(Box<Regex>, String),
}

#[derive(Debug)]
struct HeaderRule {
    name: String,
    value: ValueRule,
}

#[derive(Debug)]
enum ValueRule {
    Exact(String),
    Regex(Box<Regex>, String),
}

impl Match {
    fn compile(raw: &config::Match) -> Result<Self, Problem> {
        if *raw == config::Match::default() {
            return Err(Problem::EmptyMatch);
        }
        let slash = |path: &String| {
            if path.starts_with('/') {
                Ok(path.clone())
            } else {
                Err(Problem::Path(path.clone()))
            }
        };
        let paths = raw.paths.iter().map(|path| {
            Ok::<_, Problem>(match path {
                config::PathMatch::Exact(path) => PathRule::Exact(slash(path)?),
                config::PathMatch::Prefix(path) => PathRule::Prefix(slash(path)?),
                config::PathMatch::Regex(text) => {
                    PathRule::Regex(whole(text, "paths")?, text.clone())
                }
            })
        });
        let methods = raw.methods.iter().map(|method| {
            let upper = method.to_ascii_uppercase();
            Method::from_bytes(upper.as_bytes()).map_err(|_| Problem::Method(method.clone()))
        });
        let headers = raw.headers.iter().map(|header| {
            header_name(&header.name)?;
            let value = match (&header.exact, &header.regex) {
                (Some(exact), None) => ValueRule::Exact(exact.clone()),
                (None, Some(text)) => ValueRule::Regex(whole(text, "headers")?, text.clone()),
                _ => return Err(Problem::HeaderValue(header.name.clone())),
            };
            Ok(HeaderRule {
                name: header.name.clone(),
                value,
            })
        });
        Ok(Self {
            paths: paths.collect::<Result<_, _>>()?,
            methods: methods.collect::<Result<_, _>>()?,
            headers: headers.collect::<Result<_, _>>()?,
        })
    }

    /// The cheap conditions first: a path is only called ambiguous where it would have decided.
    pub(super) fn fits(&self, question: &Question<'_>) -> Result<bool, &'static str> {
        let method = self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|own| own.as_str().eq_ignore_ascii_case(question.method));
        if !method || !self.headers.iter().all(|rule| rule.fits(question)) {
            return Ok(false);
        }
        if self.paths.is_empty() {
            return Ok(true);
        }
        let raw = question
            .target
            .split(|byte| *byte == b'?')
            .next()
            .unwrap_or_default();
        let path = path::decoded(raw)?;
        Ok(self.paths.iter().any(|rule| rule.fits(&path)))
    }
}

impl PathRule {
    fn fits(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(own) => own.as_bytes() == path,
            Self::Prefix(own) => match path.strip_prefix(own.as_bytes()) {
                Some(rest) => rest.is_empty() || own.ends_with('/') || rest.starts_with(b"/"),
                None => false,
            },
            Self::Regex(regex, _) => regex.is_match(path),
        }
    }
}

impl HeaderRule {
    /// Every field of the name must fit: a second one could be what the origin reads.
    fn fits(&self, question: &Question<'_>) -> bool {
        let mut any = false;
        for value in question.headers.all(&self.name) {
            any = true;
            let fits = match &self.value {
                ValueRule::Exact(own) => own.as_bytes() == value,
                ValueRule::Regex(regex, _) => regex.is_match(value.as_ref()),
            };
            if !fits {
                return false;
            }
        }
        any
    }
}

fn whole(text: &str, place: &'static str) -> Result<Box<Regex>, Problem> {
    let compile = |text: &str| {
        Regex::new(text)
            .map(Box::new)
            .map_err(|source| Problem::Regex {
                place,
                source: Box::new(source),
            })
    };
    // The text alone first: a stray parenthesis must not break out of the anchors.
    compile(text)?;
    compile(&format!(r"\A(?:{text})\z"))
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.methods.is_empty() {
            parts.push(
                self.methods
                    .iter()
                    .map(Method::as_str)
                    .collect::<Vec<_>>()
                    .join("|"),
            );
        }
        parts.extend(self.paths.iter().map(|path| match path {
            PathRule::Exact(path) => path.clone(),
            // By whole segments: `/v1` is not `/v10`.
            PathRule::Prefix(path) if path.ends_with('/') => format!("{path}…"),
            PathRule::Prefix(path) => format!("{path}[/…]"),
            PathRule::Regex(_, text) => format!("~{text}"),
        }));
        parts.extend(self.headers.iter().map(|header| match &header.value {
            ValueRule::Exact(value) => format!("{}={value}", header.name),
            ValueRule::Regex(_, text) => format!("{}~{text}", header.name),
        }));
        f.write_str(&parts.join(" "))
    }
}
