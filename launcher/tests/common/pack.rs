//! A pack as `smolvm pack create` writes it, of one layer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A manifest that wants a network, a program and a variable, and, beside the layer, a guest's system that is not one.
pub fn pack(path: &Path, layer: &[u8]) {
    let digest = digest(layer);
    let short = &digest[..12];
    let name = format!("layers/{short}.tar");
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    for (name, content) in [("agent-rootfs.tar", b"evil".as_slice()), (&name, layer)] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content).unwrap();
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

pub fn digest(bytes: &[u8]) -> String {
    <sha2::Sha256 as sha2::Digest>::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
