//! Backend `smolmachines` on real machines: `.ci/smolvm` runs this where the host can boot them.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends the test")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::screen::Attached;
use common::{Host, eventually};
use rustix::process::Signal;

/// The directory with the real `smolvm`.
const BIN: &str = "BOT_BOTTLE_SMOLVM_BIN";
/// How many attempts the demo makes is its own affair; that none got through is what counts.
const GOOD: &str = "attacks failed, all 3 controls passed";

/// An ordinary user's host with the real smolvm; `None` where there is none, which `.ci/smolvm` says.
fn host() -> Option<Host> {
    let Some(bin) = std::env::var_os(BIN).map(PathBuf::from) else {
        fixtures::tell!(
            "SKIPPED: a real machine: {BIN} is not set; .ci/smolvm sets it where libkrun boots"
        );
        return None;
    };
    let mut host = Host::unprivileged();
    for (name, value) in [
        (
            "PATH",
            format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()),
        ),
        ("BOT_BOTTLE_BACKEND", "smolmachines".to_owned()),
        ("DOCKER_HOST", "unix:///nonexistent/docker.sock".to_owned()),
    ] {
        host.env.push((name.into(), value));
    }
    for name in [
        "BOT_BOTTLE_SMOLVM_TIMEOUT",
        "BOT_BOTTLE_SKIP_KVM_CHECK",
        "BOT_BOTTLE_SMOLVM_CHANNEL",
        "BOT_BOTTLE_SMOLVM_ADDRESS",
    ] {
        if let Ok(value) = std::env::var(name) {
            host.env.push((name.into(), value));
        }
    }
    busybox(&host.home.join("image.tar"));
    host.bottle(
        "sh",
        "agent_provider: {template: command, command: [sh, -c, \"{prompt}\"], image: ~/image.tar}",
    );
    Some(host)
}

fn left(host: &Host) -> Vec<String> {
    let entries = |path: PathBuf| -> Vec<String> {
        match fs::read_dir(path) {
            Ok(entries) => entries
                .flatten()
                .map(|entry| entry.path().display().to_string())
                // What machines share: unpacked images by their content, and a lock.
                .filter(|path| !path.ends_with("_shared") && !path.ends_with(".lock"))
                .collect(),
            Err(_) => Vec::new(),
        }
    };
    let mut left = entries(host.home.join(".cache/smolvm/vms"));
    left.extend(entries(host.state.join("machines")));
    left.extend(host.bottles());
    left.extend(host.processes());
    left
}

fn step(what: &str, since: &mut Instant) {
    fixtures::tell!("{what}: {:.1} s", since.elapsed().as_secs_f64());
    *since = Instant::now();
}

#[test]
fn the_demo_on_a_real_machine() {
    let Some(host) = host() else { return };
    let mut since = Instant::now();
    let ran = host.run(&["start", "demo", "--timings"]);
    println!("{}{}", ran.stderr, ran.stdout);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains(GOOD), "{}", ran.stdout);
    for bad in ["LEAKED", "BROKEN", "MISSING"] {
        assert!(!ran.stdout.contains(bad), "{}", ran.stdout);
    }
    eventually("something is left", || left(&host).is_empty());
    step("the demo", &mut since);
}

