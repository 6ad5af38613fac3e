//! What is typed: the shape of the sidecar's file and of a manifest's `egress` section.
//!
//! Everything here is plain text of the user's; [`crate::settings`] and [`crate::policy`] parse it into what is meant.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::Scheme;

/// `sidecar run --config FILE`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Stands in every audit record.
    #[serde(default)]
    pub bottle: String,
    /// `ADDRESS:PORT` or `unix:/path/to.sock`, any number of them; none only where there is an interceptor.
    pub listen: Vec<String>,
    /// Who may use the proxy. Leaving it out is an error; an open proxy is asked for with `none`.
    pub proxy_auth: ProxyAuth,
    pub ca: Ca,
    #[serde(default, skip_serializing_if = "is_default")]
    pub upstream: Upstream,
    /// Append-only JSON Lines, one record a verdict.
    pub audit: PathBuf,
    /// The command that explains an event to the operator; `{id}` is replaced. Printed in every refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<String>,
    /// A body up to this size is held whole until it is judged, such as `1MiB` (the default) or `65536`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// Confine the process after start (no new privileges, Landlock, seccomp). Default true.
    #[serde(default = "yes")]
    pub confine: bool,
    /// Where smolvm hands over the connections of a micro-VM's guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interceptor: Option<Interceptor>,
    /// Where an operator is asked and answers. Without it `supervise` blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// The command that approves what a refusal was about; `{id}` is replaced. Printed in such refusals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve: Option<String>,
    #[serde(default)]
    pub egress: Egress,
}

/// smolvm's `--egress-interceptor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interceptor {
    /// A loopback `ADDRESS:PORT`, which smolvm's process dials.
    pub listen: String,
    /// The one `ADDRESS:PORT` that stands for this proxy when the guest dials it. Every other is refused.
    pub destination: String,
    /// The name of the environment variable that holds the token, 64 hexadecimal digits.
    pub token_ref: String,
}

/// The operator's side: never reachable for an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// `unix:/path/to.sock` or `127.0.0.1:PORT`.
    pub listen: String,
    /// The name of the environment variable that holds the bearer token.
    pub token_ref: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyAuth {
    /// Anyone who reaches a listener may use it.
    #[default]
    None,
    /// `Proxy-Authorization: Basic`; the password is the value of the environment variable `password_ref`.
    Basic {
        username: String,
        password_ref: String,
    },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ca {
    /// Written at start, for the agent's trust store.
    pub certificate: PathBuf,
    /// Kept between starts where given (0600, made when missing); otherwise the key lives in memory only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// PEM files of further roots, beside the system's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ca_files: Vec<PathBuf>,
    /// Names that are answered from here and not by DNS.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, IpAddr>,
    /// `ADDRESS:PORT` of DNS servers in place of the system's (`/etc/resolv.conf`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<SocketAddr>,
    /// An HTTP proxy that all origins are reached through, by CONNECT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<CorporateProxy>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorporateProxy {
    /// `HOST:PORT`.
    pub address: String,
    /// For `Proxy-Authorization: Basic`; the password is the value of the environment variable `password_ref`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_ref: Option<String>,
    /// Hosts (`git.corp.example`, `*.corp.example`) that are reached without it, as names in `upstream.hosts` are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub direct: Vec<String>,
}

/// A bottle's `egress` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// What is logged beside the audit: 0 nothing, 1 blocks and warnings (the default), 2 everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<u8>,
    /// An empty list denies everything.
    #[serde(default)]
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `api.example.com`, `example.com:8443`, `*.example.com`.
    pub host: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub scheme: Scheme,
    /// Refuse what this route matches, whatever other routes say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deny: bool,
    /// Entries are alternatives; none means every request to the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<Git>,
    /// Lets what the route allows be a WebSocket; its messages are judged as bodies are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub websocket: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub dlp: Dlp,
    /// Lets the host resolve to a loopback, private or link-local address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_private: bool,
}

/// All of the lists that are there must match; inside a list, any entry may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathMatch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
}

/// The path without its query, percent-decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathMatch {
    Exact(String),
    /// By whole segments: `/v1` is `/v1` and `/v1/…`, not `/v10`.
    Prefix(String),
    /// Must match the whole path.
    Regex(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Must match the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
}

/// The credential that the sidecar puts in; the agent never sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub scheme: AuthScheme,
    /// The name of a variable: of the host's environment in a manifest, of the sidecar's own in its file.
    pub token_ref: String,
    /// The header's name, for the scheme `header` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthScheme {
    /// `Authorization: Bearer TOKEN`.
    Bearer,
    /// `Authorization: token TOKEN`.
    #[serde(rename = "token")]
    Token,
    /// `Authorization: Basic base64(TOKEN)`, the token being `user:password`.
    Basic,
    /// `NAME: TOKEN`.
    #[serde(rename = "header")]
    Header,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Git {
    /// Lets clone and fetch through; push over HTTPS is always refused.
    #[serde(default)]
    pub fetch: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dlp {
    /// `token_patterns`, `known_secrets`, `undecodable`, `entropy`; the default is the first three. `false` switches all off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_detectors: Option<Detectors>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound_detectors: Option<Detectors>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_on_match: Option<OnMatch>,
    /// A request body above this size falls under `on_oversize`; no limit where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_request_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_oversize: Option<OnOversize>,
    /// What may leave by this route in all, heads and bodies, from the start on; no limit where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Detectors {
    Off(bool),
    List(Vec<String>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMatch {
    /// The request waits for an operator, and is blocked where none answers or can be asked.
    #[default]
    Supervise,
    /// What was found is replaced, the rest is scanned again and forwarded.
    Redact,
    Block,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnOversize {
    #[default]
    Block,
    /// Scanned up to the limit, forwarded unscanned beyond it.
    Noscan,
}

fn yes() -> bool {
    true
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
