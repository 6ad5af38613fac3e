//! The launcher: puts a coding agent into a *bottle*, whose only way out is one *sidecar*.
//!
//! Top down: [`cli`] is what was typed, [`manifest`] what was written, [`plan`] what will happen, [`session`] makes it
//! happen in a [`backend`]: [`local`], [`docker`], [`smol`] or [`apple`]; [`vm`] is what the last two share; [`guest`] is the launcher inside of containers. [`state`] is what is on disk meanwhile, [`explain`] what the
//! sidecar's audit log means, [`operator`] asks running sidecars what waits for an answer.
//!
//! What holds everywhere: a step that fails ends the start, nothing has a weaker way of being done; secrets are named in
//! manifests and plans, and their values go from the host's environment to the sidecar's and nowhere else; every resource
//! has its undo registered before it is used.

#![deny(clippy::indexing_slicing, clippy::string_slice)]

pub mod apple;
mod archive;
pub mod backend;
pub mod cli;
pub mod demo;
pub mod docker;
pub mod environment;
pub mod escape;
pub mod exit;
pub mod explain;
pub mod guest;
pub mod local;
pub mod manifest;
pub mod operator;
pub mod owner;
pub mod parts;
pub mod place;
pub mod plan;
pub mod session;
pub mod sidecar;
pub mod smol;
pub mod state;
pub mod undo;
pub mod user;
pub mod vm;
