//! The one place that makes a verdict out of a cause, and the one that maps it to status, code and words.

use detectors::Finding;
use http::StatusCode;
use serde::Serialize;

use crate::host::HostError;
use crate::policy::Denial;
use crate::supervise::NotApproved;

/// Whose side a refusal comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Policy: a credential, or a request that no route lets through.
    Block,
    /// The agent sent what cannot be understood completely.
    Refuse,
    /// The origin, the network, or we ourselves.
    Error,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Refuse => "refuse",
            Self::Error => "error",
        }
    }

    /// The value of `x-bottle-verdict`, which is on our own answers only.
    pub fn marker(self) -> &'static str {
        match self {
            Self::Block => "blocked",
            Self::Refuse => "refused",
            Self::Error => "error",
        }
    }
}

/// Why a request does not go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    // Policy.
    Credential,
    /// As `Credential`, where an operator would be asked and there is no control API to ask through.
    Unsupervised,
    /// As `Credential`, where an operator was asked, or cannot be asked about this.
    NotApproved(NotApproved),
    /// Redaction was asked for and cannot be done here, or did not make the request clean.
    Unredactable,
    Structural,
    HostDenied,
    RequestDenied,
    RuleDenied,
    AmbiguousPath(&'static str),
    GitPush,
    GitFetch,
    /// The route lets requests through, and no WebSockets.
    WebSocketDenied,
    Oversize {
        limit: u64,
    },
    /// The origin's answer would have the agent give secrets away.
    Injection,
    /// The origin's answer has a coding in which it cannot be looked at.
    ResponseEncoding(String),
    /// The name leads to the operator's side of this very sidecar.
    ControlPort,
    /// So much of this known secret has left in short pieces that no more may.
    Pieces(String),
    /// As much has left by the route as may.
    Volume {
        limit: u64,
    },
    /// The encoding of the body is one that we cannot read.
    ContentEncoding(&'static str),
    // What the agent sent.
    ProxyAuth,
    Malformed(String),
    Host(HostError),
    Identity(String),
    UnknownProtocol(&'static str),
    Tls(String),
    Method(&'static str),
    Upgrade,
    HeadTooLarge,
    AgentTimeout,
    BodyFailed(String),
    // The origin and the network.
    Resolve(String),
    PrivateAddress(String),
    Connect(String),
    /// The proxy between us and the origin.
    UpstreamProxy(String),
    UpstreamTls(&'static str, String),
    UpstreamProtocol(String),
    UpstreamTimeout,
    // Ourselves.
    Audit,
    Stopping,
    Overloaded,
    Internal,
}

impl Cause {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Credential
            | Self::Unsupervised
            | Self::NotApproved(_)
            | Self::Unredactable
            | Self::Structural
            | Self::HostDenied
            | Self::RequestDenied
            | Self::RuleDenied
            | Self::AmbiguousPath(_)
            | Self::GitPush
            | Self::GitFetch
            | Self::WebSocketDenied
            | Self::Oversize { .. }
            | Self::Volume { .. }
            | Self::Pieces(_)
            | Self::ControlPort
            | Self::Injection
            | Self::ResponseEncoding(_)
            | Self::ContentEncoding(_) => Kind::Block,
            Self::ProxyAuth
            | Self::Malformed(_)
            | Self::Host(_)
            | Self::Identity(_)
            | Self::UnknownProtocol(_)
            | Self::Tls(_)
            | Self::Method(_)
            | Self::Upgrade
            | Self::HeadTooLarge
            | Self::AgentTimeout
            | Self::BodyFailed(_) => Kind::Refuse,
            Self::Resolve(_)
            | Self::PrivateAddress(_)
            | Self::Connect(_)
            | Self::UpstreamProxy(_)
            | Self::UpstreamTls(..)
            | Self::UpstreamProtocol(_)
            | Self::UpstreamTimeout
            | Self::Audit
            | Self::Stopping
            | Self::Overloaded
            | Self::Internal => Kind::Error,
        }
    }

    /// Stable, for scripts and the audit.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Unsupervised => "credential-unsupervised",
            Self::NotApproved(not) => not.why.code(),
            Self::Unredactable => "credential-unredactable",
            Self::Structural => "structural",
            Self::HostDenied => "host-not-allowed",
            Self::RequestDenied => "request-not-allowed",
            Self::RuleDenied => "deny-rule",
            Self::AmbiguousPath(_) => "ambiguous-path",
            Self::GitPush => "git-push",
            Self::GitFetch => "git-fetch",
            Self::WebSocketDenied => "websocket-not-allowed",
            Self::Oversize { .. } => "oversize",
            Self::Volume { .. } => "volume",
            Self::Pieces(_) => "credential-pieces",
            Self::ControlPort => "control-port",
            Self::Injection => "injection",
            Self::ResponseEncoding(_) => "response-encoding",
            Self::ContentEncoding(_) => "content-encoding",
            Self::ProxyAuth => "proxy-auth",
            Self::Malformed(_) => "malformed",
            Self::Host(_) => "host-malformed",
            Self::Identity(_) => "identity",
            Self::UnknownProtocol(_) => "unknown-protocol",
            Self::Tls(_) => "agent-tls",
            Self::Method(_) => "method",
            Self::Upgrade => "upgrade",
            Self::HeadTooLarge => "head-too-large",
            Self::AgentTimeout => "agent-timeout",
            Self::BodyFailed(_) => "body-failed",
            Self::Resolve(_) => "upstream-resolve",
            Self::PrivateAddress(_) => "upstream-private-address",
            Self::Connect(_) => "upstream-connect",
            Self::UpstreamProxy(_) => "upstream-proxy",
            Self::UpstreamTls(code, _) => code,
            Self::UpstreamProtocol(_) => "upstream-protocol",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::Audit => "audit-unavailable",
            Self::Stopping => "stopping",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::ProxyAuth => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::AgentTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Identity(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Method(_) | Self::Upgrade => StatusCode::FORBIDDEN,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Audit | Self::Stopping | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            other => match other.kind() {
                Kind::Block => StatusCode::FORBIDDEN,
                Kind::Refuse => StatusCode::BAD_REQUEST,
                Kind::Error => StatusCode::BAD_GATEWAY,
            },
        }
    }

    /// One sentence, without a full stop, without any value that was found.
    pub fn words(&self) -> String {
        match self {
            Self::Credential => "a credential was found in what was about to leave".into(),
            Self::Unsupervised => {
                "the route asks for an operator's decision (supervise), and this sidecar has no `control` through which one could be given, so it is blocked".into()
            }
            Self::NotApproved(not) => not.why.words(),
            Self::Unredactable => "a credential was found where it cannot be redacted".into(),
            Self::Structural => "the request carries a structural attack".into(),
            Self::HostDenied => "no route allows this host, port and scheme".into(),
            Self::RequestDenied => "a route names this host, but none of its matches allows this method and path".into(),
            Self::RuleDenied => "a deny rule matches".into(),
            Self::AmbiguousPath(why) => format!("the path can be read in more than one way: {why}"),
            Self::GitPush => "git push over HTTPS is refused; pushes go through the git gate".into(),
            Self::GitFetch => "git fetch is not allowed on this route (git.fetch)".into(),
            Self::WebSocketDenied => "the route that allows this request does not allow WebSockets (websocket)".into(),
            Self::Oversize { limit } => format!("the body is larger than the route's max_request_bytes ({limit})"),
            Self::ContentEncoding(why) => format!("the body's Content-Encoding cannot be inspected: {why}"),
            Self::Pieces(name) => format!("with this request more of {name} would have left in short pieces than may"),
            Self::Volume { limit } => format!("the route lets {limit} bytes out in all (dlp.max_total_bytes), and they are used up"),
            Self::Injection => "the origin's answer tells its reader to give secrets away".into(),
            Self::ResponseEncoding(why) => format!("the origin's answer has a content coding that it was not asked for: {why}"),
            Self::ControlPort => "the host leads to the control API of this sidecar, which is for the operator alone".into(),
            Self::ProxyAuth => "the proxy credentials are missing or wrong".into(),
            Self::Malformed(why) => format!("the request is malformed: {why}"),
            Self::Host(why) => format!("the host is malformed: {why}"),
            Self::Identity(why) => format!("the request names two different hosts: {why}"),
            Self::UnknownProtocol(what) => format!("inside a tunnel only TLS is inspected; this is {what}"),
            Self::Tls(why) => format!("the TLS handshake with the agent failed: {why}"),
            Self::Method(method) => format!("the method {method} is not forwarded"),
            Self::Upgrade => "of protocol upgrades only WebSocket is inspected, so this one is refused".into(),
            Self::HeadTooLarge => "the request head is too large".into(),
            Self::AgentTimeout => "the request did not come in time".into(),
            Self::BodyFailed(why) => format!("the request body failed: {why}"),
            Self::Resolve(why) => format!("the host could not be resolved: {why}"),
            Self::PrivateAddress(address) => {
                format!("the host resolves to {address}, which is not a public address (allow_private)")
            }
            Self::Connect(why) => format!("the origin could not be reached: {why}"),
            Self::UpstreamProxy(why) => format!("the proxy on the way to the origin (upstream.proxy) failed: {why}"),
            Self::UpstreamTls(_, why) => format!("the origin's TLS was not accepted: {why}"),
            Self::UpstreamProtocol(why) => format!("the origin broke the protocol: {why}"),
            Self::UpstreamTimeout => "the origin did not answer in time".into(),
            Self::Audit => "the audit log cannot be written, so nothing is let through".into(),
            Self::Stopping => "the sidecar is stopping".into(),
            Self::Overloaded => "the sidecar holds as many request bodies as it has room for".into(),
            Self::Internal => "the sidecar failed; this request was not forwarded".into(),
        }
    }
}

impl Cause {
    /// What an operator types to approve it.
    fn commands(&self) -> &[String] {
        match self {
            Self::NotApproved(not) => &not.commands,
            _ => &[],
        }
    }

    /// What an operator was asked about, by identifier.
    pub fn asks(&self) -> &[String] {
        match self {
            Self::NotApproved(not) => &not.asks,
            _ => &[],
        }
    }
}

impl From<&Denial<'_>> for Cause {
    fn from(denial: &Denial<'_>) -> Self {
        match denial {
            Denial::Host => Self::HostDenied,
            Denial::Request => Self::RequestDenied,
            Denial::Rule(_) => Self::RuleDenied,
            Denial::AmbiguousPath(why) => Self::AmbiguousPath(why),
            Denial::GitPush => Self::GitPush,
            Denial::GitFetch => Self::GitFetch,
        }
    }
}

