//! From a host to the addresses that may be dialled. The only place that resolves.
//!
//! Every address of an answer is checked, and the checked ones are those that are dialled: a name that is public now
//! and private in a second (DNS rebinding) gains nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use super::dns::Dns;
use crate::host::{Authority, Host, HostName};
use crate::verdict::Cause;

/// Names with fixed answers, and DNS for the others.
#[derive(Debug)]
pub struct Resolver {
    fixed: HashMap<HostName, IpAddr>,
    dns: Dns,
    /// The port of our own control API on this host; 0 where there is none.
    forbidden: AtomicU16,
}

impl Resolver {
    /// `servers` take the place of the system's name servers.
    pub fn new(fixed: HashMap<HostName, IpAddr>, servers: Vec<SocketAddr>) -> Self {
        Self {
            fixed,
            dns: Dns::new(servers),
            forbidden: AtomicU16::new(0),
        }
    }

    /// See [`super::dial::Dialer::forbid`].
    pub fn forbid(&self, port: u16) {
        self.forbidden.store(port, Ordering::Relaxed);
    }

    pub fn is_fixed(&self, host: &Host) -> bool {
        matches!(host, Host::Name(name) if self.fixed.contains_key(name))
    }

    /// At least one address, no more than [`crate::limits::ADDRESSES`]. With `allow_private` false, one address that is not public condemns the whole answer.
    pub async fn resolve(
        &self,
        authority: &Authority,
        allow_private: bool,
    ) -> Result<Vec<SocketAddr>, Cause> {
        let port = authority.port;
        let addresses: Vec<IpAddr> = match &authority.host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => match self.fixed.get(name) {
                Some(ip) => vec![*ip],
                None => self.dns.lookup(name).await?,
            },
        };
        if addresses.is_empty() {
            return Err(Cause::Resolve("the answer is empty".into()));
        }
        if port != 0 && port == self.forbidden.load(Ordering::Relaxed) {
            // The unspecified address leads to the host itself too.
            let own = |ip: &IpAddr| {
                let ip = ip.to_canonical();
                ip.is_loopback() || ip.is_unspecified()
            };
            if addresses.iter().any(own) {
                return Err(Cause::ControlPort);
            }
        }
        if !allow_private && let Some(private) = addresses.iter().find(|ip| !is_public(**ip)) {
            return Err(Cause::PrivateAddress(private.to_string()));
        }
        Ok(addresses
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .collect())
    }
}

/// Globally reachable unicast (IANA special-purpose registries, RFC 6890), judged by what an address finally means:
/// mapped, translated (NAT64) and tunnelled (6to4) forms are judged by the IPv4 address inside.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

const AZURE_HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        // Public by its number, and Azure's own host by what answers there.
        || ip == AZURE_HOST)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(v4) = ip.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    let segments = ip.segments();
    let tail = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => tail(high, low),
        [0x2002, high, low, ..] => tail(high, low),
        // Teredo, benchmarking, ORCHID, documentation, segment routing.
        [0x2001, second, ..] if second < 0x0200 || second == 0x0db8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_addresses_are_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "2606:4700::1111",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "198.18.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "100::1",
            "fec0::1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1:ffff::8.8.8.8",
            "2002:a9fe:a9fe::1",
            "2002:a00:1::",
            "2001:0:808:808::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "3fff::1",
            "5f00::1",
            "192.88.99.1",
            "198.19.255.255",
            "203.0.113.1",
            "198.51.100.1",
            "100.127.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "ff0e::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    /// The answer changes between two questions; each is judged for itself, and none is kept beyond its time.
    #[tokio::test]
    async fn a_name_that_is_bound_again_is_judged_again() {
        use fixtures::dns::{Dns, Reply};
        let public: IpAddr = "9.9.9.9".parse().unwrap();
        let private: IpAddr = "169.254.169.254".parse().unwrap();
        let server = Dns::start([
            (
                "turns.test",
                Reply::InTurn(vec![
                    Reply::Addresses(vec![public]),
                    Reply::Addresses(vec![private]),
                ]),
            ),
            ("mixed.test", Reply::Addresses(vec![public, private])),
            (
                "alias.test",
                Reply::Alias(vec!["a.test", "b.test"], vec![private]),
            ),
        ])
        .await;
        let resolver = Resolver::new(HashMap::new(), vec![server.addr()]);
        let ask = async |name: &str| {
            let authority = Authority::parse(name, 443).unwrap();
            resolver.resolve(&authority, false).await
        };
        assert_eq!(
            ask("turns.test").await.unwrap(),
            [SocketAddr::new(public, 443)]
        );
        let refused = Err(Cause::PrivateAddress("169.254.169.254".into()));
        for name in ["turns.test", "turns.test", "mixed.test", "alias.test"] {
            assert_eq!(ask(name).await, refused, "{name}");
        }
    }

    #[tokio::test]
    async fn the_control_port_is_out_of_reach() {
        let resolver = Resolver::new(HashMap::new(), Vec::new());
        resolver.forbid(9101);
        for host in [
            "127.0.0.1",
            "127.0.0.16",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
        ] {
            let parse = |port: u16| Authority::parse(&format!("{host}:{port}"), 443);
            let (control, other) = (parse(9101).unwrap(), parse(9102).unwrap());
            assert!(resolver.resolve(&control, true).await.is_err(), "{host}");
            assert!(resolver.resolve(&other, true).await.is_ok(), "{host}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_condemned_by_one_private_address() {
        let name: HostName = "a.test".parse().unwrap();
        let resolver = Resolver::new(
            HashMap::from([(name, "127.0.0.1".parse().unwrap())]),
            Vec::new(),
        );
        let authority = Authority::parse("a.test:1", 443).unwrap();
        assert_eq!(
            resolver.resolve(&authority, false).await,
            Err(Cause::PrivateAddress("127.0.0.1".into()))
        );
        assert_eq!(
            resolver.resolve(&authority, true).await.unwrap(),
            ["127.0.0.1:1".parse().unwrap()]
        );
        let metadata = Authority::parse("169.254.169.254:80", 443).unwrap();
        assert!(resolver.resolve(&metadata, false).await.is_err());
    }
}
