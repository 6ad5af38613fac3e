//! A host of its own for each test: home, state and workspace in a temporary directory, and the real launcher.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation ends the test that it helps"
)]

pub mod pack;
pub mod screen;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// `nobody`, whom every system has.
const UNPRIVILEGED: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds, instead of it: machines that are emulated take their time.
const PATIENCE_VARIABLE: &str = "BOT_BOTTLE_TEST_PATIENCE";

#[derive(Debug)]
pub struct Host {
    _directory: TempDir,
    pub home: PathBuf,
    pub state: PathBuf,
    pub workspace: PathBuf,
    unprivileged: bool,
    pub env: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Host {
    /// As whoever runs the tests.
    pub fn new() -> Self {
        Self::build(false)
    }

    /// As whoever runs the tests, and, where that is root, as an ordinary user too: no root is needed.
    pub fn all() -> Vec<Self> {
        let mut hosts = vec![Self::new()];
        if rustix::process::geteuid().is_root() {
            hosts.push(Self::build(true));
        }
        hosts
    }

    pub fn build(unprivileged: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("bb").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let top = fs::canonicalize(directory.path()).unwrap();
        let host = Self {
            home: top.join("home"),
            state: top.join("state"),
            workspace: top.join("work"),
            unprivileged,
            env: Vec::new(),
            _directory: directory,
        };
        for path in [&host.home, &host.state, &host.workspace] {
            fs::create_dir(path).unwrap();
            host.give(path);
        }
        host.bottle(
            "sh",
            "agent_provider: {template: command, command: [sh, -c, \"{prompt}\"]}",
        );
        host.agent("sh", "bottle: sh", "");
        host
    }

    /// As an ordinary user, where whoever runs the tests can be one.
    pub fn unprivileged() -> Self {
        Self::build(rustix::process::geteuid().is_root())
    }

    pub fn give(&self, path: &Path) {
        if self.unprivileged {
            chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
        }
    }

    pub fn bottle(&self, name: &str, front_matter: &str) -> PathBuf {
        self.manifest("bottles", name, &format!("---\n{front_matter}\n---\n"))
    }

    pub fn agent(&self, name: &str, front_matter: &str, body: &str) -> PathBuf {
        self.manifest(
            "agents",
            name,
            &format!("---\n{front_matter}\n---\n{body}\n"),
        )
    }

    pub fn manifest(&self, kind: &str, name: &str, text: &str) -> PathBuf {
        let directory = self.home.join(".bot-bottle").join(kind);
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{name}.md"));
        fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        // Signals that whoever runs the tests ignores (`nohup`, a shell's `&`) would be ignored by the launcher too.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT,TERM,HUP", "--"]);
        if self.unprivileged {
            let id = UNPRIVILEGED.to_string();
            command
                .args(["setpriv", "--reuid", &id, "--regid", &id])
                .args(["--clear-groups", "--"])
                .arg(shared_launcher());
        } else {
            command.arg(env!("CARGO_BIN_EXE_launcher"));
        }
        command
            .args(arguments)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", &self.home)
            .env("BOT_BOTTLE_STATE", &self.state)
            // Whatever engine this machine has is not what most tests are about.
            .env("BOT_BOTTLE_BACKEND", "local")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.workspace)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.command(arguments).spawn().unwrap())
    }

    /// Runs a shell script as the agent.
    pub fn sh(&self, script: &str) -> Ran {
        self.run(&["start", "sh", "--headless", "--prompt", script])
    }

    /// Starts a bottle that says `up` and then does nothing; returns when it is up.
    pub fn start(&self) -> Running {
        let script = "mktemp up.XXXXXX; while [ ! -e stop ]; do sleep 0.05; done";
        let before = self.ups();
        let child = self
            .command(&["start", "sh", "--headless", "--prompt", script])
            .process_group(0)
            .spawn()
            .unwrap();
        let mut running = Running { child: Some(child) };
        let patience = Instant::now() + patience();
        while self.ups() == before {
            if let Some(status) = running.child.as_mut().unwrap().try_wait().unwrap() {
                let ran = finish(running.child.take().unwrap());
                panic!("the launcher ended with {status}: {}", ran.stderr);
            }
            assert!(Instant::now() < patience, "the bottle is not up");
            pause();
        }
        running
    }

    fn ups(&self) -> usize {
        fs::read_dir(&self.workspace)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("up."))
            .count()
    }

    /// Names of the directories of bottles.
    pub fn bottles(&self) -> Vec<String> {
        match fs::read_dir(self.state.join("bottles")) {
            Ok(entries) => entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect(),
            Err(_) => Vec::new(),
        }
    }

    /// What there is of this host's bottles beside their logs, which stay, and processes: files, those of the launcher's own
    /// in the directory of temporary ones too, and mounts.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        for top in [&self.home, &self.state, &self.workspace] {
            walk(top, &self.state.join("logs"), &mut traces);
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let home = self.home.parent().unwrap().to_string_lossy().into_owned();
        traces.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&home))
                .map(str::to_owned),
        );
        traces.sort();
        traces
    }

    /// Processes that were started for this host: sidecars by their file, stages and agents by their parents.
    pub fn processes(&self) -> Vec<String> {
        let state = self.state.to_string_lossy().into_owned();
        let work = self.workspace.to_string_lossy().into_owned();
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .bytes()
                    .all(|byte| byte.is_ascii_digit())
            })
            .filter_map(|entry| {
                let line = fs::read(entry.path().join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                let cwd = fs::read_link(entry.path().join("cwd"))
                    .ok()
                    .unwrap_or_default();
                let ours =
                    line.contains(&state) || (cwd.to_string_lossy() == work && !line.is_empty());
                ours.then(|| format!("{} {line}", entry.file_name().to_string_lossy()))
            })
            .collect()
    }
}

