//! WebSocket (RFC 6455), both directions taken apart and framed anew.
//!
//! What the origin gets is written from what was judged: plain messages in frames, masks and fragments of our own.
//! Bytes passed on as they were sent would be a second reading of the same message (another inflater's), and masks,
//! fragment sizes and empty frames would carry what no scanner looks at.

pub mod deflate;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod session;
