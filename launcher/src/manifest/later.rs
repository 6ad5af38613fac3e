//! Keys that are part of the language and not built yet.

use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, de};

/// The name of such a key.
pub trait Key {
    const NAME: &'static str;
}

/// Deserializes from nothing: a key of this type is either missing or an error that says what it is.
///
/// Without it the answer would be "unknown key", and its author would look for a typing error.
#[derive(Clone, Debug)]
pub struct Later<K>(PhantomData<K>);

impl<K> Default for Later<K> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, K: Key> Deserialize<'de> for Later<K> {
    fn deserialize<D: Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
        Err(de::Error::custom(format!(
            "`{}` is known but not available in this version; take it out",
            K::NAME
        )))
    }
}

macro_rules! later {
    ($($type:ident $name:literal),* $(,)?) => {$(
        #[derive(Clone, Debug)]
        pub struct $type;
        impl Key for $type {
            const NAME: &'static str = $name;
        }
    )*};
}

later! {
    Extends "extends",
    GitGate "git-gate",
    Supervise "supervise",
    ForwardHostCredentials "forward_host_credentials",
    Skills "skills",
}
