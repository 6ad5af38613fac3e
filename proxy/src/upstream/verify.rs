//! Whether an origin's certificate is believed, and why not.
//!
//! The decision is webpki's alone, but for keys that are too short. What is added here is the reason: webpki says
//! "unknown issuer" for five different mistakes, and whoever reads the refusal can mend only the one that was made.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// RSA keys below this were factored or soon will be; ring verifies none of them either.
const MIN_RSA_BITS: usize = 2048;

/// Why an origin's certificate is not believed. Each has a code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    Expired,
    NotYetValid,
    IntermediateExpired,
    IntermediateNotYetValid,
    WrongHost,
    WrongAddress,
    NoSubjectAltName,
    Wildcard,
    SelfSigned,
    MissingIntermediate,
    UnknownIssuer,
    WrongUsage,
    CaAsLeaf,
    LeafAsCa,
    NameConstraints,
    PathLength,
    BadSignature,
    WeakKey,
    Sha1,
    Md5,
    SignatureAlgorithm,
    CriticalExtension,
    Version,
    Encoding,
    KeyMismatch,
    Revoked,
    Other,
}

impl Distrust {
    /// Stable, for scripts and the audit.
    pub fn code(self) -> &'static str {
        match self {
            Self::Expired => "upstream-tls-expired",
            Self::NotYetValid => "upstream-tls-not-yet-valid",
            Self::IntermediateExpired => "upstream-tls-intermediate-expired",
            Self::IntermediateNotYetValid => "upstream-tls-intermediate-not-yet-valid",
            Self::WrongHost => "upstream-tls-wrong-host",
            Self::WrongAddress => "upstream-tls-wrong-address",
            Self::NoSubjectAltName => "upstream-tls-no-san",
            Self::Wildcard => "upstream-tls-wildcard",
            Self::SelfSigned => "upstream-tls-self-signed",
            Self::MissingIntermediate => "upstream-tls-missing-intermediate",
            Self::UnknownIssuer => "upstream-tls-unknown-issuer",
            Self::WrongUsage => "upstream-tls-wrong-usage",
            Self::CaAsLeaf => "upstream-tls-ca-as-leaf",
            Self::LeafAsCa => "upstream-tls-leaf-as-ca",
            Self::NameConstraints => "upstream-tls-name-constraints",
            Self::PathLength => "upstream-tls-path-length",
            Self::BadSignature => "upstream-tls-bad-signature",
            Self::WeakKey => "upstream-tls-weak-key",
            Self::Sha1 => "upstream-tls-sha1",
            Self::Md5 => "upstream-tls-md5",
            Self::SignatureAlgorithm => "upstream-tls-signature-algorithm",
            Self::CriticalExtension => "upstream-tls-critical-extension",
            Self::Version => "upstream-tls-certificate-version",
            Self::Encoding => "upstream-tls-certificate-encoding",
            Self::KeyMismatch => "upstream-tls-key-mismatch",
            Self::Revoked => "upstream-tls-revoked",
            Self::Other => "upstream-tls-certificate",
        }
    }

    /// One sentence, without a full stop.
    pub fn words(self) -> &'static str {
        match self {
            Self::Expired => "its certificate has expired",
            Self::NotYetValid => "its certificate is not valid yet; is the clock right?",
            Self::IntermediateExpired => "a certificate between its own and the root has expired",
            Self::IntermediateNotYetValid => {
                "a certificate between its own and the root is not valid yet"
            }
            Self::WrongHost => "its certificate is for another host",
            Self::WrongAddress => "its certificate does not name this address",
            Self::NoSubjectAltName => {
                "its certificate names its host in the subject only, which no client takes any more (no subjectAltName)"
            }
            Self::Wildcard => {
                "the wildcard in its certificate does not reach this host: it stands for one whole label below a registered name"
            }
            Self::SelfSigned => "its certificate is signed by its own key (upstream.ca_files)",
            Self::MissingIntermediate => {
                "it sent no certificate of its issuer, and none of the roots is the issuer (a missing intermediate, or upstream.ca_files)"
            }
            Self::UnknownIssuer => {
                "the chain ends in an authority that is not trusted (upstream.ca_files)"
            }
            Self::WrongUsage => "its certificate is not one for a server (extendedKeyUsage)",
            Self::CaAsLeaf => "its certificate is an authority's and not a server's",
            Self::LeafAsCa => "its certificate was issued by one that may not issue any",
            Self::NameConstraints => {
                "its issuer may not issue certificates for this name (nameConstraints)"
            }
            Self::PathLength => "the chain is longer than its authority allows (pathLenConstraint)",
            Self::BadSignature => "a signature in the chain is wrong",
            Self::WeakKey => "a key in the chain is too short (RSA below 2048 bits)",
            Self::Sha1 => "a certificate in the chain is signed with SHA-1",
            Self::Md5 => "a certificate in the chain is signed with MD5",
            Self::SignatureAlgorithm => {
                "a certificate in the chain is signed with an algorithm that is not supported"
            }
            Self::CriticalExtension => {
                "a certificate has a critical extension that is not understood"
            }
            Self::Version => "a certificate is not of version 3",
            Self::Encoding => "a certificate cannot be read",
            Self::KeyMismatch => "it does not hold the key of its certificate",
            Self::Revoked => "its certificate was revoked",
            Self::Other => "its certificate is not valid",
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl std::error::Error for Distrust {}

impl From<Distrust> for Error {
    fn from(distrust: Distrust) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(distrust))))
    }
}

