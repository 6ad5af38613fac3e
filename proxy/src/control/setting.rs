//! Where the control API listens, and who may use it.

use std::time::Duration;

use crate::config;
use crate::secrets::{ALLOW_TIMEOUT, Secret, Secrets};
use crate::settings::Listen;

/// How long a request waits for an operator where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(300);
pub const MAX_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// Shorter tokens can be guessed.
const SHORTEST_TOKEN: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    #[error("listen: {0:?} is neither unix:/absolute/path nor a loopback ADDRESS:PORT")]
    Listen(String),
    #[error(
        "listen: {0} is one of the addresses that bottles are given (127.0.0.16 to 127.0.0.31); take 127.0.0.1 or a Unix socket"
    )]
    Alias(std::net::IpAddr),
    #[error("token_ref: the environment variable {0} is not set or empty")]
    Missing(String),
    #[error("token_ref: the value of {0} has fewer than {SHORTEST_TOKEN} characters")]
    Short(String),
}

#[derive(Debug)]
pub struct Setting {
    pub listen: Listen,
    pub token: Secret,
}

impl Setting {
    pub fn parse(raw: &config::Control, secrets: &Secrets) -> Result<Self, SettingError> {
        let bad = || SettingError::Listen(raw.listen.clone());
        let listen = Listen::parse(&raw.listen).map_err(|_| bad())?;
        if let Listen::Tcp(address) = &listen {
            if !address.ip().is_loopback() {
                return Err(bad());
            }
            if let std::net::IpAddr::V4(ip) = address.ip()
                && ip.octets() >= [127, 0, 0, 16]
                && ip.octets() <= [127, 0, 0, 31]
            {
                return Err(SettingError::Alias(address.ip()));
            }
        }
        let token = secrets
            .value(&raw.token_ref)
            .ok_or_else(|| SettingError::Missing(raw.token_ref.clone()))?;
        if token.expose().len() < SHORTEST_TOKEN {
            return Err(SettingError::Short(raw.token_ref.clone()));
        }
        Ok(Self {
            listen,
            token: token.clone(),
        })
    }
}

/// What is not understood is given back.
pub fn patience(secrets: &Secrets) -> Result<Duration, String> {
    let Some(value) = secrets.value(ALLOW_TIMEOUT) else {
        return Ok(PATIENCE);
    };
    let text = value.expose();
    match text.parse().map(Duration::from_secs) {
        Ok(patience) if patience <= MAX_PATIENCE => Ok(patience),
        // Its name begins like a secret's, so somebody may have put one there.
        _ => Err(format!("a value of {} characters", text.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_may_listen() {
        let secrets = Secrets::from_environment([
            ("LONG".to_owned(), "0123456789abcdef".to_owned()),
            ("SHORT".to_owned(), "0123456789abcde".to_owned()),
        ]);
        let parse = |listen: &str, token: &str| {
            let raw = config::Control {
                listen: listen.into(),
                token_ref: token.into(),
            };
            Setting::parse(&raw, &secrets).map(|_| ())
        };
        for listen in ["127.0.0.1:9101", "[::1]:9101", "unix:/run/control.sock"] {
            assert!(parse(listen, "LONG").is_ok(), "{listen}");
        }
        for listen in [
            "0.0.0.0:9101",
            "[::]:9101",
            "10.0.0.1:9101",
            "127.0.0.16:9101",
            "127.0.0.31:9101",
            "localhost:9101",
            "unix:control.sock",
        ] {
            assert!(parse(listen, "LONG").is_err(), "{listen}");
        }
        assert!(matches!(
            parse("127.0.0.1:9101", "SHORT"),
            Err(SettingError::Short(_))
        ));
        assert!(matches!(
            parse("127.0.0.1:9101", "ABSENT"),
            Err(SettingError::Missing(_))
        ));
    }
}
