//! TLS of the NATS server: which certificate it shows, and which CA has issued it. Where the operator brings no
//! certificate, a CA and a certificate are generated in `identity/tls/` of the state folder: `ca.pem`, which clients
//! need, `ca.key`, and `server.pem` with certificate and key, all with mode 0600.
//!
//! The server's certificate is renewed at a start if it expires within a year, or is not for all names and
//! addresses of the server. The CA stays, because clients have copies of it.

pub(super) mod issue;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use otherix_runtime::{Runtime, SystemRuntime, files};
use otherix_schemas::timestamp::Timestamp;
use otherix_transport::TrustedCa;
use otherix_transport::tls::{CaError, TlsFailure};
use serde_json::{Value, json};

use self::issue::Authority;
use super::error::NatsError;
use super::files::{private_folder, write_private};

/// A certificate with less time left is renewed at a start, in seconds.
const RENEW_S: i64 = 365 * 24 * 3600;

/// Time for a handshake, in seconds: slow nodes need more than the server's default of 2.
const HANDSHAKE_TIMEOUT_S: u32 = 5;

/// What the command line says about TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsSettings {
    /// The operator's certificate and key.
    pub(crate) given: Option<GivenCertificate>,
    /// Further names and addresses of the server.
    pub(crate) names: Vec<String>,
}

/// A certificate that the operator brings.
#[derive(Clone, Debug)]
pub(crate) struct GivenCertificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// The CA that has issued it; None for one that machines trust anyway.
    pub(crate) ca: Option<PathBuf>,
}

/// The certificate that the server shows.
#[derive(Clone, Debug)]
pub(crate) struct ServerTls {
    cert: PathBuf,
    key: PathBuf,
    /// For the control plane's own connections to the server, whose address need not be in the operator's certificate.
    pub(crate) ca: TrustedCa,
}

/// There is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerTlsError {
    #[error("`{0}` is neither a host name nor an IP address")]
    Name(String),
    #[error("cannot generate a certificate")]
    Generate(#[source] rcgen::Error),
    #[error("`{}` is missing, or is not a private key in PEM format", .0.display())]
    Key(PathBuf),
    #[error("other users have access to the private key `{}` (mode {mode:04o}): run `chmod 600 {}`",
        path.display(), path.display())]
    Shared { path: PathBuf, mode: u32 },
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("clients would refuse the certificate `{}`", path.display())]
    Refused { path: PathBuf, source: TlsFailure },
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("the clock of this machine is out of range")]
    Clock,
}

impl ServerTlsError {
    /// How to resolve it, where the message does not say so.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Name(_) => Some("give a name such as `nats.example.org`, or an address, with --tls-name".to_owned()),
            Self::Key(path) => Some(format!(
                "restore `{}` from a backup; or remove the folder `identity/tls`: a new CA is generated then, which \
                 all clients and nodes need",
                path.display()
            )),
            Self::Refused { .. } => Some(
                "pass the CA that has issued it with --tls-ca, and one of the names that it is for with --tls-name"
                    .to_owned(),
            ),
            Self::Generate(_) | Self::Shared { .. } | Self::Read { .. } | Self::Ca(_) | Self::Clock => None,
        }
    }
}

impl ServerTls {
    /// Prepares the certificate of a server that listens on `listen`. `None` if connections are not encrypted: on
    /// loopback, where nobody is between, unless the settings name a certificate or name.
    ///
    /// # Errors
    /// If it cannot be read, generated or written, or clients would refuse it.
    pub(crate) fn prepare(state: &Path, listen: IpAddr, settings: &TlsSettings) -> Result<Option<Self>, NatsError> {
        let TlsSettings { given, names } = settings;
        match given {
            Some(given) => Ok(Some(Self::given(given, listen, names)?)),
            None if listen.is_loopback() && names.is_empty() => Ok(None),
            None => Self::generated(state, listen, names).map(Some),
        }
    }

    /// The operator's certificate. Checked as clients do, so that a wrong one is found here and not on every node.
    fn given(given: &GivenCertificate, listen: IpAddr, names: &[String]) -> Result<Self, ServerTlsError> {
        let GivenCertificate { cert, key, ca } = given;
        refuse_shared(key)?;
        let ca = match ca {
            Some(path) => TrustedCa::load(path)?,
            None => TrustedCa::system()?,
        };
        let unreadable = |source| ServerTlsError::Read { path: cert.clone(), source };
        let missing = || unreadable(std::io::ErrorKind::NotFound.into());
        let chain = files::read(cert).map_err(unreadable)?.ok_or_else(missing)?;
        let refused = |source| ServerTlsError::Refused { path: cert.clone(), source };
        let local = local_host(listen).to_string();
        for name in if names.is_empty() { std::slice::from_ref(&local) } else { names } {
            ca.check(&chain, name, now()?).map_err(refused)?;
        }
        // The control plane itself connects to the address.
        let ca = match names.first() {
            Some(name) => ca.for_name(name).map_err(refused)?,
            None => ca,
        };
        Ok(Self { cert: cert.clone(), key: key.clone(), ca })
    }

