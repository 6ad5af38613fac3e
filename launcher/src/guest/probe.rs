//! `__container-probe`: tries to get out of an agent's container, under the very confinement that the agent will have.
//!
//! The first question is whether there is a route. Only where there is none are addresses tried at all, so that no
//! packet of a probe can leave the host; those that answer are listeners of the launcher's, which decides by what they
//! heard.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::Check;
use crate::local::probe::{self, Outcome};

/// Every probe reports on all of these.
pub const CHECKS: [&str; 11] = [
    "sidecar",
    "password",
    "interfaces",
    "routes",
    "resolver",
    "host",
    "outside",
    "identity",
    "system calls",
    "files",
    "processes",
];
const PATIENCE: Duration = Duration::from_secs(1);
/// For an interceptor to refuse a connection.
const REFUSAL: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    pub alias: Ipv4Addr,
    pub port: u16,
    pub password: String,
    /// Where the launcher listens on the host, TCP and UDP.
    pub canaries: Vec<SocketAddr>,
    /// The host's own resolvers.
    pub resolvers: Vec<IpAddr>,
    /// Whether the kernel in there is gVisor's, which shows a process to others of its user, whatever it asks for. The
    /// first process of a container has nothing that the agent lacks.
    pub gvisor: bool,
    /// Where there is one, packets of the probe end at its other end.
    #[serde(default)]
    pub network: Network,
    /// Paths of the host.
    pub hidden: Vec<PathBuf>,
}

/// What stands behind the guest's interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// There are none.
    #[default]
    None,
    /// A list that lets through to the sidecar alone.
    List,
    /// The same, and behind it a hand-over of every connection to the sidecar, which refuses all that are not for itself.
    /// Until it has, the guest takes them for accepted.
    Interceptor,
}

pub fn main() -> ExitCode {
    let mut text = String::new();
    let outcome = io::stdin()
        .take(1024 * 1024)
        .read_to_string(&mut text)
        .and_then(|_| Ok(serde_json::from_str::<Task>(&text)?))
        .and_then(|task| Ok(serde_json::to_vec(&run(&task))?))
        .and_then(|report| io::stdout().write_all(&report));
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(task: &Task) -> Vec<Check> {
    let sidecar = SocketAddrV4::new(task.alias, task.port);
    let (interfaces, routes) = match task.network {
        Network::None => (probe::interfaces(), probe::routes()),
        Network::List | Network::Interceptor => {
            let behind = || Ok("behind the machine's list".to_owned());
            (behind(), behind())
        }
    };
    let closed = interfaces.is_ok() && routes.is_ok();
    let only_if_closed = |check: &dyn Fn() -> Outcome| {
        if closed {
            check()
        } else {
            Err("was not tried, because there is a way out".to_owned())
        }
    };
    let outcomes = [
        probe::sidecar(sidecar, &task.password),
        probe::password(sidecar),
        interfaces,
        routes,
        only_if_closed(&|| resolver(task)),
        only_if_closed(&|| host(task)),
        only_if_closed(&|| outside(task)),
        probe::identity(),
        probe::system_calls(),
        files(task),
        probe::processes(),
    ];
    CHECKS
        .iter()
        .zip(outcomes)
        .map(|(name, outcome)| {
            let held = outcome.is_ok();
            let (Ok(detail) | Err(detail)) = outcome;
            Check {
                name: (*name).into(),
                held,
                detail,
            }
        })
        .collect()
}

/// None is named, and neither the engine's own, nor the host's, nor one outside answers.
fn resolver(task: &Task) -> Outcome {
    let named = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if named
        .lines()
        .any(|line| line.trim_start().starts_with("nameserver"))
    {
        return Err("/etc/resolv.conf names one".into());
    }
    let engine = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
    let stub = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
    // A documentation address (RFC 5737): nobody is there.
    let outside = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53));
    let all = [engine, stub, outside]
        .into_iter()
        .chain(task.resolvers.iter().copied());
    for ip in all {
        let address = SocketAddr::new(ip, 53);
        if task.network != Network::None {
            // Something answers in every machine with a network. It must not know anything.
            refuses(address)?;
            continue;
        }
        if TcpStream::connect_timeout(&address, PATIENCE).is_ok() {
            return Err(format!("{address} took a TCP connection"));
        }
        if answers(address) {
            return Err(format!("{address} answered a query"));
        }
    }
    Ok("none".into())
}

