//! Removing a machine, whoever does it: the undo of a start, a sweep, the watchdog.
//!
//! Done is when smolvm does not list it, its process is gone, and so is its directory. A machine that was never there
//! is done as well.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde_json::Value;

use super::program::{CallError, Caller, Failure, patience};
use crate::state::process;

/// For calls of a launcher that was killed to come to their end by themselves.
const OTHERS: Duration = Duration::from_secs(30);
/// For a process that was told to end.
const GONE: Duration = Duration::from_secs(5);

/// `NotFound` where there was nothing to remove.
pub fn remove(caller: &Caller, machine: &str) -> io::Result<()> {
    let _turn = caller.turn();
    await_others(machine)?;
    let listed = caller.listed(machine)?;
    let directory = caller
        .ask(
            "say where the machine lies",
            &["machine", "data-dir", "--name", machine],
        )
        .ok()
        .and_then(|said| own_directory(caller, said.trim()));
    let existed = listed.is_some();
    if let Some(listed) = listed {
        delete(caller, machine)?;
        if caller.listed(machine)?.is_some() {
            return Err(io::Error::other(format!(
                "smolvm says that {machine} is deleted, and lists it"
            )));
        }
        if let Some(pid) = listed.get("pid").and_then(Value::as_i64) {
            end(pid, directory.as_deref())?;
        }
    }
    for pid in processes_of(directory.as_deref()) {
        end(pid, directory.as_deref())?;
    }
    if let Some(directory) = directory.filter(|directory| directory.exists()) {
        fs::remove_dir_all(directory)?;
    }
    if existed {
        Ok(())
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn delete(caller: &Caller, machine: &str) -> Result<(), CallError> {
    let arguments = ["machine", "delete", "-f", "--name", machine];
    let what = "delete the machine";
    let first = caller_change(caller, what, &arguments);
    match first {
        Err(error) if error.kind == Failure::NotFound => Ok(()),
        Err(_) => {
            // One that cannot be deleted as it runs can be stopped first.
            let _stopped = caller_change(
                caller,
                "stop the machine",
                &["machine", "stop", "--name", machine],
            );
            match caller_change(caller, what, &arguments) {
                Err(error) if error.kind == Failure::NotFound => Ok(()),
                other => other,
            }
        }
        Ok(()) => Ok(()),
    }
}

/// Its turn is ours already.
fn caller_change(caller: &Caller, what: &str, arguments: &[&str]) -> Result<(), CallError> {
    caller.call(what, arguments, patience()).map(|_| ())
}

/// Where smolvm keeps a machine: `.../smolvm/vms/HEX`, and nothing else is ever removed.
fn own_directory(caller: &Caller, said: &str) -> Option<PathBuf> {
    let path = PathBuf::from(said);
    let hex = path.file_name()?.to_str()?;
    let is_hex = hex.len() >= 8 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parent = path.parent()?;
    let expected = caller.place.cache().join("smolvm").join("vms");
    (is_hex && (parent == expected || parent.ends_with("smolvm/vms"))).then_some(path)
}

/// A launcher that was killed may have left a call that still makes or starts this machine.
fn await_others(machine: &str) -> io::Result<()> {
    let until = Instant::now() + OTHERS;
    for pid in calls_for(machine) {
        let Ok(handle) = open(pid) else { continue };
        let left = until.saturating_duration_since(Instant::now());
        if !process::has_ended(&handle, left)? {
            process::end(&handle, Signal::KILL, GONE)?;
        }
    }
    Ok(())
}

/// Calls of smolvm that make or start this machine, by their arguments.
fn calls_for(machine: &str) -> Vec<i64> {
    processes(|words| {
        words.iter().any(|word| word == machine)
            && words.iter().any(|word| word == "machine")
            && words.iter().any(|word| word == "create" || word == "start")
    })
}

/// The machine's own process: smolvm starts it with a path in the machine's directory.
fn processes_of(directory: Option<&Path>) -> Vec<i64> {
    let Some(directory) = directory.and_then(Path::to_str) else {
        return Vec::new();
    };
    let below = format!("{directory}/");
    processes(|words| {
        words.iter().any(|word| word == "_boot-vm")
            && words.iter().any(|word| word.starts_with(&below))
    })
}

fn processes(fits: impl Fn(&[String]) -> bool) -> Vec<i64> {
    let own = i64::from(std::process::id());
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: i64 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let words: Vec<String> = line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            (pid != own && fits(&words)).then_some(pid)
        })
        .collect()
}

fn open(pid: i64) -> io::Result<std::os::fd::OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Ends what is left of a machine: exactly a process that boots this directory.
fn end(pid: i64, directory: Option<&Path>) -> io::Result<()> {
    let Ok(handle) = open(pid) else {
        return Ok(());
    };
    // The number may be another's by now; looked at after the handle is open.
    if !processes_of(directory).contains(&pid) {
        return Ok(());
    }
    if process::has_ended(&handle, GONE)? || process::end(&handle, Signal::KILL, GONE)? {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the machine's process {pid} does not end"
    )))
}
