//! What a container's files come from.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Longest name of an image: 255 of repository, 128 of tag, and a digest.
const MAX_NAME: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// The launcher's own, for the demo: there is nothing else in it.
    Own,
    /// One that the engine has. Nothing is pulled.
    Named(String),
    Dockerfile(PathBuf),
    /// What `docker save` wrote, for machines, which need no engine with it.
    Archive(PathBuf),
    /// What `smolvm pack create` wrote.
    Pack(PathBuf),
    BuiltIn {
        provider: &'static str,
        #[serde(skip)]
        text: &'static str,
    },
}

impl ImageSource {
    /// A reference as engines take it, and nothing that could be an option or a path.
    pub fn named(text: &str) -> Result<Self, String> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
        let fits = text.len() <= MAX_NAME
            && text
                .bytes()
                .next()
                .is_some_and(|byte| byte.is_ascii_alphanumeric())
            && text.bytes().all(known)
            && !text.contains("..")
            && !text.contains("//");
        if fits {
            Ok(Self::Named(text.to_owned()))
        } else {
            Err(format!(
                "image: {:?} is not the name of an image, such as node:22 or my-agent:latest",
                crate::escape::Escaped(text).to_string()
            ))
        }
    }

    /// `~/x.tar`, `/x.tar`, `./x.tar`, or a pack, `./x.smolmachine`: relative to the manifest's directory. `None` where it is
    /// no path of an archive.
    pub fn archive(
        text: &str,
        manifest: &Path,
        home: Option<&Path>,
    ) -> Option<Result<Self, String>> {
        let is_path = ["/", "./", "../", "~/"]
            .iter()
            .any(|start| text.starts_with(start));
        type Made = fn(PathBuf) -> ImageSource;
        let (made, how): (Made, &str) = match text.rsplit_once('.') {
            _ if !is_path => return None,
            Some((_, "tar")) => (Self::Archive, "docker save IMAGE -o FILE.tar"),
            Some((_, "smolmachine")) => (Self::Pack, "smolvm pack create --image IMAGE -o FILE"),
            _ => return None,
        };
        let path = match (text.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => home.join(rest),
            (Some(_), None) => {
                return Some(Err(format!(
                    "image: {text} starts with ~, and HOME is not set"
                )));
            }
            (None, _) => manifest.parent().unwrap_or(Path::new("/")).join(text),
        };
        Some(match std::fs::canonicalize(&path) {
            Ok(path) if path.is_file() => Ok(made(path)),
            _ => Err(format!("image: {text} is not there; `{how}` writes one")),
        })
    }

    /// Relative to the manifest's directory. What is beside a Dockerfile goes to the engine with it.
    pub fn dockerfile(text: &str, manifest: &Path, home: Option<&Path>) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("dockerfile: {text} {why}"));
        let path = match (text.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => home.join(rest),
            (Some(_), None) => return wrong("starts with ~, and HOME is not set"),
            (None, _) => manifest.parent().unwrap_or(Path::new("/")).join(text),
        };
        let Ok(path) = std::fs::canonicalize(&path) else {
            return wrong("is not there");
        };
        if !path.is_file() {
            return wrong("is not a file");
        }
        let home = home.and_then(|home| std::fs::canonicalize(home).ok());
        if home.is_some_and(|home| path.parent().is_some_and(|parent| home.starts_with(parent))) {
            return wrong(
                "lies in your home directory itself, all of which would be sent to the engine; give it a directory of its own",
            );
        }
        Ok(Self::Dockerfile(path))
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("the launcher's own, with nothing else in it"),
            Self::Named(name) => write!(f, "{name}"),
            Self::Archive(path) => write!(f, "the archive {}", path.display()),
            Self::Pack(path) => write!(f, "the pack {}", path.display()),
            Self::Dockerfile(path) => write!(f, "built from {}", path.display()),
            Self::BuiltIn { provider, .. } => {
                write!(f, "built from the provider's Dockerfile ({provider})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        for text in [
            "node:22",
            "ghcr.io/a/b:1",
            "localhost:5000/x",
            "a@sha256:0123",
        ] {
            assert!(ImageSource::named(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "--privileged",
            "/etc",
            "../x",
            "a b",
            "a\nb",
            "ä",
            "a//b",
            "a/../b",
            &"a".repeat(600),
        ] {
            assert!(ImageSource::named(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_home_directory_is_no_context() {
        let home = tempfile::tempdir().unwrap();
        let manifest = home.path().join("m/bottles/b.md");
        std::fs::create_dir_all(manifest.parent().unwrap()).unwrap();
        for place in ["Dockerfile", "m/bottles/Dockerfile"] {
            std::fs::write(home.path().join(place), "FROM scratch\n").unwrap();
        }
        let parse = |text: &str| ImageSource::dockerfile(text, &manifest, Some(home.path()));
        assert!(parse("Dockerfile").is_ok());
        assert!(parse("~/Dockerfile").unwrap_err().contains("of its own"));
        assert!(parse("missing").unwrap_err().contains("is not there"));
        assert!(parse("..").unwrap_err().contains("is not a file"));
    }
}
