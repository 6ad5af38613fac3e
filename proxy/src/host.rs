//! Host names and authorities. The only place that turns text into a host: policy, CONNECT, SNI, `Host`,
//! certificates, DNS and dialling all take these types, so that they cannot disagree.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name in its textual form (RFC 1035 §3.1, without the root's dot).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the host is empty")]
    Empty,
    #[error("a host name has at most {MAX_NAME} characters and labels of 1 to {MAX_LABEL}")]
    Length,
    #[error("the host holds a character that no host name has")]
    Character,
    #[error("the host is not valid by IDNA")]
    Idna,
    #[error("a numeric host that is not a plain IPv4 address is ambiguous")]
    Numeric,
    #[error("the IPv6 literal is malformed or has a zone")]
    Ipv6,
    #[error("the port is not a number from 1 to 65535")]
    Port,
    #[error("user information has no place in an authority")]
    UserInfo,
}

/// A DNS name in its one canonical form: lower case, IDNA to ASCII, no trailing dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Stands in records where no host was understood; it names no host, and no route can.
    pub fn unknown() -> Self {
        Self("-".into())
    }

    /// True for `label.parent`, at any depth, never for `parent` itself.
    pub fn is_below(&self, parent: &Self) -> bool {
        self.0
            .strip_suffix(&*parent.0)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostName({})", self.0)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        match Host::from_str(text)? {
            Host::Name(name) => Ok(name),
            Host::Ip(_) => Err(HostError::Numeric),
        }
    }
}

/// A host as it may stand in an authority.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    Name(HostName),
    Ip(IpAddr),
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(HostError::Ipv6)?;
            let ip: Ipv6Addr = inner.parse().map_err(|_| HostError::Ipv6)?;
            // A mapped address is the IPv4 address that it means; two spellings of one host would be two identities.
            return Ok(Self::Ip(match ip.to_ipv4_mapped() {
                Some(v4) => IpAddr::V4(v4),
                None => IpAddr::V6(ip),
            }));
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(text).map_err(|_| HostError::Idna)?
        };
        if ascii.is_empty() {
            return Err(HostError::Empty);
        }
        if ascii.len() > MAX_NAME {
            return Err(HostError::Length);
        }
        for label in ascii.split('.') {
            if label.is_empty() || label.len() > MAX_LABEL {
                return Err(HostError::Length);
            }
            let known =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
            if !label.bytes().all(known) || label.starts_with('-') || label.ends_with('-') {
                return Err(HostError::Character);
            }
        }
        // A resolver may read a last label that is a number as an address (`127.1`, `0x7f.1`, `2130706433`).
        let last = ascii.rsplit('.').next().unwrap_or_default();
        let numeric = last.bytes().all(|b| b.is_ascii_digit())
            || last
                .strip_prefix("0x")
                .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if numeric {
            return match ascii.parse::<Ipv4Addr>() {
                Ok(ip) => Ok(Self::Ip(IpAddr::V4(ip))),
                Err(_) => Err(HostError::Numeric),
            };
        }
        Ok(Self::Name(HostName(ascii.into())))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({self})")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// How a request travels to the origin.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    #[default]
    Https,
    Http,
}

impl Scheme {
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// A host and the port that will be dialled.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    pub host: Host,
    pub port: u16,
}

impl Authority {
    /// Parses `host`, `host:port`, `[v6]:port`; `default_port` stands where none is written.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, HostError> {
        if text.contains('@') {
            return Err(HostError::UserInfo);
        }
        let (host, port) = match text.rsplit_once(':') {
            // A colon inside brackets belongs to an IPv6 literal.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            None => default_port,
            Some(digits) => parse_port(digits)?,
        };
        Ok(Self {
            host: host.parse()?,
            port,
        })
    }

    /// As a `Host` header writes it: the port only where it is not the scheme's own.
    pub fn to_header(&self, scheme: Scheme) -> String {
        if self.port == scheme.default_port() {
            self.host.to_string()
        } else {
            self.to_string()
        }
    }
}

fn parse_port(digits: &str) -> Result<u16, HostError> {
    // `u16::from_str` takes a sign; an authority does not (RFC 3986 §3.2.3).
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostError::Port);
    }
    match digits.parse() {
        Ok(0) | Err(_) => Err(HostError::Port),
        Ok(port) => Ok(port),
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({self})")
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The host of a route: one host, or with a leading `*.` all names below one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(Host),
    Below(HostName),
}

impl HostPattern {
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(own), host) => own == host,
            (Self::Below(parent), Host::Name(name)) => name.is_below(parent),
            (Self::Below(_), Host::Ip(_)) => false,
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        match text.strip_prefix("*.") {
            // `*.com` would name half of the internet; a pattern needs a registrable part below it.
            Some(parent) if parent.contains('.') => Ok(Self::Below(parent.parse()?)),
            Some(_) => Err(HostError::Character),
            None => Ok(Self::Exact(text.parse()?)),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identity_for_every_spelling() {
        for (text, canonical) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("ＥＸＡＭＰＬＥ.com", "example.com"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::ffff:127.0.0.1]", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("_egress.local", "_egress.local"),
        ] {
            assert_eq!(
                text.parse::<Host>().unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            "a b",
            "a\0b",
            "a/b",
            "a@b",
            "a#b",
            "a\\b",
            "a%00b",
            "-a.b",
            "a-.b",
            "127.1",
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "1.2.3.4.5",
            "[::1%lo]",
            "[::1",
            "::1",
            "a\r\nb",
            &"a".repeat(64),
            &"a.".repeat(200),
        ] {
            assert!(text.parse::<Host>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn authorities() {
        assert_eq!(
            Authority::parse("A.b:8443", 443).unwrap().to_string(),
            "a.b:8443"
        );
        assert_eq!(
            Authority::parse("[::1]", 443).unwrap().to_string(),
            "[::1]:443"
        );
        assert_eq!(
            Authority::parse("a.b", 443)
                .unwrap()
                .to_header(Scheme::Https),
            "a.b"
        );
        for text in ["a:0", "a:", "a:+1", "a:65536", "u@a:1", "a:1:2", "a:1 "] {
            assert!(Authority::parse(text, 443).is_err(), "{text:?}");
        }
    }

    #[test]
    fn patterns() {
        let below: HostPattern = "*.example.com".parse().unwrap();
        assert!(below.matches(&"a.example.com".parse().unwrap()));
        assert!(below.matches(&"a.b.example.com".parse().unwrap()));
        for other in [
            "example.com",
            "badexample.com",
            "example.com.evil.test",
            "127.0.0.1",
        ] {
            assert!(!below.matches(&other.parse().unwrap()), "{other}");
        }
        assert!("*.com".parse::<HostPattern>().is_err());
        assert!("*".parse::<HostPattern>().is_err());
    }
}
