//! Backend `smolmachines`, with a program in smolvm's place that speaks its command line, keeps its machines in a real
//! SQLite file, and runs a process for each: what is tested is everything on the host's side of a machine. Real
//! machines are `.ci/smolvm`'s, where the host can boot them.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends the test")]

#[path = "../common/mod.rs"]
mod common;

mod fake;
mod faults;
mod interceptor;
mod lifecycle;
mod refusals;
mod terminal;
