//! `__bottle-probe`: tries to get out, under the very confinement that the agent will have.
//!
//! What it reports on the host's listeners is only that it tried; the launcher, which holds them, decides.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::{netlink, sys};
use crate::backend::Check;
use crate::environment::PROXY_USER;

/// Every probe reports on all of these.
pub const CHECKS: [&str; 10] = [
    "sidecar",
    "password",
    "interfaces",
    "routes",
    "host loopback",
    "outside",
    "identity",
    "system calls",
    "files",
    "processes",
];
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    pub alias: Ipv4Addr,
    pub port: u16,
    pub password: String,
    /// A TCP port that the launcher listens on at the host's 127.0.0.1.
    pub canary_port: u16,
    /// The name of an abstract socket that the launcher listens on.
    pub canary_name: String,
    /// Paths of the host.
    pub hidden: Vec<PathBuf>,
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
    let address = SocketAddrV4::new(task.alias, task.port);
    let outcomes = [
        sidecar(address, &task.password),
        password(address),
        interfaces(),
        routes(),
        host_loopback(task),
        outside(),
        identity(),
        system_calls(),
        files(&task.hidden).and_then(|said| first_process().map(|()| said)),
        processes(),
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

pub(crate) type Outcome = Result<String, String>;

pub(crate) fn sidecar(address: SocketAddrV4, password: &str) -> Outcome {
    match ask(address, Some(password)) {
        Ok(200) => Ok(format!("{} answers", address.ip())),
        Ok(status) => Err(format!(
            "the sidecar answers {status} to the bottle's own credentials"
        )),
        Err(error) => Err(format!("the sidecar does not answer on {address}: {error}")),
    }
}

pub(crate) fn password(address: SocketAddrV4) -> Outcome {
    match ask(address, None) {
        Ok(407) => Ok("required".into()),
        Ok(status) => Err(format!("the sidecar answers {status} without credentials")),
        Err(error) => Err(format!("the sidecar does not answer: {error}")),
    }
}

/// The status of the answer to a harmless question. One that is cut off is asked again: what carries a connection out of a
/// machine may drop the last of it when the sidecar closes at once.
pub(crate) fn ask(address: SocketAddrV4, password: Option<&str>) -> io::Result<u16> {
    for _ in 0..3 {
        match ask_once(address, password) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) => {}
            answer => return answer,
        }
    }
    ask_once(address, password)
}

fn ask_once(address: SocketAddrV4, password: Option<&str>) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(address), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let credentials = password.map_or_else(String::new, |password| {
        let pair = base64::prelude::BASE64_STANDARD.encode(format!("{PROXY_USER}:{password}"));
        format!("Proxy-Authorization: Basic {pair}\r\n")
    });
    let request = format!(
        "GET http://_egress.local/allowlist HTTP/1.1\r\nHost: _egress.local\r\n{credentials}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let status = std::str::from_utf8(&head)
        .ok()
        .and_then(|head| head.strip_prefix("HTTP/1.1 ")?.parse().ok());
    status.ok_or_else(|| io::Error::other("its answer is not HTTP"))
}

pub(crate) fn interfaces() -> Outcome {
    let found = netlink::interfaces().map_err(|error| format!("cannot be listed: {error}"))?;
    // Tunnels that the kernel puts into every namespace are there and down, and nobody in here can raise them.
    let up: Vec<_> = found
        .into_iter()
        .filter(|interface| interface.up)
        .map(|interface| interface.name)
        .collect();
    if up == ["lo"] {
        Ok("lo alone is up".into())
    } else {
        Err(format!("these are up: {}", up.join(", ")))
    }
}

pub(crate) fn routes() -> Outcome {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    // The first line names the columns; the loopback's addresses are in another table.
    if read("/proc/net/route")?.lines().count() > 1 {
        return Err("there is an IPv4 route".into());
    }
    if Path::new("/proc/net/ipv6_route").exists() {
        let table = read("/proc/net/ipv6_route")?;
        if let Some(route) = table
            .lines()
            .find(|route| route.split_ascii_whitespace().next_back() != Some("lo"))
        {
            return Err(format!("there is an IPv6 route: {route}"));
        }
    }
    Ok("none".into())
}

fn host_loopback(task: &Task) -> Outcome {
    for ip in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(task.alias),
        IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    ] {
        if TcpStream::connect_timeout(&SocketAddr::new(ip, task.canary_port), PATIENCE).is_ok() {
            return Err(format!(
                "a connection to {ip}:{} was accepted",
                task.canary_port
            ));
        }
    }
    let name = std::os::unix::net::SocketAddr::from_abstract_name(&task.canary_name)
        .map_err(|error| format!("abstract socket: {error}"))?;
    if UnixStream::connect_addr(&name).is_ok() {
        return Err("an abstract socket of the host accepted a connection".into());
    }
    Ok("out of reach".into())
}

