//! Listeners on every address of the host, which must hear nothing of a probe: what they heard is the verdict, not
//! what the probe believes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::proof::Check;
use crate::state::pool;

/// Of the host's own addresses; a host with hundreds of bridges is probed on these.
const MAX_ADDRESSES: usize = 24;

#[derive(Debug)]
pub struct Canaries(Vec<Canary>);

#[derive(Debug)]
struct Canary {
    address: SocketAddr,
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Canaries {
    pub fn listen(alias: Ipv4Addr) -> io::Result<Self> {
        Self::listen_beside(alias, None)
    }

    /// As `listen`, but not on an address that is the sidecar's own.
    pub fn listen_beside(alias: Ipv4Addr, sidecar: Option<Ipv4Addr>) -> io::Result<Self> {
        let other = pool::ALL
            .into_iter()
            .rev()
            .find(|address| *address != alias)
            .unwrap_or(Ipv4Addr::LOCALHOST);
        let mut all = vec![
            Canary::listen(Ipv4Addr::LOCALHOST.into())?,
            Canary::listen(other.into())?,
        ];
        let own = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let others = addresses()
            .into_iter()
            .filter(|ip| Some(*ip) != sidecar.map(IpAddr::V4));
        for ip in std::iter::once(own).chain(others) {
            match Canary::listen(ip) {
                Ok(canary) => all.push(canary),
                // A host without IPv6, or an address that went away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(error) if error.raw_os_error() == Some(97) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(all))
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|canary| canary.address).collect()
    }

    /// What they heard, as checks that did not hold.
    pub fn complaints(&self) -> io::Result<Vec<Check>> {
        Ok(self
            .heard()?
            .into_iter()
            .map(|address| Check {
                name: "host".into(),
                held: false,
                detail: format!("the host's listener on {address} heard the probe"),
            })
            .collect())
    }

    fn heard(&self) -> io::Result<Vec<SocketAddr>> {
        let mut heard = Vec::new();
        for canary in &self.0 {
            if came(canary.tcp.accept())? || came(canary.udp.recv_from(&mut [0; 64]))? {
                heard.push(canary.address);
            }
        }
        Ok(heard)
    }
}

impl Canary {
    /// Tried out from the host first: a listener that is deaf would prove nothing.
    fn listen(ip: IpAddr) -> io::Result<Self> {
        let tcp = TcpListener::bind((ip, 0))?;
        let address = tcp.local_addr()?;
        let udp = UdpSocket::bind(address)?;
        let patience = Duration::from_secs(3);
        TcpStream::connect_timeout(&address, patience)?;
        tcp.accept()?;
        UdpSocket::bind((ip, 0))?.send_to(b"control", address)?;
        udp.set_read_timeout(Some(patience))?;
        udp.recv_from(&mut [0; 64])?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok(Self { address, tcp, udp })
    }
}

fn came<T>(result: io::Result<T>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// The host's own addresses beside loopback: its networks', and the gateways of the engine's.
fn addresses() -> Vec<IpAddr> {
    let four = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let six = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut all: Vec<IpAddr> = local_ipv4(&four)
        .into_iter()
        .map(IpAddr::V4)
        .chain(global_ipv6(&six).into_iter().map(IpAddr::V6))
        .collect();
    all.truncate(MAX_ADDRESSES);
    all
}

/// The address is on the line before `/32 host LOCAL`.
fn local_ipv4(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = std::collections::BTreeSet::new();
    let mut last = None;
    for line in trie.lines() {
        if let Some(text) = line.trim_start().strip_prefix("|-- ") {
            last = text.trim().parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last
            && !address.is_loopback()
        {
            found.insert(address);
        }
    }
    found.into_iter().collect()
}

/// `ADDRESS INDEX PREFIX SCOPE FLAGS NAME`; scope 0 is global.
fn global_ipv6(table: &str) -> Vec<Ipv6Addr> {
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let address = u128::from_str_radix(fields.next()?, 16).ok()?;
            (fields.nth(2)? == "00").then(|| Ipv6Addr::from(address))
        })
        .collect()
}

/// The host's resolvers.
pub fn resolvers() -> Vec<IpAddr> {
    std::fs::read_to_string("/etc/resolv.conf")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
        })
        .take(8)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_hears() {
        let canaries = Canaries::listen(Ipv4Addr::new(127, 0, 0, 16)).unwrap();
        assert!(canaries.addresses().len() >= 2);
        assert_eq!(canaries.heard().unwrap(), []);
        let address = canaries.addresses()[1];
        UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .send_to(b"x", address)
            .unwrap();
        assert_eq!(canaries.heard().unwrap(), [address]);
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).unwrap();
        assert_eq!(canaries.heard().unwrap(), [address]);
    }

    #[test]
    fn addresses_of_the_host() {
        let trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.99.0.1\n        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 10.99.0.255\n        /32 link BROADCAST\n";
        assert_eq!(local_ipv4(trie), [Ipv4Addr::new(10, 99, 0, 1)]);
        let six = "00000000000000000000000000000001 01 80 10 80 lo\n20010db8000000000000000000000001 02 40 00 80 eth0\n";
        assert_eq!(
            global_ipv6(six),
            ["2001:db8::1".parse::<Ipv6Addr>().unwrap()]
        );
    }
}
