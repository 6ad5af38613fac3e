//! Which backend a start uses. One that was asked for and cannot run is an error, never a quiet downgrade.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::Missing;
use crate::apple;
use crate::docker;
use crate::exit::Exit;
use crate::manifest::ImageSource;
use crate::plan::{Container, Machine};
use crate::smol;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Local,
    Docker,
    Smolmachines,
    MacosContainer,
}

/// In the order in which they are tried; the last two are never of the same host.
const ALL: [Kind; 4] = [
    Kind::Smolmachines,
    Kind::Docker,
    Kind::MacosContainer,
    Kind::Local,
];

/// A backend that can run here, as far as that is known without trying.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub kind: Kind,
    pub why: String,
    pub container: Option<Container>,
    pub machine: Option<Machine>,
}

#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    #[error("unknown backend `{0}`; there are: {all}", all = names())]
    Unknown(String),
    #[error("backend `{kind}` cannot run here: {first}", first = first(.missing))]
    CannotRun { kind: Kind, missing: Vec<Missing> },
}

impl ChooseError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unknown(_) => Exit::Usage,
            Self::CannotRun { .. } => Exit::Preflight,
        }
    }
}

fn names() -> String {
    ALL.map(|kind| kind.to_string()).join(", ")
}

fn first(missing: &[Missing]) -> String {
    missing
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

impl Kind {
    /// What the boundary is made of, in a word.
    pub fn boundary(self) -> &'static str {
        match self {
            Self::Local => "namespaces",
            Self::Docker => "containers",
            Self::Smolmachines | Self::MacosContainer => "a micro-VM",
        }
    }
}

impl Chosen {
    fn has_a_list(&self) -> bool {
        let channel = self
            .machine
            .as_ref()
            .map(|machine| machine.channel.as_str());
        channel.is_some_and(|channel| channel != "socket")
    }

    pub fn strength(&self) -> &'static str {
        match (self.kind, &self.container) {
            (Kind::Smolmachines, _) if self.has_a_list() => {
                "a micro-VM with a kernel of its own, whose network leads to the sidecar alone; an experiment, weaker than the channel `socket`"
            }
            (Kind::Smolmachines, _) => {
                "a micro-VM with a kernel of its own and without a network; without privileges in there, with seccomp"
            }
            (Kind::MacosContainer, _) => {
                "a micro-VM of Apple's with a kernel of its own and without a network; not yet seen on a Mac by those who made this: the probe decides whether it holds"
            }
            (Kind::Local, _) => {
                "namespaces, seccomp and no capabilities; the host's kernel is shared"
            }
            (
                Kind::Docker,
                Some(Container {
                    runtime: Some(_), ..
                }),
            ) => {
                "a container on gVisor's own kernel, without network, privileges or capabilities, with limits"
            }
            (Kind::Docker, _) => {
                "a container without network, privileges or capabilities, with seccomp and limits; the host's kernel is shared"
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Docker => "docker",
            Self::Smolmachines => "smolmachines",
            Self::MacosContainer => "macos-container",
        })
    }
}

impl FromStr for Kind {
    type Err = ChooseError;

    fn from_str(text: &str) -> Result<Self, ChooseError> {
        match text {
            "local" => Ok(Self::Local),
            "docker" => Ok(Self::Docker),
            "smolmachines" => Ok(Self::Smolmachines),
            "macos-container" => Ok(Self::MacosContainer),
            other => Err(ChooseError::Unknown(
                crate::escape::Escaped(other).to_string(),
            )),
        }
    }
}

/// The one that was asked for, else the strongest that can run. `image` is what its files would be made of.
pub fn choose(asked: Option<&str>, image: Option<&ImageSource>) -> Result<Chosen, ChooseError> {
    // A variable that is set to nothing asks for nothing.
    let asked: Option<Kind> = asked
        .filter(|name| !name.is_empty())
        .map(str::parse)
        .transpose()?;
    const ASKED: &str = "it was asked for";
    let cannot = |kind| move |missing| ChooseError::CannotRun { kind, missing };
    match asked {
        Some(Kind::Local) => Ok(local(ASKED.into())),
        Some(Kind::Docker) => container(image)
            .map(|container| docker(container, ASKED.into()))
            .map_err(cannot(Kind::Docker)),
        Some(Kind::Smolmachines) => machine(image)
            .map(|machine| smolmachines(machine, ASKED.into()))
            .map_err(cannot(Kind::Smolmachines)),
        Some(Kind::MacosContainer) => apples(image)
            .map(|machine| macos_container(machine, ASKED.into()))
            .map_err(cannot(Kind::MacosContainer)),
        None => Ok(strongest(image)),
    }
}

