//! Backend `docker`, on a real engine: `.ci/with-engine cargo test -p launcher --test docker`.
//!
//! Images come from no registry: the agent's is a static busybox of this machine, built by the launcher itself.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends the test")]

#[path = "../common/mod.rs"]
mod common;

mod boundary;
mod engine;
mod faults;
mod lifecycle;
mod operator;
mod sentences;
mod terminal;
