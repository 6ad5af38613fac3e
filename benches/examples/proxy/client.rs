//! The agent's side: tunnels through a proxy, and HTTP/1.1 in them.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Numbers that were not used before.
static FRESH: AtomicU64 = AtomicU64::new(1 << 40);

/// How one proxy is reached.
#[derive(Clone, Debug)]
pub struct Way {
    pub proxy: SocketAddr,
    /// Of the origin.
    pub port: u16,
    /// Trusts the proxy's authority.
    pub config: Arc<rustls::ClientConfig>,
}

pub struct Tunnel {
    stream: TlsStream<TcpStream>,
    host: String,
    buffer: Vec<u8>,
    filled: usize,
}

impl Way {
    pub async fn tunnel(&self, host: &str) -> Tunnel {
        Tunnel {
            stream: self.connect(host).await,
            host: format!("{host}:{}", self.port),
            buffer: vec![0; 16 * 1024],
            filled: 0,
        }
    }

    /// A tunnel in which HTTP/2 is spoken.
    pub async fn h2(&self, host: &str) -> H2 {
        let stream = self.connect(host).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        H2 {
            sender,
            address: format!("https://{host}:{}/v1/messages", self.port),
        }
    }

    async fn connect(&self, host: &str) -> TlsStream<TcpStream> {
        let mut stream = fixtures::client::connect(self.proxy).await;
        stream.set_nodelay(true).expect("nodelay");
        let connect = format!(
            "CONNECT {host}:{0} HTTP/1.1\r\nHost: {host}:{0}\r\n\r\n",
            self.port
        );
        stream.write_all(connect.as_bytes()).await.expect("CONNECT");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = stream
                .read_buf(&mut head)
                .await
                .expect("an answer to CONNECT");
            assert_ne!(read, 0, "no answer to CONNECT");
        }
        assert_eq!(
            head.get(9..12),
            Some(&b"200"[..]),
            "{}",
            head.escape_ascii()
        );
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        TlsConnector::from(Arc::clone(&self.config))
            .connect(name, stream)
            .await
            .expect("TLS with the proxy")
    }
}

pub struct H2 {
    sender: h2::client::SendRequest<Bytes>,
    address: String,
}

impl H2 {
    pub async fn post(&mut self, body: &Bytes) {
        let request = http::Request::post(&self.address)
            .header("user-agent", "agent/1.0")
            .header("content-type", "application/json")
            .header("x-api-key", "placeholder-not-a-secret")
            .header("content-length", body.len())
            .body(())
            .expect("a request");
        poll_fn(|cx| self.sender.poll_ready(cx))
            .await
            .expect("a stream");
        let (answer, mut stream) = self.sender.send_request(request, false).expect("a stream");
        let mut left = body.clone();
        while !left.is_empty() {
            stream.reserve_capacity(left.len());
            let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
            let room = room.expect("the stream lives").expect("room");
            let piece = left.split_to(room.min(left.len()));
            stream
                .send_data(piece, left.is_empty())
                .expect("the stream lives");
        }
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let mut from = answer.into_body();
        let mut text = Vec::new();
        while let Some(data) = from.data().await {
            let data = data.expect("an answer");
            text.extend_from_slice(&data);
            let _ended = from.flow_control().release_capacity(data.len());
        }
        assert_eq!(text, expected(body.len()), "the origin had another body");
    }
}

/// What the origin says of a body of this length.
fn expected(length: usize) -> Vec<u8> {
    format!("{{\"len\":{length:010}}}").into_bytes()
}

impl Tunnel {
    /// What a coding agent's request looks like, up to its body.
    fn head(&self, framing: &str) -> Vec<u8> {
        format!(
            "POST /v1/messages HTTP/1.1\r\nHost: {}\r\nUser-Agent: agent/1.0\r\nAccept: */*\r\n\
             Content-Type: application/json\r\nx-api-key: placeholder-not-a-secret\r\n\
             anthropic-version: 2023-06-01\r\n{framing}\r\n\r\n",
            self.host
        )
        .into_bytes()
    }

