//! TLS for connections to NATS: which certificate authority (CA) is trusted, and why a server is not.
//!
//! TLS 1.3 only, with `ring`. A client trusts the CA that it is configured with and no other; without one, the CAs of
//! the machine.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use otherix_runtime::files;
use otherix_schemas::timestamp::Timestamp;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

/// Longest CA file, in bytes.
const LENGTH_MAX: u64 = 1 << 20;

/// Characters of a line in PEM format.
const PEM_LINE: usize = 64;

/// A certificate in PEM format.
fn encode(certificate: &CertificateDer<'_>) -> String {
    let mut pem = "-----BEGIN CERTIFICATE-----".to_owned();
    for (index, character) in BASE64_STANDARD.encode(certificate).chars().enumerate() {
        if index % PEM_LINE == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem + "\n-----END CERTIFICATE-----\n"
}

/// The CAs that a client trusts. Clones share them.
#[derive(Clone)]
pub struct TrustedCa {
    /// None for the CAs of the machine.
    path: Option<Arc<Path>>,
    /// Those of the file.
    certificates: Arc<[CertificateDer<'static>]>,
    /// The name that certificates must be for, if it is not the host of the address.
    name: Option<Arc<str>>,
    verifier: Arc<WebPkiServerVerifier>,
    config: Arc<ClientConfig>,
}

/// CAs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot read the CA file `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the CA file `{}` has no valid certificate in PEM format", path.display())]
    Malformed { path: PathBuf },
    /// Whoever can change it can have any server trusted.
    #[error(
        "other users can change the CA file `{}` (mode {mode:04o}): run `chmod go-w {}`",
        path.display(), path.display()
    )]
    Writable { path: PathBuf, mode: u32 },
    #[error("this machine has no certificates of CAs: {0}")]
    System(String),
}