#[test]
fn an_agent_of_an_image_on_a_real_machine() {
    let Some(host) = host() else { return };
    let mut since = Instant::now();
    let script = "id -u; echo $FROM_THE_IMAGE; echo hello > made; cat /etc/resolv.conf; ls /bot-bottle-init 2>&1; \
        ip link | grep -c UP; grep -c agent /etc/passwd; head -c 27 /etc/bot-bottle/ca.pem; echo; uname -r; echo err >&2; exit 42";
    let ran = host.sh(script);
    assert_eq!(ran.code, 42, "{}{}", ran.stdout, ran.stderr);
    println!("{}{}", ran.stdout, ran.stderr);
    let uid = fs::metadata(&host.workspace)
        .map(|meta| std::os::unix::fs::MetadataExt::uid(&meta))
        .unwrap();
    assert!(
        ran.stdout.starts_with(&format!("{uid}\nyes\n")),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("-----BEGIN CERTIFICATE-----"),
        "{}",
        ran.stdout
    );
    assert!(ran.stderr.contains("err\n"), "{}", ran.stderr);
    assert_eq!(
        fs::read_to_string(host.workspace.join("made")).unwrap(),
        "hello\n"
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(
        !ran.stdout.contains(kernel.trim()),
        "it ran on the host's kernel"
    );
    eventually("something is left", || left(&host).is_empty());
    step("an exit code", &mut since);

    // A launcher that is killed takes its way out with it at once, and the machine a moment later.
    let running = host.start();
    step("a start", &mut since);
    running.signal(Signal::KILL);
    running.finish();
    eventually("the machine outlives its launcher", || {
        host.processes().is_empty() && machines(&host).is_empty()
    });
    step("a killed launcher's machine is gone", &mut since);
    host.run(&["cleanup"]);
    eventually("something is left", || left(&host).is_empty());

    on_a_terminal(&host);
    step("a terminal", &mut since);
}

fn on_a_terminal(host: &Host) {
    let script = "stty size; echo ready; read line; echo got $line; while read line; do stty size; done; exit 9";
    host.bottle(
        "sh",
        &format!("agent_provider: {{template: command, command: [sh, -c, \"{script}\"], image: ~/image.tar}}"),
    );
    let mut attached = Attached::to(host);
    let shown = attached.screen.until("ready");
    assert!(shown.contains("33 111"), "{shown:?}");
    attached.types(b"hello\r");
    attached.screen.until("got hello");
    attached.shrinks();
    attached.types(b"\x04");
    assert_eq!(attached.ends(), Some(9));
    eventually("something is left", || left(host).is_empty());
}

fn machines(host: &Host) -> Vec<String> {
    let home = host.home.display().to_string();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            (line.contains(&home) && line.contains("_boot-vm")).then_some(line)
        })
        .collect()
}

/// An archive as `docker save` writes one: busybox, and a program that it wants run.
fn busybox(path: &Path) {
    let mut layer = tar::Builder::new(Vec::new());
    let header = |mode: u32, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(size);
        header
    };
    for directory in [
        "bin", "etc", "tmp", "proc", "sys", "dev", "run", "root", "usr/bin",
    ] {
        let mut header = header(0o755, 0);
        header.set_entry_type(tar::EntryType::Directory);
        layer
            .append_data(&mut header, format!("{directory}/"), std::io::empty())
            .unwrap();
    }
    let busybox = fs::read("/bin/busybox").unwrap();
    layer
        .append_data(
            &mut header(0o755, busybox.len() as u64),
            "bin/busybox",
            busybox.as_slice(),
        )
        .unwrap();
    for name in [
        "sh", "id", "cat", "ls", "ip", "grep", "head", "uname", "stty", "mktemp", "sleep", "true",
    ] {
        let mut link = header(0o777, 0);
        link.set_entry_type(tar::EntryType::Symlink);
        layer
            .append_link(&mut link, format!("bin/{name}"), "busybox")
            .unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let digest: String = <sha2::Sha256 as sha2::Digest>::digest(&layer)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "config": {"Entrypoint": ["/bin/no-such-program"], "Env": ["FROM_THE_IMAGE=yes", "PATH=/bin"]},
    });
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["t:1"], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, content) in [
        ("config.json", config.to_string().into_bytes()),
        ("manifest.json", manifest.to_string().into_bytes()),
        ("layer.tar", layer),
    ] {
        archive
            .append_data(
                &mut header(0o644, content.len() as u64),
                name,
                content.as_slice(),
            )
            .unwrap();
    }
    archive.finish().unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}
