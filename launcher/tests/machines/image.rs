//! What machines of the tests are made of.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// busybox, with a program that wants to run, as `docker save` writes it and as `smolvm pack create` does.
pub fn write(home: &Path) {
    let layer = layer();
    docker(&home.join("image.tar"), &layer);
    pack(&home.join("image.smolmachine"), &layer);
}

fn layer() -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
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
    layer.into_inner().unwrap()
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header
}

fn digest(bytes: &[u8]) -> String {
    <sha2::Sha256 as sha2::Digest>::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn docker(path: &Path, layer: &[u8]) {
    let digest = digest(layer);
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
        ("layer.tar", layer.to_vec()),
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

/// A manifest that wants a network, a program and a variable, and, beside the layer, a guest's system that is not one.
fn pack(path: &Path, layer: &[u8]) {
    let digest = digest(layer);
    let short = &digest[..12];
    let name = format!("layers/{short}.tar");
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    for (name, content) in [("agent-rootfs.tar", b"evil".as_slice()), (&name, layer)] {
        archive
            .append_data(&mut header(0o644, content.len() as u64), name, content)
            .unwrap();
    }
    let assets = archive.into_inner().unwrap().finish().unwrap();
    let platform = if cfg!(target_arch = "x86_64") {
        "linux/amd64"
    } else {
        "linux/arm64"
    };
    let manifest = serde_json::json!({
        "mode": "container", "image": "packed:latest", "digest": format!("sha256:{digest}"),
        "platform": platform, "host_platform": platform, "created": "2026-11-26T00:00:00Z", "smolvm_version": "1.7.7",
        "entrypoint": ["/bin/no-such-program"], "env": ["FROM_THE_IMAGE=yes", "PATH=/bin"], "network": true,
        "cpus": 4, "mem": 8192,
        "assets": {
            "libraries": [], "agent_rootfs": {"path": "agent-rootfs.tar", "size": 4},
            "layers": [{"digest": format!("sha256:{digest}"), "path": name, "size": layer.len()}],
        },
    })
    .to_string()
    .into_bytes();
    let mut crc = flate2::Crc::new();
    crc.update(&assets);
    crc.update(&manifest);
    let mut footer = b"SMOLPACK\x01\0\0\0".to_vec();
    let packed = assets.len() as u64;
    for number in [0, 0, packed, packed, manifest.len() as u64] {
        footer.extend(number.to_le_bytes());
    }
    footer.extend(crc.sum().to_le_bytes());
    footer.resize(64, 0);
    fs::write(path, [assets, manifest, footer].concat()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}
