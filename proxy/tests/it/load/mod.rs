//! Much at once: memory stays flat, nothing is late, and afterwards all is as it was.
//!
//! Run by `.ci/slow` on a machine that has nothing else to do; what was measured is printed. What is measured is the sidecar, so
//! what puts load upon it (clients, and the origin that they talk to) runs when nothing else does: it is in the test's
//! process, has two threads of its own with the scheduling policy `SCHED_IDLE`, and would need more processor than the sidecar
//! otherwise. The sidecar runs as anything does, and the client whose delay counts and its origin before it.

mod delay;
mod memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fixtures::origin::{Origin, OriginOptions};
use fixtures::pki::Pki;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
#[cfg(target_os = "linux")]
use thread_priority::{
    ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::client::TlsStream;

use crate::harness::{H1, Setup, Sidecar, Wire, World, connect_head, route, routes};

const MEBIBYTE: usize = 1 << 20;
/// The origin of what puts load upon the sidecar.
const OTHER: &str = "other.test";

/// A sidecar with two origins, one for the client that matters and one for the others, and the threads of those.
struct Scene {
    world: World,
    other: Origin,
    /// Of the other origin and its clients, and of the first.
    threads: Option<[Runtime; 2]>,
}

impl Scene {
    async fn new() -> Arc<Self> {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
        let threads = |start: fn()| {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(2).enable_all();
            builder.on_thread_start(start).build().unwrap()
        };
        let (back, front) = (threads(step_back), threads(step_forward));
        let options = OriginOptions {
            record: false,
            ..OriginOptions::HTTP1
        };
        let pki = Arc::new(Pki::new());
        let own = Arc::clone(&pki);
        let other = back
            .spawn(async move { Origin::start(&own, &[OTHER], options).await })
            .await
            .unwrap();
        let to_other = json!({"host": format!("{OTHER}:{}", other.port()), "allow_private": true});
        let own = Arc::clone(&pki);
        let origin = front
            .spawn(async move { Origin::start(&own, &[crate::harness::NAME], options).await })
            .await
            .unwrap();
        let setup = Setup::new(&routes(&[route(), to_other]));
        let sidecar = Sidecar::start(&pki, origin.port(), setup).await;
        Arc::new(Self {
            world: World { origin, sidecar },
            other,
            threads: Some([back, front]),
        })
    }

    fn authority(&self) -> String {
        format!("{OTHER}:{}", self.other.port())
    }

    /// A tunnel to the other origin.
    async fn wire(&self) -> Wire<TlsStream<TcpStream>> {
        let stream = self.world.sidecar.tls(&self.authority(), OTHER, H1).await;
        Wire::new(stream.unwrap())
    }

    /// What `kind` does, until it is stopped.
    fn load(self: &Arc<Self>, kind: Kind) -> Load {
        let done = Arc::new(AtomicU64::new(0));
        let (own, count) = (Arc::clone(self), Arc::clone(&done));
        let [back, _] = self.threads.as_ref().unwrap();
        let task = back.spawn(async move { kind.run(own, count).await });
        Load { done, task }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for threads in self.threads.take().into_iter().flatten() {
            threads.shutdown_background();
        }
    }
}

/// The good client and its origin are what is not measured, as the agent's own machine and the origin's are none of the
/// sidecar's: they run at once (`SCHED_FIFO`), where on a machine of two processors they would wait up to a slice, some
/// milliseconds, for a thread of the sidecar that serves others. That takes root.
#[cfg(target_os = "linux")]
fn step_forward() {
    use thread_priority::RealtimeThreadSchedulePolicy::Fifo;
    let lowest = ThreadPriority::Crossplatform(1_u8.try_into().unwrap());
    let policy = ThreadSchedulePolicy::Realtime(Fifo);
    set_thread_priority_and_policy(thread_native_id(), lowest, policy)
        .expect("root, to measure the sidecar's delay and not that of its client");
}

#[cfg(not(target_os = "linux"))]
fn step_forward() {}

/// As [`step_forward`], the threads of a sidecar that serve: not its crew. Says how many there are.
fn bring_forward(sidecar: u32) -> usize {
    let mut count = 0;
    for task in std::fs::read_dir(format!("/proc/{sidecar}/task")).unwrap() {
        let task = task.unwrap().path();
        if std::fs::read_to_string(task.join("comm")).unwrap().trim() == "crew" {
            continue;
        }
        let mut chrt = std::process::Command::new("chrt");
        chrt.args(["--fifo", "--pid", "1"])
            .arg(task.file_name().unwrap());
        assert!(chrt.status().unwrap().success(), "{chrt:?}");
        count += 1;
    }
    count
}

#[cfg(target_os = "linux")]
fn step_back() {
    use thread_priority::NormalThreadSchedulePolicy;
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle).unwrap();
}

#[cfg(not(target_os = "linux"))]
fn step_back() {}

