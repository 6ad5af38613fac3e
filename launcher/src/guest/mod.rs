//! The launcher's halves inside of containers: hidden commands of the same program, run from its kept parts.
//!
//! ```text
//! sidecar's container   __container-sidecar   pid 1: takes file, credentials and lifeline from its input
//!                           └── __sidecar     as on the host
//! agent's container     __container-init      pid 1: relay from the alias to the sidecar's socket, reaper, lifeline
//!                       __container-run       exec'd by the engine: filters system calls and becomes the program
//! micro-VM              __machine-init        as the guest's root: relay, the image made a bottle, lifeline
//!                       __machine-idle        the machine's own program, in the place of its image's
//!                       __machine-run         exec'd by smolvm: gives up root and becomes the program
//! ```
//!
//! What they are told comes through standard input, which nobody records: not in an argument, a variable, a label or a
//! file, where `docker inspect` would show it. The same stream is a lifeline: when the launcher dies, however it dies, the
//! engine closes it, pid 1 ends, and the kernel ends all of the container.

pub mod etc;
pub mod health;
pub mod idle;
pub mod init;
pub mod machine;
pub mod probe;
pub mod program;
pub mod run;
pub mod sidecar;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The directory with the sidecar's socket and certificate, in both containers.
pub const RUN: &str = "/run/bot-bottle";
pub const SOCKET: &str = "/run/bot-bottle/egress.sock";
pub const CERTIFICATE: &str = "/run/bot-bottle/ca.pem";
/// The directory with the sidecar's file.
pub const CONFIGURATION: &str = "/etc/bot-bottle";
/// The directory with the socket of the control API, in the sidecar's container alone.
pub const CONTROL: &str = "/run/bot-bottle-control";
pub const LOGS: &str = "/var/log/bot-bottle";

const MAX_FRAME: usize = 4 * 1024 * 1024;

/// To the sidecar's first process.
#[derive(Serialize, Deserialize)]
pub struct SidecarBriefing {
    /// Runs the launcher in this container.
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
}

impl std::fmt::Debug for SidecarBriefing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment holds the credentials.
        f.debug_struct("SidecarBriefing")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

/// To the first process of the agent's container.
#[derive(Debug, Serialize, Deserialize)]
pub struct InitBriefing {
    pub alias: std::net::Ipv4Addr,
    pub port: u16,
}

/// To the same, later.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// For the programs that the engine started in here.
    Signal(i32),
}

/// The one line of the agent's first process.
#[derive(Debug, Serialize, Deserialize)]
pub struct InitReport {
    pub ready: bool,
    pub error: Option<String>,
}

/// A message with its length in front.
pub fn frame<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_FRAME {
        return Err(io::Error::other(format!(
            "what a container has to be told is larger than {MAX_FRAME} bytes; shorten its environment"
        )));
    }
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Waits for a message; `None` at the end of the stream.
pub fn read_frame<M: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<M>> {
    let mut length = [0u8; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > MAX_FRAME {
        return Err(io::Error::other("a message is too long"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// A line on standard output, for the launcher.
fn say<M: Serialize>(message: &M) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, message)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// How a first process ends, told to the launcher where it could not begin.
fn told(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where the launcher is gone there is nobody to tell.
            let _unheard = say(&InitReport {
                ready: false,
                error: Some(error.to_string()),
            });
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_back_and_bounded() {
        let mut bytes = frame(&Order::Signal(15)).unwrap();
        bytes.extend(frame(&Order::Signal(2)).unwrap());
        let mut stream = bytes.as_slice();
        assert!(matches!(
            read_frame::<Order>(&mut stream).unwrap(),
            Some(Order::Signal(15))
        ));
        assert!(matches!(
            read_frame::<Order>(&mut stream).unwrap(),
            Some(Order::Signal(2))
        ));
        assert!(read_frame::<Order>(&mut stream).unwrap().is_none());
        assert!(read_frame::<Order>([255u8; 8].as_slice()).is_err());
        assert!(read_frame::<Order>([0, 0, 0, 9, b'x'].as_slice()).is_err());
    }
}
