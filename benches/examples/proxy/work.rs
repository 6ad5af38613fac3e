//! The kinds of work, each with its unit and the issue of how much of what it may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::Way;
use super::origin::{EVENTS, now};
use super::process::Process;
use super::systems::{HOSTS, System, host};

/// Tunnels that are used at once.
const TUNNELS: usize = 8;
const STREAMS: usize = 10;
const IDLE: usize = 1000;
const UPLOAD: usize = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// POST over tunnels that are open; the same body again and again, or one that has something new every 32 KiB.
    Post {
        size: usize,
        span: Duration,
        fresh: bool,
    },
    /// The same with a body in chunks.
    Chunked { size: usize, span: Duration },
    /// The same over HTTP/2 on both sides.
    H2 { size: usize, span: Duration },
    /// POST of 16 KiB that end in an AWS key.
    Block { span: Duration },
    /// A tunnel to a host that was not spoken to before, one request, and the end.
    Connect,
    /// A tunnel to one host again and again, with the session of the one before.
    Resume,
    /// Server-sent events, from the origin's clock to the agent's.
    Events,
    /// What a tunnel takes that was used once and waits.
    Tunnels,
    /// Eight of 64 MiB at once.
    Uploads,
}

/// What was measured once.
#[derive(Clone, Copy, Debug)]
pub enum Figures {
    /// CPU seconds for one unit.
    Cpu(f64),
    /// Seconds: half of all are below the first, 99 of 100 below the second.
    Delay(f64, f64),
    /// KiB.
    Memory(f64),
}

impl Work {
    pub fn all(span: Duration) -> Vec<Self> {
        let post = |size| [false, true].map(|fresh| Self::Post { size, span, fresh });
        let posts = [1 << 10, 16 << 10, 64 << 10, 1 << 20, UPLOAD].map(post);
        let others = [
            Self::Chunked {
                size: 16 << 10,
                span,
            },
            Self::H2 {
                size: 16 << 10,
                span,
            },
            Self::Block { span },
            Self::Connect,
            Self::Resume,
            Self::Events,
            Self::Tunnels,
            Self::Uploads,
        ];
        posts.into_iter().flatten().chain(others).collect()
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Post { .. } => "post",
            Self::Chunked { .. } => "chunked",
            Self::H2 { .. } => "h2",
            Self::Block { .. } => "block",
            Self::Connect => "connect",
            Self::Resume => "resume",
            Self::Events => "events",
            Self::Tunnels => "tunnels",
            Self::Uploads => "uploads",
        }
    }

    pub fn name(&self) -> String {
        match self {
            Self::Post { size, fresh, .. } => {
                let size = match size >> 20 {
                    0 => format!("{} KiB", size >> 10),
                    mebibytes => format!("{mebibytes} MiB"),
                };
                format!(
                    "POST of {size}{}",
                    if *fresh { ", new each time" } else { "" }
                )
            }
            Self::Chunked { size, .. } => format!("POST of {} KiB in chunks", size >> 10),
            Self::H2 { size, .. } => format!("POST of {} KiB over HTTP/2", size >> 10),
            Self::Block { .. } => "POST of 16 KiB that is refused, in µs".into(),
            Self::Connect => "tunnel to a new host".into(),
            Self::Resume => "tunnel to the same host, resumed".into(),
            Self::Events => "delay of a server-sent event, p50 / p99".into(),
            Self::Tunnels => format!("an idle tunnel, of {IDLE}"),
            Self::Uploads => format!("{TUNNELS} uploads of {} MiB at once, peak", UPLOAD >> 20),
        }
    }

    /// What was asked of the sidecar.
    pub fn target(&self) -> &'static str {
        match self {
            Self::Post { size, .. } => match *size {
                0..0x1000 => "1.10",
                0x1000..0x1_0000 => "1.20",
                UPLOAD => "1.20",
                _ => "1.30",
            },
            Self::Chunked { .. } | Self::H2 { .. } | Self::Block { .. } | Self::Resume => "",
            Self::Connect => "1.00",
            Self::Events => "the floor",
            Self::Tunnels => "40 KiB",
            Self::Uploads => "48 MiB",
        }
    }

    pub fn is_h2(&self) -> bool {
        matches!(self, Self::H2 { .. })
    }

    /// What takes mitmproxy minutes, or gigabytes, is left out, and what a proxy cannot do.
    pub fn is_for(&self, system: System) -> bool {
        let long = matches!(self, Self::Post { size: UPLOAD, .. } | Self::Uploads);
        match system {
            System::Mitmproxy => !long,
            // It answers some first requests of new hosts with 502.
            System::Squid if self.is_h2() || *self == Self::Connect => false,
            _ => system.scans() || !matches!(self, Self::Block { .. }),
        }
    }

    pub async fn run(&self, way: &Way, process: &Process) -> Figures {
        match *self {
            Self::Post { size, span, fresh } => {
                let body = text(size.min(1 << 20));
                post(way, process, span, Request::Plain(body, size, fresh)).await
            }
            Self::Chunked { size, span } => {
                post(way, process, span, Request::Chunked(text(size))).await
            }
            Self::Block { span } => {
                let mut body = text(16 << 10);
                let end = body.len() - 4;
                // The one of AWS's manuals is known to be none.
                body.splice(end.., *b" AKIAQ3EGRTW7YHN2XKZP\"}]}"); // gitleaks:allow
                post(way, process, span, Request::Refused(body)).await
            }
            Self::H2 { size, span } => h2(way, process, size, span).await,
            Self::Connect => connect(way, process, host).await,
            Self::Resume => connect(way, process, |_| host(0)).await,
            Self::Events => events(way).await,
            Self::Tunnels => tunnels(way, process).await,
            Self::Uploads => uploads(way, process).await,
        }
    }
}

