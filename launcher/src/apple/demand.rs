//! What `container inspect` must say of a bottle's container, before its start and after. Everything that it says is held
//! against what was asked for; what is not known is refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::escape::Escaped;
use crate::vm::share::Share;

/// What the launcher's first process in there needs to make a bottle of an image, and to give the agent nothing of it: its
/// files (CHOWN, DAC_OVERRIDE, FOWNER), `/proc` without others' processes (SYS_ADMIN), the agent's user and none of these
/// (SETGID, SETUID, SETPCAP), its end (KILL).
pub const CAPABILITIES: [&str; 8] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
];
/// Of its output, for people.
const MAX_SHOWN: usize = 200;

/// Everything that a container is held against.
#[derive(Clone, Debug)]
pub struct Demand {
    pub name: String,
    pub image: Image,
    pub shares: Vec<Share>,
    /// The sidecar's, on the host and in the guest.
    pub socket: (PathBuf, &'static str),
    pub labels: BTreeMap<String, String>,
    /// Its first process.
    pub command: Vec<String>,
    pub cpus: usize,
    /// In MiB.
    pub memory: u64,
}

/// What it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub reference: String,
    /// Of its index, which binds everything else: `sha256:HEX`.
    pub digest: String,
    /// As OCI names it.
    pub architecture: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It must not run.
    BeforeStart,
    /// It must run.
    Running,
}

/// Why it is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It may be on its way.
    #[error("it does not run yet")]
    NotYet,
    #[error("{0}")]
    Differs(String),
}

type Said = Map<String, Value>;

impl Demand {
    /// Its command line, but for the program.
    pub fn create(&self) -> Vec<String> {
        let mut line = vec!["create".to_owned()];
        let mut option = |name: &str, value: &str| {
            line.push(name.to_owned());
            line.push(value.to_owned());
        };
        option("--name", &self.name);
        for (key, value) in &self.labels {
            option("--label", &format!("{key}={value}"));
        }
        option("--platform", &format!("linux/{}", self.image.architecture));
        option("--cpus", &self.cpus.to_string());
        option("--memory", &format!("{}M", self.memory));
        option("--network", "none");
        option("--uid", "0");
        option("--gid", "0");
        option("--workdir", "/");
        option("--cap-drop", "ALL");
        for capability in CAPABILITIES {
            option("--cap-add", capability);
        }
        for share in &self.shares {
            let mode = if share.read_only { ":ro" } else { "" };
            option(
                "--volume",
                &format!("{}:{}{mode}", share.host.display(), share.guest),
            );
        }
        let (host, guest) = &self.socket;
        option("--volume", &format!("{}:{guest}", host.display()));
        line.extend(["--no-dns", "--init"].map(str::to_owned));
        line.push(self.image.reference.clone());
        line.extend(self.command.iter().cloned());
        line
    }

    /// Holds what `inspect` says against it; the first difference is the error.
    pub fn check(&self, said: &str, moment: Moment) -> Result<(), Refusal> {
        let unread = |why: &str| differs("", &json!(clip(said)), why);
        let all: Vec<Said> =
            serde_json::from_str(said).map_err(|_| unread("a list of one container"))?;
        let [container] = all.as_slice() else {
            return Err(unread("a list of one container"));
        };
        exactly(container, "", &["id", "configuration", "status"])?;
        is(container, "", "id", &json!(self.name))?;
        self.check_configuration(object(container, "configuration")?)?;
        check_status(object(container, "status")?, moment)
    }

    fn check_configuration(&self, said: &Said) -> Result<(), Refusal> {
        const AT: &str = "configuration";
        let wanted = self.configuration();
        let nothing = [
            "dns",
            "shmSize",
            "stopSignal",
            "maskedPaths",
            "readonlyPaths",
        ];
        for (key, value) in &wanted {
            is(said, AT, key, value)?;
        }
        // Where they are not said there are none, and of paths the runtime's own.
        for key in nothing {
            is(said, AT, key, &Value::Null)?;
        }
        let image = object(said, "image")?;
        is(image, "image", "reference", &json!(self.image.reference))?;
        is(
            object(image, "descriptor")?,
            "image.descriptor",
            "digest",
            &json!(self.image.digest),
        )?;
        let platform = object(said, "platform")?;
        is(platform, "platform", "os", &json!("linux"))?;
        is(
            platform,
            "platform",
            "architecture",
            &json!(self.image.architecture),
        )?;
        let resources = object(said, "resources")?;
        is(resources, "resources", "cpus", &json!(self.cpus))?;
        is(
            resources,
            "resources",
            "memoryInBytes",
            &json!(self.memory * 1024 * 1024),
        )?;
        let known: Vec<&str> = wanted
            .keys()
            .map(String::as_str)
            .chain(nothing)
            .chain(["image", "platform", "resources", "creationDate"])
            .collect();
        exactly(said, AT, &known)
    }

