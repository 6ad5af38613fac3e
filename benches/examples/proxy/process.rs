//! Processes that are measured: each on one core, with its CPU time and its memory from `/proc`.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The argument by which this program pins itself to a core and becomes another one.
pub const PINNED: &str = "__pinned";

/// The core of the proxies, and that of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    Proxy,
    Load,
}

/// On a machine with one core nothing is gained by pinning.
pub fn pin(core: Core) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let (Some(first), Some(second)) = (cores.next(), cores.next()) else {
        return;
    };
    let mut set = CpuSet::new();
    set.set(match core {
        Core::Proxy => first,
        Core::Load => second,
    });
    sched_setaffinity(None, &set).expect("a core");
}

/// Never returns: the process is the other program from here on.
pub fn become_pinned(command: &[OsString]) {
    pin(Core::Proxy);
    let (program, arguments) = command.split_first().expect("a program");
    let error = Command::new(program).args(arguments).exec();
    panic!("{}: {error}", program.display());
}

/// A thousand tunnels are a thousand descriptors and some.
pub fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = Some(maximum.unwrap_or(8192).min(8192));
    let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current, maximum });
}

/// A program that is measured. Ended when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What it printed first.
    pub ready: String,
}

impl Process {
    /// Starts a program on the core of the proxies and waits for its first line; one without a word is not waited for.
    pub fn start<I: AsRef<OsStr>>(
        command: &[I],
        environment: &[(&str, &str)],
        speaks: bool,
    ) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg(PINNED)
            .args(command)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(if speaks {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let mut ready = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out)
                .read_line(&mut ready)
                .expect("its first line");
            assert!(!ready.is_empty(), "it ended before it was ready");
        }
        Self { child, ready }
    }

    /// Where it listens, if its first line is its port.
    pub fn address(&self) -> SocketAddr {
        let port: u16 = self.ready.trim().parse().expect("its port");
        ([127, 0, 0, 1], port).into()
    }

    /// The process and those that it has started: squid makes its certificates in one of them.
    fn family(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let children = children
            .split_whitespace()
            .map(|id| id.parse().expect("an id"));
        std::iter::once(own).chain(children).collect()
    }

    /// User and system time so far, of all its threads and processes.
    pub fn cpu(&self) -> Duration {
        let of = |id: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // The name in parentheses may hold anything.
            let (_, rest) = stat.rsplit_once(')')?;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let ticks = |at: usize| fields[at].parse::<u64>().expect("a number of ticks");
            Some(ticks(11) + ticks(12))
        };
        let ticks: u64 = self.family().iter().filter_map(of).sum();
        // Linux counts 100 a second for user space on every architecture that Rust runs on.
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory in KiB, now or at its highest.
    pub fn memory(&self, key: &str) -> u64 {
        let of = |id: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            status
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
                .and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        };
        self.family().iter().filter_map(of).sum()
    }

    /// Waits for something that listens on a port.
    pub fn wait_for(&self, port: u16) {
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "it does not listen"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