/// JSON as a model is sent: prose, code, paths, and what only looks like a token.
pub fn text(length: usize) -> Vec<u8> {
    const WORDS: [&str; 32] = [
        "the",
        "function",
        "returns",
        "a",
        "value",
        "let",
        "mut",
        "self",
        "request",
        "error",
        "import",
        "def",
        "class",
        "token",
        "stream",
        "user",
        "assistant",
        "content",
        "=>",
        "fn main()",
        "\\n    ",
        "if x == 42:",
        "return None",
        "https://example.org/a/b?c=d",
        "commit 9f86d081884c7d65",
        "skip",
        "task-based",
        "eyes",
        "Vec<u8>",
        "0x7fffffff",
        "config.yaml",
        "src/lib.rs:120",
    ];
    let (head, tail) = ("{\"messages\":[{\"role\":\"user\",\"content\":\"", "\"}]}");
    let mut text = head.to_owned();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while text.len() + tail.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(WORDS[(state >> 33) as usize % WORDS.len()]);
        text.push(' ');
    }
    text.truncate(length.saturating_sub(tail.len()));
    text.push_str(tail);
    text.into_bytes()
}

enum Request {
    /// Of so many bytes, which the text repeated gives; whether it is new each time.
    Plain(Vec<u8>, usize, bool),
    Chunked(Vec<u8>),
    Refused(Vec<u8>),
}

async fn post(way: &Way, process: &Process, span: Duration, request: Request) -> Figures {
    let long = matches!(request, Request::Plain(_, 0x80_0000.., _));
    let mut open = Vec::new();
    for _ in 0..if long { 2 } else { TUNNELS } {
        open.push(way.tunnel(&host(0)).await);
    }
    let request = Arc::new(request);
    let mut tasks = Vec::new();
    let begun = Instant::now();
    for mut tunnel in open {
        let request = Arc::clone(&request);
        tasks.push(async move {
            let mut done = 0;
            while begun.elapsed() < span {
                let (status, expected) = match &*request {
                    Request::Plain(body, size, false) => (tunnel.post(body, *size).await, 200),
                    Request::Plain(body, size, true) => {
                        let mut body = body.clone();
                        (tunnel.post_fresh(&mut body, *size).await, 200)
                    }
                    Request::Chunked(body) => (tunnel.post_chunked(body).await, 200),
                    Request::Refused(body) => (tunnel.post(body, body.len()).await, 403),
                };
                assert_eq!(status, expected);
                done += 1;
            }
            done
        });
    }
    per_unit(process, tasks).await
}