/// Why there is no TLS connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailure {
    /// Also what somebody between client and server would pretend, to read along.
    #[error("the server offers no TLS, and plain text is refused")]
    NotOffered,
    /// Somebody between client and server may have added it.
    #[error("the server sent data in plain text before the TLS handshake")]
    Injected,
    #[error("the server's certificate was not issued by {ca}")]
    UnknownCa { ca: String },
    #[error("the server's certificate is not for `{expected}`, but for {}", list(presented))]
    WrongName { expected: String, presented: Vec<String> },
    #[error("the server's certificate has expired, or the clock of this machine is wrong")]
    Expired,
    #[error("the server's certificate is not valid yet, or the clock of this machine is wrong")]
    NotYetValid,
    #[error("the server's certificate is not acceptable: {0}")]
    Certificate(CertificateError),
    #[error("`{0}` is not a name that a certificate can be for")]
    Name(String),
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    #[error(transparent)]
    Ca(#[from] CaError),
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "no name".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl TlsFailure {
    /// Whether the server was reached and is not trusted, which no further attempt changes soon.
    pub fn is_distrust(&self) -> bool {
        match self {
            Self::NotOffered
            | Self::Injected
            | Self::UnknownCa { .. }
            | Self::WrongName { .. }
            | Self::Expired
            | Self::NotYetValid
            | Self::Certificate(_)
            | Self::Name(_)
            | Self::Ca(_) => true,
            Self::Handshake(_) => false,
        }
    }
}

impl TrustedCa {
    /// Loads the certificates of a PEM file.
    ///
    /// # Errors
    /// If it is not a regular file of at most 1 MiB, users other than its owner can change it, or it has no
    /// certificate of a CA.
    pub fn load(path: &Path) -> Result<Self, CaError> {
        let failed = |source| CaError::Read { path: path.to_owned(), source };
        let file = files::open_regular(path).map_err(failed)?;
        if let Some(mode) = files::mode_writable_by_others(&file).map_err(failed)? {
            return Err(CaError::Writable { path: path.to_owned(), mode });
        }
        Self::parse(&files::read_at_most(file, LENGTH_MAX).map_err(failed)?, path)
    }

    /// Returns the certificates of a PEM text, which is, or will be, the content of the file `path`.
    ///
    /// # Errors
    /// If it has no certificate of a CA.
    pub fn parse(pem: &[u8], path: &Path) -> Result<Self, CaError> {
        let malformed = || CaError::Malformed { path: path.to_owned() };
        let mut roots = RootCertStore::empty();
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.map_err(|_| malformed())?;
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|_| malformed())?;
        }
        let parsed = Self::new(roots, Some(path.into())).ok_or_else(malformed)?;
        Ok(Self { certificates: certificates.into(), ..parsed })
    }

    /// Loads the CAs of this machine.
    ///
    /// # Errors
    /// If it has none.
    pub fn system() -> Result<Self, CaError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        let missing = || {
            let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
            CaError::System(if errors.is_empty() { "none is installed".to_owned() } else { errors.join("; ") })
        };
        Self::new(roots, None).ok_or_else(missing)
    }

    /// `None` without a certificate.
    fn new(roots: RootCertStore, path: Option<Arc<Path>>) -> Option<Self> {
        let provider = Arc::new(provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().ok()?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .ok()?
            .with_webpki_verifier(Arc::clone(&verifier))
            .with_no_client_auth();
        Some(Self { path, certificates: Arc::default(), name: None, verifier, config: Arc::new(config) })
    }

    /// The file of the CA; `None` for the CAs of this machine.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The certificates in PEM format, and nothing else that the file has; `None` for the CAs of this machine.
    pub fn pem(&self) -> Option<String> {
        self.path.as_ref().map(|_| self.certificates.iter().map(encode).collect())
    }

    /// The name of [`TrustedCa::for_name`].
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The configuration for another TLS client.
    pub(crate) fn client_config(&self) -> ClientConfig {
        self.config.as_ref().clone()
    }

    /// Checks the certificates of a server in PEM format, its own first, as clients would that connect to `host` at a
    /// time.
    ///
    /// # Errors
    /// [`TlsFailure`]: why clients would refuse it.
    pub fn check(&self, pem: &[u8], host: &str, at: Timestamp) -> Result<(), TlsFailure> {
        let malformed = || TlsFailure::Certificate(CertificateError::BadEncoding);
        let name = server_name(host)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.map_err(|_| malformed())?;
        let (own, intermediates) = chain.split_first().ok_or_else(malformed)?;
        let seconds = u64::try_from(at.unix_micros() / 1_000_000).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let checked = self.verifier.verify_server_cert(own, intermediates, &name, &[], at);
        checked.map(|_| ()).map_err(|error| self.failure(error, host))
    }

    /// Checks a server's certificate for this name, whatever the address is.
    ///
    /// # Errors
    /// If no certificate can be for the name.
    pub fn for_name(self, host: &str) -> Result<Self, TlsFailure> {
        let name = server_name(host)?;
        let named = NamedVerifier { name, verifier: Arc::clone(&self.verifier) };
        let mut config = self.client_config();
        config.dangerous().set_certificate_verifier(Arc::new(named));
        Ok(Self { config: Arc::new(config), name: Some(host.into()), ..self })
    }

    /// Upgrades a connection to `host`.
    ///
    /// # Errors
    /// [`TlsFailure`].
    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, TlsFailure> {
        let name = server_name(host)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(name, stream).await.map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            match cause {
                Some(cause @ rustls::Error::InvalidCertificate(_)) => self.failure(cause.clone(), host),
                Some(_) | None => TlsFailure::Handshake(error),
            }
        })
    }

    fn failure(&self, error: rustls::Error, host: &str) -> TlsFailure {
        #[expect(clippy::wildcard_enum_match_arm, reason = "not all are known: the library may add some")]
        match error {
            // A CA of the same name with another key is found by the signature.
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                TlsFailure::UnknownCa { ca: self.to_string() }
            }
            rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected: _, presented }) => {
                TlsFailure::WrongName {
                    expected: host.to_owned(),
                    presented: presented.iter().map(|name| shown(name)).collect(),
                }
            }
            rustls::Error::InvalidCertificate(CertificateError::NotValidForName) => {
                TlsFailure::WrongName { expected: host.to_owned(), presented: Vec::new() }
            }
            rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                TlsFailure::Expired
            }
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => TlsFailure::NotYetValid,
            rustls::Error::InvalidCertificate(other) => TlsFailure::Certificate(other),
            other => TlsFailure::Handshake(io::Error::new(io::ErrorKind::InvalidData, other)),
        }
    }
}

/// Verifies a server's certificate for a name that does not follow from its address.
#[derive(Debug)]
struct NamedVerifier {
    name: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for NamedVerifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _address: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(own, intermediates, &self.name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, own, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, own, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// A presented name as the library reports it: `DnsName("a")` or `IpAddress(10.0.0.1)`.
fn shown(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').to_owned()
}

/// The cryptography of all connections.
fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// The name that a server's certificate must be for. The zone of an IPv6 address is not part of it.
fn server_name(host: &str) -> Result<ServerName<'static>, TlsFailure> {
    let zoneless = host.split_once('%').map_or(host, |(address, _)| address);
    if let Ok(address) = zoneless.parse::<Ipv6Addr>() {
        return Ok(ServerName::from(IpAddr::V6(address)));
    }
    ServerName::try_from(host.to_owned()).map_err(|_| TlsFailure::Name(host.to_owned()))
}

/// What is trusted, for messages.
impl fmt::Display for TrustedCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "the CA in `{}`", path.display()),
            None => f.write_str("a CA that this machine trusts"),
        }
    }
}

impl fmt::Debug for TrustedCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedCa").field("path", &self.path).finish_non_exhaustive()
    }
}
