//! The hostile agent's own HTTP: blocking, raw, and as ill-behaved as an attack wants it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const PATIENCE: Duration = Duration::from_secs(8);

/// An answer's status and text.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

/// The proxy as the bottle's environment names it.
#[derive(Clone, Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    authorization: String,
    tls: Arc<ClientConfig>,
}

impl Proxy {
    /// From `HTTPS_PROXY` and `SSL_CERT_FILE`.
    pub fn from_environment() -> io::Result<Self> {
        let url = std::env::var("HTTPS_PROXY").map_err(io::Error::other)?;
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| io::Error::other("HTTPS_PROXY is not http://"))?;
        let (user, address) = rest
            .split_once('@')
            .ok_or_else(|| io::Error::other("HTTPS_PROXY has no credentials"))?;
        let address = address
            .trim_end_matches('/')
            .parse()
            .map_err(io::Error::other)?;
        let bundle = std::env::var("SSL_CERT_FILE").map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(bundle).map_err(io::Error::other)?;
        roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        let tls =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)?
                .with_root_certificates(roots)
                .with_no_client_auth();
        let authorization = format!("Basic {}", BASE64_STANDARD.encode(user));
        Ok(Self {
            address,
            authorization,
            tls: Arc::new(tls),
        })
    }

    pub fn dial(&self) -> io::Result<TcpStream> {
        dial(self.address)
    }

    /// Asks for a tunnel. The stream, and what the proxy said.
    pub fn connect(&self, authority: &str, host: &str) -> io::Result<(TcpStream, Answer)> {
        let mut stream = self.dial()?;
        let request = format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {}\r\n\r\n",
            self.authorization
        );
        stream.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        let mut byte = [0u8; 1];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
            head.extend_from_slice(&byte);
        }
        Ok((stream, answer(&head)))
    }

    /// A tunnel with TLS inside. `dribble` sends the ClientHello's first byte alone and the rest late.
    pub fn tls(
        &self,
        authority: &str,
        name: &str,
        dribble: bool,
    ) -> io::Result<StreamOwned<ClientConnection, Dribble>> {
        let (stream, said) = self.connect(authority, authority)?;
        if said.status != 200 {
            return Err(io::Error::other(format!(
                "CONNECT was answered with {}: {}",
                said.status, said.text
            )));
        }
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connection =
            ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(
            connection,
            Dribble {
                stream,
                first: dribble,
            },
        ))
    }

    /// One request in a tunnel of its own.
    pub fn request(&self, authority: &str, request: &[u8], dribble: bool) -> io::Result<Answer> {
        let name = authority
            .rsplit_once(':')
            .map_or(authority, |(name, _)| name);
        let mut stream = self.tls(authority, name, dribble)?;
        stream.write_all(request)?;
        stream.flush()?;
        Ok(answer(&read_to_end(&mut stream)))
    }

    /// One absolute-form request, in plain HTTP.
    pub fn plain(&self, url: &str, host: &str) -> io::Result<Answer> {
        let mut stream = self.dial()?;
        let request = format!(
            "GET {url} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {}\r\nConnection: close\r\n\r\n",
            self.authorization
        );
        stream.write_all(request.as_bytes())?;
        Ok(answer(&read_to_end(&mut stream)))
    }
}

/// A stream whose first byte travels alone.
#[derive(Debug)]
pub struct Dribble {
    stream: TcpStream,
    first: bool,
}

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Dribble {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !std::mem::take(&mut self.first) {
            return self.stream.write(bytes);
        }
        let sent = self.stream.write(bytes.get(..1).unwrap_or_default())?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the attack is the pause, and nothing else runs in this process"
        )]
        std::thread::sleep(Duration::from_millis(300));
        Ok(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

pub fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whatever comes until the peer closes, errors or says nothing for long.
pub fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0u8; 4096];
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 || all.len() > 1 << 20 {
            break;
        }
        all.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    all
}

pub fn answer(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    Answer { status, text }
}
