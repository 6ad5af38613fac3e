//! Listeners, and the agent's connections before anything is known of them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use detectors::Location;
use http::{Method, StatusCode};
use subtle::ConstantTimeEq;
use tokio::io::ReadHalf;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::exchange::{After, Reply};
use crate::h1::agent::{self, Writer, head_cause};
use crate::h1::body::Reader;
use crate::h1::parse::{self, Framing, Request, Target};
use crate::h1::write;
use crate::host::{Authority, Host, HostName, Scheme};
use crate::inspect;
use crate::isolate::isolated;
use crate::limits;
use crate::net::Socket;
use crate::record::Entry;
use crate::settings::Listen;
use crate::sidecar::Sidecar;
use crate::tunnel;
use crate::upstream::pool::Pool;
use crate::verdict::{Cause, Refusal};

/// The host that is the sidecar itself.
const MAGIC: &str = "_egress.local";

#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// A socket file of a dead sidecar is replaced; one that answers is not.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Listen::Unix(path) => {
                if path.exists() {
                    if tokio::net::UnixStream::connect(path).await.is_ok() {
                        return Err(io::ErrorKind::AddrInUse.into());
                    }
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Ok(Self::Unix(listener))
            }
        }
    }

    pub fn describe(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map(|address| address.to_string())
                .unwrap_or_default(),
            Self::Unix(listener) => {
                let path = listener.local_addr().ok();
                let path = path.as_ref().and_then(|address| address.as_pathname());
                format!(
                    "unix:{}",
                    path.map(|path| path.display().to_string())
                        .unwrap_or_default()
                )
            }
        }
    }

    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Self::Unix(_) => None,
        }
    }

    pub async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Self::Unix(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Socket::Unix(stream)),
        }
    }

    /// The next connection; `None` once the sidecar stops.
    pub async fn next(&self, sidecar: &Sidecar) -> Option<Socket> {
        let mut wait = Duration::from_millis(5);
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = sidecar.stopping.cancelled() => return None,
            };
            match accepted {
                Ok(socket) => return Some(socket),
                // Out of descriptors, mostly: without a pause the loop would only spin.
                Err(error) => {
                    if let Some(suppressed) = sidecar.log_limit.admit() {
                        tracing::warn!(%error, suppressed, "a connection could not be accepted");
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(1));
                }
            }
        }
    }
}

/// Accepts until the sidecar stops. `room` is shared by all listeners.
pub async fn accept(sidecar: Arc<Sidecar>, listener: Listener, room: Arc<Semaphore>) {
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let Some(socket) = listener.next(&sidecar).await else {
            return;
        };
        let connection = Arc::clone(&sidecar);
        sidecar.metrics.connections.inc();
        sidecar.tasks.spawn(async move {
            isolated(serve(&connection, socket)).await;
            drop(permit);
            connection.ended.notify_one();
        });
    }
}

/// What became of a request on a connection that is not a tunnel yet.
enum Next {
    Continue,
    Close,
    Tunnel(Box<Pool>),
}

/// A connection of the agent's, from its first byte on.
pub(crate) async fn serve(sidecar: &Arc<Sidecar>, socket: Socket) {
    let (read, write) = tokio::io::split(socket);
    let mut connection = Outer {
        sidecar,
        reader: Reader::new(read, BytesMut::new()),
        writer: Writer::new(write),
        plain: None,
    };
    loop {
        let head = tokio::select! {
            head = connection.reader.head(limits::IDLE, parse::request) => head,
            () = sidecar.stopping.cancelled() => break,
        };
        let next = match head {
            // In a box, as all that a tunnel has behind it: it may wait for long.
            Ok(Some(request)) => Box::pin(connection.request(request)).await,
            Ok(None) => break,
            Err(error) => {
                if let Some(cause) = head_cause(error) {
                    connection.refuse(None, "", &cause.into(), false).await;
                    agent::hang_up(&mut connection.reader, &mut connection.writer).await;
                }
                break;
            }
        };
        match next {
            Next::Continue => {}
            Next::Close => break,
            Next::Tunnel(pool) => {
                let (read, ahead) = connection.reader.into_parts();
                let socket = read.unsplit(connection.writer.into_inner());
                return Box::pin(tunnel::serve(sidecar, *pool, socket, ahead)).await;
            }
        }
    }
    connection.writer.close().await;
}