struct Load {
    /// Mebibytes, bombs, bytes of heads or events.
    done: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    async fn stop(self) {
        self.task.abort();
        let ended = self.task.await.expect_err("it has no end");
        assert!(ended.is_cancelled(), "{ended}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Eight bodies without an end, of which no two windows are the same.
    Uploads,
    /// A gibibyte in a mebibyte, in one layer and in two, eight at a time.
    Bombs,
    /// A thousand clients that say a byte a second, or nothing.
    Slow,
    /// A hundred clients that read events.
    Events,
}

impl Kind {
    async fn run(self, scene: Arc<Scene>, done: Arc<AtomicU64>) {
        let count = match self {
            Self::Uploads | Self::Bombs => 8,
            Self::Slow => 1000,
            Self::Events => 100,
        };
        let bombs = bombs();
        let mut clients = JoinSet::new();
        for number in 0..count {
            let (scene, done) = (Arc::clone(&scene), Arc::clone(&done));
            let (coding, bomb) = bombs[number % 2].clone();
            clients.spawn(async move {
                loop {
                    match self {
                        Self::Uploads => upload(&scene, 64 * MEBIBYTE, &done).await,
                        Self::Bombs => explode(&scene, coding, &bomb, &done).await,
                        Self::Slow => dawdle(&scene, number, &done).await,
                        Self::Events => listen(&scene, &done).await,
                    }
                }
            });
        }
        // A client has no end but a failure.
        if let Some(Err(failed)) = clients.join_next().await {
            panic!("{failed}");
        }
    }
}

/// A body of which every window is new: a conversation that nobody had before.
async fn upload(scene: &Scene, length: usize, done: &AtomicU64) {
    static PIECES: AtomicU64 = AtomicU64::new(0);
    let mut wire = scene.wire().await;
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n",
        scene.authority()
    );
    wire.send(head.as_bytes()).await;
    let mut piece = text(MEBIBYTE);
    let mut left = length;
    while left > 0 {
        let here = left.min(piece.len());
        for place in piece.chunks_mut(16 * 1024) {
            let number = format!("{:012}", PIECES.fetch_add(1, Ordering::Relaxed));
            place[..12].copy_from_slice(number.as_bytes());
        }
        wire.send(&piece[..here]).await;
        left -= here;
        done.fetch_add(1, Ordering::Relaxed);
    }
    let answer = wire.answer().await.expect("an answer to an upload");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn text(length: usize) -> Vec<u8> {
    b"{\"role\":\"user\",\"content\":\"Please read the file and say what the function returns.\"},\n"
        .iter()
        .copied()
        .cycle()
        .take(length)
        .collect()
}

async fn explode(scene: &Scene, coding: &str, bomb: &[u8], done: &AtomicU64) {
    let mut wire = scene.wire().await;
    let head = format!(
        "POST /bomb HTTP/1.1\r\nHost: {}\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
        scene.authority(),
        bomb.len()
    );
    wire.send(head.as_bytes()).await;
    wire.send(bomb).await;
    let answer = wire.answer().await.expect("an answer to a bomb");
    assert!(
        (400..500).contains(&answer.status),
        "{coding}: {}",
        answer.status
    );
    done.fetch_add(1, Ordering::Relaxed);
}

/// A coding, and a body.
type Bomb = (&'static str, Arc<[u8]>);

/// A gibibyte in a mebibyte, and that once more.
fn bombs() -> [Bomb; 2] {
    static ONCE: std::sync::OnceLock<[Bomb; 2]> = std::sync::OnceLock::new();
    ONCE.get_or_init(|| {
        let once = gzip(&vec![0; 256 * MEBIBYTE]);
        let twice = gzip(&once);
        [("gzip", once.into()), ("gzip, gzip", twice.into())]
    })
    .clone()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Connects, and has hardly anything to say until that is ended.
async fn dawdle(scene: &Scene, number: usize, done: &AtomicU64) {
    let mut wire = scene.world.sidecar.connect().await;
    let head = connect_head(&scene.authority());
    match number % 10 {
        // Of a head.
        0..=5 => {
            for byte in &head.as_bytes()[..20] {
                wire.send(&[*byte]).await;
                done.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(1)).await;
            }
        }
        // A tunnel that nothing is said in.
        6..=8 => {
            wire.send(head.as_bytes()).await;
            sleep(Duration::from_secs(20)).await;
        }
        // Half a ClientHello.
        _ => {
            wire.send(head.as_bytes()).await;
            wire.send(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03").await;
            sleep(Duration::from_secs(20)).await;
        }
    }
}

/// Reads events on a connection, ten times ten.
async fn listen(scene: &Scene, done: &AtomicU64) {
    let mut wire = scene.wire().await;
    for _ in 0..10 {
        events(&mut wire, &scene.authority(), |_| {
            done.fetch_add(1, Ordering::Relaxed);
        })
        .await;
    }
}

/// Reads ten events, and says how many microseconds after it was sent each came.
async fn events(wire: &mut Wire<TlsStream<TcpStream>>, authority: &str, mut came: impl FnMut(u64)) {
    let head = format!("GET /sse HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    wire.send(head.as_bytes()).await;
    wire.head().await.unwrap();
    loop {
        let size = wire.line().await.expect("a chunk");
        let size = usize::from_str_radix(&size, 16).unwrap();
        let data = wire.take(size + 2).await.expect("an event");
        if size == 0 {
            return;
        }
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let event = String::from_utf8(data).unwrap();
        let (_, sent) = event.split_once("\"sent_us\":").expect("a time");
        let sent: u64 = sent.split('}').next().unwrap().parse().unwrap();
        came((since.as_micros() as u64).saturating_sub(sent));
    }
}