async fn h2(way: &Way, process: &Process, size: usize, span: Duration) -> Figures {
    let body = bytes::Bytes::from(text(size));
    let mut open = Vec::new();
    for _ in 0..TUNNELS {
        open.push(way.h2(&host(0)).await);
    }
    let mut tasks = Vec::new();
    let begun = Instant::now();
    for mut connection in open {
        let body = body.clone();
        tasks.push(async move {
            let mut done = 0;
            while begun.elapsed() < span {
                connection.post(&body).await;
                done += 1;
            }
            done
        });
    }
    per_unit(process, tasks).await
}

/// Runs them at once; each says how many units it did.
async fn per_unit<T: Future<Output = usize> + Send + 'static>(
    process: &Process,
    tasks: Vec<T>,
) -> Figures {
    let before = process.cpu();
    let mut running = JoinSet::new();
    for task in tasks {
        running.spawn(task);
    }
    let mut done = 0;
    while let Some(ended) = running.join_next().await {
        done += ended.expect("a tunnel");
    }
    Figures::Cpu((process.cpu() - before).as_secs_f64() / done as f64)
}

async fn connect(way: &Way, process: &Process, name: fn(usize) -> String) -> Figures {
    let next = Arc::new(AtomicUsize::new(1));
    let mut tasks = Vec::new();
    for _ in 0..TUNNELS {
        let (way, next) = (way.clone(), Arc::clone(&next));
        tasks.push(async move {
            let mut done = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= HOSTS {
                    return done;
                }
                way.tunnel(&name(number)).await.get().await;
                done += 1;
            }
        });
    }
    per_unit(process, tasks).await
}

async fn events(way: &Way) -> Figures {
    let mut tasks = JoinSet::new();
    for _ in 0..STREAMS {
        let way = way.clone();
        tasks.spawn(async move {
            let mut delays = Vec::new();
            way.tunnel(&host(0))
                .await
                .events(|line| {
                    if let Some((_, rest)) = line.split_once("\"sent\":") {
                        let sent = rest
                            .split(',')
                            .next()
                            .and_then(|text| text.parse::<u64>().ok());
                        let sent = Duration::from_nanos(sent.expect("a time"));
                        delays.push(now().saturating_sub(sent).as_secs_f64());
                    }
                })
                .await;
            assert_eq!(delays.len(), EVENTS);
            delays
        });
    }
    let mut delays = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        delays.extend(ended.expect("a stream"));
    }
    delays.sort_by(f64::total_cmp);
    Figures::Delay(delays[delays.len() / 2], delays[delays.len() * 99 / 100])
}

async fn tunnels(way: &Way, process: &Process) -> Figures {
    let before = process.memory("VmRSS");
    let mut open = Vec::new();
    for _ in 0..IDLE {
        let mut tunnel = way.tunnel(&host(0)).await;
        tunnel.get().await;
        open.push(tunnel);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = process.memory("VmRSS");
    Figures::Memory((after as f64 - before as f64) / open.len() as f64)
}

async fn uploads(way: &Way, process: &Process) -> Figures {
    let body = Arc::new(text(1 << 20));
    let mut tasks = JoinSet::new();
    for _ in 0..TUNNELS {
        let (way, body) = (way.clone(), Arc::clone(&body));
        tasks.spawn(async move {
            assert_eq!(way.tunnel(&host(0)).await.post(&body, UPLOAD).await, 200);
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("an upload");
    }
    Figures::Memory(process.memory("VmHWM") as f64)
}
