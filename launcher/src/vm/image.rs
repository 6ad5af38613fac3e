//! What a machine's files come from, as a docker-save archive, which smolvm takes as it is.
//!
//! The launcher's own is made in memory and holds mount points: its parts are shared with the machine from a copy that
//! only this bottle has, which a guest cannot change for others even where "read-only" were not kept, and which needs
//! no unpacking. An image of an engine's is exported, and loses what would run by itself: nothing of an image runs
//! before the boundary is proved, and then only what the launcher starts.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::linux::architecture;
use crate::archive;
use crate::backend::BackendError;
use crate::docker;
use crate::plan::ImageSource;
use crate::smol;

/// Of an archive's own descriptions; layers are only copied.
pub(crate) const MAX_JSON: u64 = 16 * 1024 * 1024;
const DIRECTORIES: [&str; 16] = [
    "bin",
    "bot-bottle",
    "dev",
    "etc",
    "etc/bot-bottle",
    "home",
    "home/agent",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr",
    "var",
    "var/tmp",
    "workspace",
];
/// Of an image's description, what a machine's has too. What it would run, as whom and where is ours to say.
const KEPT: [&str; 6] = [
    "architecture",
    "os",
    "variant",
    "created",
    "rootfs",
    "history",
];

/// An archive, and the environment that its image gives to programs.
#[derive(Clone, Debug)]
pub struct Archive {
    pub path: PathBuf,
    pub form: Form,
    pub env: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As `docker save` writes it.
    Image,
    /// As `smolvm pack create` writes it.
    Pack,
}

/// Writes it into `directory`, which is the bottle's.
pub async fn provide(source: &ImageSource, directory: &Path) -> Result<Archive, BackendError> {
    let path = directory.join("image.tar");
    if matches!(source, ImageSource::Own) {
        std::fs::write(&path, own()?)?;
        return Ok(Archive {
            path,
            form: Form::Image,
            env: Vec::new(),
        });
    }
    if let ImageSource::Pack(pack) = source {
        let (from, path) = (pack.clone(), directory.join("image.smolmachine"));
        let to = path.clone();
        let env = tokio::task::spawn_blocking(move || smol::pack::quieten(&from, &to))
            .await
            .map_err(io::Error::other)?
            .map_err(|error| {
                BackendError::Isolate(format!("the pack {}: {error}", pack.display()))
            })?;
        return Ok(Archive {
            path,
            form: Form::Pack,
            env,
        });
    }
    let saved = directory.join("image.saved");
    let from = match source {
        ImageSource::Archive(archive) => archive.clone(),
        _ => {
            docker::save(source, &saved).await?;
            saved.clone()
        }
    };
    let to = path.clone();
    let env = tokio::task::spawn_blocking(move || quieten(&from, &to))
        .await
        .map_err(io::Error::other)?
        .map_err(|error| BackendError::Isolate(format!("the image's archive: {error}")))?;
    if saved.exists() {
        std::fs::remove_file(saved)?;
    }
    Ok(Archive {
        path,
        form: Form::Image,
        env,
    })
}

/// An image of mount points.
fn own() -> io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for directory in DIRECTORIES {
        let mode = if directory.ends_with("tmp") {
            0o1777
        } else {
            0o755
        };
        let mut header = archive::header(mode, 0);
        header.set_entry_type(tar::EntryType::Directory);
        layer.append_data(&mut header, format!("{directory}/"), io::empty())?;
    }
    let layer = layer.into_inner()?;
    let digest = digest(&layer);
    let architecture = architecture(std::env::consts::ARCH);
    let described = json!({
        "architecture": architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let (name, config) = describe(&described, &[])?;
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, &name, &config)?;
    append(&mut archive, "layer.tar", &layer)?;
    append(
        &mut archive,
        "manifest.json",
        &manifest(&name, &["layer.tar".into()])?,
    )?;
    archive.into_inner()
}

