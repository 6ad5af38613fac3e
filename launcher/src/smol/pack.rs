//! smolvm's packs (`.smolmachine`): layers of an image as a tar in zstd, a manifest in JSON, and a footer of 64 bytes
//! (smolvm `crates/smolvm-pack/src/format.rs`, 1.7.7).
//!
//! A pack can hold more than an image: programs that run with the machine, environment, a network, the guest's own
//! system, libraries, disks that are somebody else's machine. So a machine is made of a copy that holds the layers
//! alone: nothing of an image runs before the boundary is proved.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::Crc;
use serde_json::{Map, Value, json};

use crate::archive;
use crate::vm::image::MAX_JSON;
use crate::vm::{cpus, memory};

const MAGIC: &[u8; 8] = b"SMOLPACK";
/// What new packs are; all three have the same layout.
const VERSION: u32 = 1;
const READABLE: [u32; 3] = [1, 2, 3];
const FOOTER: usize = 64;
/// Of a pack's description, what a machine's has too.
const KEPT: [&str; 8] = [
    "created",
    "digest",
    "host_platform",
    "image",
    "image_size",
    "mode",
    "platform",
    "smolvm_version",
];

/// Copies a pack with its layers alone; the environment that its image gives to programs.
pub fn quieten(from: &Path, to: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(from)?;
    let (assets, manifest) = Footer::read(&mut file)?.find(&mut file)?;
    let layers = layers(&manifest)?;

    let out = Summed::new(BufWriter::new(File::create(to)?));
    file.seek(SeekFrom::Start(0))?;
    let packed = BufReader::new(file.take(assets));
    let mut out = copy(packed, &layers, out)?;
    let assets = out.length;
    let description = describe(&manifest)?;
    out.write_all(&description)?;
    let footer = Footer {
        assets,
        manifest: length(&description)?,
        sum: out.crc.sum(),
    };
    let mut file = out.inner;
    file.write_all(&footer.bytes())?;
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()?;
    Ok(manifest
        .get("env")
        .and_then(|env| serde_json::from_value(env.clone()).ok())
        .unwrap_or_default())
}

/// The end of a pack, all of whose other parts lie one behind the other.
struct Footer {
    assets: u64,
    manifest: u64,
    /// CRC-32 of both.
    sum: u32,
}

impl Footer {
    fn read(file: &mut File) -> io::Result<Self> {
        let wrong = |why: &str| Err(io::Error::other(why.to_owned()));
        let all = file.metadata()?.len();
        let mut bytes = [0; FOOTER];
        if all < length(&bytes)? {
            return wrong("it is too short for a pack");
        }
        file.seek(SeekFrom::Start(all - length(&bytes)?))?;
        file.read_exact(&mut bytes)?;
        let mut fields = &bytes[..];
        if take(&mut fields)? != *MAGIC {
            return wrong("it does not end like a pack");
        }
        let version = u32::from_le_bytes(take(&mut fields)?);
        if !READABLE.contains(&version) {
            return wrong("it has a format that is not known here");
        }
        let mut number = || take(&mut fields).map(u64::from_le_bytes);
        let (stub, assets_at, assets) = (number()?, number()?, number()?);
        let (manifest_at, manifest) = (number()?, number()?);
        let whole = assets
            .checked_add(manifest)
            .and_then(|sum| sum.checked_add(length(&bytes).ok()?));
        if (stub, assets_at, manifest_at, whole) != (0, 0, assets, Some(all)) {
            return wrong(
                "its parts are not where they should be; name the `.smolmachine` beside the program",
            );
        }
        let sum = u32::from_le_bytes(take(&mut fields)?);
        Ok(Self {
            assets,
            manifest,
            sum,
        })
    }

