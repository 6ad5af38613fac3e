//! The side of the origins: addresses, dialling, and the connections that exchanges run on.

pub mod address;
pub mod dial;
pub mod lane;
pub mod pool;
pub mod response;
