//! The launcher's own image: its parts and nothing else. The sidecar runs from it, and the demo's agent.
//!
//! It is made in memory and loaded, not built: no registry, no builder, no base. The tag says what is in it; an image of
//! that tag counts only where its one layer is the very one that we would load, and is run by its id.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use bollard::query_parameters::ImportImageOptions;
use data_encoding::HEXLOWER;
use futures_util::StreamExt;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::engine::{Engine, EngineError, Kind};
use super::names;
use crate::archive::{append, header};
use crate::parts::{DIRECTORY, Kept};

const REPOSITORY: &str = "bot-bottle-sidecar";
/// Nobody, where the container's maker did not say who.
const USER: &str = "65532:65532";
/// Mount points; a read-only root has to have them.
const DIRECTORIES: [&str; 13] = [
    "bot-bottle",
    "dev",
    "etc",
    "etc/bot-bottle",
    "home",
    "home/agent",
    "proc",
    "run",
    "run/bot-bottle",
    "sys",
    "tmp",
    "var",
    "var/tmp",
];

/// The id of the image, which is loaded where the engine does not have it.
pub async fn provide(engine: &Engine, kept: &Kept) -> Result<String, EngineError> {
    let failed = |error: io::Error| EngineError {
        what: "take the launcher's own image".into(),
        why: error.to_string(),
        kind: Kind::Other,
    };
    let tag = format!(
        "{REPOSITORY}:{}",
        kept.content.get(..24).unwrap_or_default()
    );
    let layer_file = kept.directory.with_extension("layer");
    let known = std::fs::read_to_string(&layer_file).ok();
    if let Some(layer) = &known
        && let Some(id) = find(engine, &tag, layer).await?
    {
        return Ok(id);
    }
    let kept = kept.clone();
    let name = tag.clone();
    // Megabytes are copied and hashed, aside.
    let made = tokio::task::spawn_blocking(move || make(&kept, &name)).await;
    let (archive, layer) = made.map_err(io::Error::other).flatten().map_err(failed)?;
    std::fs::write(&layer_file, &layer).map_err(failed)?;
    engine
        .change("load the launcher's own image", |docker| async move {
            let mut progress = docker.import_image(
                ImportImageOptions::default(),
                bollard::body_full(archive.into()),
                None,
            );
            while let Some(step) = progress.next().await {
                step?;
            }
            Ok(())
        })
        .await?;
    find(engine, &tag, &layer)
        .await?
        .ok_or_else(|| EngineError {
            what: "take the launcher's own image".into(),
            why: format!("what it has as {tag} is not what was loaded"),
            kind: Kind::Other,
        })
}

async fn find(engine: &Engine, tag: &str, layer: &str) -> Result<Option<String>, EngineError> {
    let name = tag.to_owned();
    let found = engine
        .ask("look for the launcher's own image", |docker| async move {
            docker.inspect_image(&name).await
        })
        .await;
    let image = match found {
        Ok(image) => image,
        Err(error) if error.kind == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let layers = image
        .root_fs
        .and_then(|root| root.layers)
        .unwrap_or_default();
    Ok(image.id.filter(|_| layers == [layer]))
}

/// A `docker load` archive, and the digest of its layer.
fn make(kept: &Kept, tag: &str) -> io::Result<(Vec<u8>, String)> {
    let layer = layer(kept)?;
    let layer_digest = digest(&layer);
    let mut healthcheck = vec!["CMD".to_owned()];
    healthcheck.extend(kept.command());
    healthcheck.push("__container-health".into());
    let config = json!({
        "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": USER,
            "Entrypoint": kept.command(),
            "Cmd": ["__container-sidecar"],
            "WorkingDir": "/",
            "Labels": HashMap::from([(names::CONTENT, &kept.content)]),
            "Healthcheck": {"Test": healthcheck, "Interval": 30_000_000_000u64, "Timeout": 5_000_000_000u64, "Retries": 3},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "bot-bottle"}],
    });
    let config = serde_json::to_vec(&config)?;
    let config_name = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
    let manifest = json!([{"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::with_capacity(layer.len() + 65536));
    append(&mut archive, &config_name, 0o444, &config)?;
    append(&mut archive, "layer.tar", 0o444, &layer)?;
    append(
        &mut archive,
        "manifest.json",
        0o444,
        &serde_json::to_vec(&manifest)?,
    )?;
    Ok((archive.into_inner()?, layer_digest))
}

fn layer(kept: &Kept) -> io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for directory in DIRECTORIES {
        let mut header = header(0o755, 0);
        header.set_entry_type(tar::EntryType::Directory);
        layer.append_data(&mut header, format!("{directory}/"), io::empty())?;
    }
    for (name, path) in kept.files()? {
        let path_inside = format!("{}/{name}", DIRECTORY.trim_start_matches('/'));
        append_file(&mut layer, &path_inside, &path)?;
    }
    layer.into_inner()
}

fn append_file<W: Write>(archive: &mut tar::Builder<W>, name: &str, path: &Path) -> io::Result<()> {
    append(archive, name, 0o555, &std::fs::read(path)?)
}

pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(bytes)))
}