    /// How long what is packed is, and the manifest.
    fn find(&self, file: &mut File) -> io::Result<(u64, Map<String, Value>)> {
        if self.manifest > MAX_JSON {
            return Err(io::Error::other("its manifest is too long"));
        }
        file.seek(SeekFrom::Start(self.assets))?;
        let mut text = Vec::new();
        file.take(self.manifest).read_to_end(&mut text)?;
        Ok((self.assets, serde_json::from_slice(&text)?))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        for number in [0, 0, self.assets, self.assets, self.manifest] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.sum.to_le_bytes());
        bytes.resize(FOOTER, 0);
        bytes
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn length(bytes: &[u8]) -> io::Result<u64> {
    u64::try_from(bytes.len()).map_err(io::Error::other)
}

/// The paths of its layers, the lowest first.
fn layers(manifest: &Map<String, Value>) -> io::Result<Vec<String>> {
    let mode = manifest.get("mode").and_then(Value::as_str);
    if mode.is_some_and(|mode| mode != "container") {
        return Err(io::Error::other(
            "it is of a whole machine, whose disks can hold programs that start with it; make one of an image, `smolvm pack create --image IMAGE`",
        ));
    }
    let listed = manifest
        .get("assets")
        .and_then(|assets| assets.get("layers"))
        .and_then(Value::as_array)
        .filter(|layers| !layers.is_empty())
        .ok_or_else(|| io::Error::other("its manifest lists no layers"))?;
    listed
        .iter()
        .map(|layer| {
            layer
                .get("path")
                .and_then(Value::as_str)
                .filter(|path| is_layer(path))
                .map(str::to_owned)
                .ok_or_else(|| io::Error::other("a layer is not where layers are"))
        })
        .collect()
}

fn is_layer(path: &str) -> bool {
    path.strip_prefix("layers/")
        .and_then(|name| name.strip_suffix(".tar"))
        .is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

/// Writes the layers out of what is packed, and nothing else of it.
fn copy<W: Write>(packed: impl Read, layers: &[String], out: W) -> io::Result<W> {
    let mut packed = tar::Archive::new(zstd::Decoder::new(packed)?);
    let mut archive = tar::Builder::new(zstd::Encoder::new(out, 1)?);
    let mut left: Vec<&String> = layers.iter().collect();
    for entry in packed.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let before = left.len();
        left.retain(|layer| **layer != path);
        if left.len() == before || !entry.header().entry_type().is_file() {
            continue;
        }
        let mut header = archive::header(0o644, entry.size());
        archive.append_data(&mut header, &path, &mut entry)?;
    }
    if let Some(layer) = left.first() {
        return Err(io::Error::other(format!("it does not hold its {layer}")));
    }
    archive.into_inner()?.finish()
}

/// The manifest, without what would run, open a way, or be the guest's own system.
fn describe(manifest: &Map<String, Value>) -> io::Result<Vec<u8>> {
    let mut new: Map<String, Value> = KEPT
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), manifest.get(*key)?.clone())))
        .collect();
    // smolvm prefers these to what it is asked for, where that is its own default.
    new.insert("cpus".into(), json!(cpus()));
    new.insert("mem".into(), json!(memory()));
    let layers = manifest
        .get("assets")
        .and_then(|assets| assets.get("layers"));
    new.insert(
        "assets".into(),
        json!({
            "libraries": [],
            // The field must be there; there is no such file.
            "agent_rootfs": {"path": "agent-rootfs.tar", "size": 0},
            "layers": layers,
        }),
    );
    Ok(serde_json::to_vec(&new)?)
}

/// Counts and sums what is written through it.
struct Summed<W> {
    inner: W,
    length: u64,
    crc: Crc,
}

