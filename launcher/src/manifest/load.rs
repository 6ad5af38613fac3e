//! From names to the manifests that are meant. Only the chosen chain is read.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use proxy::config::Egress;
use proxy::policy::Policy;
use serde_saphyr::Spanned;

use super::agent::{AgentFile, GitUser};
use super::bottle::{BottleFile, EnvValue, Provider};
use super::front_matter::{Document, Mistake};
use super::image::ImageSource;
use super::template::Template;
use super::{ManifestError, hint};
use crate::environment;
use crate::state::Name;

const DIRECTORY: &str = ".bot-bottle";

/// Where the user's own manifests are.
#[derive(Clone, Debug)]
pub struct Home {
    pub path: PathBuf,
}

/// An agent's manifest.
#[derive(Debug)]
pub struct Agent {
    pub name: Name,
    pub file: PathBuf,
    pub bottle: Option<Name>,
    pub git: GitUser,
    /// The system prompt.
    pub body: String,
    /// The repository's manifest of the same name, which was not used.
    pub shadowed: Option<PathBuf>,
}

/// A bottle's manifest, checked as far as it can be without the host.
#[derive(Debug)]
pub struct Bottle {
    pub name: Name,
    pub file: PathBuf,
    pub env: BTreeMap<String, EnvValue>,
    pub template: Template,
    /// What a container's files would come from.
    pub image: Option<ImageSource>,
    pub egress: Egress,
    /// As written, with the line.
    pub mounts: Vec<(u64, String)>,
}

impl Home {
    pub fn locate() -> Result<Self, ManifestError> {
        let set = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let path = match set("BOT_BOTTLE_HOME") {
            Some(own) => own,
            None => set("HOME").ok_or(ManifestError::NoHome)?.join(DIRECTORY),
        };
        Ok(Self {
            path: std::path::absolute(&path).unwrap_or(path),
        })
    }

    /// The user's own agent of that name, else the repository's.
    pub fn agent(&self, name: &Name, repository: &Path) -> Result<Agent, ManifestError> {
        let file_name = format!("{name}.md");
        let own = self.path.join("agents").join(&file_name);
        let theirs = repository.join(DIRECTORY).join("agents").join(&file_name);
        // A workspace that is the home directory's parent has one `.bot-bottle`, not two.
        let both = own.exists()
            && theirs.exists()
            && fs::canonicalize(&own).ok() != fs::canonicalize(&theirs).ok();
        let (file, shadowed) = match (own.exists(), theirs.exists()) {
            (true, _) => (own, both.then_some(theirs)),
            (false, true) => (theirs, None),
            (false, false) => {
                let directories = [
                    self.path.join("agents"),
                    repository.join(DIRECTORY).join("agents"),
                ];
                return Err(missing(
                    "agent",
                    name,
                    vec![own, theirs],
                    &directories,
                    &["demo"],
                ));
            }
        };
        if !file.starts_with(&self.path) {
            no_links(repository, &file)?;
        }
        let document = Document::read(&file)?;
        let written: AgentFile = document.deserialize()?;
        let bottle = match written.bottle {
            None => None,
            Some(bottle) => Some(bottle.value.parse::<Name>().map_err(|error| {
                document.mistake(bottle.referenced.line(), format!("bottle: {error}"), None)
            })?),
        };
        Ok(Agent {
            name: name.clone(),
            file,
            bottle,
            git: written.git.user,
            body: document.body,
            shadowed,
        })
    }

    pub fn bottle(&self, name: &Name) -> Result<Bottle, ManifestError> {
        let directory = self.path.join("bottles");
        let file = directory.join(format!("{name}.md"));
        if !file.exists() {
            return Err(missing("bottle", name, vec![file], &[directory], &[]));
        }
        Ok(parse_bottle(name, &Document::read(&file)?)?)
    }

    /// Every manifest of the user and of the repository.
    pub fn files(&self, repository: &Path) -> Vec<PathBuf> {
        let directories = [
            self.path.join("bottles"),
            self.path.join("agents"),
            repository.join(DIRECTORY).join("agents"),
        ];
        directories
            .iter()
            .flat_map(|directory| manifests(directory))
            .collect()
    }
}

/// A repository's manifest is what the repository holds: a link would make any file of the user's an agent's prompt.
fn no_links(repository: &Path, file: &Path) -> Result<(), Mistake> {
    let mut path = repository.to_owned();
    for part in file.strip_prefix(repository).unwrap_or(file).components() {
        path.push(part);
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink()) {
            return Err(Mistake {
                file: file.to_owned(),
                line: 0,
                message:
                    "is reached through a symbolic link, which a repository's agent must not be"
                        .into(),
                hint: Some(
                    "write the file itself, or put the agent into ~/.bot-bottle/agents".into(),
                ),
            });
        }
    }
    Ok(())
}

/// Reads one file as the kind that its directory says; the name of what it is.
pub fn check_file(file: &Path) -> Result<&'static str, Mistake> {
    let parent = file.parent().and_then(Path::file_name).unwrap_or_default();
    let document = Document::read(file)?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name: Name = stem
        .parse()
        .map_err(|error| document.mistake(0, format!("the file's name: {error}"), None))?;
    if parent == "bottles" {
        parse_bottle(&name, &document)?;
        Ok("bottle")
    } else if parent == "agents" {
        let written: AgentFile = document.deserialize()?;
        if let Some(bottle) = written.bottle {
            bottle.value.parse::<Name>().map_err(|error| {
                document.mistake(bottle.referenced.line(), format!("bottle: {error}"), None)
            })?;
        }
        Ok("agent")
    } else {
        Err(document.mistake(
            0,
            "is neither a bottle nor an agent",
            Some("a manifest is in a directory that is named `bottles` or `agents`".into()),
        ))
    }
}