fn outside() -> Outcome {
    for (ip, port) in [
        ([192, 0, 2, 1], 443),
        ([1, 1, 1, 1], 53),
        ([169, 254, 169, 254], 80),
        ([10, 0, 0, 1], 22),
    ] {
        let address = SocketAddr::from((ip, port));
        if TcpStream::connect_timeout(&address, PATIENCE).is_ok() {
            return Err(format!("a TCP connection to {address} was accepted"));
        }
        let sent =
            UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"probe", address));
        if sent.is_ok() {
            return Err(format!("a datagram to {address} was sent"));
        }
    }
    Ok("out of reach".into())
}

pub(crate) fn identity() -> Outcome {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("/proc/self/status: {error}"))?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_default()
    };
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        // gVisor has no such line; what is ambient is permitted and inheritable too (capabilities(7)).
        if name == "CapAmb" && field(name).is_empty() {
            continue;
        }
        if u64::from_str_radix(field(name), 16) != Ok(0) {
            return Err(format!("{name} is {}", field(name)));
        }
    }
    match rustix::thread::no_new_privs() {
        Ok(true) => {}
        Ok(false) => return Err("new privileges are allowed".into()),
        Err(error) => return Err(format!("no_new_privs: {error}")),
    }
    if field("Seccomp") != "2" {
        return Err(format!("Seccomp is {:?}", field("Seccomp")));
    }
    let uids: Vec<_> = field("Uid").split_ascii_whitespace().collect();
    if uids.len() != 4 || uids.contains(&"0") {
        return Err(format!("the user ids are {}", uids.join(" ")));
    }
    Ok(format!(
        "uid {}, no capabilities",
        uids.first().unwrap_or(&"")
    ))
}

pub(crate) fn system_calls() -> Outcome {
    for flags in [
        UnshareFlags::NEWUSER,
        UnshareFlags::NEWNET,
        UnshareFlags::NEWNS,
    ] {
        if sys::unshare(flags).is_ok() {
            return Err(format!("unshare({flags:?}) was allowed"));
        }
    }
    for (family, name) in [(40, "vsock"), (17, "packet"), (38, "alg")] {
        if socket(AddressFamily::from_raw(family), SocketType::DGRAM, None).is_ok()
            || socket(AddressFamily::from_raw(family), SocketType::STREAM, None).is_ok()
        {
            return Err(format!("a {name} socket was allowed"));
        }
    }
    let flags = rustix::mount::MountFlags::empty();
    if rustix::mount::mount("tmpfs", "/tmp", "tmpfs", flags, None).is_ok() {
        return Err("mount was allowed".into());
    }
    Ok("filtered".into())
}

pub(crate) fn files(hidden: &[PathBuf]) -> Outcome {
    for path in hidden {
        if path.exists() {
            return Err(format!("{} is visible", path.display()));
        }
    }
    for path in ["/probe", "/etc/probe", "/usr/probe", "/dev/probe"] {
        if fs::write(path, "").is_ok() {
            return Err(format!("{path} could be written"));
        }
    }
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/1/root",
        "/proc/1/environ",
    ] {
        let path = Path::new(path);
        if fs::OpenOptions::new()
            .write(true)
            .open(path)
            .is_ok_and(|file| !is_null(&file))
        {
            return Err(format!("{} could be written", path.display()));
        }
    }
    Ok("nothing of the host's can be written or is private".into())
}

/// The bottle's own first process keeps to itself.
pub(crate) fn first_process() -> Result<(), String> {
    if fs::read_link("/proc/1/root").is_ok() || fs::read("/proc/1/environ").is_ok() {
        return Err("the first process can be looked into".into());
    }
    Ok(())
}

/// Covered files are `/dev/null`, which anybody may write to.
fn is_null(file: &fs::File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let null = fs::metadata("/dev/null").map(|meta| meta.rdev());
    matches!((file.metadata().map(|meta| meta.rdev()), null), (Ok(own), Ok(null)) if own == null && own != 0)
}

pub(crate) fn processes() -> Outcome {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let others: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        // 1 is the bottle's own first process; old kernels cannot hide it.
        .filter(|name| {
            name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own && name != "1"
        })
        .collect();
    if others.is_empty() {
        Ok("none of the host's".into())
    } else {
        Err(format!("visible: {}", others.join(", ")))
    }
}