/// Copies a docker-save archive with another description of its image; the environment of the old one.
fn quieten(from: &Path, to: &Path) -> io::Result<Vec<String>> {
    let mut file = BufReader::new(File::open(from)?);
    let entries: Value = serde_json::from_slice(&find(&mut file, "manifest.json")?)?;
    let image = match entries.as_array().map(Vec::as_slice) {
        Some([image]) => image,
        _ => return Err(io::Error::other("it does not hold exactly one image")),
    };
    let missing = || io::Error::other("its manifest has no Config or no Layers");
    let config_name = image
        .get("Config")
        .and_then(Value::as_str)
        .ok_or_else(missing)?
        .to_owned();
    let layers: Vec<String> = image
        .get("Layers")
        .and_then(|layers| serde_json::from_value(layers.clone()).ok())
        .ok_or_else(missing)?;
    let old: Value = serde_json::from_slice(&find(&mut file, &config_name)?)?;
    let env: Vec<String> = old
        .pointer("/config/Env")
        .and_then(|env| serde_json::from_value(env.clone()).ok())
        .unwrap_or_default();
    let (name, config) = describe(&old, &env)?;

    let mut archive = tar::Builder::new(BufWriter::new(File::create(to)?));
    append(&mut archive, &name, &config)?;
    append(&mut archive, "manifest.json", &manifest(&name, &layers)?)?;
    file.seek(SeekFrom::Start(0))?;
    let mut old = tar::Archive::new(&mut file);
    for entry in old.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let kind = entry.header().entry_type();
        // Old engines have a link where two layers are the same one.
        let wanted = layers.contains(&path) || kind.is_symlink() || kind.is_hard_link();
        if !wanted {
            continue;
        }
        let mut copy = entry.header().clone();
        if let Some(target) = entry.link_name()?.map(std::borrow::Cow::into_owned) {
            archive.append_link(&mut copy, &path, target)?;
        } else {
            archive.append_data(&mut copy, &path, &mut entry)?;
        }
    }
    archive
        .into_inner()?
        .into_inner()
        .map_err(|error| error.into_error())?
        .sync_all()?;
    Ok(env)
}

pub fn find(file: &mut BufReader<File>, name: &str) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.path()?.to_str() == Some(name) {
            let mut text = Vec::new();
            entry.take(MAX_JSON).read_to_end(&mut text)?;
            return Ok(text);
        }
    }
    Err(io::Error::other(format!("it has no {name}")))
}

/// The image's description without its programs, and the name that it goes by.
fn describe(old: &Value, env: &[String]) -> io::Result<(String, Vec<u8>)> {
    let mut new: Map<String, Value> = KEPT
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), old.get(key)?.clone())))
        .collect();
    new.insert(
        "config".into(),
        json!({"User": "0", "WorkingDir": "/", "Env": env}),
    );
    let config = serde_json::to_vec(&new)?;
    Ok((format!("{}.json", digest(&config)), config))
}

fn manifest(config: &str, layers: &[String]) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&json!([{
        "Config": config,
        "RepoTags": ["bot-bottle:machine"],
        "Layers": layers,
    }]))?)
}

fn append<W: Write>(archive: &mut tar::Builder<W>, name: &str, content: &[u8]) -> io::Result<()> {
    archive::append(archive, name, 0o444, content)
}

fn digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: &[u8]) -> Vec<String> {
        tar::Archive::new(archive)
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn nothing_of_an_image_runs_by_itself() {
        let top = tempfile::tempdir().unwrap();
        let (from, to) = (top.path().join("a.tar"), top.path().join("b.tar"));
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {
                "Entrypoint": ["/evil"], "Cmd": ["x"], "User": "node", "Volumes": {"/data": {}},
                "Healthcheck": {"Test": ["CMD", "/evil"]}, "Env": ["PATH=/image/bin", "A=b"],
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]},
        });
        let mut archive = tar::Builder::new(File::create(&from).unwrap());
        append(&mut archive, "blobs/sha256/1", b"layer").unwrap();
        append(
            &mut archive,
            "blobs/sha256/2",
            &serde_json::to_vec(&config).unwrap(),
        )
        .unwrap();
        append(&mut archive, "index.json", b"{}").unwrap();
        let manifest =
            json!([{"Config": "blobs/sha256/2", "RepoTags": null, "Layers": ["blobs/sha256/1"]}]);
        append(
            &mut archive,
            "manifest.json",
            &serde_json::to_vec(&manifest).unwrap(),
        )
        .unwrap();
        archive.into_inner().unwrap();

        assert_eq!(quieten(&from, &to).unwrap(), ["PATH=/image/bin", "A=b"]);
        let made = std::fs::read(&to).unwrap();
        let names = names(&made);
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(names[2], "blobs/sha256/1");
        let mut file = BufReader::new(File::open(&to).unwrap());
        let config: Value = serde_json::from_slice(&find(&mut file, &names[0]).unwrap()).unwrap();
        assert_eq!(
            config["config"],
            json!({"User": "0", "WorkingDir": "/", "Env": ["PATH=/image/bin", "A=b"]})
        );
        assert_eq!(config["rootfs"]["diff_ids"][0], "sha256:00");
        assert_eq!(find(&mut file, "blobs/sha256/1").unwrap(), b"layer");
    }

    #[test]
    fn our_own_is_the_same_every_time() {
        assert_eq!(own().unwrap(), own().unwrap());
        assert_eq!(names(&own().unwrap()).len(), 3);
    }
}