struct Outer<'a> {
    sidecar: &'a Arc<Sidecar>,
    reader: Reader<ReadHalf<Socket>>,
    writer: Writer<Socket>,
    /// To the origin of the last plain HTTP request.
    plain: Option<Pool>,
}

impl Outer<'_> {
    async fn request(&mut self, mut request: Request) -> Next {
        self.writer.begin(&request);
        if !self.is_authorised(&request) {
            // A client that asks first and sends its credentials second may do so on the same connection.
            let reusable = request.framing == Framing::Empty;
            return self
                .refuse_request(None, &request, Cause::ProxyAuth.into(), reusable)
                .await;
        }
        request.headers.remove("proxy-authorization");
        match request.target.clone() {
            Target::Authority(raw) => match tunnel::open(self.sidecar, &raw).await {
                Ok((_, pool)) => match self
                    .writer
                    .write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    .await
                {
                    Ok(()) => Next::Tunnel(Box::new(pool)),
                    Err(_) => Next::Close,
                },
                Err((authority, refusal)) => {
                    self.refuse_request(authority.as_ref(), &request, refusal, true)
                        .await
                }
            },
            Target::Absolute { authority, target } => self.plain(request, &authority, target).await,
            Target::Origin(target) => {
                let host = request.host.clone().unwrap_or_default();
                if is_magic(&host) {
                    return self.magic(&request, &target).await;
                }
                let why = "this is a proxy: ask it with CONNECT or an absolute http:// target";
                self.refuse_request(None, &request, Cause::Malformed(why.into()).into(), false)
                    .await
            }
        }
    }

    fn is_authorised(&self, request: &Request) -> bool {
        let Some(credentials) = &self.sidecar.fixed.credentials else {
            return true;
        };
        let mut fields = request.headers.all("proxy-authorization");
        let (Some(value), None) = (fields.next(), fields.next()) else {
            return false;
        };
        let Some((scheme, encoded)) = value.split_at_checked(6) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"basic ")
            && bool::from(
                encoded
                    .trim_ascii()
                    .ct_eq(credentials.encoded.expose().as_bytes()),
            )
    }

    /// An absolute-form request, without TLS on either side.
    async fn plain(&mut self, request: Request, raw: &Bytes, target: Bytes) -> Next {
        if is_magic(raw) {
            return self.magic(&request, &target).await;
        }
        let authority = match std::str::from_utf8(raw)
            .ok()
            .map(|text| Authority::parse(text, Scheme::Http.default_port()))
        {
            Some(Ok(authority)) => authority,
            Some(Err(error)) => {
                return self
                    .refuse_request(None, &request, Cause::Host(error).into(), false)
                    .await;
            }
            None => {
                let cause = Cause::Malformed("the authority is not text".into());
                return self
                    .refuse_request(None, &request, cause.into(), false)
                    .await;
            }
        };
        if self
            .plain
            .as_ref()
            .is_none_or(|pool| pool.authority != authority)
        {
            match self.open_plain(raw, &authority).await {
                Ok(pool) => self.plain = Some(pool),
                Err(refusal) => {
                    return self
                        .refuse_request(Some(&authority), &request, refusal, false)
                        .await;
                }
            }
        }
        let Some(pool) = &self.plain else {
            return Next::Close;
        };
        let keep_alive = request.keep_alive;
        let one = agent::one(
            self.sidecar,
            pool,
            request,
            target,
            &mut self.reader,
            &mut self.writer,
        );
        let after = Box::pin(one).await;
        match after {
            After::Reusable if keep_alive && self.writer.keep_alive => Next::Continue,
            After::Reusable | After::Broken => Next::Close,
            After::Unread => {
                agent::hang_up(&mut self.reader, &mut self.writer).await;
                Next::Close
            }
        }
    }

    async fn open_plain(&self, raw: &Bytes, authority: &Authority) -> Result<Pool, Refusal> {
        self.sidecar.check_ready()?;
        let ruling = self.sidecar.ruling();
        let findings = inspect::caseless(ruling.scanners.all(), &Location::Host, raw);
        if !findings.is_empty() {
            return Err(Refusal {
                cause: Cause::Credential,
                findings,
            });
        }
        let route = ruling
            .policy
            .admits(Scheme::Http, authority)
            .map_err(|denial| Cause::from(&denial))?;
        let (dialer, tls) = (
            Arc::clone(&self.sidecar.dialer),
            self.sidecar.upstream_tls.clone(),
        );
        Ok(Pool::open(
            dialer,
            tls,
            Scheme::Http,
            authority.clone(),
            route.allow_private,
            false,
        )
        .await?)
    }

    /// `http://_egress.local/allowlist`: the live table, names only.
    async fn magic(&mut self, request: &Request, target: &Bytes) -> Next {
        let ruling = self.sidecar.ruling();
        let (status, body) = match (&request.method, target.as_ref()) {
            (&Method::GET | &Method::HEAD, b"/allowlist") => {
                let table = serde_json::json!({ "policy": ruling.policy.hash(), "routes": ruling.policy.table() });
                (
                    StatusCode::OK,
                    serde_json::to_vec_pretty(&table).unwrap_or_default(),
                )
            }
            _ => (
                StatusCode::NOT_FOUND,
                br#"{"error":"there is only GET /allowlist here"}"#.to_vec(),
            ),
        };
        let reusable = request.keep_alive && request.framing == Framing::Empty;
        let body = if request.method == Method::HEAD {
            Vec::new()
        } else {
            body
        };
        let headers = [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
        ];
        let phrase = status.canonical_reason().unwrap_or_default();
        let out = write::own(status, phrase, &headers, &body, reusable);
        match self.writer.write(&out).await {
            Ok(()) if reusable => Next::Continue,
            _ => Next::Close,
        }
    }

    async fn refuse_request(
        &mut self,
        authority: Option<&Authority>,
        request: &Request,
        refusal: Refusal,
        reusable: bool,
    ) -> Next {
        let reusable = reusable && request.keep_alive && request.framing == Framing::Empty;
        if self
            .refuse(authority, request.method.as_str(), &refusal, reusable)
            .await
            && reusable
        {
            return Next::Continue;
        }
        agent::hang_up(&mut self.reader, &mut self.writer).await;
        Next::Close
    }

    async fn refuse(
        &mut self,
        authority: Option<&Authority>,
        method: &str,
        refusal: &Refusal,
        reusable: bool,
    ) -> bool {
        let ruling = self.sidecar.ruling();
        let unknown = Authority {
            host: Host::Name(HostName::unknown()),
            port: 0,
        };
        let scheme = if method == "CONNECT" {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let mut entry = Entry::new(self.sidecar, &ruling, scheme, authority.unwrap_or(&unknown));
        entry.method(&inspect::shown(
            ruling.scanners.all(),
            &Location::Method,
            method.as_bytes(),
        ));
        self.sidecar.record_refusal(&entry, refusal).await;
        let body = refusal.body(
            &entry.event,
            &entry.host,
            self.sidecar.fixed.explain.as_deref(),
        );
        if method != "CONNECT" {
            return self.writer.refuse(refusal, body, reusable).await.is_ok();
        }
        // Most clients show the reason phrase of a failed CONNECT and nothing else of it.
        let phrase = format!("{} ({})", refusal.reason(), entry.event);
        let out = write::own(
            refusal.status(),
            &phrase,
            &agent::own_headers(refusal),
            &body,
            reusable,
        );
        self.writer.write(&out).await.is_ok()
    }
}

fn is_magic(host: &[u8]) -> bool {
    std::str::from_utf8(host)
        .ok()
        .and_then(|text| Authority::parse(text, 80).ok())
        .is_some_and(
            |authority| matches!(&authority.host, Host::Name(name) if name.as_str() == MAGIC),
        )
}
