//! What machines of the tests are made of.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::pack::pack;

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

fn docker(path: &Path, layer: &[u8]) {
    let digest = crate::common::pack::digest(layer);
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