    fn generated(state: &Path, listen: IpAddr, names: &[String]) -> Result<Self, NatsError> {
        let folder = state.join("identity/tls");
        private_folder(&state.join("identity"))?;
        private_folder(&folder)?;
        let [ca_path, ca_key, server] = ["ca.pem", "ca.key", "server.pem"].map(|name| folder.join(name));
        let now = now()?;
        let authority = match read(&ca_key)? {
            Some(pem) => Authority::load(&pem).ok_or_else(|| ServerTlsError::Key(ca_key.clone()))?,
            // Clients have this CA: with another one they would refuse the server.
            None if read(&ca_path)?.is_some() => return Err(ServerTlsError::Key(ca_key).into()),
            None => {
                let authority = Authority::generate().map_err(ServerTlsError::Generate)?;
                write_private(&ca_key, authority.key_pem().as_bytes())?;
                authority
            }
        };
        // A start that was interrupted before continues here.
        if read(&ca_path)?.is_none() {
            let certificate = authority.certificate_pem(now).map_err(ServerTlsError::Generate)?;
            write_private(&ca_path, certificate.as_bytes())?;
        }
        let ca = TrustedCa::load(&ca_path).map_err(ServerTlsError::from)?;
        let names = server_names(listen, names);
        let present = read(&server)?;
        let later = shifted(now, RENEW_S)?;
        let is_good = |pem: &Vec<u8>| names.iter().all(|name| ca.check(pem, name, later).is_ok());
        if !present.as_ref().is_some_and(is_good) {
            let issued = authority.issue(&names, now).map_err(ServerTlsError::Generate)?;
            write_private(&server, issued.as_bytes())?;
            if present.is_some() {
                tracing::info!(names = names.join(" "), "renewed the certificate of the NATS server");
            }
        }
        Ok(Self { cert: server.clone(), key: server, ca })
    }

    /// The `tls` block of the server's configuration.
    pub(crate) fn block(&self) -> Value {
        json!({
            "cert_file": self.cert,
            "key_file": self.key,
            "timeout": HANDSHAKE_TIMEOUT_S,
        })
    }
}

/// Reads a file of this program; `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>, ServerTlsError> {
    files::read(path).map_err(|source| ServerTlsError::Read { path: path.to_owned(), source })
}

fn refuse_shared(key: &Path) -> Result<(), ServerTlsError> {
    let failed = |source| ServerTlsError::Read { path: key.to_owned(), source };
    let file = files::open_regular(key).map_err(failed)?;
    match files::shared_mode(&file).map_err(failed)? {
        Some(mode) => Err(ServerTlsError::Shared { path: key.to_owned(), mode }),
        None => Ok(()),
    }
}

pub(super) fn now() -> Result<Timestamp, ServerTlsError> {
    SystemRuntime.now().map_err(|_| ServerTlsError::Clock)
}

/// A time that many seconds later.
pub(super) fn shifted(time: Timestamp, seconds: i64) -> Result<Timestamp, ServerTlsError> {
    let micros = seconds.checked_mul(1_000_000).and_then(|pause| time.unix_micros().checked_add(pause));
    Timestamp::from_unix_micros(micros.ok_or(ServerTlsError::Clock)?).map_err(|_| ServerTlsError::Clock)
}

/// The address at which this machine reaches a server that listens on `listen`.
pub(super) fn local_host(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
    }
}

/// The names and addresses at which clients may reach the server, without duplicates.
fn server_names(listen: IpAddr, further: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()];
    if listen.is_unspecified() {
        names.extend(own_addresses().iter().map(ToString::to_string));
    } else {
        names.push(listen.to_string());
    }
    names.extend(host_name());
    names.extend(further.iter().cloned());
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// The name of this machine, if a certificate can be for it.
pub(super) fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_ascii_lowercase();
    issue::is_name(&name).then_some(name)
}

/// The addresses of this machine that others can reach. Link-local ones are not among them.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    });
    let is_reachable = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    addresses.filter(is_reachable).collect()
}

/// Parses `--tls-name`.
pub(crate) fn parse_name(text: &str) -> Result<String, ServerTlsError> {
    let name = text.to_ascii_lowercase();
    if issue::is_name(&name) { Ok(name) } else { Err(ServerTlsError::Name(text.to_owned())) }
}
