//! The loopback addresses that sidecars are published on.

use std::io;
use std::net::Ipv4Addr;

const fn alias(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// 127.0.0.16 to 127.0.0.31.
pub const ALL: [Ipv4Addr; 16] = [
    alias(16),
    alias(17),
    alias(18),
    alias(19),
    alias(20),
    alias(21),
    alias(22),
    alias(23),
    alias(24),
    alias(25),
    alias(26),
    alias(27),
    alias(28),
    alias(29),
    alias(30),
    alias(31),
];

/// Makes every address of the pool one of this host's. On Linux all of 127/8 is.
#[cfg(not(target_os = "macos"))]
pub fn ensure() -> io::Result<()> {
    Ok(())
}

/// Makes every address of the pool one of this host's: macOS has 127.0.0.1 alone.
#[cfg(target_os = "macos")]
pub fn ensure() -> io::Result<()> {
    use std::process::Command;
    let shown = Command::new("/sbin/ifconfig").arg("lo0").output()?;
    for address in missing(&String::from_utf8_lossy(&shown.stdout)) {
        let status = Command::new("sudo")
            .args(["/sbin/ifconfig", "lo0", "alias"])
            .arg(address.to_string())
            .status()?;
        if !status.success() {
            return Err(io::Error::other(format!(
                "the loopback alias {address} could not be added; run `sudo ifconfig lo0 alias {address}`"
            )));
        }
    }
    Ok(())
}

/// Of the pool, what `ifconfig lo0` does not show.
#[cfg(any(target_os = "macos", test))]
fn missing(shown: &str) -> Vec<Ipv4Addr> {
    let there: Vec<Ipv4Addr> = shown
        .lines()
        .filter_map(|line| {
            line.trim_start()
                .strip_prefix("inet ")?
                .split_ascii_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .collect();
    ALL.into_iter()
        .filter(|address| !there.contains(address))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_macos_lacks() {
        let shown = "lo0: flags=8049<UP,LOOPBACK> mtu 16384\n\tinet 127.0.0.1 netmask 0xff000000\n\tinet6 ::1 prefixlen 128\n\tinet 127.0.0.16 netmask 0xff000000\n";
        let lacking = missing(shown);
        assert_eq!(lacking.len(), 15);
        assert!(!lacking.contains(&alias(16)));
        assert_eq!(missing("").len(), 16);
    }
}
