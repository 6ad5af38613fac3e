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
    /// POST over tunnels that are open.
    Post { size: usize, span: Duration },
    /// A tunnel to a host that was not spoken to before, one request, and the end.
    Connect,
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
        let post = |size| Self::Post { size, span };
        vec![
            post(1 << 10),
            post(16 << 10),
            post(64 << 10),
            post(1 << 20),
            post(UPLOAD),
            Self::Connect,
            Self::Events,
            Self::Tunnels,
            Self::Uploads,
        ]
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Post { .. } => "post",
            Self::Connect => "connect",
            Self::Events => "events",
            Self::Tunnels => "tunnels",
            Self::Uploads => "uploads",
        }
    }

    pub fn name(&self) -> String {
        match self {
            Self::Post { size, .. } if *size >= 1 << 20 => format!("POST of {} MiB", size >> 20),
            Self::Post { size, .. } => format!("POST of {} KiB", size >> 10),
            Self::Connect => "tunnel to a new host".into(),
            Self::Events => "delay of a server-sent event, p50 / p99".into(),
            Self::Tunnels => format!("an idle tunnel, of {IDLE}"),
            Self::Uploads => format!("{TUNNELS} uploads of {} MiB at once, peak", UPLOAD >> 20),
        }
    }

    /// What takes mitmproxy minutes, or gigabytes, is left out.
    pub fn is_for(&self, system: &System) -> bool {
        *system != System::Mitmproxy
            || !matches!(self, Self::Post { size: UPLOAD, .. } | Self::Uploads)
    }

    pub async fn run(&self, way: &Way, process: &Process) -> Figures {
        match *self {
            Self::Post { size, span } => post(way, process, size, span).await,
            Self::Connect => connect(way, process).await,
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

async fn post(way: &Way, process: &Process, size: usize, span: Duration) -> Figures {
    let tunnels = if size < 8 << 20 { TUNNELS } else { 2 };
    let body = Arc::new(text(size.min(1 << 20)));
    let mut open = Vec::new();
    for _ in 0..tunnels {
        open.push(way.tunnel(&host(0)).await);
    }
    let done = Arc::new(AtomicUsize::new(0));
    let before = process.cpu();
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for mut tunnel in open {
        let (body, done) = (Arc::clone(&body), Arc::clone(&done));
        tasks.spawn(async move {
            while begun.elapsed() < span {
                assert_eq!(tunnel.post(&body, size).await, 200);
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a tunnel");
    }
    let took = process.cpu() - before;
    Figures::Cpu(took.as_secs_f64() / done.load(Ordering::Relaxed) as f64)
}

async fn connect(way: &Way, process: &Process) -> Figures {
    let next = Arc::new(AtomicUsize::new(1));
    let before = process.cpu();
    let mut tasks = JoinSet::new();
    for _ in 0..TUNNELS {
        let (way, next) = (way.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= HOSTS {
                    return;
                }
                way.tunnel(&host(number)).await.get().await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a tunnel");
    }
    let took = process.cpu() - before;
    Figures::Cpu(took.as_secs_f64() / (HOSTS - 1) as f64)
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
