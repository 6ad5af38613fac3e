//! What micro-VMs have in common, whoever runs them: calls of an engine's program, a way into the guest for the launcher's
//! helpers and the agent, the image that it is made of, and what of the host is shared with it.

pub mod call;
pub mod client;
pub mod image;
pub mod inside;
pub mod linux;
pub mod share;
mod terminal;
pub mod tether;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// Of the host's memory, in MiB; only what a guest touches is taken.
const MEMORY: (u64, u64) = (512, 8192);
const MAX_CPUS: usize = 8;

/// The way into a machine: a program of its engine's, which starts programs in there.
#[derive(Clone, Debug)]
pub struct Door {
    /// What the engine is called, for people.
    pub engine: &'static str,
    pub program: PathBuf,
    /// All that the program gets.
    pub environment: Vec<(&'static str, OsString)>,
    /// Its arguments, before one that asks for a terminal.
    pub words: Vec<String>,
    pub terminal: &'static str,
    /// And behind it, before the command of the guest's.
    pub rest: Vec<String>,
}

impl Door {
    /// The arguments that start a program in the machine.
    pub fn exec(&self, terminal: bool, command: &[String], arguments: &[&str]) -> Vec<String> {
        let mut line = self.words.clone();
        if terminal {
            line.push(self.terminal.to_owned());
        }
        line.extend(self.rest.iter().chain(command).cloned());
        line.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        line
    }

    /// A call that goes on, for a program in the machine: dies with us, and has a terminal of ours or pipes.
    fn attached(&self, arguments: &[String], terminal: bool) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("__tether")
            .arg(std::process::id().to_string())
            .arg(if terminal { "terminal" } else { "pipes" })
            .arg(&self.program)
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/");
        command
    }
}

pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().min(MAX_CPUS))
}

/// Half of the host's, in MiB.
pub fn memory() -> u64 {
    let (least, most) = MEMORY;
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .map_or(most, |kilobytes| kilobytes / 1024);
    (total / 2).clamp(least, most)
}