fn parse_bottle(name: &Name, document: &Document) -> Result<Bottle, Mistake> {
    let written: BottleFile = document.deserialize()?;
    let Some(provider) = written.agent_provider else {
        let hint = "write `agent_provider: {template: claude}`, or `{template: command, command: [my-agent]}`";
        return Err(document.mistake(0, "names no agent_provider", Some(hint.into())));
    };
    let template = Template::parse(&provider.value)
        .map_err(|(message, hint)| document.mistake(provider.referenced.line(), message, hint))?;
    if let Template::Claude { token } = &template {
        check_reference(token)
            .map_err(|message| document.mistake(provider.referenced.line(), message, None))?;
    }

    let image = image(&provider.value, &template, &document.file)
        .map_err(|message| document.mistake(provider.referenced.line(), message, None))?;

    let mut env = BTreeMap::new();
    for (key, value) in written.env {
        let wrong = |message: String| {
            document.mistake(value.referenced.line(), format!("env.{message}"), None)
        };
        environment::check_name(&key).map_err(|error| wrong(format!("{key}: {error}")))?;
        if environment::is_ours(&key) {
            return Err(wrong(format!(
                "{key}: the launcher sets this variable; take it out"
            )));
        }
        if let EnvValue::FromHost(variable) = &value.value {
            environment::check_name(variable)
                .map_err(|error| wrong(format!("{key}.from_host: {error}")))?;
        }
        env.insert(key, value.value);
    }

    let egress = match written.egress {
        None => Egress::default(),
        Some(egress) => {
            check_egress(document, &egress)?;
            egress.value
        }
    };
    let mounts = written
        .mounts
        .into_iter()
        .map(|mount| (mount.referenced.line(), mount.value))
        .collect();
    Ok(Bottle {
        name: name.clone(),
        file: document.file.clone(),
        env,
        template,
        image,
        egress,
        mounts,
    })
}

fn image(
    provider: &Provider,
    template: &Template,
    manifest: &Path,
) -> Result<Option<ImageSource>, String> {
    match (&provider.image, &provider.dockerfile) {
        (None, None) => Ok(template.image()),
        (Some(_), Some(_)) => {
            Err("agent_provider: `image` and `dockerfile` exclude each other".into())
        }
        (Some(name), None) => {
            let home = env::var_os("HOME").map(PathBuf::from);
            match ImageSource::archive(name, manifest, home.as_deref()) {
                Some(archive) => archive.map(Some),
                None => ImageSource::named(name).map(Some),
            }
        }
        (None, Some(path)) => {
            let home = env::var_os("HOME").map(PathBuf::from);
            ImageSource::dockerfile(path, manifest, home.as_deref()).map(Some)
        }
    }
}

fn check_egress(document: &Document, egress: &Spanned<Egress>) -> Result<(), Mistake> {
    let top = egress.referenced.line();
    if let Some(level) = egress.value.log.filter(|level| *level > 2) {
        return Err(document.mistake(top, format!("egress.log: {level} is not 0, 1 or 2"), None));
    }
    for (index, route) in egress.value.routes.iter().enumerate() {
        if let Some(auth) = &route.auth {
            check_reference(&auth.token_ref).map_err(|message| {
                let line = document.line_of_route(index).unwrap_or(top);
                document.mistake(
                    line,
                    format!("egress.routes[{index}] ({}): auth.{message}", route.host),
                    None,
                )
            })?;
        }
    }
    Policy::compile(&egress.value).map_err(|error| {
        let line = document.line_of_route(error.index).unwrap_or(top);
        document.mistake(line, error.to_string(), None)
    })?;
    Ok(())
}

/// Secrets are named, never written.
fn check_reference(name: &str) -> Result<(), String> {
    environment::check_name(name).map_err(|error| {
        format!("token_ref: {error}; it is the name of a variable of your environment, never the token itself")
    })?;
    if name == "CANARY" {
        // It would become EGRESS_TOKEN_CANARY, which is planted to be caught.
        return Err("token_ref: CANARY is taken by the launcher; rename your variable".into());
    }
    Ok(())
}

fn manifests(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    files.sort();
    files
}

fn missing(
    what: &'static str,
    name: &Name,
    places: Vec<PathBuf>,
    directories: &[PathBuf],
    built_in: &[&str],
) -> ManifestError {
    let mut known: Vec<String> = directories
        .iter()
        .flat_map(|directory| manifests(directory))
        .filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()))
        .chain(built_in.iter().map(|name| (*name).to_owned()))
        .collect();
    known.sort();
    known.dedup();
    let hint = if known.is_empty() {
        format!("\nhint: there is no {what} yet; docs/MANIFESTS.md shows how to write one")
    } else {
        format!("\nhint: {}", hint::instead(name.as_str(), &known))
    };
    ManifestError::Missing {
        what,
        name: name.to_string(),
        places,
        hint,
    }
}
