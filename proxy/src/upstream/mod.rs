//! The side of the origins: addresses, dialling, and the connections that exchanges run on.

pub mod address;
pub mod corporate;
pub mod dial;
pub mod dns;
pub mod lane;
pub mod pool;
pub mod response;
pub mod verify;
