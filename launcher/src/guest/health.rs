//! `__container-health`: whether the sidecar in this container answers, and asks for credentials.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;

use crate::local::probe;
use crate::state::PROXY_PORT;

pub fn main() -> ExitCode {
    match probe::ask(SocketAddrV4::new(Ipv4Addr::LOCALHOST, PROXY_PORT), None) {
        Ok(407) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
