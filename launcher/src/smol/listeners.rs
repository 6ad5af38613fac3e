//! Who else is on an address of the host's. A list of smolvm's knows addresses and no ports: whatever listens on the
//! sidecar's address, or on all of them, is the guest's to talk to.

use std::fs;
use std::net::Ipv4Addr;

/// Of `/proc/net/tcp`: a listening socket.
const LISTEN: &str = "0A";

/// `tcp 22`, `udp 68`: everything but `own`, a TCP port.
pub fn beside(address: Ipv4Addr, own: u16) -> Vec<String> {
    let mut found = Vec::new();
    for (table, protocol) in [
        ("/proc/net/tcp", "tcp"),
        ("/proc/net/tcp6", "tcp"),
        ("/proc/net/udp", "udp"),
        ("/proc/net/udp6", "udp"),
    ] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for port in ports(&text, address, protocol == "tcp") {
            if (protocol, port) != ("tcp", own) {
                found.push(format!("{protocol} {port}"));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Lines are `N: ADDRESS:PORT REMOTE STATE …`, in hex; an address is little endian (`/proc/net/tcp` of proc(5)).
fn ports(table: &str, address: Ipv4Addr, only_listening: bool) -> Vec<u16> {
    let own = format!("{:08X}", u32::from_le_bytes(address.octets()));
    let mapped = format!("0000000000000000FFFF0000{own}");
    let all = ["0".repeat(8), "0".repeat(32), own, mapped];
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (local, port) = fields.nth(1)?.split_once(':')?;
            let state = fields.nth(1)?;
            let counts =
                all.iter().any(|address| address == local) && (!only_listening || state == LISTEN);
            counts.then(|| u16::from_str_radix(port, 16).ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let table = "  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 0\n   1: 00000000:0016 00000000:0000 0A 0\n   2: 1000630A:2395 00000000:0000 0A 0\n   3: 1000630A:0050 0100630A:9999 01 0\n";
        let address = Ipv4Addr::new(10, 99, 0, 16);
        assert_eq!(ports(table, address, true), [22, 9109]);
        let six = "h\n   0: 00000000000000000000000000000000:0050 0:0 0A 0\n   1: 0000000000000000FFFF00001000630A:0051 0:0 0A 0\n   2: 00000000000000000000000001000000:0052 0:0 0A 0\n";
        assert_eq!(ports(six, address, true), [80, 81]);
    }

    #[test]
    fn a_listener_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.9:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = Ipv4Addr::new(127, 0, 0, 9);
        assert!(beside(address, 1).contains(&format!("tcp {port}")));
        assert!(!beside(address, port).contains(&format!("tcp {port}")));
    }
}
