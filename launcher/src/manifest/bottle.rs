//! `~/.bot-bottle/bottles/NAME.md`, as it is written.

use std::collections::BTreeMap;
use std::fmt;

use proxy::config::Egress;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_saphyr::Spanned;

use super::later::{Extends, ForwardHostCredentials, GitGate, Later, Supervise};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BottleFile {
    /// The agent's environment.
    #[serde(default)]
    pub env: BTreeMap<String, Spanned<EnvValue>>,
    #[serde(default)]
    pub agent_provider: Option<Spanned<Provider>>,
    #[serde(default)]
    pub egress: Option<Spanned<Egress>>,
    /// Directories and files of the host that the agent can read, at their own paths.
    #[serde(default)]
    pub mounts: Vec<Spanned<String>>,

    #[serde(default, rename = "extends")]
    _extends: Later<Extends>,
    #[serde(default, rename = "git-gate")]
    _git_gate: Later<GitGate>,
    #[serde(default, rename = "supervise")]
    _supervise: Later<Supervise>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    pub template: String,
    /// For the template `command`: program and arguments; `{prompt}` in an argument is replaced.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// The name of the variable of the host that holds the provider's token.
    #[serde(default)]
    pub auth_token: Option<String>,
    /// For backends of containers: an image that the engine has.
    #[serde(default)]
    pub image: Option<String>,
    /// Instead: where it is built from.
    #[serde(default)]
    pub dockerfile: Option<String>,

    #[serde(default, rename = "forward_host_credentials")]
    _forward_host_credentials: Later<ForwardHostCredentials>,
}

/// A value that is not a secret, or the name of a variable of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvValue {
    Plain(String),
    FromHost(String),
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EnvVisitor)
    }
}

struct EnvVisitor;

impl<'de> de::Visitor<'de> for EnvVisitor {
    type Value = EnvValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or `{from_host: VARIABLE}`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<EnvValue, E> {
        Ok(EnvValue::Plain(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<EnvValue, E> {
        Err(E::custom(format!(
            "write \"{value}\" in quotes: an environment holds text"
        )))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<EnvValue, E> {
        Ok(EnvValue::Plain(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<EnvValue, E> {
        Ok(EnvValue::Plain(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, _value: f64) -> Result<EnvValue, E> {
        // `1.10` would become `1.1`.
        Err(E::custom(
            "write a number with a point in quotes: an environment holds text",
        ))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<EnvValue, A::Error> {
        match map.next_key::<String>()?.as_deref() {
            Some("from_host") => {}
            Some(other) => return Err(de::Error::unknown_field(other, &["from_host"])),
            None => return Err(de::Error::missing_field("from_host")),
        }
        let name = map.next_value()?;
        match map.next_key::<String>()? {
            None => Ok(EnvValue::FromHost(name)),
            Some(other) => Err(de::Error::unknown_field(&other, &["from_host"])),
        }
    }
}
