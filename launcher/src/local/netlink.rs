//! What a bottle needs of rtnetlink(7): the loopback interface up, and a look at all interfaces.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const IFLA_IFNAME: u16 = 3;
const IFF_UP: u32 = 1;
/// In a new network namespace the loopback interface is always the first.
const LOOPBACK_INDEX: i32 = 1;
const HEADER: usize = 16;
const LINK: usize = 16;

/// A network interface of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub up: bool,
}

/// Brings the loopback interface up; with it come 127.0.0.1/8, so that every alias is there too.
pub fn loopback_up() -> io::Result<()> {
    let socket = open()?;
    ask(
        &socket,
        RTM_NEWLINK,
        NLM_F_REQUEST | NLM_F_ACK,
        LOOPBACK_INDEX,
        IFF_UP,
    )?;
    let mut buffer = [0; 4096];
    let (length, _) = recv(&socket, &mut buffer, RecvFlags::empty())?;
    let answer = buffer.get(..length).unwrap_or_default();
    match messages(answer).next() {
        Some((NLMSG_ERROR, body)) => errno(body),
        _ => Err(io::Error::other(
            "the kernel's answer is not an acknowledgement",
        )),
    }
}

pub fn interfaces() -> io::Result<Vec<Interface>> {
    let socket = open()?;
    ask(&socket, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 0, 0)?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 65536];
    loop {
        let (length, _) = recv(&socket, &mut buffer, RecvFlags::empty())?;
        for (kind, body) in messages(buffer.get(..length).unwrap_or_default()) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => errno(body)?,
                RTM_NEWLINK => found.push(interface(body).ok_or(io::ErrorKind::InvalidData)?),
                _ => {}
            }
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Protocol 0 is `NETLINK_ROUTE`.
fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn ask(socket: &OwnedFd, kind: u16, flags: u16, index: i32, up: u32) -> io::Result<()> {
    let mut message = Vec::with_capacity(HEADER + LINK);
    let length = u32::try_from(HEADER + LINK).map_err(io::Error::other)?;
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1u32.to_ne_bytes()); // sequence
    message.extend(0u32.to_ne_bytes()); // port: the kernel
    message.extend([0u8; 4]); // struct ifinfomsg: family, padding, device type
    message.extend(index.to_ne_bytes());
    message.extend(up.to_ne_bytes()); // flags
    message.extend(up.to_ne_bytes()); // which of the flags to change
    sendto(
        socket,
        &message,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    Ok(())
}

/// The messages of a datagram: type and body.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let kind = u16_at(rest, 4)?;
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn interface(body: &[u8]) -> Option<Interface> {
    let up = u32_at(body, 8)? & IFF_UP != 0;
    let mut attributes = body.get(LINK..)?;
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if u16_at(attributes, 2)? == IFLA_IFNAME {
            let name = value.split(|byte| *byte == 0).next()?;
            return Some(Interface {
                name: String::from_utf8_lossy(name).into_owned(),
                up,
            });
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn errno(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)?
        .try_into()
        .ok()
        .map(u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..at + 2)?
        .try_into()
        .ok()
        .map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_namespace_has_a_loopback_interface() {
        assert!(
            interfaces()
                .unwrap()
                .iter()
                .any(|interface| interface.name == "lo")
        );
    }

    #[test]
    fn cut_answers_are_no_answers() {
        assert_eq!(messages(&[1, 2, 3]).count(), 0);
        assert_eq!(messages(&[255; 20]).count(), 0);
        assert!(interface(&[0; 16]).is_none());
    }
}
