//! A host whose `smolvm` is ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use launcher::guest::probe::CHECKS;
use serde_json::{Value, json};

use crate::common::{self, Host, eventually};

/// What `machine create --help` of 1.32.2 offers, as far as it is used.
const OPTIONS: [&str; 13] = [
    "name",
    "label",
    "image",
    "from",
    "cpus",
    "mem",
    "volume",
    "mount-socket",
    "allow-cidr",
    "allow-host-pattern",
    "allow-host",
    "egress-interceptor",
    "timeout",
];

pub struct Fake {
    pub host: Host,
    bin: PathBuf,
    wish: Value,
}

impl Fake {
    /// smolvm 1.32.2, in which everything works; an ordinary user's.
    pub fn new() -> Self {
        let mut host = Host::unprivileged();
        // The launcher's parts are hundreds of megabytes where it was built for tests; they are the same for every
        // host.
        std::os::unix::fs::symlink(common::parts(&host), host.state.join("guest")).unwrap();
        let bin = host.home.join("bin");
        fs::create_dir(&bin).unwrap();
        host.give(&bin);
        let program = bin.join("smolvm");
        fs::write(&program, include_str!("smolvm.py")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(bin.join("guest.py"), include_str!("../common/guest.py")).unwrap();
        for (name, value) in [
            ("PATH", format!("{}:/usr/bin:/bin", bin.display())),
            ("BOT_BOTTLE_BACKEND", "smolmachines".into()),
            ("BOT_BOTTLE_SKIP_KVM_CHECK", "1".into()),
            // There is no image that an engine would have to export.
            ("DOCKER_HOST", "unix:///nonexistent/docker.sock".into()),
        ] {
            host.env.push((name.into(), value));
        }
        let fake = Self {
            host,
            bin,
            wish: json!({"version": "1.32.2", "options": OPTIONS, "checks": CHECKS}),
        };
        image(&fake.host.home.join("image.tar"));
        fake.host.bottle(
            "sh",
            "agent_provider: {template: command, command: [sh, -c, \"{prompt}\"], image: ~/image.tar}",
        );
        fake.write();
        fake
    }

    /// What the bottle's machines are made of, instead of an image.
    pub fn pack(&mut self) -> &mut Self {
        common::pack::pack(&self.host.home.join("image.smolmachine"), b"layer");
        self.host.bottle(
            "sh",
            "agent_provider: {template: command, command: [sh, -c, \"{prompt}\"], image: ~/image.smolmachine}",
        );
        self
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

    /// As another version is.
    pub fn version(&mut self, version: &str, without: &[&str]) -> &mut Self {
        let options: Vec<_> = OPTIONS
            .iter()
            .filter(|option| !without.contains(option))
            .collect();
        self.wish("options", json!(options))
            .wish("version", json!(version))
    }

    fn write(&self) {
        let path = self.bin.join("fake.json");
        fs::write(&path, self.wish.to_string()).unwrap();
        self.host.give(&path);
    }

    pub fn launcher_is(&self, pid: u32) {
        fs::write(self.bin.join("launcher.pid"), pid.to_string()).unwrap();
    }

    /// Verbs, in their order.
    pub fn calls(&self) -> Vec<String> {
        lines(&self.bin.join("calls"))
    }

    /// Rows that machines were started from.
    pub fn started(&self) -> Vec<Value> {
        lines(&self.bin.join("started.jsonl"))
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Forgets what was called and started.
    pub fn forget(&self) {
        for name in ["calls", "started.jsonl"] {
            let path = self.bin.join(name);
            if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
    }

    pub fn database(&self) -> PathBuf {
        self.host.home.join(".local/share/smolvm/server/smolvm.db")
    }

    pub fn rows(&self) -> Vec<String> {
        if !self.database().exists() {
            return Vec::new();
        }
        let connection = rusqlite::Connection::open_with_flags(
            self.database(),
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .unwrap();
        let mut statement = connection.prepare("SELECT name FROM vms").unwrap();
        statement
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap()
    }

    /// Everything that there is of machines: rows, directories, processes, notes.
    pub fn left(&self) -> Vec<String> {
        let entries = |path: PathBuf| -> Vec<String> {
            match fs::read_dir(path) {
                Ok(entries) => entries
                    .flatten()
                    .map(|entry| entry.path().display().to_string())
                    .collect(),
                Err(_) => Vec::new(),
            }
        };
        let mut left = self.rows();
        left.extend(entries(self.host.home.join(".cache/smolvm/vms")));
        left.extend(entries(self.host.state.join("machines")));
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
                (line.contains(&home) && line.contains("_boot-vm"))
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

/// Whether a machine was locked when it was started.
pub fn is_locked(row: &Value) -> bool {
    let by_socket = row["network"] == json!(false)
        && row["allowed_cidrs"].is_null()
        && row["published_sockets"]
            .as_array()
            .is_some_and(|all| all.len() == 1);
    let by_list = row["network"] == json!(true)
        && row["allowed_cidrs"].as_array().is_some_and(|all| {
            all.len() == 1 && all[0].as_str().is_some_and(|cidr| cidr.ends_with("/32"))
        })
        && !row["dns_filter_hosts"].is_null()
        && row["published_sockets"] == json!([]);
    // Started by hand-over or not at all, whatever the list is.
    let interceptor = &row["external_interceptor_required"];
    let by_interceptor = row["allowed_cidrs"] == json!(["192.0.2.1/32"]);
    (by_socket || by_list) && row["ports"] == json!([]) && by_interceptor == (interceptor == true)
}

/// What `docker save` would write of an image that wants to run something.
fn image(path: &Path) {
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Entrypoint": ["/evil"], "Env": ["FROM_THE_IMAGE=yes", "PATH=/usr/bin:/bin"]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": null, "Layers": []}]);
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, content) in [("config.json", config), ("manifest.json", manifest)] {
        let content = content.to_string();
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, content.as_bytes())
            .unwrap();
    }
    archive.finish().unwrap();
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}
