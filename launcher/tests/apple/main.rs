//! Backend `macos-container`, with a program in the place of Apple's `container` that speaks its command line and prints
//! what it prints: what is tested is everything on the host's side of a container. No Mac was to be had.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends the test")]

#[path = "../common/mod.rs"]
mod common;

mod fake;
mod faults;
mod guest;
mod lifecycle;
mod refusals;
