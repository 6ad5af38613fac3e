//! What is resident at the most, and what is left of it afterwards.
//!
//! It is compared with what is resident once each way was gone: then threads have their buffers, and what the sidecar
//! remembers (which is bounded, [`windows`](detectors::ScannerBuilder::remember)) is remembered.

use super::*;

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

/// What is resident after each way was gone.
async fn warm(scene: &Arc<Scene>) -> usize {
    let done = AtomicU64::new(0);
    // As many windows as are remembered.
    uploads(scene, 64 * MEBIBYTE).await;
    for (coding, bomb) in bombs() {
        explode(scene, coding, &bomb, &done).await;
    }
    listen(scene, &done).await;
    let mut open = Vec::new();
    // As many connections as there will be.
    for _ in 0..1000 {
        open.push(scene.wire().await);
    }
    drop(open);
    // Until it falls no more.
    let begun = Instant::now();
    let (mut least, mut since) = (usize::MAX, Instant::now());
    while since.elapsed() < Duration::from_secs(5) && begun.elapsed() < Duration::from_secs(30) {
        let now = resident_after_a_while(&scene.world).await;
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
    least
}

async fn resident_after_a_while(world: &World) -> usize {
    sleep(Duration::from_millis(500)).await;
    // A thread gives back when it works.
    let _answer = world.raw(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n").await;
    now_resident(world)
}

/// Within a tenth of what it was.
async fn assert_back(world: &World, before: usize) {
    let limit = before + before / 10;
    let begun = Instant::now();
    let mut after = now_resident(world);
    while after > limit && begun.elapsed() < Duration::from_secs(20) {
        after = resident_after_a_while(world).await;
    }
    println!(
        "resident: {before} KiB before, {after} KiB {:?} after",
        begun.elapsed()
    );
    assert!(after <= limit, "{after} KiB and not {limit}");
}

async fn uploads(scene: &Arc<Scene>, length: usize) {
    let mut uploads = JoinSet::new();
    for _ in 0..8 {
        let scene = Arc::clone(scene);
        uploads.spawn(async move { upload(&scene, length, &AtomicU64::new(0)).await });
    }
    while let Some(ended) = uploads.join_next().await {
        ended.unwrap();
    }
}

/// `BOT_BOTTLE_UPLOAD_MIB` makes the second eight longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run .ci/slow"]
async fn eight_uploads_at_once_take_no_more_memory_than_short_ones() {
    let mebibytes = std::env::var("BOT_BOTTLE_UPLOAD_MIB").map_or(64, |text| text.parse().unwrap());
    let scene = Scene::new().await;
    let at_once = async |mebibytes: usize, most: usize| {
        forget_peak(&scene.world);
        let begun = Instant::now();
        uploads(&scene, mebibytes * MEBIBYTE).await;
        let peak = peak(&scene.world);
        println!(
            "8 uploads of {mebibytes} MiB at once: peak {peak} KiB of {most}, {:?}",
            begun.elapsed()
        );
        assert!(peak <= most, "{peak} KiB");
    };
    // Of a sidecar that did nothing before.
    at_once(64, 48 * 1024).await;
    let before = warm(&scene).await;
    at_once(mebibytes, allowed(8)).await;
    assert_back(&scene.world, before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run .ci/slow"]
async fn a_thousand_idle_tunnels_take_little() {
    let scene = Scene::new().await;
    let world = &scene.world;
    let before = warm(&scene).await;
    let mut open = Vec::new();
    for _ in 0..1000 {
        let mut wire = world.h1().await;
        wire.send(&world.fill(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n"))
            .await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        open.push(wire);
    }
    sleep(Duration::from_secs(1)).await;
    let each = (now_resident(world) - before) / open.len();
    println!("1000 idle tunnels: {each} KiB each, both sides of TLS");
    assert!(each <= 64, "{each} KiB for each of a thousand tunnels");
    // They are alive.
    for wire in open.iter_mut().step_by(100) {
        wire.send(&world.fill(b"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n"))
            .await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    drop(open);
    assert_back(world, before).await;
}

/// None is lost, none is late: what is added is the time of a wake-up, not of a buffer that fills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run .ci/slow"]
async fn ten_thousand_events_come_as_they_are_sent() {
    let scene = Scene::new().await;
    let before = warm(&scene).await;
    let mut streams = JoinSet::new();
    for _ in 0..10 {
        let scene = Arc::clone(&scene);
        streams.spawn(async move {
            let mut wire = scene.world.h1().await;
            let mut delays = Vec::new();
            for _ in 0..100 {
                events(&mut wire, &scene.world.authority(), |late| {
                    delays.push(late)
                })
                .await;
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
    assert_back(&scene.world, before).await;
}

/// Beside a thousand clients that say nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: run .ci/slow"]
async fn bombs_and_silence_take_little_and_give_it_back() {
    let scene = Scene::new().await;
    let before = warm(&scene).await;
    forget_peak(&scene.world);
    let mut silent = Vec::new();
    for _ in 0..1000 {
        let mut wire = scene.world.sidecar.connect().await;
        wire.send(connect_head(&scene.authority()).as_bytes()).await;
        silent.push(wire);
    }
    let load = scene.load(Kind::Bombs);
    sleep(Duration::from_secs(15)).await;
    let bombs = load.done();
    load.stop().await;
    let peak = peak(&scene.world);
    println!(
        "{bombs} bombs beside {} silent clients: peak {peak} KiB",
        silent.len()
    );
    assert!(bombs > 0, "there was no load");
    assert!(peak <= allowed(silent.len() + 16), "{peak} KiB");
    drop(silent);
    assert_back(&scene.world, before).await;
}
