//! The bottle's certificate authority and the leaves that it mints.
//!
//! One key for the authority, another one for all leaves: minting a leaf is one signature. Leaves live a day, are
//! made per host when a host is first spoken to, and are cached in a bounded cache.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quick_cache::sync::Cache;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use crate::config;
use crate::host::Host;

const AUTHORITY_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// A cached leaf is used for this long, so that no agent ever meets one near its end.
const LEAF_USE: Duration = Duration::from_secs(12 * 3600);
/// The agent's clock may be behind.
const BACKDATE: Duration = Duration::from_secs(3600);
const CACHED_LEAVES: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: not a CA key and certificate of ours: {why}; remove both files to have them made anew", path.display())]
    Content { path: PathBuf, why: String },
    #[error("the certificate could not be made: {0}")]
    Rcgen(#[from] rcgen::Error),
    #[error("the leaf key could not be used: {0}")]
    Key(#[from] rustls::Error),
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    leaf_key: KeyPair,
    signing_key: Arc<dyn SigningKey>,
    leaves: Cache<Host, (SystemTime, Arc<CertifiedKey>)>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Loads or makes the authority and writes its certificate for the agent's trust store.
    ///
    /// Without `key` the private key exists in this process only.
    pub fn open(config: &config::Ca, name: &str) -> Result<Self, CaError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| CaError::File { path, source }
        };
        let existing = match &config.key {
            Some(path) if path.exists() => {
                Some((path, fs::read_to_string(path).map_err(file(path))?))
            }
            _ => None,
        };
        let authority = match existing {
            Some((path, key)) => {
                let bad = |why: rcgen::Error| CaError::Content {
                    path: path.clone(),
                    why: why.to_string(),
                };
                let pem =
                    fs::read_to_string(&config.certificate).map_err(file(&config.certificate))?;
                let key = KeyPair::from_pem(&key).map_err(bad)?;
                Self::with(Issuer::from_ca_cert_pem(&pem, key).map_err(bad)?, pem)?
            }
            None => {
                let key = KeyPair::generate()?;
                if let Some(path) = &config.key {
                    private_file(path, key.serialize_pem().as_bytes()).map_err(file(path))?;
                }
                let params = authority_params(name);
                let certificate = params.self_signed(&key)?;
                Self::with(Issuer::new(params, key), certificate.pem())?
            }
        };
        fs::write(&config.certificate, &authority.certificate_pem)
            .map_err(file(&config.certificate))?;
        Ok(authority)
    }

    fn with(issuer: Issuer<'static, KeyPair>, certificate_pem: String) -> Result<Self, CaError> {
        let leaf_key = KeyPair::generate()?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let signing_key = rustls::crypto::ring::sign::any_supported_type(&der)?;
        Ok(Self {
            issuer,
            certificate_pem,
            leaf_key,
            signing_key,
            leaves: Cache::new(CACHED_LEAVES),
        })
    }

    #[cfg(test)]
    fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate for a host, from the cache where it is fresh.
    pub fn leaf(&self, host: &Host) -> Result<Arc<CertifiedKey>, CaError> {
        let now = SystemTime::now();
        if let Some((made, leaf)) = self.leaves.get(host)
            && now.duration_since(made).is_ok_and(|age| age < LEAF_USE)
        {
            return Ok(leaf);
        }
        let leaf = Arc::new(self.mint(host, now)?);
        self.leaves.insert(host.clone(), (now, Arc::clone(&leaf)));
        Ok(leaf)
    }

    fn mint(&self, host: &Host, now: SystemTime) -> Result<CertifiedKey, CaError> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match host {
            Host::Name(name) => SanType::DnsName(name.as_str().try_into()?),
            Host::Ip(ip) => SanType::IpAddress(match ip {
                IpAddr::V4(v4) => IpAddr::V4(*v4),
                IpAddr::V6(v6) => IpAddr::V6(*v6),
            }),
        }];
        params.distinguished_name = DistinguishedName::new();
        // The subject's common name holds 64 characters at most (X.520); the SAN is what counts.
        let common: String = host.to_string().chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + LEAF_LIFE).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.leaf_key, &self.issuer)?;
        Ok(CertifiedKey::new(
            vec![CertificateDer::from(certificate)],
            Arc::clone(&self.signing_key),
        ))
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name: String = format!("bot-bottle {name}")
        .trim()
        .chars()
        .take(64)
        .collect();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + AUTHORITY_LIFE).into();
    params
}

/// Makes a file that only its owner can read, never following or widening one that is there.
fn private_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, key: bool) -> config::Ca {
        config::Ca {
            certificate: dir.join("ca.pem"),
            key: key.then(|| dir.join("ca.key")),
        }
    }

    #[test]
    fn leaves_are_cached_per_host() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(&config(dir.path(), false), "test").unwrap();
        let host: Host = "a.test".parse().unwrap();
        let one = authority.leaf(&host).unwrap();
        assert!(Arc::ptr_eq(&one, &authority.leaf(&host).unwrap()));
        assert!(!Arc::ptr_eq(
            &one,
            &authority.leaf(&"b.test".parse().unwrap()).unwrap()
        ));
        authority.leaf(&"127.0.0.1".parse().unwrap()).unwrap();
        let names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["ca.pem"], "the private key must not be on disk");
    }

    #[test]
    fn a_kept_key_is_private_and_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), true);
        let first = Authority::open(&config, "test")
            .unwrap()
            .certificate_pem()
            .to_owned();
        assert_eq!(
            Authority::open(&config, "test").unwrap().certificate_pem(),
            first
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(dir.path().join("ca.key"))
                    .unwrap()
                    .permissions()
                    .mode()
                    & 0o777,
                0o600
            );
        }
        fs::write(dir.path().join("ca.key"), "no key").unwrap();
        assert!(Authority::open(&config, "test").is_err());
    }
}