    /// Sends a body of `length` bytes, in pieces where it is longer than `body`; the status.
    pub async fn post(&mut self, body: &[u8], length: usize) -> u16 {
        let mut first = self.head(&format!("Content-Length: {length}"));
        let mut left = length;
        let here = left.min(body.len());
        first.extend_from_slice(&body[..here]);
        left -= here;
        self.stream.write_all(&first).await.expect("a request");
        while left > 0 {
            let here = left.min(body.len());
            self.stream.write_all(&body[..here]).await.expect("a body");
            left -= here;
        }
        self.answer_to(length).await
    }

    /// As `post`, with a number every 32 KiB that no other body has there.
    pub async fn post_fresh(&mut self, body: &mut [u8], length: usize) -> u16 {
        let head = self.head(&format!("Content-Length: {length}"));
        let mut left = length;
        while left > 0 {
            for part in body.chunks_mut(32 * 1024) {
                let number = format!(" {:016x} ", FRESH.fetch_add(1, Ordering::Relaxed));
                // Behind the beginning of the document.
                if let Some(room) = part.get_mut(48..48 + number.len()) {
                    room.copy_from_slice(number.as_bytes());
                }
            }
            let here = left.min(body.len());
            let mut piece = Vec::new();
            if left == length {
                piece.extend_from_slice(&head);
            }
            piece.extend_from_slice(&body[..here]);
            self.stream.write_all(&piece).await.expect("a body");
            left -= here;
        }
        self.answer_to(length).await
    }

    pub async fn post_chunked(&mut self, body: &[u8]) -> u16 {
        let mut all = self.head("Transfer-Encoding: chunked");
        for piece in body.chunks(4 * 1024) {
            all.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            all.extend_from_slice(piece);
            all.extend_from_slice(b"\r\n");
        }
        all.extend_from_slice(b"0\r\n\r\n");
        self.stream.write_all(&all).await.expect("a request");
        self.answer_to(body.len()).await
    }

    async fn answer_to(&mut self, length: usize) -> u16 {
        self.stream.flush().await.expect("a request");
        let (status, answer) = self.answer().await;
        if status == 200 {
            assert_eq!(answer, expected(length), "the origin had another body");
        }
        status
    }

    /// Reads an answer with a length.
    async fn answer(&mut self) -> (u16, Vec<u8>) {
        let (status, head) = self.answer_head().await;
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map(|value| value.trim().parse().expect("a length"))
            .expect("an answer with a length");
        let mut body = Vec::with_capacity(length);
        while body.len() < length {
            if self.filled == 0 {
                self.fill().await;
            }
            let here = self.filled.min(length - body.len());
            body.extend(self.buffer.drain(..here));
            self.filled -= here;
            self.buffer.resize(16 * 1024, 0);
        }
        (status, body)
    }

    async fn answer_head(&mut self) -> (u16, String) {
        let end = loop {
            let read = &self.buffer[..self.filled];
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        self.buffer.copy_within(end..self.filled, 0);
        self.filled -= end;
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        (status.expect("a status"), head)
    }

    async fn fill(&mut self) -> usize {
        let read = self.stream.read(&mut self.buffer[self.filled..]).await;
        let read = read.expect("an answer");
        assert_ne!(read, 0, "the tunnel closed before its answer was whole");
        self.filled += read;
        read
    }

    pub async fn get(&mut self) {
        let ask = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.stream
            .write_all(ask.as_bytes())
            .await
            .expect("a request");
        self.stream.flush().await.expect("a request");
        assert_eq!(self.answer().await.0, 200);
    }

    /// Asks for events, and calls `each` with the text of every line that has one, as it comes.
    pub async fn events(&mut self, mut each: impl FnMut(&str)) {
        let ask = format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.stream
            .write_all(ask.as_bytes())
            .await
            .expect("a request");
        self.stream.flush().await.expect("a request");
        let (status, _) = self.answer_head().await;
        assert_eq!(status, 200);
        loop {
            while let Some(end) = self.buffer[..self.filled]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.copy_within(end + 1..self.filled, 0);
                self.filled -= end + 1;
                match line.trim_end() {
                    "0" => return,
                    line => each(line),
                }
            }
            self.fill().await;
        }
    }
}
