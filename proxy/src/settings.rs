//! What is meant: a sidecar's file and environment, parsed into the state that connections work with.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use detectors::InjectionDetector;

use crate::config::{self, File, ProxyAuth};
use crate::control::setting as control;
use crate::credential::{self, Credential, CredentialError};
use crate::echo::Scrubber;
use crate::host::{HostError, HostName};
use crate::inspect::{ScannerError, Scanners};
use crate::interceptor;
use crate::policy::{Policy, PolicyError};
use crate::secrets::{Secret, Secrets};
use crate::upstream::corporate::ProxyError;

pub const DEFAULT_HOLD: usize = 1024 * 1024;
/// What is held is memory: an operator may ask for this much and no more.
const MAX_HOLD: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Syntax {
        path: PathBuf,
        source: Box<serde_saphyr::Error>,
    },
    #[error("listen: nothing to listen on")]
    NoListener,
    #[error("listen: {0:?} is neither ADDRESS:PORT nor unix:/absolute/path")]
    Listener(String),
    #[error("hold: {0:?} is not a size such as 65536, 512KiB or 1MiB, at most 64MiB")]
    Hold(String),
    #[error("upstream.hosts: {name}: {source}")]
    UpstreamHost { name: String, source: HostError },
    #[error(transparent)]
    UpstreamProxy(#[from] ProxyError),
    #[error("proxy_auth: the environment variable {0} is not set or empty")]
    ProxyPassword(String),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("egress.routes[{index}] ({host}): auth: {source}")]
    Credential {
        index: usize,
        host: String,
        source: CredentialError,
    },
    #[error(transparent)]
    Scanner(#[from] ScannerError),
    #[error("egress.log: {0} is not 0, 1 or 2")]
    Log(u8),
    #[error("interceptor: {0}")]
    Interceptor(#[from] interceptor::SettingError),
    #[error("control: {0}")]
    Control(#[from] control::SettingError),
    #[error("EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS: {0} is no number of seconds from 0 to 86400")]
    Patience(String),
}

impl File {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        serde_saphyr::from_str(&text).map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }
}

/// Where the agent comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Tcp(std::net::SocketAddr),
    Unix(PathBuf),
}

impl Listen {
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError::Listener(text.to_owned());
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(bad()),
            None => text.parse().map(Self::Tcp).map_err(|_| bad()),
        }
    }
}

/// What holds from start to stop.
#[derive(Debug)]
pub struct Fixed {
    pub bottle: Arc<str>,
    pub listen: Vec<Listen>,
    pub interceptor: Option<interceptor::Setting>,
    /// `None`: everyone is let in.
    pub credentials: Option<ProxyCredentials>,
    pub hold: usize,
    pub explain: Option<String>,
    pub approve: Option<String>,
    pub control: Option<control::Setting>,
    /// How long a request waits for an operator.
    pub patience: std::time::Duration,
    pub upstream_hosts: HashMap<HostName, std::net::IpAddr>,
}

#[derive(Debug)]
pub struct ProxyCredentials {
    /// `user:password` in base64, as the header carries it.
    pub encoded: Secret,
}

impl Fixed {
    pub fn parse(file: &File, secrets: &Secrets) -> Result<Self, ConfigError> {
        let listen = file
            .listen
            .iter()
            .map(|text| Listen::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        if listen.is_empty() && file.interceptor.is_none() {
            return Err(ConfigError::NoListener);
        }
        let credentials = match &file.proxy_auth {
            ProxyAuth::None => None,
            ProxyAuth::Basic {
                username,
                password_ref,
            } => {
                let password = secrets
                    .value(password_ref)
                    .ok_or_else(|| ConfigError::ProxyPassword(password_ref.clone()))?;
                let pair = format!("{username}:{}", password.expose());
                let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pair);
                Some(ProxyCredentials {
                    encoded: Secret::new(encoded),
                })
            }
        };
        let upstream_hosts = file
            .upstream
            .hosts
            .iter()
            .map(|(name, ip)| match name.parse() {
                Ok(host) => Ok((host, *ip)),
                Err(source) => Err(ConfigError::UpstreamHost {
                    name: name.clone(),
                    source,
                }),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            bottle: file.bottle.as_str().into(),
            listen,
            interceptor: file
                .interceptor
                .as_ref()
                .map(|interceptor| interceptor::Setting::parse(interceptor, secrets))
                .transpose()?,
            credentials,
            hold: file.hold.as_deref().map_or(Ok(DEFAULT_HOLD), parse_hold)?,
            explain: file.explain.clone(),
            approve: file.approve.clone(),
            control: file
                .control
                .as_ref()
                .map(|control| control::Setting::parse(control, secrets))
                .transpose()?,
            patience: control::patience(secrets).map_err(ConfigError::Patience)?,
            upstream_hosts,
        })
    }
}

