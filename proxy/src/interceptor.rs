//! smolvm's egress interceptor: every TCP connection of a micro-VM's guest, with the address that the guest wanted.
//!
//! smolvm's own process dials us on the host for each of them and says first where to: a *hello*, in which a token
//! tells this bottle's machine from everything else that may dial a loopback address of the host's. One destination
//! stands for this proxy: it is answered `00`, and what follows is a connection like any other, with the proxy's own
//! credentials to be shown. Every other is answered `01`, of which smolvm makes a reset. Who does not know the token
//! hears nothing at all.
//!
//! A hello, as smolvm 1.32.2 sends it: `SMOLICPT`, the version `01`, 32 bytes of token, the family (4 or 6), the port in
//! network order, the address. It is 48 bytes for IPv4, which was seen; 60 for IPv6, which follows from the family and was
//! not. Nothing comes behind it until it is answered.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::config;
use crate::isolate::isolated;
use crate::limits;
use crate::net::Socket;
use crate::secrets::Secrets;
use crate::server::{self, Listener};
use crate::sidecar::Sidecar;

const MAGIC: &[u8; 8] = b"SMOLICPT";
const VERSION: u8 = 1;
const TOKEN: usize = 32;
/// Magic, version, token and family.
const FIXED: usize = 8 + 1 + TOKEN + 1;
const ACCEPTED: [u8; 1] = [0];
const REFUSED: [u8; 1] = [1];

#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    #[error("listen: {0:?} is no loopback ADDRESS:PORT, and smolvm dials no other")]
    Listen(String),
    #[error("destination: {0:?} is no ADDRESS:PORT")]
    Destination(String),
    #[error("token_ref: the environment variable {0} is not set or empty")]
    Missing(String),
    #[error("token_ref: the value of {0} is not 64 hexadecimal digits that are not all zero")]
    Token(String),
}

/// Where smolvm reaches us, and what is let in.
#[derive(Debug)]
pub struct Setting {
    pub listen: SocketAddr,
    gate: Gate,
}

impl Setting {
    pub fn parse(raw: &config::Interceptor, secrets: &Secrets) -> Result<Self, SettingError> {
        let listen = raw
            .listen
            .parse::<SocketAddr>()
            .ok()
            .filter(|address| address.ip().is_loopback())
            .ok_or_else(|| SettingError::Listen(raw.listen.clone()))?;
        let destination = raw
            .destination
            .parse()
            .map_err(|_| SettingError::Destination(raw.destination.clone()))?;
        let text = secrets
            .value(&raw.token_ref)
            .ok_or_else(|| SettingError::Missing(raw.token_ref.clone()))?;
        let token =
            token(text.expose()).ok_or_else(|| SettingError::Token(raw.token_ref.clone()))?;
        Ok(Self {
            listen,
            gate: Gate { token, destination },
        })
    }
}

/// As smolvm takes it: not all zero.
fn token(text: &str) -> Option<Zeroizing<[u8; TOKEN]>> {
    if text.len() != 2 * TOKEN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut token = Zeroizing::new([0; TOKEN]);
    for (at, byte) in token.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    token.iter().any(|byte| *byte != 0).then_some(token)
}

/// Why a connection was not let in; the label that it is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Late,
    Short,
    Malformed,
    Token,
    Destination,
}

impl Refusal {
    pub fn label(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Short => "short",
            Self::Malformed => "malformed",
            Self::Token => "token",
            Self::Destination => "destination",
        }
    }
}

struct Gate {
    token: Zeroizing<[u8; TOKEN]>,
    destination: SocketAddr,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}

