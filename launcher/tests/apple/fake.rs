//! A host whose `container` is ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use launcher::guest::probe::CHECKS;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{self, Host, eventually};

/// This machine's, as images name it.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else {
    "arm64"
};

pub struct Fake {
    pub host: Host,
    bin: PathBuf,
    wish: Value,
}

impl Fake {
    /// `container` 1.2.2, in which everything works; an ordinary user's.
    pub fn new() -> Self {
        let mut host = Host::unprivileged();
        // The launcher's parts are hundreds of megabytes where it was built for tests; they are the same for every
        // host.
        std::os::unix::fs::symlink(common::parts(&host), host.state.join("guest")).unwrap();
        let bin = host.home.join("bin");
        fs::create_dir(&bin).unwrap();
        host.give(&bin);
        let program = bin.join("container");
        fs::write(&program, include_str!("container.py")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(bin.join("guest.py"), include_str!("../common/guest.py")).unwrap();
        for (name, value) in [
            ("PATH", format!("{}:/usr/bin:/bin", bin.display())),
            ("BOT_BOTTLE_BACKEND", "macos-container".into()),
            ("BOT_BOTTLE_SKIP_MACOS_CHECK", "1".into()),
            // There is no image that an engine would have to export.
            ("DOCKER_HOST", "unix:///nonexistent/docker.sock".into()),
            // The user's own, which is none of a bottle's business.
            ("SSH_AUTH_SOCK", "/nonexistent/agent.sock".into()),
            ("CONTAINER_DEFAULT_PLATFORM", "linux/amd64".into()),
        ] {
            host.env.push((name.into(), value));
        }
        let fake = Self {
            host,
            bin,
            wish: json!({"version": "1.2.2", "checks": CHECKS}),
        };
        fake.image(ARCHITECTURE);
        fake.host.bottle(
            "sh",
            "agent_provider: {template: command, command: [sh, -c, \"{prompt}\"], image: ~/image.tar}",
        );
        fake.write();
        fake
    }

    pub fn wish(&mut self, key: &str, value: Value) -> &mut Self {
        self.wish[key] = value;
        self.write();
        self
    }

    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.host.env.push((name.into(), value.into()));
        self
    }

    /// Of what the bottle is made.
    pub fn image(&self, architecture: &str) {
        image(&self.host.home.join("image.tar"), architecture);
    }

    fn write(&self) {
        let path = self.bin.join("fake.json");
        fs::write(&path, self.wish.to_string()).unwrap();
        self.host.give(&path);
    }

    pub fn launcher_is(&self, pid: u32) {
        fs::write(self.bin.join("launcher.pid"), pid.to_string()).unwrap();
    }

    pub fn program(&self) -> PathBuf {
        self.bin.join("container")
    }

    /// What was called, but for the questions of a preflight: `verb`, `arguments`, `environment`.
    pub fn calls(&self) -> Vec<Value> {
        lines(&self.bin.join("calls.jsonl"))
    }

    pub fn verbs(&self) -> Vec<String> {
        let verb = |call: &Value| call["verb"].as_str().unwrap().to_owned();
        self.calls().iter().map(verb).collect()
    }

    /// Containers as they were when they were started.
    pub fn started(&self) -> Vec<Value> {
        lines(&self.bin.join("started.jsonl"))
    }

    /// Forgets what was called and started.
    pub fn forget(&self) {
        for name in ["calls.jsonl", "started.jsonl"] {
            let path = self.bin.join(name);
            if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
    }

    fn state(&self) -> PathBuf {
        self.host.home.join(".fake-container")
    }

    pub fn containers(&self) -> Vec<String> {
        entries(&self.state().join("containers"))
    }

    pub fn images(&self) -> Vec<String> {
        let text = fs::read_to_string(self.state().join("images.json")).unwrap_or("{}".into());
        let images: Value = serde_json::from_str(&text).unwrap();
        images.as_object().unwrap().keys().cloned().collect()
    }

    /// Everything that there is of containers: descriptions, images, processes, notes.
    pub fn left(&self) -> Vec<String> {
        let mut left = self.containers();
        left.extend(self.images());
        left.extend(entries(&self.host.state.join("containers")));
        left.extend(self.machines());
        left.extend(self.host.bottles());
        left.extend(self.host.processes());
        left
    }

    /// Processes of machines.
    pub fn machines(&self) -> Vec<String> {
        let home = self.host.home.display().to_string();
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let line = fs::read(entry.path().join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                (line.contains(&home) && line.contains(" _machine "))
                    .then(|| format!("{} {line}", entry.file_name().to_string_lossy()))
            })
            .collect()
    }

    pub fn is_clean(&self) {
        eventually("something is left", || self.left().is_empty());
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        for machine in self.machines() {
            let pid = machine.split(' ').next().and_then(|pid| pid.parse().ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                // It may have ended by itself.
                let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Whether a container was locked when it was started.
pub fn is_locked(container: &Value) -> bool {
    let configuration = &container["configuration"];
    let socket = |mount: &&Value| mount["destination"] == "/run/bot-bottle/egress.sock";
    configuration["networks"] == json!([])
        && configuration["ssh"] == json!(false)
        && configuration["publishedPorts"] == json!([])
        && configuration["publishedSockets"] == json!([])
        && configuration["mounts"]
            .as_array()
            .is_some_and(|mounts| mounts.iter().filter(socket).count() == 1)
}

/// What `docker save` would write of an image that wants to run something.
fn image(path: &Path, architecture: &str) {
    write_image(path, architecture, b"no tar archive, and nobody looks");
}

/// The same with a shell in it.
pub fn busybox(path: &Path) {
    let mut layer = tar::Builder::new(Vec::new());
    let header = |mode: u32, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(size);
        header
    };
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "run", "usr/bin"] {
        let mut header = header(0o755, 0);
        header.set_entry_type(tar::EntryType::Directory);
        layer
            .append_data(&mut header, format!("{directory}/"), std::io::empty())
            .unwrap();
    }
    let program = fs::read("/bin/busybox").unwrap();
    let mut header_of_it = header(0o755, program.len() as u64);
    layer
        .append_data(&mut header_of_it, "usr/bin/busybox", program.as_slice())
        .unwrap();
    for name in ["sh", "id", "grep", "cat", "ls"] {
        let mut link = header(0o777, 0);
        link.set_entry_type(tar::EntryType::Symlink);
        layer
            .append_link(&mut link, format!("usr/bin/{name}"), "busybox")
            .unwrap();
    }
    write_image(path, ARCHITECTURE, &layer.into_inner().unwrap());
}

fn write_image(path: &Path, architecture: &str, layer: &[u8]) {
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(layer));
    let config = json!({
        "architecture": architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "config": {"Entrypoint": ["/evil"], "Env": ["FROM_THE_IMAGE=yes", "PATH=/usr/bin:/bin", "LD_PRELOAD=/evil.so"]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": null, "Layers": ["1/layer.tar"]}]);
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, content) in [
        ("config.json", config.to_string().into_bytes()),
        ("manifest.json", manifest.to_string().into_bytes()),
        ("1/layer.tar", layer.to_vec()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, content.as_slice())
            .unwrap();
    }
    archive.finish().unwrap();
}

fn entries(path: &Path) -> Vec<String> {
    match fs::read_dir(path) {
        Ok(entries) => entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect(),
        Err(_) => Vec::new(),
    }
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
