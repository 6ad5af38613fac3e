//! The real `sidecar` binary between real clients and an origin that records every byte.
//!
//! One binary for all of them, so that there is one link; a module for each promise. A test says what the origin
//! received, what the agent read and what the audit log holds, and nothing about how it came about.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests; what they counted is printed"
)]

mod bypass;
mod certificates;
mod chain;
mod clients;
mod credentials;
mod cuts;
mod dlp;
mod framing;
mod git;
mod grpc;
mod h2_abuse;
mod harness;
mod hostile;
mod inbound;
mod interceptor;
mod life;
mod load;
mod origins;
mod resolve;
mod slow;
mod sniff;
mod structure;
mod supervise;
mod tls_clients;
mod upstream;
mod ws;
mod ws_clients;
