//! The sidecar: an egress proxy that lets through what a policy names, scans every byte that leaves, and puts in
//! credentials that the agent never sees.
//!
//! Bottom up: [`host`] and [`config`] are the vocabulary, [`policy`] decides, [`inspect`] puts every surface of a
//! request before the detectors, [`exchange`] runs one request through all of it, [`tunnel`] and [`server`] bring
//! requests in, [`upstream`] takes them out, [`verdict`] and [`audit`] say what happened, [`supervise`] has a request wait
//! for an operator, who answers through [`control`].

#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod across;
pub mod audit;
mod ca;
pub mod cli;
pub mod config;
mod confine;
mod content;
mod control;
mod credential;
mod crew;
mod descriptors;
mod echo;
mod exchange;
#[cfg(fuzzing)]
pub mod fuzzing;
mod h1;
mod h2agent;
mod h2duplex;
mod h2meter;
mod h2side;
pub mod host;
mod inspect;
mod interceptor;
mod isolate;
mod judge;
mod limits;
mod logs;
mod memory;
pub mod message;
mod metrics;
mod net;
mod pace;
mod patience;
mod pieces;
pub mod policy;
mod record;
mod rooms;
pub mod run;
pub mod scan;
pub mod secrets;
mod server;
pub mod settings;
mod sidecar;
mod supervise;
mod tls;
mod tunnel;
mod upstream;
pub mod verdict;
mod volume;
mod ws;
