//! What an agent's container has over its image's own files: certificates, its user, no resolver.
//!
//! The image's files are read from a container that is made of it and never started, so that nothing of the image runs
//! before the boundary stands.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bollard::models::{ContainerCreateBody, HostConfig, Mount};
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures_util::StreamExt;

use super::container;
use super::engine::{Engine, EngineError, Kind};
use super::names::{Owner, Role};
use crate::environment::{CA_BUNDLE, CA_CERTIFICATE};
use crate::guest::etc::{BUNDLES, group, passwd};
use crate::local::etc::gitconfig;
use crate::plan::Plan;
use crate::undo::UndoStack;
use crate::user::User;

const MAX_FILE: usize = 8 * 1024 * 1024;
/// Links from one place of an image to another, such as /etc/ssl/cert.pem of Alpine.
const MAX_LINKS: usize = 8;
/// The image's own, as far as it has them.
#[derive(Debug, Default)]
pub struct Found {
    passwd: String,
    group: String,
    gitconfig: String,
    bundle: Option<String>,
}

/// Reads them from the image.
pub async fn look(
    engine: &Engine,
    image: &str,
    plan: &Plan,
    owner: &Owner,
    undo: &mut UndoStack,
) -> Result<Found, EngineError> {
    let name = Role::Look.name(&plan.slug);
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["/never-started".into()]),
        labels: Some(Role::Look.labels(&plan.slug, owner)),
        host_config: Some(HostConfig {
            network_mode: Some("none".into()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    container::create(engine, &name, body, undo).await?;
    let mut bundle = None;
    for path in BUNDLES {
        if let Some(text) = read(engine, &name, path).await?
            && text.contains("-----BEGIN CERTIFICATE-----")
        {
            bundle = Some(text);
            break;
        }
    }
    let found = Found {
        passwd: read(engine, &name, "/etc/passwd")
            .await?
            .unwrap_or_default(),
        group: read(engine, &name, "/etc/group").await?.unwrap_or_default(),
        gitconfig: read(engine, &name, "/etc/gitconfig")
            .await?
            .unwrap_or_default(),
        bundle,
    };
    container::remove_now(engine.clone(), name).await?;
    Ok(found)
}

/// A file of a container's; `None` where there is none.
async fn read(engine: &Engine, container: &str, path: &str) -> Result<Option<String>, EngineError> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let options = DownloadFromContainerOptionsBuilder::default()
            .path(&path)
            .build();
        let name = container.to_owned();
        let archive = engine
            .ask(format!("read {path} of the image"), |docker| async move {
                let mut bytes = Vec::new();
                let mut pieces = docker.download_from_container(&name, Some(options));
                while let Some(piece) = pieces.next().await {
                    bytes.extend_from_slice(&piece?);
                    if bytes.len() > MAX_FILE {
                        break;
                    }
                }
                Ok(bytes)
            })
            .await;
        let archive = match archive {
            Ok(archive) => archive,
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match entry(&archive) {
            Ok(Entry::File(text)) => return Ok(Some(text)),
            Ok(Entry::Link(target)) => path = resolve(&path, &target),
            Ok(Entry::Other) | Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

enum Entry {
    File(String),
    Link(PathBuf),
    Other,
}

fn entry(archive: &[u8]) -> io::Result<Entry> {
    let mut archive = tar::Archive::new(archive);
    let Some(entry) = archive.entries()?.next() else {
        return Ok(Entry::Other);
    };
    let mut entry = entry?;
    if let Some(target) = entry.link_name()? {
        return Ok(Entry::Link(target.into_owned()));
    }
    if !entry.header().entry_type().is_file() {
        return Ok(Entry::Other);
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text)?;
    Ok(Entry::File(String::from_utf8_lossy(&text).into_owned()))
}

fn resolve(link: &str, target: &Path) -> String {
    let mut path = if target.is_absolute() {
        PathBuf::from("/")
    } else {
        Path::new(link)
            .parent()
            .unwrap_or(Path::new("/"))
            .to_owned()
    };
    for part in target.components() {
        match part {
            std::path::Component::ParentDir => {
                path.pop();
            }
            std::path::Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}

/// Writes what the agent's container gets over its image's own, into `directory`, and says where each belongs.
pub fn provide(
    directory: &Path,
    found: &Found,
    certificate: &str,
    plan: &Plan,
    user: User,
) -> io::Result<Vec<Mount>> {
    fs::create_dir(directory)?;
    let system = match &found.bundle {
        Some(own) => own.clone(),
        None => match crate::local::host_bundle() {
            Some(path) => fs::read_to_string(path)?,
            None => String::new(),
        },
    };
    let bundle = format!("{}\n{certificate}", system.trim_end());
    let git = format!(
        "{}\n{}",
        found.gitconfig.trim_end(),
        gitconfig(
            plan.workspace.path(),
            plan.git.name.as_deref(),
            plan.git.email.as_deref()
        )
    );
    let mut files: Vec<(&str, &str, String)> = vec![
        ("passwd", "/etc/passwd", passwd(&found.passwd, user)),
        ("group", "/etc/group", group(&found.group, user)),
        ("gitconfig", "/etc/gitconfig", git),
        // Names are resolved by the sidecar; a query of the agent's own would be a channel.
        ("resolv.conf", "/etc/resolv.conf", String::new()),
        // A library that the image has put into every program would be in our helpers too.
        ("ld.so.preload", "/etc/ld.so.preload", String::new()),
        ("ca.pem", CA_CERTIFICATE, certificate.to_owned()),
        ("ca-bundle.pem", CA_BUNDLE, bundle.clone()),
    ];
    for (name, target) in [("bundle-0", BUNDLES[0]), ("bundle-1", BUNDLES[1])] {
        files.push((name, target, bundle.clone()));
    }
    let mut mounts = Vec::new();
    for (name, target, content) in files {
        let path = directory.join(name);
        fs::write(&path, content)?;
        mounts.push(container::bind(&path, target, true));
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_image() {
        let resolved = |link, target: &str| resolve(link, Path::new(target));
        assert_eq!(
            resolved("/etc/ssl/cert.pem", "certs/ca.crt"),
            "/etc/ssl/certs/ca.crt"
        );
        assert_eq!(resolved("/etc/ssl/cert.pem", "/a/./b"), "/a/b");
        assert_eq!(resolved("/etc/x", "../../../../usr/x"), "/usr/x");
    }
}
