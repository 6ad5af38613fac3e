//! The bottle's one way out: a listener on the alias, each of its connections joined to the sidecar's socket.
//!
//! Where the bottle is handed the directory of the socket, the socket has no path in there. It is reached through a descriptor of its directory, which only this process
//! has, and whose `/proc` entry the agent cannot open.

use std::io;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;

/// Connections at a time; a further one waits in the kernel's queue. The sidecar has its own, lower-level limits.
const MAX_CONNECTIONS: usize = 512;

/// The relay's other end.
#[derive(Debug)]
pub enum To {
    /// The sidecar's socket, in this directory.
    Directory(OwnedFd),
    /// The sidecar's address, for a machine that has a network which leads there and nowhere else.
    Address(SocketAddrV4),
}

/// Listens, and serves on a thread of its own. Returns once the address is bound.
pub fn start(address: SocketAddrV4, to: To) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    std::thread::Builder::new()
        .name("relay".into())
        .spawn(move || {
            runtime.block_on(serve(listener, Arc::new(to)));
            // Without its relay a bottle is only offline. It ends, because nobody would know why.
            std::process::exit(1);
        })?;
    Ok(())
}

async fn serve(listener: TcpListener, to: Arc<To>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((agent, _)) => {
                let to = Arc::clone(&to);
                tokio::spawn(async move {
                    // Either side may end a connection at any time; there is nobody to tell and nothing to mend.
                    let _ended = join(agent, &to).await;
                    drop(permit);
                });
            }
            // Out of descriptors: those in use will be given back.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn join(mut agent: TcpStream, to: &To) -> io::Result<()> {
    match to {
        To::Directory(directory) => {
            let path = format!("/proc/self/fd/{}/egress.sock", directory.as_raw_fd());
            let mut sidecar = UnixStream::connect(path).await?;
            copy_bidirectional(&mut agent, &mut sidecar).await?;
        }
        To::Address(address) => {
            let mut sidecar = dial(*address).await?;
            copy_bidirectional(&mut agent, &mut sidecar).await?;
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "one fixed address, of the sidecar's own, from inside of a machine that reaches no other"
)]
async fn dial(address: SocketAddrV4) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}