/// The reason inside an error, where this verifier made it.
pub fn reason(error: &CertificateError) -> Option<Distrust> {
    match error {
        CertificateError::Other(OtherError(inner)) => inner.downcast_ref().copied(),
        _ => None,
    }
}

/// webpki's verifier, with reasons.
#[derive(Debug)]
pub struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    pub fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { webpki })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // Of the others webpki has verified with the keys that it takes; what is sent beside the path is of no account.
            Ok(_) if has_weak_key(end_entity) => Err(Distrust::WeakKey.into()),
            Ok(verified) => Ok(verified),
            // Only a chain that is not believed is read again, for the reason.
            Err(Error::InvalidCertificate(why)) => {
                let chain = Chain::read(end_entity, intermediates);
                Err(chain.explain(&why, server_name, now).into())
            }
            Err(other) => Err(other),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proven(self.webpki.verify_tls12_signature(message, cert, dss))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proven(self.webpki.verify_tls13_signature(message, cert, dss))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// The certificate is believed by now; what fails here is the proof that the origin holds its key.
fn proven(
    verified: Result<HandshakeSignatureValid, Error>,
) -> Result<HandshakeSignatureValid, Error> {
    match verified {
        Err(Error::InvalidCertificate(_)) => Err(Distrust::KeyMismatch.into()),
        other => other,
    }
}

/// What was sent, as far as it can be read. It decides nothing but the words of a refusal.
struct Chain<'a> {
    leaf: Option<X509Certificate<'a>>,
    above: Vec<X509Certificate<'a>>,
}

/// Intermediates that are looked at; webpki follows fewer.
const LOOKED_AT: usize = 16;

impl<'a> Chain<'a> {
    fn read(leaf: &'a CertificateDer<'_>, above: &'a [CertificateDer<'_>]) -> Self {
        let read = |der: &'a CertificateDer<'_>| X509Certificate::from_der(der).ok();
        Self {
            leaf: read(leaf).map(|(_, certificate)| certificate),
            above: above
                .iter()
                .take(LOOKED_AT)
                .filter_map(read)
                .map(|(_, certificate)| certificate)
                .collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &X509Certificate<'a>> {
        self.leaf.iter().chain(&self.above)
    }

    fn has_weak_key(&self) -> bool {
        self.all().any(is_weak)
    }

    fn explain(&self, why: &CertificateError, name: &ServerName<'_>, now: UnixTime) -> Distrust {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let of_leaf = |is: fn(&X509Certificate<'_>, i64) -> bool| {
            self.leaf.as_ref().is_none_or(|leaf| is(leaf, now))
        };
        match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                if of_leaf(|leaf, now| leaf.validity().not_after.timestamp() < now) {
                    Distrust::Expired
                } else {
                    Distrust::IntermediateExpired
                }
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                if of_leaf(|leaf, now| leaf.validity().not_before.timestamp() > now) {
                    Distrust::NotYetValid
                } else {
                    Distrust::IntermediateNotYetValid
                }
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                self.explain_name(name)
            }
            CertificateError::UnknownIssuer => self.explain_issuer(),
            CertificateError::BadSignature if self.has_weak_key() => Distrust::WeakKey,
            CertificateError::BadSignature => Distrust::BadSignature,
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                self.explain_algorithm()
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Distrust::WrongUsage
            }
            CertificateError::UnhandledCriticalExtension => Distrust::CriticalExtension,
            CertificateError::BadEncoding => Distrust::Encoding,
            CertificateError::Revoked => Distrust::Revoked,
            CertificateError::Other(OtherError(inner)) => match inner.downcast_ref() {
                Some(webpki::Error::CaUsedAsEndEntity) => Distrust::CaAsLeaf,
                Some(webpki::Error::EndEntityUsedAsCa) => Distrust::LeafAsCa,
                Some(webpki::Error::NameConstraintViolation) => Distrust::NameConstraints,
                Some(
                    webpki::Error::PathLenConstraintViolated
                    | webpki::Error::MaximumPathDepthExceeded,
                ) => Distrust::PathLength,
                Some(webpki::Error::UnsupportedCriticalExtension) => Distrust::CriticalExtension,
                Some(webpki::Error::UnsupportedCertVersion) => Distrust::Version,
                Some(webpki::Error::MalformedDnsIdentifier) => self.explain_name(name),
                Some(
                    webpki::Error::MalformedExtensions
                    | webpki::Error::ExtensionValueInvalid
                    | webpki::Error::InvalidSerialNumber
                    | webpki::Error::SignatureAlgorithmMismatch,
                ) => Distrust::Encoding,
                _ => Distrust::Other,
            },
            _ => Distrust::Other,
        }
    }

    fn explain_name(&self, name: &ServerName<'_>) -> Distrust {
        let names = self
            .leaf
            .as_ref()
            .and_then(|leaf| leaf.subject_alternative_name().ok().flatten());
        match (names, name) {
            (None, _) => Distrust::NoSubjectAltName,
            (Some(_), ServerName::IpAddress(_)) => Distrust::WrongAddress,
            (Some(names), name) => {
                let name = name.to_str().to_ascii_lowercase();
                let meant = names.value.general_names.iter().any(|own| match own {
                    GeneralName::DNSName(own) => {
                        own.contains('*')
                            && own.len() < 256
                            && globs(own.to_ascii_lowercase().as_bytes(), name.as_bytes())
                    }
                    _ => false,
                });
                if meant {
                    Distrust::Wildcard
                } else {
                    Distrust::WrongHost
                }
            }
        }
    }

    fn explain_issuer(&self) -> Distrust {
        let Some(leaf) = &self.leaf else {
            return Distrust::Encoding;
        };
        let mut top = leaf;
        // Bounded, since the certificates are a stranger's and may name one another in a circle.
        for _ in 0..self.above.len() {
            if top.issuer() == top.subject() {
                break;
            }
            match self.above.iter().find(|own| own.subject() == top.issuer()) {
                Some(issuer) => top = issuer,
                None => break,
            }
        }
        match (std::ptr::eq(top, leaf), top.issuer() == top.subject()) {
            (true, true) => Distrust::SelfSigned,
            (true, false) => Distrust::MissingIntermediate,
            (false, _) => Distrust::UnknownIssuer,
        }
    }

    fn explain_algorithm(&self) -> Distrust {
        let signed_with = |numbers: &[&str]| {
            self.all().any(|certificate| {
                let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
                numbers.contains(&algorithm.as_str())
            })
        };
        if signed_with(&["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.2"]) {
            Distrust::Md5
        } else if signed_with(&["1.2.840.113549.1.1.5", "1.2.840.10045.4.1"]) {
            Distrust::Sha1
        } else {
            Distrust::SignatureAlgorithm
        }
    }
}