/// Asks for the root's name servers.
const QUERY: [u8; 17] = [0x62, 0x62, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Whether a resolver says nothing, or that there is no such name, over UDP and TCP.
fn refuses(address: SocketAddr) -> Result<(), String> {
    let over_udp = || -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(&QUERY)?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        Ok(answer.get(..length).unwrap_or_default().to_vec())
    };
    let over_tcp = || -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&[0, 17])?;
        stream.write_all(&QUERY)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    for (way, answer) in [("UDP", over_udp()), ("TCP", over_tcp())] {
        if answer.is_ok_and(|answer| knows(&answer)) {
            return Err(format!("{address} answered a query over {way}"));
        }
    }
    Ok(())
}

/// RFC 1035, 4.1.1: no error and at least one record. What is too short says nothing.
fn knows(answer: &[u8]) -> bool {
    match answer {
        [_, _, _, flags, _, _, high, low, ..] => flags & 0x0f == 0 && (*high, *low) != (0, 0),
        _ => false,
    }
}

/// Whether it answers at all.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> io::Result<usize> {
        let local: SocketAddr = if address.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(local)?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(PATIENCE / 4))?;
        socket.send(&QUERY)?;
        let mut answer = [0; 512];
        socket.recv(&mut answer)
    };
    ask().is_ok()
}

/// The launcher's listeners: on 127.0.0.1, ::1, another alias, the networks' gateways and the host's own addresses.
fn host(task: &Task) -> Outcome {
    for canary in &task.canaries {
        if connects(*canary, task.network) {
            return Err(format!("{canary} took a TCP connection"));
        }
        // To an address of the container's own loopback it can be sent; whether it was heard is the launcher's to say.
        let sent = send(*canary);
        if sent && !canary.ip().is_loopback() && task.network == Network::None {
            return Err(format!("a datagram to {canary} was sent"));
        }
    }
    Ok(format!("{} listeners out of reach", task.canaries.len()))
}

fn outside(task: &Task) -> Outcome {
    let addresses: [SocketAddr; 4] = [
        ([169, 254, 169, 254], 80).into(),
        ([192, 0, 2, 1], 443).into(),
        ([198, 51, 100, 1], 22).into(),
        (
            std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            443,
        )
            .into(),
    ];
    for address in addresses {
        if connects(address, task.network) {
            return Err(format!("a TCP connection to {address} was accepted"));
        }
        // Behind a list a datagram is taken and thrown away.
        if send(address) && task.network == Network::None {
            return Err(format!("a datagram to {address} was sent"));
        }
    }
    Ok("out of reach".into())
}

/// Whether somebody takes a connection and keeps it. Behind an interceptor every one is taken at first, and the one that is
/// ended at once, without a byte, was refused; whatever else happens to it counts as a way out.
fn connects(address: SocketAddr, network: Network) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else {
        return false;
    };
    if network != Network::Interceptor {
        return true;
    }
    let ended = stream
        .set_read_timeout(Some(REFUSAL))
        .and_then(|()| stream.write_all(b"probe"))
        .and_then(|()| stream.read(&mut [0; 1]));
    match ended {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => !matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
    }
}

fn send(address: SocketAddr) -> bool {
    let local: SocketAddr = if address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    UdpSocket::bind(local)
        .and_then(|socket| socket.send_to(b"probe", address))
        .is_ok()
}

fn files(task: &Task) -> Outcome {
    let said = probe::files(&task.hidden)?;
    no_engine()?;
    if !task.gvisor {
        probe::first_process()?;
    }
    Ok(said)
}

fn no_engine() -> Result<(), String> {
    for path in [
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/podman/podman.sock",
    ] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(format!("{path} is visible"));
        }
    }
    Ok(())
}