/// A request that ends here.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub cause: Cause,
    pub findings: Vec<Finding>,
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        Self {
            cause,
            findings: Vec::new(),
        }
    }
}

/// What the agent reads.
#[derive(Debug, Serialize)]
pub struct Answer<'a> {
    error: &'static str,
    verdict: &'static str,
    event: &'a str,
    code: &'static str,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    host: &'a str,
    message: &'static str,
    explain: String,
    /// For the operator: each lets a next try of the same through.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    approve: &'a [String],
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        self.cause.status()
    }

    /// What is said of one of the findings.
    pub fn words_of(&self, finding: &Finding) -> String {
        match self.cause {
            Cause::NotApproved(_) => format!("{}: {}", finding.reason(), self.cause.words()),
            Cause::Injection => format!(
                "{} found in the response ({})",
                finding.credential, finding.location
            ),
            _ => finding.reason(),
        }
    }

    /// The words of the first finding where there is one, else of the cause.
    pub fn reason(&self) -> String {
        match self.findings.first() {
            Some(finding)
                if matches!(
                    self.cause,
                    Cause::Unsupervised | Cause::Unredactable | Cause::NotApproved(_)
                ) =>
            {
                format!("{}: {}", finding.reason(), self.cause.words())
            }
            Some(finding) => self.words_of(finding),
            None => self.cause.words(),
        }
    }

    /// The JSON body. `host` must already be free of anything that was found.
    pub fn body(&self, event: &str, host: &str, explain: Option<&str>) -> Vec<u8> {
        let finding = self.findings.first();
        let kind = self.cause.kind();
        let answer = Answer {
            error: match kind {
                Kind::Block => "blocked by the bottle's egress policy",
                Kind::Refuse => "refused by the bottle's egress proxy",
                Kind::Error => "the bottle's egress proxy could not forward this",
            },
            verdict: kind.marker(),
            event,
            code: self.cause.code(),
            reason: self.reason(),
            rule: finding.map(|finding| finding.rule.0),
            location: finding.map(|finding| finding.location.to_string()),
            host,
            approve: self.cause.commands(),
            message: match kind {
                Kind::Block if !self.cause.commands().is_empty() => {
                    "This is policy, not a network fault. Another route or another encoding will not help. An operator was asked and can still approve it; then the same request goes through."
                }
                Kind::Block => {
                    "This is policy, not a network fault. Retrying, another route or another encoding will not help; ask the operator."
                }
                Kind::Refuse => {
                    "The request was not understood completely, so none of it was forwarded."
                }
                Kind::Error => "This is not a policy decision; the reason names what failed.",
            },
            explain: match explain {
                Some(command) => command.replace("{id}", event),
                None => format!("the operator finds {event} in the audit log"),
            },
        };
        let mut body = serde_json::to_vec(&answer).unwrap_or_default();
        body.push(b'\n');
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_to_do_and_no_value() {
        let refusal = Refusal::from(Cause::HostDenied);
        let body: serde_json::Value =
            serde_json::from_slice(&refusal.body("evt_1", "a.test", Some("launcher why {id}")))
                .unwrap();
        assert_eq!(body["explain"], "launcher why evt_1");
        assert_eq!(body["code"], "host-not-allowed");
        assert_eq!(body["verdict"], "blocked");
        assert!(body.get("rule").is_none());
    }
}
