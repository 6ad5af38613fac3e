//! A bottle's `/etc`: an allow-list, because the host's holds shadow, keys and tokens of package managers.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::mount::MountFlags;

use super::mounts::bind;
use super::step::{Step, StepError};
use super::wire::Setup;
use crate::environment::{AGENT_HOME, AGENT_USER, CA_BUNDLE, CA_CERTIFICATE};

const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Copied where the host has them.
const FILES: [&str; 27] = [
    "alpine-release",
    "bash.bashrc",
    "debian_version",
    "ethertypes",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld-musl-aarch64.path",
    "ld-musl-x86_64.path",
    "ld.so.cache",
    "ld.so.conf",
    "locale.alias",
    "locale.conf",
    "localtime",
    "lsb-release",
    "magic",
    "magic.mime",
    "mime.types",
    "os-release",
    "profile",
    "protocols",
    "redhat-release",
    "services",
    "shells",
    "ssl/openssl.cnf",
    "timezone",
    "xattr.conf",
];

/// Read-only views of the host's.
const DIRECTORIES: [&str; 10] = [
    "alternatives",
    "ca-certificates/extracted",
    "fonts",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.conf.d",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "ssl/certs",
    "terminfo",
];

/// Where toolchains look for the system's certificates when no variable tells them.
const BUNDLES: [&str; 4] = [
    "ssl/certs/ca-certificates.crt",
    "ssl/ca-bundle.pem",
    "pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "ssl/cert.pem",
];

/// `host` and `etc` are the host's `/etc` and the new one.
pub fn build(host: &Path, etc: &Path, setup: &Setup) -> Result<(), StepError> {
    for name in FILES {
        copy(&host.join(name), &etc.join(name)).step(format!("copy /etc/{name}"))?;
    }
    for name in DIRECTORIES {
        let (source, target) = (host.join(name), etc.join(name));
        match fs::symlink_metadata(&source) {
            Ok(meta) if meta.is_dir() => {
                fs::create_dir_all(&target).step(format!("make /etc/{name}"))?;
                bind(
                    &source,
                    &target,
                    MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV,
                )
                .step(format!("mount /etc/{name}"))?;
            }
            Ok(meta) if meta.is_symlink() => {
                copy(&source, &target).step(format!("copy /etc/{name}"))?
            }
            _ => {}
        }
    }
    generate(etc, setup)?;
    certificates(host, etc, setup)
}

fn generate(etc: &Path, setup: &Setup) -> Result<(), StepError> {
    let (uid, gid, host) = (setup.agent_uid, setup.agent_gid, &setup.hostname);
    let shell = if Path::new("/old/bin/bash").exists() {
        "/bin/bash"
    } else {
        "/bin/sh"
    };
    let git = gitconfig(
        &setup.workspace,
        setup.git_name.as_deref(),
        setup.git_email.as_deref(),
    );
    let files = [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/root:/bin/sh\n{AGENT_USER}:x:{uid}:{gid}::{AGENT_HOME}:{shell}\nnobody:x:65534:65534::/:/bin/false\n"
            ),
        ),
        (
            "group",
            format!("root:x:0:\n{AGENT_USER}:x:{gid}:\nnogroup:x:65534:\n"),
        ),
        ("hostname", format!("{host}\n")),
        (
            "hosts",
            format!("127.0.0.1 localhost {host}\n::1 localhost\n"),
        ),
        // The host's may name modules that look for their daemons.
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n".into(),
        ),
        // Names are resolved by the sidecar; a query of the agent's own would be a channel.
        ("resolv.conf", String::new()),
        ("gitconfig", git),
    ];
    for (name, content) in files {
        fs::write(etc.join(name), content).step(format!("write /etc/{name}"))?;
    }
    Ok(())
}

/// The system's git configuration in a bottle: whose commits they are, and that the workspace's owner is no stranger.
pub(crate) fn gitconfig(workspace: &Path, name: Option<&str>, email: Option<&str>) -> String {
    let mut git = format!(
        "[safe]\n\tdirectory = {}\n",
        git_quote(&workspace.to_string_lossy())
    );
    if name.is_some() || email.is_some() {
        git.push_str("[user]\n");
        for (key, value) in [("name", name), ("email", email)] {
            if let Some(value) = value {
                git.push_str(&format!("\t{key} = {}\n", git_quote(value)));
            }
        }
    }
    git
}

fn certificates(host: &Path, etc: &Path, setup: &Setup) -> Result<(), StepError> {
    let system = match &setup.bundle {
        // Absolute on the host; `host` is its `/etc`.
        Some(path) => {
            let root = host.parent().unwrap_or(host);
            let relative = path.strip_prefix("/").unwrap_or(path);
            fs::read_to_string(root.join(relative)).step(format!("read {}", path.display()))?
        }
        None => String::new(),
    };
    let bundle = format!("{}\n{}", system.trim_end(), setup.certificate);
    let root = etc.parent().unwrap_or(etc);
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    fs::create_dir_all(etc.join("bot-bottle")).step("make /etc/bot-bottle")?;
    fs::write(inside(CA_BUNDLE), bundle).step("write the certificates")?;
    fs::write(inside(CA_CERTIFICATE), &setup.certificate).step("write the certificate")?;
    for name in BUNDLES {
        let target = etc.join(name);
        if fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_file()) {
            bind(
                &inside(CA_BUNDLE),
                &target,
                MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV,
            )
            .step(format!("mount /etc/{name}"))?;
        }
    }
    Ok(())
}

/// A link stays one: what it points to is in the bottle, or it dangles.
fn copy(source: &Path, target: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(source) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if meta.is_symlink() {
        return symlink(fs::read_link(source)?, target);
    }
    // Only what everybody on the host may read anyway.
    if !meta.is_file() || meta.len() > MAX_FILE || meta.permissions().mode() & 0o004 == 0 {
        return Ok(());
    }
    let mut content = Vec::new();
    fs::File::open(source)?
        .take(MAX_FILE)
        .read_to_end(&mut content)?;
    fs::write(target, content)
}

fn git_quote(value: &str) -> String {
    let mut quoted = String::from("\"");
    for character in value.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}
