//! Where all requests go: HTTP/1.1 over TLS, and HTTP/2 on a port of its own, as plain as it can be, so that it is never what is waited for.
//!
//! | path | answer |
//! |---|---|
//! | `/events` | [`EVENTS`] server-sent events, [`PAUSE`] apart, each with the time at which it was sent |
//! | else | how many bytes the body had |

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::process::{Core, pin};

pub const EVENTS: usize = 200;
pub const PAUSE: Duration = Duration::from_millis(2);

/// A clock that two processes share.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Arguments: a certificate and its key, as files. Prints its ports, that for HTTP/2 second.
pub fn main(arguments: &[OsString]) {
    pin(Core::Load);
    let [certificate, key] = arguments else {
        panic!("a certificate and a key");
    };
    let config = |protocol| server_config(Path::new(certificate), Path::new(key), protocol);
    runtime().block_on(async {
        let h1 = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let h2 = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = |listener: &TcpListener| listener.local_addr().expect("a port").port();
        println(format_args!("{} {}", port(&h1), port(&h2)));
        tokio::join!(
            accept(h1, config(HTTP1), serve),
            accept(h2, config(HTTP2), serve_h2)
        );
    });
}

/// As ALPN has them.
pub const HTTP1: &str = "http/1.1";
pub const HTTP2: &str = "h2";

async fn accept<F: Future<Output = io::Result<()>> + Send + 'static>(
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
    serve: fn(TlsStream<TcpStream>) -> F,
) {
    let acceptor = TlsAcceptor::from(config);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let _best_effort = stream.set_nodelay(true);
            if let Ok(stream) = acceptor.accept(stream).await {
                // A client that goes away is no matter of the origin's.
                let _gone = serve(stream).await;
            }
        });
    }
}

pub fn server_config(certificate: &Path, key: &Path, protocol: &str) -> Arc<rustls::ServerConfig> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .expect("a certificate")
        .collect::<Result<Vec<_>, _>>()
        .expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let mut config = rustls::ServerConfig::builder_with_provider(fixtures::pki::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![protocol.into()];
    Arc::new(config)
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// What the process that started this one reads.
pub fn println(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").expect("standard output");
    out.flush().expect("standard output");
}

async fn serve(mut stream: TlsStream<TcpStream>) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    loop {
        let end = loop {
            if let Some(at) = buffer[..filled]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break at + 4;
            }
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                read => filled += read,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let events = head.starts_with("get /events ");
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(0, |value| value.trim().parse().expect("a length"));
        if head.contains("transfer-encoding: chunked") {
            let mut chunks = buffer[end..filled].to_vec();
            filled = 0;
            while !chunks.ends_with(b"0\r\n\r\n") {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(()),
                    read => chunks.extend_from_slice(&buffer[..read]),
                }
            }
            answer(&mut stream, chunked_length(&chunks)).await?;
            continue;
        }
        let mut left = length;
        let here = left.min(filled - end);
        buffer.copy_within(end + here..filled, 0);
        filled -= end + here;
        left -= here;
        while left > 0 {
            // Whoever waits for an answer sends nothing else meanwhile.
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                read => left -= read.min(left),
            }
        }
        if events {
            send_events(&mut stream).await?;
        } else {
            answer(&mut stream, length).await?;
        }
    }
}

async fn answer(stream: &mut TlsStream<TcpStream>, length: usize) -> io::Result<()> {
    let body = format!("{{\"len\":{length:010}}}");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    let answer = format!("{head}{}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await
}

/// Of a chunked body that is here whole, without its chunks' sizes.
fn chunked_length(mut chunks: &[u8]) -> usize {
    let mut length = 0;
    loop {
        let end = chunks.iter().position(|byte| *byte == b'\r');
        let (size, rest) = chunks.split_at(end.expect("a chunk's size"));
        let size = std::str::from_utf8(size).expect("a chunk's size");
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        if size == 0 {
            return length;
        }
        length += size;
        chunks = &rest[size + 4..];
    }
}

async fn serve_h2(stream: TlsStream<TcpStream>) -> io::Result<()> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake::<_, bytes::Bytes>(stream)
        .await
        .map_err(io::Error::other)?;
    while let Some(request) = connection.accept().await {
        let (request, mut reply) = request.map_err(io::Error::other)?;
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(Ok(data)) = body.data().await {
                length += data.len();
                let _ended = body.flow_control().release_capacity(data.len());
            }
            let answer = http::Response::new(());
            if let Ok(mut stream) = reply.send_response(answer, false) {
                let text = format!("{{\"len\":{length:010}}}");
                let _gone = stream.send_data(text.into(), true);
            }
        });
    }
    Ok(())
}

async fn send_events(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for event in 0..EVENTS {
        tokio::time::sleep(PAUSE).await;
        let sent = now().as_nanos();
        let text =
            format!("event: delta\ndata: {{\"i\":{event},\"sent\":{sent},\"text\":\"tok\"}}\n\n");
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        stream.write_all(chunk.as_bytes()).await?;
        stream.flush().await?;
    }
    stream.write_all(b"0\r\n\r\n").await?;
    stream.flush().await
}