fn strongest(image: Option<&ImageSource>) -> Chosen {
    const STRONGEST: &str = "the strongest that this host can run";
    let because = |missing: &[Missing]| {
        let what = missing.first().map(|missing| missing.what.clone());
        what.unwrap_or_default()
    };
    let stronger = match machine(image) {
        Ok(machine) => {
            return smolmachines(
                machine,
                format!("{STRONGEST}; smolvm is here, and a hypervisor"),
            );
        }
        Err(missing) => format!("smolmachines cannot: {}", because(&missing)),
    };
    match container(image) {
        Ok(container) => docker(
            container,
            format!("{STRONGEST}; an engine answers; {stronger}"),
        ),
        Err(missing) => {
            let stronger = format!("docker cannot: {}; {stronger}", because(&missing));
            // Nobody has seen it hold, so it is no choice where there is another.
            match apples(image) {
                Ok(machine) => macos_container(
                    machine,
                    format!("the only one that this host can run; {stronger}"),
                ),
                Err(_) => local(format!("{STRONGEST}; {stronger}")),
            }
        }
    }
}

fn local(why: String) -> Chosen {
    Chosen {
        kind: Kind::Local,
        why,
        container: None,
        machine: None,
    }
}

fn docker(reached: (Container, Option<String>), why: String) -> Chosen {
    let (container, note) = reached;
    Chosen {
        kind: Kind::Docker,
        why: match note {
            Some(note) => format!("{why}; {note}"),
            None => why,
        },
        container: Some(container),
        machine: None,
    }
}

fn smolmachines(machine: Machine, why: String) -> Chosen {
    Chosen {
        kind: Kind::Smolmachines,
        why,
        container: None,
        machine: Some(machine),
    }
}

fn macos_container(machine: Machine, why: String) -> Chosen {
    Chosen {
        kind: Kind::MacosContainer,
        ..smolmachines(machine, why)
    }
}

/// The machine of Apple's that there would be.
fn apples(image: Option<&ImageSource>) -> Result<Machine, Vec<Missing>> {
    // Whether it can be here at all is said first.
    let reached = apple::preflight()?;
    let image = source(image)?;
    if matches!(image, ImageSource::Pack(_)) {
        return Err(vec![Missing {
            what: format!("the image is {image}, which is smolvm's alone"),
            remedy: "write the name of an image into the bottle, or `image: ./x.tar`".into(),
        }]);
    }
    Ok(Machine {
        image,
        engine: "container",
        program: reached.caller.program,
        version: reached.release.to_string(),
        channel: "socket".into(),
    })
}

/// Of what there is an image for a machine.
fn source(image: Option<&ImageSource>) -> Result<ImageSource, Vec<Missing>> {
    let image = image.ok_or_else(|| no_image("a machine"))?;
    // Images come from an engine, all but our own.
    if !matches!(
        image,
        ImageSource::Own | ImageSource::Archive(_) | ImageSource::Pack(_)
    ) {
        docker::Engine::connect().map_err(|missing| vec![missing])?;
    }
    Ok(image.clone())
}

/// The machine that there would be.
fn machine(image: Option<&ImageSource>) -> Result<Machine, Vec<Missing>> {
    if image.is_none() {
        return Err(no_image("a machine"));
    }
    let smolvm = smol::preflight()?;
    let image = source(image)?;
    Ok(Machine {
        image,
        engine: "smolvm",
        program: smolvm.caller.program,
        version: smolvm.version.to_string(),
        channel: smolvm.channel.to_string(),
    })
}

fn no_image(of: &str) -> Vec<Missing> {
    vec![Missing {
        what: format!("the bottle names no image for {of}"),
        remedy: "write `image: NAME` or `dockerfile: PATH` into its agent_provider".into(),
    }]
}

/// The container that there would be, and what should be known about it.
fn container(image: Option<&ImageSource>) -> Result<(Container, Option<String>), Vec<Missing>> {
    let Some(image) = image else {
        return Err(no_image("a container"));
    };
    if let ImageSource::Archive(path) | ImageSource::Pack(path) = image {
        return Err(vec![Missing {
            what: format!("the image is {image}, which containers are not made of"),
            remedy: match image {
                ImageSource::Pack(_) => "write the name of an image into the bottle".into(),
                _ => format!(
                    "`docker load -i {}`, and write its name into the bottle",
                    path.display()
                ),
            },
        }]);
    }
    let reached = docker::reach()?;
    let container = Container {
        image: image.clone(),
        runtime: reached.facts.runtime,
        engine: reached.facts.version,
        socket: reached.engine.socket.clone(),
    };
    Ok((container, reached.facts.gvisor))
}