impl Gate {
    /// Reads a hello, not a byte more, and judges it once all of it is there: how long that takes says nothing of where it
    /// is wrong.
    async fn admit(&self, from: &mut (impl AsyncRead + Unpin)) -> Result<(), Refusal> {
        let mut fixed = [0; FIXED];
        read(from, &mut fixed).await?;
        let [head @ .., family] = fixed;
        let destination = match family {
            4 => {
                let mut rest = [0; 6];
                read(from, &mut rest).await?;
                let [high, low, ip @ ..] = rest;
                SocketAddr::new(
                    IpAddr::V4(Ipv4Addr::from(ip)),
                    u16::from_be_bytes([high, low]),
                )
            }
            6 => {
                let mut rest = [0; 18];
                read(from, &mut rest).await?;
                let [high, low, ip @ ..] = rest;
                SocketAddr::new(
                    IpAddr::V6(Ipv6Addr::from(ip)),
                    u16::from_be_bytes([high, low]),
                )
            }
            _ => return Err(Refusal::Malformed),
        };
        let (magic, rest) = head.split_first_chunk::<8>().ok_or(Refusal::Malformed)?;
        let (version, token) = rest.split_first().ok_or(Refusal::Malformed)?;
        if magic != MAGIC || *version != VERSION {
            return Err(Refusal::Malformed);
        }
        if !bool::from(token.ct_eq(self.token.as_slice())) {
            return Err(Refusal::Token);
        }
        if destination != self.destination {
            return Err(Refusal::Destination);
        }
        Ok(())
    }
}

async fn read(from: &mut (impl AsyncRead + Unpin), into: &mut [u8]) -> Result<(), Refusal> {
    // A reset is an end like any other.
    from.read_exact(into)
        .await
        .map(|_| ())
        .map_err(|_| Refusal::Short)
}

/// Accepts until the sidecar stops. `room` is that of all agents' connections: one that says its hello slowly, or none,
/// takes up none of it, but one of [`limits::HELLOS`].
pub async fn accept(sidecar: Arc<Sidecar>, listener: Listener, room: Arc<Semaphore>) {
    // Where few files may be open, strangers must not have most of them.
    let most = (room.available_permits() / 4).max(1);
    let hellos = Arc::new(Semaphore::new(limits::HELLOS.min(most)));
    while let Ok(hello) = Arc::clone(&hellos).acquire_owned().await {
        let Some(socket) = listener.next(&sidecar).await else {
            return;
        };
        let (connection, room) = (Arc::clone(&sidecar), Arc::clone(&room));
        sidecar.tasks.spawn(async move {
            let admitted = async {
                let stopping = connection.stopping.clone();
                tokio::select! {
                    admitted = admit(&connection, socket, room) => admitted,
                    () = stopping.cancelled() => None,
                }
            };
            let mut admitted_to = None;
            isolated(async { admitted_to = admitted.await }).await;
            drop(hello);
            if let Some((socket, place)) = admitted_to {
                connection.metrics.connections.inc();
                isolated(server::serve(&connection, socket)).await;
                drop(place);
            }
        });
    }
}

/// The connection, once it may speak to the proxy, and its place there.
async fn admit(
    sidecar: &Sidecar,
    mut socket: Socket,
    room: Arc<Semaphore>,
) -> Option<(Socket, tokio::sync::OwnedSemaphorePermit)> {
    let gate = &sidecar.fixed.interceptor.as_ref()?.gate;
    let verdict = timeout(limits::HELLO, gate.admit(&mut socket))
        .await
        .unwrap_or(Err(Refusal::Late));
    match verdict {
        Ok(()) => {
            // Before the answer: what has been let in is served.
            let place = room.acquire_owned().await.ok()?;
            answer(&mut socket, &ACCEPTED).await.ok()?;
            Some((socket, place))
        }
        Err(refusal) => {
            sidecar.metrics.refuse_hello(refusal.label());
            if let Some(suppressed) = sidecar.log_limit.admit() {
                let why = refusal.label();
                tracing::warn!(
                    why,
                    suppressed,
                    "a hello of smolvm's interceptor was refused"
                );
            }
            if refusal == Refusal::Destination {
                // It may have gone away meanwhile; it is refused in any case.
                let _gone = answer(&mut socket, &REFUSED).await;
                let _gone = socket.shutdown().await;
            }
            None
        }
    }
}

