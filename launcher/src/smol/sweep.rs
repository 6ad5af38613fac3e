//! What dead launchers left of machines, found by notes and labels, and the watchdog that does not wait for a sweep.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::note::{self, Note};
use super::program::{self, Caller};
use super::remove::remove;
use crate::owner::{self, Life};
use crate::state::Slug;

/// A watchdog whose smolvm fails tries again for so long; then a sweep has to.
const WATCH: Duration = Duration::from_secs(300);
const AGAIN: Duration = Duration::from_secs(2);
/// What a launcher that has removed its machine itself says.
const DONE: u8 = b'd';

#[derive(Debug, Default)]
pub struct Found {
    /// Their launchers are dead.
    pub dead: BTreeSet<String>,
    /// Machines of others, whose launchers cannot be judged from here.
    pub spared: BTreeSet<String>,
}

/// Looks at the notes, and with `labels` at all machines of this user's smolvm too.
pub fn look(notes: &Path, labels: bool) -> io::Result<Found> {
    let mut found = Found::default();
    for (_, note) in note::all(notes)? {
        found.add(note.slug.to_string(), note.life());
    }
    if labels {
        for (slug, life) in labelled()?.1 {
            found.add(slug.to_string(), life);
        }
    }
    Ok(found)
}

impl Found {
    fn add(&mut self, slug: String, life: Life) {
        match life {
            Life::Alive => {}
            Life::Dead => {
                self.dead.insert(slug);
            }
            Life::Unknown => {
                self.spared.insert(slug);
            }
        }
    }
}

/// Removes what dead launchers left; the names of the bottles. What fails does not keep the others from being removed.
pub fn sweep(notes: &Path, labels: bool) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    let mut first = None;
    for (path, note) in note::all(notes)? {
        if note.life() != Life::Dead {
            continue;
        }
        match clear(&path, &note) {
            Ok(()) => removed.push(note.slug.to_string()),
            Err(error) => first = first.or(Some(error)),
        }
    }
    if labels {
        let (caller, machines) = labelled()?;
        for (slug, life) in machines {
            let Some(caller) = caller.as_ref().filter(|_| life == Life::Dead) else {
                continue;
            };
            match remove(caller, &note::machine(&slug)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    first = first.or(Some(error));
                }
                _ => removed.push(slug.to_string()),
            }
        }
    }
    match first {
        None => Ok(removed),
        Some(error) => Err(error),
    }
}

fn clear(path: &Path, note: &Note) -> io::Result<()> {
    match remove(&note.caller()?, &note.machine()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Who can remove them, and whose they are.
type Labelled = (Option<Caller>, Vec<(Slug, Life)>);

/// Machines that are marked as ours, where there is a smolvm that marks machines.
fn labelled() -> io::Result<Labelled> {
    let Ok(smolvm) = program::reach() else {
        return Ok((None, Vec::new()));
    };
    let mut found = Vec::new();
    for machine in smolvm.caller.list()? {
        let name = machine
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let Some(slug) = name
            .strip_prefix(note::PREFIX)
            .and_then(|slug| slug.parse::<Slug>().ok())
        else {
            continue;
        };
        let labels: HashMap<String, String> = machine
            .get("labels")
            .and_then(|labels| serde_json::from_value(labels.clone()).ok())
            .unwrap_or_default();
        // A name alone is no proof that it is ours.
        if labels.get(owner::SLUG).map(String::as_str) == Some(slug.as_str()) {
            found.push((slug, owner::life(&labels)));
        }
    }
    Ok((Some(smolvm.caller), found))
}

/// Runs beside the launcher and outlives it: removes the machine when the launcher has died without doing so.
#[derive(Debug)]
pub struct Watchdog {
    child: Child,
}

impl Watchdog {
    pub fn start(note: &Path) -> io::Result<Self> {
        let child = Command::new("/proc/self/exe")
            .arg("__machine-watchdog")
            .arg(note)
            .env_clear()
            .envs(
                std::env::vars_os()
                    .filter(|(name, _)| name.to_str().is_some_and(is_for_the_watchdog)),
            )
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child })
    }

    /// The machine is gone; so may it be.
    pub fn dismiss(mut self) -> io::Result<()> {
        use std::io::Write;
        if let Some(mut stdin) = self.child.stdin.take() {
            // It may have been killed.
            let _gone = stdin.write_all(&[DONE]);
        }
        self.child.wait()?;
        Ok(())
    }
}

/// What it calls smolvm with; nothing of the user's secrets.
fn is_for_the_watchdog(name: &str) -> bool {
    [
        "PATH",
        "HOME",
        "SMOLVM_LIB_DIR",
        "SMOLVM_AGENT_ROOTFS",
        program::PATIENCE_VARIABLE,
    ]
    .contains(&name)
        || name.starts_with("XDG_")
}

/// `__machine-watchdog NOTE`.
pub fn watchdog(path: &Path) -> ExitCode {
    // Not in the terminal's session: the hangup that ends a launcher must not end this.
    let _leader = rustix::process::setsid();
    let mut word = [0; 1];
    match io::stdin().read(&mut word) {
        Ok(1..) if word == [DONE] => return ExitCode::SUCCESS,
        _ => {}
    }
    let until = Instant::now() + WATCH;
    loop {
        // A sweep was faster.
        let Ok(note) = Note::read(path) else {
            return ExitCode::SUCCESS;
        };
        if clear(path, &note).is_ok() {
            return ExitCode::SUCCESS;
        }
        if Instant::now() > until {
            return ExitCode::FAILURE;
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a process of its own, without a runtime"
)]
fn pause() {
    std::thread::sleep(AGAIN);
}
