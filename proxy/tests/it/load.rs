//! Much at once: memory stays flat, nothing is late, and afterwards all is as it was.
//!
//! Run by `.ci/slow`; what was measured is printed.

use std::time::Duration;

use fixtures::origin::OriginOptions;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::harness::{H1, NAME, Setup, Wire, World, connect_head, route, routes};

const MEBIBYTE: usize = 1 << 20;

fn kibibytes(world: &World, key: &str) -> usize {
    let path = format!("/proc/{}/status", world.sidecar.pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap();
    line.trim_matches([':', ' ', '\t'])
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

fn now_resident(world: &World) -> usize {
    kibibytes(world, "VmRSS")
}

fn peak(world: &World) -> usize {
    kibibytes(world, "VmHWM")
}

/// From here on the peak is counted anew.
fn forget_peak(world: &World) {
    std::fs::write(format!("/proc/{}/clear_refs", world.sidecar.pid()), "5").unwrap();
}

/// What may be resident with so many connections: 64 MiB, and 256 KiB for each.
fn allowed(connections: usize) -> usize {
    64 * 1024 + 256 * connections
}

async fn unrecorded() -> World {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let options = OriginOptions {
        record: false,
        ..OriginOptions::HTTP1
    };
    let world = World::start(options, Setup::new(&routes(&[route()]))).await;
    // Each thread has its buffers once it was used.
    for _ in 0..4 {
        upload(&world, 2 * MEBIBYTE).await;
    }
    world
}

fn text(length: usize) -> Vec<u8> {
    b"{\"role\":\"user\",\"content\":\"Please read the file and say what the function returns.\"},\n"
        .iter()
        .copied()
        .cycle()
        .take(length)
        .collect()
}

async fn upload(world: &World, length: usize) {
    let mut wire = world.h1().await;
    let head = format!("POST /upload HTTP/1.1\r\nHost: HOST\r\nContent-Length: {length}\r\n\r\n");
    wire.send(&world.fill(head.as_bytes())).await;
    let piece = text(MEBIBYTE);
    let mut left = length;
    while left > 0 {
        let here = left.min(piece.len());
        wire.send(&piece[..here]).await;
        left -= here;
    }
    let answer = wire.answer().await.expect("an answer to an upload");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Within a tenth of what it was, and what an allocator keeps for the next time.
async fn assert_back(world: &World, before: usize) {
    let limit = before + before / 10 + 4 * 1024;
    let begun = Instant::now();
    let mut after = now_resident(world);
    while after > limit && begun.elapsed() < Duration::from_secs(20) {
        sleep(Duration::from_millis(500)).await;
        // A thread gives back when it works.
        let _answer = world.raw(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n").await;
        after = now_resident(world);
    }
    println!("resident: {before} KiB before, {after} KiB after");
    assert!(after <= limit, "{after} KiB and not {limit}");
}

/// `BOT_BOTTLE_UPLOAD_MIB` makes them longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run .ci/slow"]
async fn eight_uploads_at_once_take_no_more_memory_than_short_ones() {
    let mebibytes = std::env::var("BOT_BOTTLE_UPLOAD_MIB").map_or(64, |text| text.parse().unwrap());
    let world = std::sync::Arc::new(unrecorded().await);
    let before = now_resident(&world);
    forget_peak(&world);
    let begun = Instant::now();
    let mut uploads = JoinSet::new();
    for _ in 0..8 {
        let world = std::sync::Arc::clone(&world);
        uploads.spawn(async move { upload(&world, mebibytes * MEBIBYTE).await });
    }
    while let Some(ended) = uploads.join_next().await {
        ended.unwrap();
    }
    let peak = peak(&world);
    println!(
        "8 uploads of {mebibytes} MiB at once: peak {peak} KiB, {:?}",
        begun.elapsed()
    );
    // The longer ones are held to what any eight connections may take.
    let most = if mebibytes > 64 {
        allowed(8)
    } else {
        48 * 1024
    };
    assert!(peak <= most, "{peak} KiB");
    assert_back(&world, before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run .ci/slow"]
async fn a_thousand_idle_tunnels_take_little() {
    let world = unrecorded().await;
    let before = now_resident(&world);
    let mut open = Vec::new();
    for _ in 0..1000 {
        let mut wire = world.h1().await;
        wire.send(&world.fill(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n"))
            .await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        open.push(wire);
    }
    sleep(Duration::from_secs(1)).await;
    let each = (now_resident(&world) - before) / open.len();
    println!("1000 idle tunnels: {each} KiB each, both sides of TLS");
    assert!(each <= 64, "{each} KiB for each of a thousand tunnels");
    // They are alive.
    for wire in open.iter_mut().step_by(100) {
        wire.send(&world.fill(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n"))
            .await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    drop(open);
    assert_back(&world, before).await;
}

/// None is lost, none is late: what is added is the time of a wake-up, not of a buffer that fills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run .ci/slow"]
async fn ten_thousand_events_come_as_they_are_sent() {
    let world = std::sync::Arc::new(unrecorded().await);
    let mut streams = JoinSet::new();
    for _ in 0..10 {
        let world = std::sync::Arc::clone(&world);
        streams.spawn(async move {
            let mut wire = world.h1().await;
            let mut delays = Vec::new();
            for _ in 0..100 {
                wire.send(&world.fill(b"GET /sse HTTP/1.1\r\nHost: HOST\r\n\r\n"))
                    .await;
                wire.head().await.unwrap();
                loop {
                    let size = wire.line().await.expect("a chunk");
                    let size = usize::from_str_radix(&size, 16).unwrap();
                    let data = wire.take(size + 2).await.expect("an event");
                    if size == 0 {
                        break;
                    }
                    let since = std::time::SystemTime::now()
                        .duration_since(std::time::UNIX_EPOCH)
                        .unwrap();
                    let event = String::from_utf8(data).unwrap();
                    let (_, sent) = event.split_once("\"sent_us\":").expect("a time");
                    let sent: u64 = sent.split('}').next().unwrap().parse().unwrap();
                    delays.push((since.as_micros() as u64).saturating_sub(sent));
                }
            }
            delays
        });
    }
    let mut delays = Vec::new();
    while let Some(ended) = streams.join_next().await {
        delays.extend(ended.unwrap());
    }
    delays.sort_unstable();
    let (half, most) = (delays[delays.len() / 2], delays[delays.len() * 99 / 100]);
    println!(
        "{} events: delay p50 {half} µs, p99 {most} µs",
        delays.len()
    );
    assert_eq!(delays.len(), 10_000);
    assert!(
        half < 5_000 && most < 100_000,
        "p50 {half} µs, p99 {most} µs"
    );
}

/// A gibibyte in a mebibyte, in one layer and in two, eight at a time, beside a thousand clients that say nothing, and
/// one that is in a hurry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run .ci/slow"]
async fn bombs_and_silence_hold_up_nobody() {
    let world = std::sync::Arc::new(unrecorded().await);
    let before = now_resident(&world);
    let (half, most) = hurry(&world).await;
    forget_peak(&world);

    let mut silent = Vec::new();
    for _ in 0..1000 {
        let mut wire = world.sidecar.connect().await;
        wire.send(connect_head(&world.authority()).as_bytes()).await;
        silent.push(wire);
    }
    let once = gzip(&vec![0; 256 * MEBIBYTE]);
    let bombs = [("gzip", once.clone()), ("gzip, gzip", gzip(&once))];
    let mut attack = JoinSet::new();
    for number in 0..8 {
        let world = std::sync::Arc::clone(&world);
        let (coding, body) = bombs[number % 2].clone();
        attack.spawn(async move {
            let (mut sent, begun) = (0, Instant::now());
            while begun.elapsed() < Duration::from_secs(15) {
                let mut wire = world.h1().await;
                let head = format!(
                    "POST /bomb HTTP/1.1\r\nHost: HOST\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                wire.send(&world.fill(head.as_bytes())).await;
                wire.send(&body).await;
                let answer = wire.answer().await.expect("an answer to a bomb");
                assert!((400..500).contains(&answer.status), "{coding}: {}", answer.status);
                sent += 1;
            }
            sent
        });
    }
    sleep(Duration::from_secs(2)).await;
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        best = best.min(hurry(&world).await);
    }
    let mut bombs = 0;
    while let Some(ended) = attack.join_next().await {
        bombs += ended.unwrap();
    }
    let peak = peak(&world);
    println!(
        "{bombs} bombs beside {} silent clients: peak {peak} KiB; a good client p50 {half:?} to {:?}, p99 {most:?} to {:?}",
        silent.len(),
        best.0,
        best.1
    );
    assert!(peak <= allowed(silent.len() + 16), "{peak} KiB");
    // Twice, and no less than what a scheduler takes of a machine on which eight clients work at once.
    assert!(
        best.1 <= (most * 2).max(Duration::from_millis(60)),
        "{best:?}"
    );
    drop(silent);
    assert_back(&world, before).await;
}

/// Half of the requests of a client are quicker than the first, 99 of 100 than the second.
async fn hurry(world: &World) -> (Duration, Duration) {
    let stream = world
        .sidecar
        .tls(&world.authority(), NAME, H1)
        .await
        .unwrap();
    let mut wire = Wire::new(stream);
    let mut times = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        wire.send(&world.fill(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n"))
            .await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        times.push(begun.elapsed());
    }
    times.sort();
    (times[150], times[297])
}

fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}
