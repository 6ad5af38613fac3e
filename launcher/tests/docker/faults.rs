//! Faults between the launcher and the engine, at every call that changes something: an error, no answer, a signal, the
//! launcher's death. Whatever happens, nothing is left after a cleanup, and no agent has run unlocked.
//!
//! A relay on a socket of its own stands between the two and counts calls; the engine behind it is the real one.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::Host;
use crate::engine::{self, slugs, things};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The engine never hears of it.
    Error,
    /// The engine does it, and its answer is an error.
    ErrorAfter,
    /// The engine does it, and its answer is lost.
    NoAnswer,
    /// The launcher is told to end while the engine does it.
    Signal,
    /// The launcher is killed while the engine does it.
    Kill,
}

/// A relay to the engine that lets the call of a number go wrong.
struct Relay {
    path: PathBuf,
    calls: Arc<Mutex<Vec<String>>>,
    launcher: Arc<AtomicI32>,
}

impl Relay {
    fn start(directory: &Path, engine: &str, at: usize, fault: Fault) -> Self {
        let path = directory.join(format!("relay-{at}-{fault:?}.sock"));
        let listener = UnixListener::bind(&path).unwrap();
        let relay = Self {
            path,
            calls: Arc::default(),
            launcher: Arc::new(AtomicI32::new(0)),
        };
        let engine = engine.trim_start_matches("unix://").to_owned();
        let (calls, launcher) = (Arc::clone(&relay.calls), Arc::clone(&relay.launcher));
        let count = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let (engine, calls, launcher) =
                    (engine.clone(), Arc::clone(&calls), Arc::clone(&launcher));
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    // Either side may go at any time; that is what this is about.
                    let _gone = serve(client, &engine, at, fault, &calls, &count, &launcher);
                });
            }
        });
        relay
    }
}

fn serve(
    mut client: UnixStream,
    engine: &str,
    at: usize,
    fault: Fault,
    calls: &Mutex<Vec<String>>,
    count: &AtomicUsize,
    launcher: &AtomicI32,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.extend_from_slice(&byte);
    }
    let line = String::from_utf8_lossy(&head)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    let mut fault = fault;
    if line.starts_with("GET") || line.starts_with("HEAD") {
        fault = Fault::None;
    } else {
        let number = count.fetch_add(1, Ordering::SeqCst);
        calls.lock().unwrap().push(line);
        if number != at {
            fault = Fault::None;
        }
    }
    let refusal = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: 31\r\nConnection: close\r\n\r\n{\"message\":\"an injected fault\"}";
    if fault == Fault::Error {
        return client.write_all(refusal);
    }
    let strike = |signal| {
        let pid = Pid::from_raw(launcher.load(Ordering::SeqCst)).unwrap();
        // It may have ended by itself.
        let _ended = kill_process(pid, signal);
    };
    let mut upstream = UnixStream::connect(engine)?;
    upstream.write_all(&head)?;
    match fault {
        Fault::Signal => strike(Signal::TERM),
        Fault::Kill => strike(Signal::KILL),
        _ => {}
    }
    let (mut from_client, mut to_engine) = (client.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || {
        let _gone = std::io::copy(&mut from_client, &mut to_engine);
        let _gone = to_engine.shutdown(std::net::Shutdown::Write);
    });
    match fault {
        Fault::NoAnswer | Fault::ErrorAfter => {
            upstream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut lost = [0; 4096];
            // The engine has done it when it answers.
            let _answer = upstream.read(&mut lost);
            if fault == Fault::ErrorAfter {
                client.write_all(refusal)?;
                return client.shutdown(std::net::Shutdown::Both);
            }
            // Longer than the launcher waits.
            pause(Duration::from_secs(8));
        }
        _ => {
            let _gone = std::io::copy(&mut upstream, &mut client);
            let _gone = client.shutdown(std::net::Shutdown::Write);
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no runtime whose worker this would block"
)]
fn pause(time: Duration) {
    thread::sleep(time);
}

/// Starts a bottle through the relay; its exit code and what it said.
fn start(host: &Host, relay: &Relay) -> (i32, String) {
    let mut command = host.command(&[
        "start",
        "sh",
        "--headless",
        "--prompt",
        "echo the agent ran",
    ]);
    command
        .env("DOCKER_HOST", format!("unix://{}", relay.path.display()))
        .env("BOT_BOTTLE_DOCKER_TIMEOUT", "3");
    let child = command.spawn().unwrap();
    relay
        .launcher
        .store(i32::try_from(child.id()).unwrap(), Ordering::SeqCst);
    let ran = crate::common::Running::of(child).finish();
    (ran.code, format!("{}{}", ran.stdout, ran.stderr))
}

/// `BOT_BOTTLE_FAULTS=all` takes the slow ones at every call too.
#[test]
fn a_fault_at_any_call_leaves_nothing() {
    let Some((host, _turn)) = engine::host() else {
        return;
    };
    let engine = std::env::var("DOCKER_HOST").unwrap();
    // Images are there already, so that every run makes the same calls.
    assert_eq!(host.sh("true").code, 0);
    let directory = host.home.clone();
    let whole = Relay::start(&directory, &engine, usize::MAX, Fault::None);
    let (code, said) = start(&host, &whole);
    assert_eq!(code, 0, "{said}");
    let calls = whole.calls.lock().unwrap().clone();
    assert!(calls.len() > 10, "{calls:?}");

    let all = std::env::var("BOT_BOTTLE_FAULTS").is_ok_and(|wanted| wanted == "all");
    let mut injected = 0;
    for fault in [
        Fault::Error,
        Fault::ErrorAfter,
        Fault::NoAnswer,
        Fault::Signal,
        Fault::Kill,
    ] {
        for (at, call) in calls.iter().enumerate() {
            let slow = matches!(fault, Fault::ErrorAfter | Fault::NoAnswer);
            if slow && !all && at % 4 != 1 {
                continue;
            }
            let relay = Relay::start(&directory, &engine, at, fault);
            let (code, said) = start(&host, &relay);
            let what = format!("{fault:?} at call {at} ({call}): {code} {said}");
            // What ran was locked first, in every case.
            assert!(
                !said.contains("the agent ran") || said.contains("probe passed 11/11"),
                "{what}"
            );
            if matches!(fault, Fault::Error | Fault::NoAnswer) && !said.contains("the agent ran") {
                assert!(code != 0, "{what}");
                assert!(said.contains("error: "), "the cause is not said: {what}");
            }
            let started = slugs(&host);
            // The engine may still be at what a launcher asked for that was killed meanwhile; the next cleanup finds it.
            let until = Instant::now() + Duration::from_secs(20);
            loop {
                let cleanup = host.run(&["cleanup"]);
                assert_eq!(cleanup.code, 0, "{what}: {}", cleanup.stderr);
                let left: Vec<String> = started
                    .iter()
                    .flat_map(|slug| things(slug))
                    .chain(host.bottles())
                    .chain(host.processes())
                    .collect();
                if left.is_empty() {
                    break;
                }
                assert!(Instant::now() < until, "{left:?} is left by {what}");
                pause(Duration::from_millis(100));
            }
            println!("{fault:?} at {call}: {code}, nothing left");
            fs::remove_dir_all(host.state.join("logs")).unwrap();
            injected += 1;
        }
    }
    println!("{injected} faults at {} calls, nothing left", calls.len());
}
