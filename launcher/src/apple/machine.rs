//! A container of ours, from its image to its start: loaded, created, read back.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::demand::{Demand, Moment, Refusal};
use super::image;
use super::note::Note;
use super::program::{CallError, Caller, patience};
use super::remove::remove;
use crate::backend::BackendError;
use crate::guest::SOCKET;
use crate::owner::Owner;
use crate::state::Slug;
use crate::undo::UndoStack;
use crate::vm::{self, linux::architecture, share::Share};

/// Between two looks at a container that is about to run.
const AGAIN: Duration = Duration::from_millis(200);

impl From<CallError> for BackendError {
    fn from(error: CallError) -> Self {
        Self::Isolate(error.to_string())
    }
}

/// What a container is made of.
#[derive(Debug)]
pub struct Order<'a> {
    pub slug: &'a Slug,
    pub owner: &'a Owner,
    /// As `docker save` writes it, and the directory that it lies in, which is the bottle's.
    pub archive: &'a Path,
    pub directory: &'a Path,
    pub shares: Vec<Share>,
    /// The sidecar's.
    pub socket: PathBuf,
    /// Its first process.
    pub command: Vec<String>,
    /// Where notes are kept.
    pub notes: &'a Path,
}

/// A container that is there, as it was asked for, and does not run yet.
#[derive(Clone, Debug)]
pub struct Machine {
    demand: Demand,
}

pub async fn create(
    caller: &Caller,
    order: &Order<'_>,
    undo: &mut UndoStack,
) -> Result<Machine, BackendError> {
    let packed = order.directory.join("image.oci.tar");
    let (from, to, slug) = (order.archive.to_owned(), packed.clone(), order.slug.clone());
    let image = tokio::task::spawn_blocking(move || image::pack(&from, &to, &slug))
        .await
        .map_err(io::Error::other)?
        .map_err(|error| BackendError::Isolate(format!("the image's archive: {error}")))?;
    let own = architecture(std::env::consts::ARCH);
    if image.architecture != own {
        return Err(BackendError::Isolate(format!(
            "the image is for {}, and machines here are {own}; build it with `--platform linux/{own}`",
            crate::escape::Escaped(&image.architecture)
        )));
    }

    let note = Note::new(order.slug, order.owner, caller);
    let (name, path) = (note.container(), Note::path(order.notes, order.slug));
    note.write(order.notes)?;
    undo.push(format!("container {name}"), {
        let (caller, slug) = (caller.clone(), order.slug.clone());
        move || undone(&caller, &slug, &path)
    });
    let load = ["image", "load", "--input"].map(str::to_owned).to_vec();
    let load = [load, vec![packed.display().to_string()]].concat();
    caller.change_aside("load the image", load).await?;
    // It is in the store now.
    std::fs::remove_file(&packed)?;

    let demand = Demand {
        name,
        image,
        shares: order.shares.clone(),
        socket: (order.socket.clone(), SOCKET),
        labels: order.owner.labels(order.slug).into_iter().collect(),
        command: order.command.clone(),
        cpus: vm::cpus(),
        memory: vm::memory(),
    };
    caller
        .change_aside("create the container", demand.create())
        .await?;
    let machine = Machine { demand };
    machine.confirm(caller, Moment::BeforeStart).await?;
    Ok(machine)
}

/// The container first: what remembers it goes when it is gone.
fn undone(caller: &Caller, slug: &Slug, note: &Path) -> io::Result<()> {
    match remove(caller, slug) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::remove_file(note)
}

impl Machine {
    pub fn name(&self) -> &str {
        &self.demand.name
    }

    /// Attached to its first process, whose input is its lifeline.
    pub fn start(&self) -> Vec<String> {
        ["start", "--attach", "--interactive", self.name()]
            .map(str::to_owned)
            .to_vec()
    }

    /// Reads it back. Whatever stands in the way of that is a boundary that is not confirmed.
    pub async fn confirm(&self, caller: &Caller, moment: Moment) -> Result<(), BackendError> {
        let until = Instant::now() + patience();
        let refused =
            |why: String| BackendError::NotLocked(format!("the container {}: {why}", self.name()));
        loop {
            let (own, name) = (caller.clone(), self.name().to_owned());
            let said = tokio::task::spawn_blocking(move || {
                own.ask("describe its container", &["inspect", &name])
            })
            .await
            .map_err(io::Error::other)?
            .map_err(|error| refused(error.to_string()))?;
            match self.demand.check(&said, moment) {
                Ok(()) => return Ok(()),
                // What was started answers sooner than it is listed as running.
                Err(Refusal::NotYet) if Instant::now() < until => {}
                Err(refusal) => return Err(refused(refusal.to_string())),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
