//! The engine that the tests run on, and a host that uses it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::common::{self, Host, eventually};

/// Whoever owns the workspace where the tests are root's.
const SOMEBODY: u32 = 1000;
const BUSYBOX: &str = "/bin/busybox";

/// `DOCKER_HOST`, where an engine answers there.
fn socket() -> Option<String> {
    let host = std::env::var("DOCKER_HOST").ok()?;
    let answers = Command::new("docker")
        .arg("version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    answers.then_some(host)
}

/// Bottles of one test at a time: they say which alias they expect.
pub type Turn = MutexGuard<'static, ()>;

fn turn() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host that starts its bottles in containers; `None` without an engine, which the gate does not let pass.
pub fn host() -> Option<(Host, Turn)> {
    let turn = turn();
    Some((prepare(Host::new())?, turn))
}

/// As whoever runs the tests, and as an ordinary user.
pub fn hosts() -> (Vec<Host>, Turn) {
    let turn = turn();
    (Host::all().into_iter().filter_map(prepare).collect(), turn)
}

fn prepare(mut host: Host) -> Option<Host> {
    let socket = socket();
    let here = fixtures::require::require("docker engine (.ci/with-engine)", socket.is_some())
        && fixtures::require::require("busybox-static", Path::new(BUSYBOX).is_file());
    if !here {
        return None;
    }
    host.env.push(("DOCKER_HOST".into(), socket.unwrap()));
    host.env
        .push(("BOT_BOTTLE_BACKEND".into(), "docker".into()));
    if fs::metadata(&host.workspace).is_ok_and(|meta| meta.uid() == 0) {
        chown(&host.workspace, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    }
    // The launcher's parts are a hundred megabytes where it was built for tests; they are the same for every host.
    std::os::unix::fs::symlink(common::parts(&host), host.state.join("guest")).unwrap();
    let image = host.home.join(".bot-bottle/images/sh");
    fs::create_dir_all(&image).unwrap();
    fs::copy(BUSYBOX, image.join("busybox")).unwrap();
    fs::set_permissions(image.join("busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(
        image.join("Dockerfile"),
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nENV FROM_THE_IMAGE=yes PATH=/image/bin:/bin\n",
    )
    .unwrap();
    host.bottle("sh", &bottle(""));
    Some(host)
}

/// The front matter of a bottle whose agent is a shell.
pub fn bottle(more: &str) -> String {
    format!(
        "agent_provider: {{template: command, command: [sh, -c, \"{{prompt}}\"], dockerfile: ../images/sh/Dockerfile}}\n{more}"
    )
}

/// The engine's own, which outlive bottles: those that belong to the directory of its socket.
pub fn processes() -> Vec<u32> {
    let socket = std::env::var("DOCKER_HOST").unwrap();
    let directory = Path::new(socket.trim_start_matches("unix://"))
        .parent()
        .unwrap()
        .to_owned();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let program = line.split('\0').next()?.rsplit('/').next()?.to_owned();
            let ours = line.contains(&directory.display().to_string());
            (ours && (program == "dockerd" || program == "containerd")).then_some(pid)
        })
        .collect()
}

/// What the client says.
pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "docker {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything of the bottles of a state directory that the engine has: `docker` knows no state directory, so by slugs.
pub fn things(slug: &str) -> Vec<String> {
    let filter = format!("label=bot-bottle.slug={slug}");
    let mut all = Vec::new();
    for arguments in [
        ["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"],
        [
            "network",
            "ls",
            "--filter",
            &filter,
            "--format",
            "{{.Name}}",
        ],
    ] {
        all.extend(docker(&arguments).lines().map(str::to_owned));
    }
    all
}

/// Nothing of this host is left: no directory, no process, nothing in the engine.
pub fn is_clean(host: &Host, slugs: &[String]) {
    assert_eq!(host.bottles(), Vec::<String>::new());
    for slug in slugs {
        eventually("something is left in the engine", || {
            things(slug).is_empty()
        });
    }
    eventually("processes are left", || host.processes().is_empty());
}

/// The bottles whose logs this host has: all that it ever started.
pub fn slugs(host: &Host) -> Vec<String> {
    match fs::read_dir(host.state.join("logs")) {
        Ok(entries) => entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect(),
        Err(_) => Vec::new(),
    }
}
