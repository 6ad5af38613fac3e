//! An image as Apple's `container` loads it: an OCI image layout in an archive, made of the one that `docker save` writes.
//!
//! Every file in there is named by its content, and the index binds them all; its digest is what the container's
//! description must name. The name is below `.invalid` (RFC 6761): what is not there can be fetched from nowhere.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::demand::Image;
use crate::archive;
use crate::state::Slug;
use crate::vm::image::find;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// An image's own name, by Apple's annotation and by the one that others read.
const NAMES: [&str; 2] = [
    "com.apple.containerization.image.name",
    "io.containerd.image.name",
];

/// A layer of the old archive.
#[derive(Clone, Debug)]
struct Layer {
    /// SHA-256, in hex.
    digest: String,
    size: u64,
}

pub fn reference(slug: &Slug) -> String {
    format!("bot-bottle.invalid/machine:{slug}")
}

/// Packs the archive `from` into `to`. The image gives no program anything by itself: what it has of an environment is
/// the agent's, and is passed by the launcher.
pub fn pack(from: &Path, to: &Path, slug: &Slug) -> io::Result<Image> {
    let mut file = BufReader::new(File::open(from)?);
    let (config_name, names) = described(&find(&mut file, "manifest.json")?)?;
    let old: Value = serde_json::from_slice(&find(&mut file, &config_name)?)?;
    let layers = measure(&mut file, &names)?;
    let config = describe(&old, &layers)?;
    let architecture = old
        .get("architecture")
        .and_then(Value::as_str)
        .ok_or_else(|| io::Error::other("its description has no architecture"))?
        .to_owned();

    let mut archive = tar::Builder::new(BufWriter::new(File::create(to)?));
    let entry = |kind: &str, digest: &str, size: u64| json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size});
    let config = Blob::of(&config)?;
    let manifest = Blob::of(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": entry(CONFIG, &config.digest, config.size()),
        "layers": layers.iter().map(|layer| entry(LAYER, &layer.digest, layer.size)).collect::<Vec<_>>(),
    }))?;
    let mut of_the_manifest = entry(MANIFEST, &manifest.digest, manifest.size());
    insert(
        &mut of_the_manifest,
        "platform",
        json!({"os": "linux", "architecture": architecture}),
    );
    let index =
        Blob::of(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [of_the_manifest]}))?;
    let reference = reference(slug);
    let mut of_the_index = entry(INDEX, &index.digest, index.size());
    let annotations: HashMap<&str, &str> = NAMES
        .iter()
        .map(|name| (*name, reference.as_str()))
        .collect();
    insert(&mut of_the_index, "annotations", json!(annotations));

    let mut write =
        |name: &str, content: &[u8]| archive::append(&mut archive, name, 0o444, content);
    write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [of_the_index]});
    write("index.json", &serde_json::to_vec(&top)?)?;
    for blob in [&config, &manifest, &index] {
        write(&blob_name(&blob.digest), &blob.content)?;
    }
    copy(&mut file, &names, &layers, &mut archive)?;
    archive
        .into_inner()?
        .into_inner()
        .map_err(|error| error.into_error())?
        .sync_all()?;
    Ok(Image {
        reference,
        digest: format!("sha256:{}", index.digest),
        architecture,
    })
}

struct Blob {
    digest: String,
    content: Vec<u8>,
}

impl Blob {
    fn of(value: &Value) -> io::Result<Self> {
        let content = serde_json::to_vec(value)?;
        Ok(Self {
            digest: HEXLOWER.encode(&Sha256::digest(&content)),
            content,
        })
    }

    fn size(&self) -> u64 {
        u64::try_from(self.content.len()).unwrap_or(u64::MAX)
    }
}

fn blob_name(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(object) = object {
        object.insert(key.to_owned(), value);
    }
}

/// The names of the description and of the layers.
fn described(manifest: &[u8]) -> io::Result<(String, Vec<String>)> {
    let entries: Value = serde_json::from_slice(manifest)?;
    let bad = || io::Error::other("its manifest does not describe exactly one image");
    let Some([image]) = entries.as_array().map(Vec::as_slice) else {
        return Err(bad());
    };
    let config = image
        .get("Config")
        .and_then(Value::as_str)
        .ok_or_else(bad)?;
    let layers = image
        .get("Layers")
        .and_then(|layers| serde_json::from_value(layers.clone()).ok())
        .ok_or_else(bad)?;
    Ok((config.to_owned(), layers))
}

/// What each layer is, in their order. Old engines have a link where two layers are the same one.
fn measure(file: &mut BufReader<File>, names: &[String]) -> io::Result<Vec<Layer>> {
    let mut found: HashMap<String, Layer> = HashMap::new();
    let mut links: HashMap<String, String> = HashMap::new();
    file.seek(SeekFrom::Start(0))?;
    let mut old = tar::Archive::new(file);
    for entry in old.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if !names.contains(&name) {
            continue;
        }
        if let Some(target) = entry.link_name()? {
            links.insert(name, beside(&target));
            continue;
        }
        let size = entry.size();
        let mut hash = Hashing(Sha256::new());
        if io::copy(&mut entry, &mut hash)? != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let digest = HEXLOWER.encode(&hash.0.finalize());
        found.insert(name, Layer { digest, size });
    }
    names
        .iter()
        .map(|name| {
            let target = links.get(name).unwrap_or(name);
            found
                .get(target)
                .cloned()
                .ok_or_else(|| io::Error::other(format!("it has no layer {name}")))
        })
        .collect()
}

