//! The channel between the launcher and the first process of a bottle: whole messages, and file descriptors with them.
//!
//! It is a socket pair without a name, inherited as standard input. Nothing that a bottle is told stands in an argument,
//! a variable or a file. It is a lifeline too: when the launcher dies, however it dies, its end closes, and the bottle's
//! first process ends and takes the bottle with it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A message is a description of a bottle or of a program; the default send buffer takes this much.
const MAX_MESSAGE: usize = 128 * 1024;
const MAX_FDS: usize = 4;

/// To the first process of a bottle.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// With one descriptor: the directory of the sidecar's socket.
    Setup(Box<Setup>),
    /// With the standard streams, unless it gets a terminal.
    Run(Box<Run>),
    Signal(i32),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    pub hostname: String,
    pub alias: std::net::Ipv4Addr,
    pub port: u16,
    pub workspace: PathBuf,
    pub mounts: Vec<PathBuf>,
    /// PEM of the sidecar's certificate.
    pub certificate: String,
    /// The file of the host's own certificates, if it has one.
    pub bundle: Option<PathBuf>,
    /// The launcher's executable, for the helpers inside.
    pub executable: PathBuf,
    pub agent_uid: u32,
    pub agent_gid: u32,
    pub git_name: Option<String>,
    pub git_email: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    pub own: bool,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub directory: PathBuf,
    pub terminal: bool,
}

/// From the first process of a bottle.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The boundary stands.
    Ready,
    /// With one descriptor where it was asked for a terminal: its master side.
    Started,
    /// The program that `Run` started has ended.
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
    },
    Failed {
        step: String,
        error: String,
        remedy: Option<String>,
    },
}

/// To the helper that becomes a program of the agent's.
#[derive(Debug, Serialize, Deserialize)]
pub struct Become {
    pub run: Run,
    pub uid: u32,
    pub gid: u32,
}

pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

pub fn send<M: Serialize>(
    socket: impl AsFd,
    message: &M,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(io::Error::other(format!(
            "what the bottle has to be told is larger than {MAX_MESSAGE} bytes; shorten its environment or its prompt"
        )));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors in one message"));
    }
    sendmsg(
        socket,
        &[IoSlice::new(&bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Waits for the next message; `None` when the other side is gone.
pub fn receive<M: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    if message.bytes == 0 {
        return Ok(None);
    }
    if message
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::other("a message was cut"));
    }
    let mut fds = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    let content = bytes.get(..message.bytes).unwrap_or_default();
    Ok(Some((serde_json::from_slice(content)?, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    #[test]
    fn messages_are_whole_and_carry_descriptors() {
        let (ours, theirs) = pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        send(&ours, &Order::Signal(15), &[]).unwrap();
        send(&ours, &Order::Signal(2), &[file.as_fd()]).unwrap();
        drop(ours);
        let (first, fds) = receive::<Order>(&theirs).unwrap().unwrap();
        assert!(matches!(first, Order::Signal(15)) && fds.is_empty());
        let (_, mut fds) = receive::<Order>(&theirs).unwrap().unwrap();
        let mut copy = File::from(fds.remove(0));
        copy.rewind().unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        assert!(receive::<Order>(&theirs).unwrap().is_none());
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let (ours, _theirs) = pair().unwrap();
        let long = Report::Failed {
            step: "x".repeat(MAX_MESSAGE),
            error: String::new(),
            remedy: None,
        };
        assert!(
            send(&ours, &long, &[])
                .unwrap_err()
                .to_string()
                .contains("larger than")
        );
    }
}