fn is_weak(certificate: &X509Certificate<'_>) -> bool {
    is_short(certificate.public_key())
}

/// Of a certificate that webpki could read: its key, without the rest of it.
fn has_weak_key(leaf: &CertificateDer<'_>) -> bool {
    let Ok(leaf) = webpki::EndEntityCert::try_from(leaf) else {
        return false;
    };
    let key = leaf.subject_public_key_info();
    SubjectPublicKeyInfo::from_der(&key).is_ok_and(|(_, key)| is_short(&key))
}

fn is_short(key: &SubjectPublicKeyInfo<'_>) -> bool {
    matches!(key.parsed(), Ok(PublicKey::RSA(key)) if key.key_size() < MIN_RSA_BITS)
}

/// Whether a pattern would match if its asterisk stood for anything at all, which is what its maker may have thought.
fn globs(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.iter().position(|byte| *byte == b'*') {
        None => pattern == name,
        Some(at) => {
            let (before, after) = (
                pattern.get(..at).unwrap_or_default(),
                pattern.get(at + 1..).unwrap_or_default(),
            );
            let Some(rest) = name.strip_prefix(before) else {
                return false;
            };
            // A second asterisk is no pattern of anybody's.
            !after.contains(&b'*') && rest.ends_with(after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asterisk_that_was_meant_for_the_host() {
        for (pattern, name, meant) in [
            ("*.test", "origin.test", true),
            ("*.test", "a.b.test", true),
            ("o*.test", "origin.test", true),
            ("*", "origin.test", true),
            ("*.other", "origin.test", false),
            ("x*.test", "origin.test", false),
            ("*.*", "origin.test", false),
            ("origin.test", "origin.test", true),
        ] {
            assert_eq!(
                globs(pattern.as_bytes(), name.as_bytes()),
                meant,
                "{pattern}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_explained_all_the_same() {
        let name = ServerName::try_from("a.test").unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
        let garbage = CertificateDer::from(vec![0x30, 0x80, 1, 2, 3]);
        let chain = Chain::read(&garbage, std::slice::from_ref(&garbage));
        for why in [
            CertificateError::UnknownIssuer,
            CertificateError::NotValidForName,
            CertificateError::Expired,
            CertificateError::BadSignature,
            CertificateError::BadEncoding,
        ] {
            let _ = chain.explain(&why, &name, now).code();
        }
    }
}