/// A launcher with a bottle that is up; killed where the test ends first.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
}

impl Running {
    pub fn of(child: Child) -> Self {
        Self { child: Some(child) }
    }

    /// Waits without reading its output; it must end by itself.
    pub fn wait(mut self) -> Option<i32> {
        self.child.take().unwrap().wait().unwrap().code()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }

    pub fn finish(mut self) -> Ran {
        finish(self.child.take().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

fn walk(directory: &Path, but: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path == but {
            continue;
        }
        found.push(path.display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, but, found);
        }
    }
}

/// How often something is done that must leave nothing: 50 times with `BOT_BOTTLE_FAULTS=all`.
pub fn cycles() -> usize {
    match std::env::var("BOT_BOTTLE_FAULTS").is_ok_and(|wanted| wanted == "all") {
        true => 50,
        false => 5,
    }
}

/// Descriptors that a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// One place for each user, and the same in every run: a sweep removes what is old in it.
pub fn parts(host: &Host) -> PathBuf {
    let uid = fs::metadata(&host.state).unwrap().uid();
    let directory = std::env::temp_dir().join(format!("bot-bottle-tests-{uid}"));
    if fs::create_dir(&directory).is_ok() {
        chown(&directory, Some(uid), Some(uid)).unwrap();
    }
    assert_eq!(fs::symlink_metadata(&directory).unwrap().uid(), uid);
    directory
}

/// Waits until `done` holds.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + patience();
    while !done() {
        assert!(Instant::now() < patience, "{what}");
        pause();
    }
}

fn patience() -> Duration {
    std::env::var(PATIENCE_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(PATIENCE, Duration::from_secs)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no runtime whose worker this would block"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

fn finish(mut child: Child) -> Ran {
    let patience = Instant::now() + patience();
    // The pipes are emptied meanwhile, or a child with much to say would never end.
    let mut out = child.stdout.take().unwrap();
    let mut err = child.stderr.take().unwrap();
    let out = std::thread::spawn(move || {
        let mut text = Vec::new();
        out.read_to_end(&mut text).map(|_| text)
    });
    let err = std::thread::spawn(move || {
        let mut text = Vec::new();
        err.read_to_end(&mut text).map(|_| text)
    });
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > patience {
            child.kill().unwrap();
            panic!("the launcher does not end");
        }
        pause();
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let code = status
        .code()
        .unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap());
    Ran {
        code,
        stdout: text(out.join().unwrap().unwrap()),
        stderr: text(err.join().unwrap().unwrap()),
    }
}

/// The launcher where an ordinary user can execute it; the build directory may be closed to others.
fn shared_launcher() -> &'static Path {
    static COPY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_directory, path) = COPY.get_or_init(|| {
        let directory = tempfile::Builder::new().prefix("bbl").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("launcher");
        // It outlives the tests, because a static is never dropped; a link takes no room.
        if fs::hard_link(env!("CARGO_BIN_EXE_launcher"), &path).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_launcher"), &path).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (directory, path)
    });
    path
}
