//! The agent's image: a named one that the engine has, or one that is built from a Dockerfile.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};

use super::engine::{Engine, EngineError, Kind};
use super::image;
use super::names;
use crate::archive;
use crate::backend::{BackendError, Missing};
use crate::plan::ImageSource;

const REPOSITORY: &str = "bot-bottle-agent";
/// A toolchain or two are fetched and compiled.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Of a build's output, for whoever looks for its mistake.
const LAST_LINES: usize = 20;
/// A Dockerfile's directory is sent whole, and held in memory meanwhile.
const MAX_CONTEXT: u64 = 256 * 1024 * 1024;
const MAX_FILES: usize = 10_000;

/// An image that the engine has.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is run by: a tag may come to mean another one.
    pub id: String,
    pub env: Vec<String>,
}

/// `own` is the launcher's image.
pub async fn provide(
    engine: &Engine,
    source: &ImageSource,
    own: &str,
) -> Result<Image, BackendError> {
    match source {
        ImageSource::Own => inspect(engine, own)
            .await?
            .ok_or_else(|| BackendError::Isolate("the launcher's own image is gone".into())),
        ImageSource::Named(name) => inspect(engine, name).await?.ok_or_else(|| {
            BackendError::Missing(vec![Missing {
                what: format!("the engine has no image `{name}`, which the bottle names"),
                remedy: format!("`docker pull {name}` or build it; the launcher pulls nothing"),
            }])
        }),
        ImageSource::Archive(_) | ImageSource::Pack(_) => {
            Err(BackendError::Missing(vec![Missing {
                what: format!("the image is {source}, which containers are not made of"),
                remedy: "write the name of an image into the bottle".into(),
            }]))
        }
        ImageSource::Dockerfile(path) => {
            let context = context(path)
                .map_err(|error| BackendError::Isolate(format!("{}: {error}", path.display())))?;
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            build(engine, context, &name, &path.display().to_string()).await
        }
        ImageSource::BuiltIn { provider, text } => {
            let mut archive = tar::Builder::new(Vec::new());
            archive::append(&mut archive, "Dockerfile", 0o644, text.as_bytes())?;
            let context = archive.into_inner()?;
            build(
                engine,
                context,
                "Dockerfile",
                &format!("the Dockerfile of the provider `{provider}`"),
            )
            .await
        }
    }
}

async fn inspect(engine: &Engine, name: &str) -> Result<Option<Image>, EngineError> {
    let asked = name.to_owned();
    let found = engine
        .ask(format!("look for the image {name}"), |docker| async move {
            docker.inspect_image(&asked).await
        })
        .await;
    match found {
        Ok(image) => Ok(image.id.map(|id| Image {
            id,
            env: image
                .config
                .and_then(|config| config.env)
                .unwrap_or_default(),
        })),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Built once for each content of its context.
async fn build(
    engine: &Engine,
    context: Vec<u8>,
    dockerfile: &str,
    shown: &str,
) -> Result<Image, BackendError> {
    let digest = image::digest(&context);
    let tag = format!(
        "{REPOSITORY}:{}",
        digest
            .trim_start_matches("sha256:")
            .get(..24)
            .unwrap_or_default()
    );
    if let Some(image) = inspect(engine, &tag).await? {
        return Ok(image);
    }
    let progress = progress(shown);
    let options = BuildImageOptionsBuilder::default()
        .dockerfile(dockerfile)
        .t(&tag)
        .rm(true)
        .forcerm(true)
        .labels(&std::collections::HashMap::from([(
            names::CONTENT,
            digest.as_str(),
        )]))
        .build();
    let bar = progress.clone();
    let built = engine
        .change_within(PATIENCE, format!("build {shown}"), |docker| async move {
            let mut last = std::collections::VecDeque::new();
            let mut steps =
                docker.build_image(options, None, Some(bollard::body_full(context.into())));
            while let Some(step) = steps.next().await {
                let text = match step {
                    Ok(step) => step.stream.unwrap_or_default(),
                    Err(error) => return Ok(Err((error.to_string(), last))),
                };
                for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
                    let line = crate::escape::Escaped(line).to_string();
                    bar.set_message(line.clone());
                    last.push_back(line);
                    if last.len() > LAST_LINES {
                        last.pop_front();
                    }
                }
            }
            Ok(Ok(()))
        })
        .await;
    progress.finish_and_clear();
    if let Err((error, last)) = built? {
        let output: String = last.iter().map(|line| format!("  {line}\n")).collect();
        return Err(BackendError::Isolate(format!(
            "{shown} was not built: {}\n{output}hint: the engine needs the network for what a Dockerfile fetches; `docker build` shows the same",
            crate::escape::Escaped(&error)
        )));
    }
    inspect(engine, &tag)
        .await?
        .ok_or_else(|| BackendError::Isolate(format!("{shown} was built and is not there")))
}

/// On a terminal only.
fn progress(shown: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(format!("building {shown}"));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// The Dockerfile's directory as an archive, the same for the same files. The engine reads `.dockerignore` itself.
fn context(dockerfile: &Path) -> io::Result<Vec<u8>> {
    let top = dockerfile
        .parent()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut files = Vec::new();
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
            // A link could lead out of the directory; sockets and devices are nobody's content.
            if files.len() > MAX_FILES {
                return Err(io::Error::other(format!(
                    "its directory holds more than {MAX_FILES} files; give it one of its own"
                )));
            }
        }
    }
    files.sort();
    archive(top, &files)
}

fn archive(top: &Path, files: &[PathBuf]) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::PermissionsExt;
    let mut archive = tar::Builder::new(Vec::new());
    let mut size = 0;
    for path in files {
        let meta = fs::metadata(path)?;
        size += meta.len();
        if size > MAX_CONTEXT {
            return Err(io::Error::other(format!(
                "its directory holds more than {} MiB; give it one of its own",
                MAX_CONTEXT >> 20
            )));
        }
        let name = path.strip_prefix(top).unwrap_or(path).to_string_lossy();
        let mode = if meta.permissions().mode() & 0o111 == 0 {
            0o644
        } else {
            0o755
        };
        archive::append(&mut archive, &name, mode, &fs::read(path)?)?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_the_same_for_the_same_files_and_holds_no_links() {
        let make = |content: &str| {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("Dockerfile"), "FROM scratch\n").unwrap();
            fs::create_dir(directory.path().join("sub")).unwrap();
            fs::write(directory.path().join("sub/file"), content).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
            context(&directory.path().join("Dockerfile")).unwrap()
        };
        assert_eq!(make("a"), make("a"));
        assert_ne!(make("a"), make("b"));
        let archive = make("a");
        let names: Vec<_> = tar::Archive::new(archive.as_slice())
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().into_owned())
            .collect();
        assert_eq!(names, [Path::new("Dockerfile"), Path::new("sub/file")]);
    }
}
