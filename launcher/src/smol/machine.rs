//! A machine of ours, from its row to its running: created, locked, started, looked at again.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use proxy::secrets::Secret;
use serde_json::{Value, json};

use super::demand::{Demand, Lost, Moment, SIDECAR, Way};
use super::lock::{Done, force_allowlist};
use super::note::Note;
use super::program::{CallError, Caller, Failure, Smolvm, patience};
use super::remove::remove;
use super::row::{Database, RowError};
use super::sweep::Watchdog;
use super::version::KEEPS_LISTS;
use crate::backend::BackendError;
use crate::owner::Owner;
use crate::state::Slug;
use crate::undo::UndoStack;
use crate::vm::image::{Archive, Form};
use crate::vm::{self, share::Share};

/// A first start unpacks the image.
const START: u32 = 2;

impl From<CallError> for BackendError {
    fn from(error: CallError) -> Self {
        Self::Isolate(error.to_string())
    }
}

impl From<RowError> for BackendError {
    fn from(error: RowError) -> Self {
        Self::NotLocked(error.to_string())
    }
}

/// What a machine is made of.
#[derive(Debug)]
pub struct Order<'a> {
    pub slug: &'a Slug,
    pub owner: &'a Owner,
    pub image: &'a Archive,
    /// Runs the launcher in the machine.
    pub command: &'a [String],
    pub shares: Vec<Share>,
    pub way: Way,
    /// Of the channel `interceptor`.
    pub interceptor: Option<Interceptor>,
    /// Where notes are kept.
    pub notes: &'a Path,
}

/// Where smolvm hands the guest's connections to, and what it shows itself by there.
#[derive(Clone, Debug)]
pub struct Interceptor {
    pub listen: SocketAddrV4,
    /// 64 hexadecimal digits.
    pub token: Secret,
}

/// smolvm takes it from its environment alone.
const TOKEN_VARIABLE: &str = "SMOLVM_INTERCEPTOR_TOKEN";

/// A machine that runs, locked, with nothing of the agent's in it.
#[derive(Clone, Debug)]
pub struct Machine {
    pub name: String,
    demand: Demand,
    database: Database,
}

pub async fn start(
    smolvm: &Smolvm,
    order: &Order<'_>,
    undo: &mut UndoStack,
) -> Result<Machine, BackendError> {
    let caller = &smolvm.caller;
    if order.image.form == Form::Pack && !smolvm.offers.from {
        return Err(BackendError::Isolate(format!(
            "this smolvm {} has no --from, so no machine can be made from a pack; use an image's archive",
            smolvm.version
        )));
    }
    let note = Note::new(order.slug, order.owner, caller);
    let name = note.machine();
    let path = Note::path(order.notes, order.slug);
    note.write(order.notes)?;
    let watchdog = match Watchdog::start(&path) {
        Ok(watchdog) => watchdog,
        Err(error) => {
            std::fs::remove_file(&path)?;
            return Err(BackendError::Isolate(format!(
                "a watchdog for the machine: {error}"
            )));
        }
    };
    undo.push(format!("machine {name}"), {
        let (caller, name) = (caller.clone(), name.clone());
        move || undone(&caller, &name, &path, watchdog)
    });

    let nothing = nothing()?;
    let demand = Demand {
        machine: name.clone(),
        way: order.way.clone(),
        shares: order.shares.clone(),
        // As the row has what `create` was given.
        host_filter: match smolvm.offers.allow_host_pattern {
            true => format!("={nothing}"),
            false => nothing.clone(),
        },
        workload: workload(order),
        lost: lost(smolvm, order.image.form),
    };
    let arguments = create(smolvm, order, &name, nothing);
    caller
        .change_aside("create the machine", arguments, patience())
        .await?;
    let machine = Machine {
        name,
        demand,
        database: Database::at(caller.place.database()),
    };
    machine.lock()?;
    machine.compare_list(caller).await?;
    machine.boot(caller, order.interceptor.as_ref()).await?;
    machine.confirm(caller).await?;
    Ok(machine)
}

