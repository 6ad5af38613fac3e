//! What the fuzz targets share: the scanners, the credentials that they look for, and the writings these are put in.
//!
//! A structured input is read from its first byte to its last and never from its end, so that a seed can be
//! written by hand and a small mutation is a small change. A target says what must hold and panics if it does not.

pub mod credentials;
pub mod layers;
pub mod scanners;
pub mod writings;
