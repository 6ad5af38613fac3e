//! Finds credentials in bytes that are about to leave: token shapes, known secrets in any encoding,
//! structural attacks.
//!
//! The input is hostile. Hence three invariants, each held by a test:
//!
//! - **No input panics**, and the work is linear in the input ([`Scanner`] states the bound).
//! - **Chunk cuts change nothing.** The engine only ever sees *windows* that lie at fixed offsets of the
//!   whole input, so a [`Stream`] fed a byte at a time runs the very same windows as [`Scanner::scan`].
//! - **Nothing leaves before its verdict.** No finding reported later begins before [`Stream::released`].
//!
//! There is no I/O, no async and no clock in here.

mod crlf;
mod entropy;
mod extent;
mod finding;
mod inbound;
#[expect(unsafe_code, reason = "vector instructions, see the module")]
mod kernel;
mod known;
mod memory;
mod redact;
mod scanner;
mod stream;
mod structure;
mod tokens;
mod view;
mod window;

pub use crlf::header_injection;
pub use finding::{Confidence, Field, Finding, Location, Matched, RuleId, Severity, Via};
pub use inbound::{InjectionDetector, InjectionStream};
pub use known::{KnownSecret, KnownSecretError};
pub use redact::redact;
pub use scanner::{BuildError, Pass, Scanner, ScannerBuilder};
pub use stream::Stream;
pub use structure::{Document, Format};
pub use tokens::{ShapeError, TOKEN_RULES, TokenRule, UserRules, UserRulesError};