fn parse_hold(text: &str) -> Result<usize, ConfigError> {
    let bad = || ConfigError::Hold(text.to_owned());
    let (digits, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let unit: usize = match unit.trim() {
        "" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return Err(bad()),
    };
    let size = digits
        .parse::<usize>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .ok_or_else(bad)?;
    if size > MAX_HOLD {
        Err(bad())
    } else {
        Ok(size)
    }
}

/// What a reload replaces, as one.
#[derive(Debug)]
pub struct Ruling {
    pub policy: Policy,
    pub scanners: Scanners,
    /// By the index of their route.
    pub credentials: HashMap<usize, Credential>,
    /// Looks for all of them in responses; `None` where there are none.
    pub scrubber: Option<Scrubber>,
    pub injection: InjectionDetector,
    pub log: u8,
}

impl Ruling {
    pub fn parse(egress: &config::Egress, secrets: &Secrets) -> Result<Arc<Self>, ConfigError> {
        let policy = Policy::compile(egress)?;
        let mut credentials = HashMap::new();
        for route in policy.routes() {
            if let Some(auth) = &route.auth {
                let credential =
                    Credential::load(auth, secrets).map_err(|source| ConfigError::Credential {
                        index: route.index,
                        host: route.host.to_string(),
                        source,
                    })?;
                credentials.insert(route.index, credential);
            }
        }
        let log = egress.log.unwrap_or(1);
        if log > 2 {
            return Err(ConfigError::Log(log));
        }
        let scanners = Scanners::build(&policy, secrets)?;
        let injected = policy
            .routes()
            .iter()
            .filter_map(|route| route.auth.as_ref());
        let scrubber = Scrubber::new(injected.flat_map(|auth| credential::texts(auth, secrets)));
        Ok(Arc::new(Self {
            policy,
            scanners,
            credentials,
            scrubber,
            injection: InjectionDetector::new(),
            log,
        }))
    }

    /// In force where the policy could not be read at start.
    pub fn deny_all(secrets: &Secrets) -> Result<Arc<Self>, ConfigError> {
        let policy = Policy::deny_all();
        let scanners = Scanners::build(&policy, secrets)?;
        Ok(Arc::new(Self {
            policy,
            scanners,
            credentials: HashMap::new(),
            scrubber: None,
            injection: InjectionDetector::new(),
            log: 1,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds() {
        assert_eq!(parse_hold("65536").unwrap(), 65536);
        assert_eq!(parse_hold("512KiB").unwrap(), 512 * 1024);
        assert_eq!(parse_hold("1 MiB").unwrap(), 1024 * 1024);
        for text in ["", "MiB", "1GB", "-1", "65MiB", "99999999999999999999"] {
            assert!(parse_hold(text).is_err(), "{text}");
        }
    }

    #[test]
    fn listeners() {
        assert!(Listen::parse("127.0.0.16:9099").is_ok());
        assert!(Listen::parse("unix:/run/egress.sock").is_ok());
        for text in ["unix:egress.sock", "localhost:1", "9099", ""] {
            assert!(Listen::parse(text).is_err(), "{text}");
        }
    }
}