impl<W> Summed<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            length: 0,
            crc: Crc::new(),
        }
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        let bytes = bytes.get(..written).unwrap_or_default();
        self.length += length(bytes)?;
        self.crc.update(bytes);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: &str = "layers/0123456789ab.tar";

    fn manifest() -> Value {
        json!({
            "mode": "container", "image": "evil:latest", "digest": "sha256:00", "platform": "linux/amd64",
            "host_platform": "linux/amd64", "created": "2026-11-26T00:00:00Z", "smolvm_version": "1.7.7",
            "cpus": 4, "mem": 8192, "network": true, "cuda": true, "gpu": true, "workdir": "/evil",
            "entrypoint": ["/evil"], "cmd": ["x"], "env": ["PATH=/image/bin", "A=b"],
            "secret_refs": {"T": {"from_env": "GITHUB_TOKEN"}}, "of_tomorrow": ["/evil"],
            "assets": {
                "libraries": [{"path": "lib/libkrun.so", "size": 4}],
                "agent_rootfs": {"path": "agent-rootfs.tar", "size": 4},
                "layers": [{"digest": "sha256:0123456789ab", "path": LAYER, "size": 5}],
                "storage_template": {"path": "storage.ext4", "size": 4},
            },
        })
    }

    fn packed(names: &[&str]) -> Vec<u8> {
        let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
        for name in names {
            archive::append(&mut archive, name, 0o644, b"layer").unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    fn write(path: &Path, assets: &[u8], manifest: &Value) {
        let text = manifest.to_string();
        let footer = Footer {
            assets: length(assets).unwrap(),
            manifest: length(text.as_bytes()).unwrap(),
            sum: 0,
        };
        let parts = [assets, text.as_bytes(), &footer.bytes()];
        std::fs::write(path, parts.concat()).unwrap();
    }

    fn parts(path: &Path) -> (Vec<u8>, Map<String, Value>, u32) {
        let mut file = File::open(path).unwrap();
        let footer = Footer::read(&mut file).unwrap();
        let (assets, manifest) = footer.find(&mut file).unwrap();
        let bytes = std::fs::read(path).unwrap();
        (
            bytes[..usize::try_from(assets).unwrap()].to_vec(),
            manifest,
            footer.sum,
        )
    }

    #[test]
    fn a_machine_is_made_of_the_layers_alone() {
        let top = tempfile::tempdir().unwrap();
        let (from, to) = (top.path().join("a"), top.path().join("b"));
        let all = [
            "agent-rootfs.tar",
            "lib/libkrun.so",
            LAYER,
            "storage.ext4",
            "layers/unlisted.tar",
        ];
        write(&from, &packed(&all), &manifest());
        assert_eq!(quieten(&from, &to).unwrap(), ["PATH=/image/bin", "A=b"]);

        let (assets, manifest, sum) = parts(&to);
        let mut archive = tar::Archive::new(zstd::Decoder::new(assets.as_slice()).unwrap());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect();
        assert_eq!(entries, [(LAYER.to_owned(), b"layer".to_vec())]);
        for gone in [
            "entrypoint",
            "cmd",
            "env",
            "network",
            "cuda",
            "gpu",
            "workdir",
            "secret_refs",
            "of_tomorrow",
        ] {
            assert!(!manifest.contains_key(gone), "{gone}");
        }
        assert_eq!(manifest["image"], "evil:latest");
        assert_eq!(
            manifest["assets"],
            json!({
                "libraries": [], "agent_rootfs": {"path": "agent-rootfs.tar", "size": 0},
                "layers": [{"digest": "sha256:0123456789ab", "path": LAYER, "size": 5}],
            })
        );
        let bytes = std::fs::read(&to).unwrap();
        let mut crc = Crc::new();
        crc.update(&bytes[..bytes.len() - FOOTER]);
        assert_eq!(crc.sum(), sum);
    }

    #[test]
    fn what_is_no_pack_of_an_image_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let (from, to) = (top.path().join("a"), top.path().join("b"));
        let refused = |why: &str| {
            let error = quieten(&from, &to).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        std::fs::write(&from, "short").unwrap();
        refused("too short");
        std::fs::write(&from, [b'x'; 200]).unwrap();
        refused("does not end like a pack");

        let right = packed(&[LAYER]);
        let mut machine = manifest();
        machine["mode"] = json!("vm");
        write(&from, &right, &machine);
        refused("of a whole machine");
        for path in [
            "/etc/passwd",
            "layers/../x.tar",
            "layers/.tar",
            "layers/a/b.tar",
            "lib/x.tar",
        ] {
            let mut elsewhere = manifest();
            elsewhere["assets"]["layers"][0]["path"] = json!(path);
            write(&from, &right, &elsewhere);
            refused("not where layers are");
        }
        let mut empty = manifest();
        empty["assets"]["layers"] = json!([]);
        write(&from, &right, &empty);
        refused("lists no layers");
        write(&from, &packed(&["agent-rootfs.tar"]), &manifest());
        refused("does not hold its layers/0123456789ab.tar");

        // A program with its pack behind it, and parts that overlap.
        write(&from, &right, &manifest());
        let bytes = std::fs::read(&from).unwrap();
        std::fs::write(&from, [b"\x7fELF", bytes.as_slice()].concat()).unwrap();
        refused("not where they should be");
        let mut long = bytes.clone();
        let at = long.len() - FOOTER + 28;
        long[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(&from, long).unwrap();
        refused("not where they should be");
        let mut later = bytes;
        let at = later.len() - FOOTER + 8;
        later[at] = 9;
        std::fs::write(&from, later).unwrap();
        refused("not known here");
    }
}
