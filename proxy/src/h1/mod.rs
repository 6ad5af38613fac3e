//! HTTP/1.1 on our own: a strict parser over `httparse`, and framing that is always written anew.
//!
//! A request is forwarded only if it was understood completely; whatever two parsers could read in two ways is refused.

pub mod agent;
pub mod body;
pub mod parse;
pub mod write;

#[cfg(any(test, fuzzing))]
pub mod again;
#[cfg(test)]
mod mutations;
