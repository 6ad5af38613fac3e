//! An alias that is ours before anything listens on it.
//!
//! Another user's launcher, or one with its state elsewhere, has locks of its own. So the alias is claimed by a name that
//! only one process of a host can have, until the sidecar listens there and after; the kernel gives it back when the
//! process dies.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixListener};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Claim(Mutex<Option<UnixListener>>);

impl Claim {
    /// Takes the alias, in the place of one that was taken before; whether it is another's, or something answers there.
    pub fn is_taken(&self, alias: Ipv4Addr, port: u16) -> bool {
        let name = format!("bot-bottle-alias-{alias}");
        let claim = unix::SocketAddr::from_abstract_name(name)
            .and_then(|name| UnixListener::bind_addr(&name));
        let Ok(claim) = claim else { return true };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(claim);
        let address = SocketAddr::from((alias, port));
        TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
    }
}
