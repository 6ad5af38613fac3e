//! TLS configurations: one for each side, shared by all connections.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, ClientConfig, PeerIncompatible, PeerMisbehaved, RootCertStore, ServerConfig,
};

use crate::ca::Authority;
use crate::host::Host;
use crate::upstream::verify::{self, Verifier};

pub const H2: &[u8] = b"h2";
pub const HTTP1: &[u8] = b"http/1.1";
/// The code of an origin that speaks nothing of what it was offered.
pub const NO_ALPN: &str = "upstream-tls-alpn";

/// The one crypto provider, chosen here and nowhere else.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {why}", path.display())]
    Roots { path: PathBuf, why: String },
    #[error("there are no root certificates: neither the system nor the configuration has any")]
    NoRoots,
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// Configurations for the side of the origins, by what is offered there.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Offers h2 and http/1.1.
    pub both: Arc<ClientConfig>,
    pub http1: Arc<ClientConfig>,
}

impl Upstream {
    /// Roots: those of the system where it has any, else those of Mozilla; and the files, which add to them.
    pub fn new(ca_files: &[PathBuf]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for problem in &native.errors {
            tracing::warn!(%problem, "a system root certificate could not be read");
        }
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for path in ca_files {
            add_file(&mut roots, path)?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(roots, provider())?))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(4096);
        let mut both = config.clone();
        both.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
        config.alpn_protocols = vec![HTTP1.to_vec()];
        Ok(Self {
            both: Arc::new(both),
            http1: Arc::new(config),
        })
    }
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let bad = |why: String| TlsError::Roots {
        path: path.to_owned(),
        why,
    };
    let file = File::open(path).map_err(|error| bad(error.to_string()))?;
    let mut any = false;
    for certificate in CertificateDer::pem_reader_iter(BufReader::new(file)) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| bad(error.to_string()))?;
        any = true;
    }
    if any {
        Ok(())
    } else {
        Err(bad("it holds no certificate".into()))
    }
}

/// Configurations for the side of the agent, by what the origin speaks.
#[derive(Clone, Debug)]
pub struct Agent {
    pub h2: Arc<ServerConfig>,
    pub http1: Arc<ServerConfig>,
    authority: Arc<Authority>,
}

impl Agent {
    pub fn new(authority: Arc<Authority>) -> Result<Self, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(BySni(Arc::clone(&authority))));
        // Stateless tickets: rustls refuses one that was made for another server name.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        let mut h2 = config.clone();
        h2.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
        config.alpn_protocols = vec![HTTP1.to_vec()];
        Ok(Self {
            h2: Arc::new(h2),
            http1: Arc::new(config),
            authority,
        })
    }

    /// For an address, which no ClientHello names.
    pub fn for_address(
        &self,
        host: &Host,
        h2: bool,
    ) -> Result<Arc<ServerConfig>, crate::ca::CaError> {
        let mut config = ServerConfig::clone(if h2 { &self.h2 } else { &self.http1 });
        config.cert_resolver = Arc::new(Fixed(self.authority.leaf(host)?));
        config.ticketer = Arc::new(NoTickets);
        Ok(Arc::new(config))
    }
}

#[derive(Debug)]
struct BySni(Arc<Authority>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // The tunnel has already compared the name with CONNECT's authority; this is only a look-up.
        let host: Host = hello.server_name()?.parse().ok()?;
        match self.0.leaf(&host) {
            Ok(leaf) => Some(leaf),
            Err(error) => {
                tracing::error!(%error, "no leaf certificate");
                None
            }
        }
    }
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Without a server name a ticket could be carried from one address to another.
#[derive(Debug)]
struct NoTickets;

impl rustls::server::ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// A stable code and words for why an origin's TLS was not accepted.
pub fn explain(error: &rustls::Error) -> (&'static str, String) {
    use rustls::Error;
    let (code, words) = match error {
        Error::InvalidCertificate(problem) => match verify::reason(problem) {
            Some(distrust) => (distrust.code(), distrust.words()),
            None => return ("upstream-tls-certificate", problem.to_string()),
        },
        Error::NoCertificatesPresented => {
            ("upstream-tls-no-certificate", "it showed no certificate")
        }
        Error::NoApplicationProtocol
        | Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        | Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) => (
            NO_ALPN,
            "it speaks none of the protocols that it was offered (ALPN)",
        ),
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => (
            "upstream-tls-version",
            "it speaks neither TLS 1.2 nor TLS 1.3",
        ),
        Error::AlertReceived(
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity,
        ) => (
            "upstream-tls-cipher",
            "it refused the handshake: it has no cipher in common with us that is safe, or asks for a client certificate",
        ),
        Error::AlertReceived(AlertDescription::UnrecognisedName) => (
            "upstream-tls-unknown-name",
            "it does not know the host that it was asked for",
        ),
        Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
        ) => (
            "upstream-tls-client-certificate",
            "it asks for a client certificate",
        ),
        Error::AlertReceived(_) => return ("upstream-tls-alert", error.to_string()),
        Error::InvalidMessage(_) => (
            "upstream-tls-not-tls",
            "what it answered is not TLS; does this port speak another protocol?",
        ),
        Error::PeerMisbehaved(_) | Error::PeerIncompatible(_) => {
            return ("upstream-tls-misbehaved", error.to_string());
        }
        other => return ("upstream-tls", other.to_string()),
    };
    (code, words.to_owned())
}
