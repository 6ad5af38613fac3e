//! The bottle's one way out: a listener on the alias, each of its connections joined to the sidecar's socket.
//!
//! The socket has no path in the bottle. It is reached through a descriptor of its directory, which only this process
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

/// Listens, and serves on a thread of its own. Returns once the address is bound.
pub fn start(address: SocketAddrV4, directory: OwnedFd) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    std::thread::Builder::new()
        .name("relay".into())
        .spawn(move || {
            runtime.block_on(serve(listener, Arc::new(directory)));
            // Without its relay a bottle is only offline. It ends, because nobody would know why.
            std::process::exit(1);
        })?;
    Ok(())
}

async fn serve(listener: TcpListener, directory: Arc<OwnedFd>) {
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
                let directory = Arc::clone(&directory);
                tokio::spawn(async move {
                    // Either side may end a connection at any time; there is nobody to tell and nothing to mend.
                    let _ended = join(agent, &directory).await;
                    drop(permit);
                });
            }
            // Out of descriptors: those in use will be given back.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn join(mut agent: TcpStream, directory: &OwnedFd) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}/egress.sock", directory.as_raw_fd());
    let mut sidecar = UnixStream::connect(path).await?;
    copy_bidirectional(&mut agent, &mut sidecar).await?;
    Ok(())
}