/// The machine first: what remembers it goes when it is gone.
fn undone(caller: &Caller, name: &str, note: &Path, watchdog: Watchdog) -> std::io::Result<()> {
    match remove(caller, name) {
        // The watchdog goes on trying: its input is closed without a word.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::remove_file(note)?;
    watchdog.dismiss()
}

/// The machine's own program, so that none of its image's is. Versions before 1.32.2 do not start a machine without one.
fn workload(order: &Order<'_>) -> Vec<String> {
    let mut line = order.command.to_vec();
    line.push("__machine-idle".into());
    line
}

fn lost(smolvm: &Smolvm, form: Form) -> Lost {
    let with_the_list = form == Form::Pack && smolvm.version < KEEPS_LISTS;
    Lost {
        network: with_the_list,
        host_filter: with_the_list || !smolvm.offers.allow_host_pattern,
    }
}

fn create(smolvm: &Smolvm, order: &Order<'_>, name: &str, nothing: String) -> Vec<String> {
    let mut line: Vec<String> = ["machine", "create", "--name", name]
        .map(str::to_owned)
        .to_vec();
    let mut option = |name: &str, value: String| {
        line.push(name.to_owned());
        line.push(value);
    };
    if smolvm.offers.label {
        let mut labels: Vec<_> = order.owner.labels(order.slug).into_iter().collect();
        labels.sort();
        for (key, value) in labels {
            option("--label", format!("{key}={value}"));
        }
    }
    option("--cpus", vm::cpus().to_string());
    option("--mem", vm::memory().to_string());
    option(
        match order.image.form {
            Form::Image => "--image",
            Form::Pack => "--from",
        },
        order.image.path.display().to_string(),
    );
    for share in &order.shares {
        let mode = if share.read_only { ":ro" } else { "" };
        option(
            "--volume",
            format!("{}:{}{mode}", share.host.display(), share.guest),
        );
    }
    match &order.way {
        Way::Socket { host, guest } => {
            option("--mount-socket", format!("{}:{guest}", host.display()));
        }
        Way::Address(_) | Way::Interceptor => {
            let ip = match &order.way {
                Way::Address(address) => *address.ip(),
                _ => *SIDECAR.ip(),
            };
            option("--allow-cidr", format!("{ip}/32"));
            // `--allow-host` is no substitute: the host must be able to resolve it.
            if smolvm.offers.allow_host_pattern {
                option("--allow-host-pattern", nothing);
            }
        }
    }
    line.push("--".into());
    line.extend(workload(order));
    line
}

/// The one name that is resolved for a guest. It has to be a name, and what asks for it is passed on to the host's
/// resolver as it is, with whatever stands behind the question; so nobody in the guest may know it.
fn nothing() -> std::io::Result<String> {
    let mut random = [0; 20];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    Ok(format!("{}.invalid", HEXLOWER.encode(&random)))
}

impl Machine {
    /// Nothing of it runs yet: the row is as it was asked for, or made so where only the list was lost.
    fn lock(&self) -> Result<(), BackendError> {
        if let Some(list) = self.demand.list() {
            let beside = self.demand.beside();
            let done = force_allowlist(&self.database, &self.name, &list, &beside)?;
            if done == Done::Patched {
                tracing::debug!("the machine's list had to be written");
            }
        }
        let row = self.database.read(&self.name)?;
        self.demand.check(&row, Moment::BeforeStart)?;
        Ok(())
    }

    /// What smolvm itself says of it must be the same.
    async fn compare_list(&self, caller: &Caller) -> Result<(), BackendError> {
        let (own, name) = (caller.clone(), self.name.clone());
        let listed = tokio::task::spawn_blocking(move || own.listed(&name))
            .await
            .map_err(std::io::Error::other)??;
        let Some(listed) = listed else {
            return Err(BackendError::NotLocked(format!(
                "smolvm does not list the machine {}, whose row is in {}: it has its state elsewhere",
                self.name,
                self.database.path.display()
            )));
        };
        self.compare("what smolvm lists", &listed)
    }

    fn compare(&self, what: &str, said: &Value) -> Result<(), BackendError> {
        let list = self.demand.list();
        let network = json!(list.is_some());
        let wanted = json!(list);
        let differs = |key: &str, found: &Value, wanted: &Value| {
            BackendError::NotLocked(format!(
                "{what}: `{key}` is {}, and not {wanted}",
                crate::escape::Escaped(&found.to_string())
            ))
        };
        match said.get("network") {
            Some(found) if *found == network => {}
            found => return Err(differs("network", found.unwrap_or(&Value::Null), &network)),
        }
        // Older ones do not say it.
        match said.get("allowed_cidrs") {
            Some(found) if *found != wanted => Err(differs("allowed_cidrs", found, &wanted)),
            _ => Ok(()),
        }
    }

    async fn boot(
        &self,
        caller: &Caller,
        interceptor: Option<&Interceptor>,
    ) -> Result<(), BackendError> {
        let line = |verb: &str| -> Vec<String> {
            ["machine", verb, "--name", &self.name]
                .map(str::to_owned)
                .to_vec()
        };
        let mut start = line("start");
        let mut starter = caller.clone();
        if let Some(interceptor) = interceptor {
            start.push("--egress-interceptor".into());
            start.push(interceptor.listen.to_string());
            starter = caller.told(TOKEN_VARIABLE, &interceptor.token);
        }
        let limit = patience() * START;
        match starter
            .change_aside("start the machine", start.clone(), limit)
            .await
        {
            Ok(_) => return Ok(()),
            Err(error) if error.kind == Failure::NotFound => return Err(error.into()),
            // A boot can stall, on a busy host above all; once more is worth it.
            Err(error) => tracing::debug!(%error, "the first start failed"),
        }
        // It may not run at all.
        let _stopped = caller
            .change_aside("stop the machine", line("stop"), patience())
            .await;
        // A start writes the row.
        self.lock()?;
        starter
            .change_aside("start the machine", start, limit)
            .await?;
        Ok(())
    }

    /// The row once more, which a start has written, and what the machine was really booted with, where that is said.
    pub async fn confirm(&self, caller: &Caller) -> Result<(), BackendError> {
        let row = self.database.read(&self.name)?;
        self.demand.check(&row, Moment::Running)?;
        let name = self.name.clone();
        let own = caller.clone();
        let said = tokio::task::spawn_blocking(move || {
            own.ask(
                "say where the machine lies",
                &["machine", "data-dir", "--name", &name],
            )
        })
        .await
        .map_err(std::io::Error::other)??;
        let booted = PathBuf::from(said.trim()).join("agent.config.json");
        let Ok(text) = std::fs::read(&booted) else {
            return Ok(());
        };
        let what = "what the machine was booted with";
        let booted: Value = serde_json::from_slice(&text)
            .map_err(|error| BackendError::NotLocked(format!("{what} cannot be read: {error}")))?;
        match booted.get("resources") {
            Some(resources) => self.compare(what, resources),
            None => Ok(()),
        }
    }
}

/// For a guest to answer.
pub fn ready() -> Duration {
    patience()
}