/// `../ID/layer.tar`, from a directory beside it.
fn beside(target: &Path) -> String {
    let text = target.to_string_lossy();
    text.strip_prefix("../").unwrap_or(&text).to_owned()
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The image's own description, which must be of exactly these layers, without programs and environment.
fn describe(old: &Value, layers: &[Layer]) -> io::Result<Value> {
    let wanted: Vec<String> = layers
        .iter()
        .map(|layer| format!("sha256:{}", layer.digest))
        .collect();
    if old.pointer("/rootfs/diff_ids") != Some(&json!(wanted)) {
        return Err(io::Error::other(
            "its layers are not those that it describes, or they are compressed; `docker save` writes them as they are",
        ));
    }
    let mut new = old.clone();
    insert(&mut new, "config", json!({"WorkingDir": "/"}));
    Ok(new)
}

fn copy(
    file: &mut BufReader<File>,
    names: &[String],
    layers: &[Layer],
    archive: &mut tar::Builder<BufWriter<File>>,
) -> io::Result<()> {
    let by_name: HashMap<&str, &Layer> = names.iter().map(String::as_str).zip(layers).collect();
    let mut written: Vec<&str> = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    let mut old = tar::Archive::new(file);
    for entry in old.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let Some(layer) = by_name.get(name.as_str()) else {
            continue;
        };
        if !entry.header().entry_type().is_file() || written.contains(&layer.digest.as_str()) {
            continue;
        }
        let mut header = archive::header(0o444, layer.size);
        archive.append_data(
            &mut header,
            blob_name(&layer.digest),
            (&mut entry).take(layer.size),
        )?;
        written.push(&layer.digest);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(top: &Path, layer: &[u8], diff: &str) -> std::path::PathBuf {
        let path = top.join("image.tar");
        let mut archive = tar::Builder::new(File::create(&path).unwrap());
        let config = json!({
            "architecture": "arm64", "os": "linux",
            "config": {"User": "0", "WorkingDir": "/", "Env": ["LD_PRELOAD=/evil.so"]},
            "rootfs": {"type": "layers", "diff_ids": [diff, diff]},
        });
        let manifest = json!([{"Config": "c.json", "RepoTags": ["x:y"], "Layers": ["a/layer.tar", "b/layer.tar"]}]);
        for (name, content) in [
            ("c.json", config.to_string().into_bytes()),
            ("manifest.json", manifest.to_string().into_bytes()),
            ("a/layer.tar", layer.to_vec()),
        ] {
            archive::append(&mut archive, name, 0o444, &content).unwrap();
        }
        let mut link = archive::header(0o777, 0);
        link.set_entry_type(tar::EntryType::Symlink);
        archive
            .append_link(&mut link, "b/layer.tar", "../a/layer.tar")
            .unwrap();
        archive.finish().unwrap();
        path
    }

    fn read(path: &Path) -> HashMap<String, Vec<u8>> {
        tar::Archive::new(File::open(path).unwrap())
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect()
    }

    /// From the top to each layer by digests alone.
    #[test]
    fn everything_is_bound_by_the_index() {
        let top = tempfile::tempdir().unwrap();
        let layer = vec![7; 70_000];
        let digest = HEXLOWER.encode(&Sha256::digest(&layer));
        let from = old(top.path(), &layer, &format!("sha256:{digest}"));
        let slug: Slug = "a-000001".parse().unwrap();
        let to = top.path().join("oci.tar");
        let image = pack(&from, &to, &slug).unwrap();
        assert_eq!(image.reference, "bot-bottle.invalid/machine:a-000001");
        assert_eq!(image.architecture, "arm64");

        let files = read(&to);
        let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
        for (name, content) in &files {
            if let Some(digest) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(HEXLOWER.encode(&Sha256::digest(content)), digest);
            }
        }
        let follow = |entry: &Value| {
            let digest = entry["digest"].as_str().unwrap();
            let name = blob_name(digest.strip_prefix("sha256:").unwrap());
            assert_eq!(entry["size"], files[&name].len());
            name
        };
        let top = json("index.json");
        let entry = &top["manifests"][0];
        assert_eq!(entry["digest"], image.digest);
        assert_eq!(
            entry["annotations"]["com.apple.containerization.image.name"],
            image.reference
        );
        let manifest = json(&follow(&json(&follow(entry))["manifests"][0]));
        let config = json(&follow(&manifest["config"]));
        assert_eq!(config["config"], json!({"WorkingDir": "/"}));
        assert!(!config.to_string().contains("evil"));
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2);
        for entry in layers {
            assert_eq!(files[&follow(entry)], layer);
        }
        // Twice the same layer is there once.
        assert_eq!(files.len(), 6);
        // The same content has the same name, whoever packs it.
        let again = pack(&from, &to, &slug).unwrap();
        assert_eq!(again, image);
    }

    /// The launcher's own, as it is made for every engine.
    #[tokio::test]
    async fn our_own_is_packed() {
        let top = tempfile::tempdir().unwrap();
        let own = crate::vm::image::provide(&crate::plan::ImageSource::Own, top.path())
            .await
            .unwrap();
        let slug: Slug = "demo-000001".parse().unwrap();
        let to = top.path().join("oci.tar");
        let image = pack(&own.path, &to, &slug).unwrap();
        assert!(image.digest.starts_with("sha256:"));
        assert_eq!(read(&to).len(), 6);
    }

    #[test]
    fn a_layer_that_is_not_as_described_is_no_image() {
        let top = tempfile::tempdir().unwrap();
        let from = old(top.path(), b"layer", "sha256:00");
        let slug: Slug = "a-000001".parse().unwrap();
        let error = pack(&from, &top.path().join("oci.tar"), &slug).unwrap_err();
        assert!(
            error.to_string().contains("not those that it describes"),
            "{error}"
        );
    }
}