    /// All that can be said word for word.
    fn configuration(&self) -> Said {
        let (program, arguments) = match self.command.split_first() {
            Some((program, arguments)) => (program.as_str(), arguments),
            None => ("", [].as_slice()),
        };
        let wanted = json!({
            "id": self.name,
            "mounts": self.mounts(),
            "publishedPorts": [],
            "publishedSockets": [],
            "labels": self.labels,
            "sysctls": {},
            "networks": [],
            "rosetta": false,
            "initProcess": {
                "executable": program,
                "arguments": arguments,
                "environment": [],
                "workingDirectory": "/",
                "terminal": false,
                "user": {"id": {"uid": 0, "gid": 0}},
                "supplementalGroups": [],
                "rlimits": [],
            },
            "runtimeHandler": "container-runtime-linux",
            "virtualization": false,
            "ssh": false,
            "readOnly": false,
            "useInit": true,
            "capAdd": CAPABILITIES,
            "capDrop": ["ALL"],
        });
        match wanted {
            Value::Object(wanted) => wanted,
            _ => Map::new(),
        }
    }

    fn mounts(&self) -> Vec<Value> {
        let mount = |host: &std::path::Path, guest: &str, options: &[&str]| {
            json!({
                "type": {"virtiofs": {}},
                "source": host.to_string_lossy(),
                "destination": guest,
                "options": options,
            })
        };
        let shares = self.shares.iter().map(|share| {
            let options: &[&str] = if share.read_only { &["ro"] } else { &[] };
            mount(&share.host, &share.guest, options)
        });
        let (host, guest) = &self.socket;
        shares.chain([mount(host, guest, &[])]).collect()
    }
}

fn check_status(said: &Said, moment: Moment) -> Result<(), Refusal> {
    const AT: &str = "status";
    exactly(said, AT, &["state", "networks", "startedDate"])?;
    is(said, AT, "networks", &json!([]))?;
    let state = said.get("state").unwrap_or(&Value::Null);
    match moment {
        Moment::Running if *state == json!("stopped") => Err(Refusal::NotYet),
        Moment::Running => is(said, AT, "state", &json!("running")),
        Moment::BeforeStart => is(said, AT, "state", &json!("stopped")),
    }
}

/// Nothing beside these keys, but for what says nothing.
fn exactly(said: &Said, at: &str, known: &[&str]) -> Result<(), Refusal> {
    for (key, value) in said {
        if !known.contains(&key.as_str()) && !value.is_null() {
            return Err(differs(&path(at, key), value, "absent"));
        }
    }
    Ok(())
}

fn is(said: &Said, at: &str, key: &str, wanted: &Value) -> Result<(), Refusal> {
    let found = said.get(key).unwrap_or(&Value::Null);
    if found == wanted {
        return Ok(());
    }
    Err(differs(&path(at, key), found, &wanted.to_string()))
}

fn object<'a>(said: &'a Said, key: &str) -> Result<&'a Said, Refusal> {
    match said.get(key) {
        Some(Value::Object(found)) => Ok(found),
        other => Err(differs(key, other.unwrap_or(&Value::Null), "an object")),
    }
}

fn path(at: &str, key: &str) -> String {
    if at.is_empty() {
        key.to_owned()
    } else {
        format!("{at}.{key}")
    }
}

fn differs(key: &str, found: &Value, wanted: &str) -> Refusal {
    let what = if key.is_empty() {
        "what `container inspect` says".to_owned()
    } else {
        format!("`{}`", Escaped(key))
    };
    Refusal::Differs(format!(
        "{what} is {}, and not {wanted}",
        Escaped(&clip(&found.to_string()))
    ))
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}