async fn answer(socket: &mut Socket, byte: &[u8; 1]) -> io::Result<()> {
    timeout(limits::HELLO, socket.write_all(byte)).await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"; // gitleaks:allow

    fn gate() -> Gate {
        Gate {
            token: token(DIGITS).unwrap(),
            destination: "192.0.2.1:9099".parse().unwrap(),
        }
    }

    /// As smolvm 1.32.2 sent it to 192.0.2.1:9099.
    fn hello() -> Vec<u8> {
        let mut hello = b"SMOLICPT\x01".to_vec();
        hello.extend_from_slice(token(DIGITS).unwrap().as_slice());
        hello.extend_from_slice(&[4, 0x23, 0x8b, 192, 0, 2, 1]);
        hello
    }

    async fn judge(bytes: &[u8]) -> (Result<(), Refusal>, usize) {
        let mut stream = bytes;
        let verdict = gate().admit(&mut stream).await;
        (verdict, stream.len())
    }

    #[tokio::test]
    async fn the_one_destination_is_let_in_and_nothing_behind_it_is_read() {
        assert_eq!(hello().len(), 48);
        assert_eq!(judge(&hello()).await, (Ok(()), 0));
        let more = [hello(), b"CONNECT".to_vec()].concat();
        assert_eq!(judge(&more).await, (Ok(()), 7));
    }

    #[tokio::test]
    async fn every_beginning_of_a_hello_is_short() {
        let hello = hello();
        for length in 0..hello.len() {
            assert_eq!(
                judge(&hello[..length]).await.0,
                Err(Refusal::Short),
                "{length}"
            );
        }
    }

    /// Any bit of it counts.
    #[tokio::test]
    async fn every_wrong_bit_is_refused() {
        for at in 0..48 {
            for bit in 0..8 {
                let mut hello = hello();
                hello[at] ^= 1 << bit;
                // Enough for whatever family it says now.
                hello.extend_from_slice(&[0; 16]);
                let expected = match at {
                    0..=8 => Refusal::Malformed,
                    9..=40 => Refusal::Token,
                    // 4 with another bit is 6 once, which is another destination.
                    41 if hello[41] == 6 => Refusal::Destination,
                    41 => Refusal::Malformed,
                    _ => Refusal::Destination,
                };
                assert_eq!(judge(&hello).await.0, Err(expected), "{at} {bit}");
            }
        }
    }

    #[tokio::test]
    async fn another_family_has_its_own_length_and_is_never_ours() {
        let mut six = hello();
        six.truncate(41);
        six.push(6);
        six.extend_from_slice(&[0x23, 0x8b]);
        // The same address, mapped.
        six.extend_from_slice(&Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets());
        assert_eq!(six.len(), 60);
        assert_eq!(judge(&six).await, (Err(Refusal::Destination), 0));
        assert_eq!(judge(&six[..59]).await.0, Err(Refusal::Short));
    }

    #[test]
    fn tokens_and_addresses_are_read_strictly() {
        assert!(token(DIGITS).is_some());
        assert!(token(&DIGITS.to_uppercase()).is_some());
        for bad in [
            "",
            DIGITS.get(1..).unwrap(),
            &format!("{DIGITS}0"),
            &"0".repeat(64),
            &DIGITS.replacen("00", "+0", 1),
            &DIGITS.replacen("00", "é", 1),
        ] {
            assert!(token(bad).is_none(), "{bad}");
        }
        let parse = |listen: &str, destination: &str, token: &str| {
            let raw = config::Interceptor {
                listen: listen.into(),
                destination: destination.into(),
                token_ref: "TOKEN".into(),
            };
            let secrets = Secrets::from_environment([("TOKEN".to_owned(), token.to_owned())]);
            Setting::parse(&raw, &secrets).map(|_| ())
        };
        assert!(parse("127.0.0.16:9098", "192.0.2.1:9099", DIGITS).is_ok());
        for (listen, destination, token) in [
            ("0.0.0.0:9098", "192.0.2.1:9099", DIGITS),
            ("192.0.2.1:9098", "192.0.2.1:9099", DIGITS),
            ("unix:/run/x.sock", "192.0.2.1:9099", DIGITS),
            ("127.0.0.16:9098", "proxy:9099", DIGITS),
            ("127.0.0.16:9098", "192.0.2.1:9099", ""),
            ("127.0.0.16:9098", "192.0.2.1:9099", "short"),
        ] {
            let error = parse(listen, destination, token).unwrap_err();
            assert!(!error.to_string().contains("short"), "{error}");
        }
        let shown = format!("{:?}", gate());
        assert!(!shown.contains("17, 34"), "{shown}");
    }
}
