//! Putting in the credential that the agent never sees. Always after the scan: scan, strip, inject, forward.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use crate::config::{Auth, AuthScheme};
use crate::message::Headers;
use crate::secrets::Secrets;

/// A credential that cannot be injected; the route is refused at load.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("the environment variable {0} is not set or empty")]
    Missing(String),
    #[error("the value of {0} holds a character that no header may")]
    Character(String),
}

/// The header field that a route's credential becomes.
#[derive(Clone)]
pub struct Credential {
    name: Bytes,
    value: Bytes,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({}: ********)", self.name.escape_ascii())
    }
}

impl Credential {
    pub fn load(auth: &Auth, secrets: &Secrets) -> Result<Self, CredentialError> {
        let secret = secrets
            .value(&auth.token_ref)
            .ok_or_else(|| CredentialError::Missing(auth.token_ref.clone()))?
            .expose();
        if secret.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return Err(CredentialError::Character(auth.token_ref.clone()));
        }
        let value = match auth.scheme {
            AuthScheme::Bearer => format!("Bearer {secret}"),
            AuthScheme::Token => format!("token {secret}"),
            AuthScheme::Basic => format!("Basic {}", BASE64_STANDARD.encode(secret)),
            AuthScheme::Header => secret.to_owned(),
        };
        let name = auth
            .name
            .as_deref()
            .unwrap_or("authorization")
            .to_ascii_lowercase();
        Ok(Self {
            name: name.into(),
            value: value.into(),
        })
    }
}

impl Credential {
    /// Of the field that it is put in.
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

/// What a response must not repeat of it: the value, and of a pair the password too.
pub fn texts<'s>(auth: &Auth, secrets: &'s Secrets) -> Vec<&'s str> {
    let Some(value) = secrets.value(&auth.token_ref) else {
        return Vec::new();
    };
    let value = value.expose();
    let password = match auth.scheme {
        AuthScheme::Basic => value.split_once(':').map(|(_, password)| password),
        AuthScheme::Bearer | AuthScheme::Token | AuthScheme::Header => None,
    };
    std::iter::once(value).chain(password).collect()
}

/// The agent's own `Authorization` goes in every case: with a foreign account's credential an allowed host would be
/// a way out.
pub fn replace(headers: &mut Headers, credential: Option<&Credential>) {
    headers.remove("authorization");
    if let Some(credential) = credential {
        if let Ok(name) = std::str::from_utf8(&credential.name) {
            headers.remove(name);
        }
        headers.push(credential.name.clone(), credential.value.clone());
    }
}

/// Nothing of the agent's may stand in a trailer either that an origin could take for a credential.
pub fn strip_trailers(trailers: &mut Headers, credential: Option<&Credential>) {
    trailers.strip_trailers();
    if let Some(name) = credential.and_then(|credential| std::str::from_utf8(&credential.name).ok())
    {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes() {
        let secrets = Secrets::from_environment([("T".to_owned(), "user:password".to_owned())]);
        for (scheme, name, header, value) in [
            (
                AuthScheme::Bearer,
                None,
                "authorization",
                "Bearer user:password",
            ),
            (
                AuthScheme::Token,
                None,
                "authorization",
                "token user:password",
            ),
            (
                AuthScheme::Basic,
                None,
                "authorization",
                "Basic dXNlcjpwYXNzd29yZA==",
            ),
            (
                AuthScheme::Header,
                Some("X-Api-Key"),
                "x-api-key",
                "user:password",
            ),
        ] {
            let auth = Auth {
                scheme,
                token_ref: "T".into(),
                name: name.map(str::to_owned),
            };
            let credential = Credential::load(&auth, &secrets).unwrap();
            assert!(!format!("{credential:?}").contains("password"));
            let mut headers = Headers::default();
            headers.push("Authorization", "Bearer of-the-agent");
            headers.push("X-API-KEY", "of-the-agent");
            replace(&mut headers, Some(&credential));
            assert_eq!(headers.all(header).collect::<Vec<_>>(), [value]);
            assert_eq!(
                headers.all("authorization").count(),
                usize::from(header == "authorization")
            );
        }
    }

    #[test]
    fn what_cannot_be_injected_is_an_error() {
        let secrets = Secrets::from_environment([("T".to_owned(), "a\r\nb".to_owned())]);
        let auth = |name: &str| Auth {
            scheme: AuthScheme::Bearer,
            token_ref: name.into(),
            name: None,
        };
        assert!(matches!(
            Credential::load(&auth("T"), &secrets),
            Err(CredentialError::Character(_))
        ));
        assert!(matches!(
            Credential::load(&auth("U"), &secrets),
            Err(CredentialError::Missing(_))
        ));
    }
}
