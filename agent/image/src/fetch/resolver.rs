//! Names are resolved here and nowhere else, and only addresses that passed the guard are returned: whatever a name
//! resolves to later does not matter, because the connection is made to what was checked.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::address::{AddressGuard, RefusedAddress};

/// Addresses that are tried, at most; the resolver's type has room for 16.
const ADDRESSES_MAX: usize = 16;

/// Resolves the name of a host, or the text of an address.
pub trait Lookup: Debug + Send + Sync {
    /// # Errors
    /// If the name does not exist, or cannot be resolved within the time-out.
    fn lookup(&self, host: &str, timeout: Duration) -> io::Result<Vec<IpAddr>>;
}

/// Asks the operating system (`getaddrinfo`), which takes unusual forms of addresses as well: `127.1`, `0x7f000001`.
#[derive(Debug, Clone, Copy)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: &str, timeout: Duration) -> io::Result<Vec<IpAddr>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let host = host.to_owned();
        // It cannot be interrupted, so that after the time-out the thread ends when it will.
        thread::Builder::new().name("image-lookup".to_owned()).spawn(move || {
            let found = (host.as_str(), 0).to_socket_addrs();
            let _nobody_waits = sender.send(found.map(|addresses| addresses.map(|address| address.ip()).collect()));
        })?;
        receiver.recv_timeout(timeout).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// Why a name was not resolved.
#[derive(Debug, thiserror::Error)]
#[error("cannot resolve `{host}`")]
pub(super) struct LookupError {
    pub(super) host: String,
    #[source]
    pub(super) source: io::Error,
}

/// The resolver of all connections.
#[derive(Debug)]
pub(super) struct GuardedResolver {
    pub(super) guard: AddressGuard,
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) timeout: Duration,
}

impl GuardedResolver {
    /// All addresses must pass: a name that also leads to the node itself is not a mistake to work around.
    fn checked(&self, host: &str) -> Result<Vec<IpAddr>, ureq::Error> {
        // As in URLs; `getaddrinfo` takes no brackets.
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let addresses =
            self.lookup.lookup(host, self.timeout).map_err(|source| LookupError { host: host.to_owned(), source });
        let addresses = addresses.map_err(|error| ureq::Error::Other(error.into()))?;
        for &address in &addresses {
            if let Some(reason) = self.guard.reason(address) {
                let refused = RefusedAddress { host: host.to_owned(), address, reason };
                return Err(ureq::Error::Other(refused.into()));
            }
        }
        Ok(addresses)
    }
}

impl Resolver for GuardedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut resolved = self.empty();
        for address in self.checked(host)?.into_iter().take(ADDRESSES_MAX) {
            resolved.push(SocketAddr::new(address, port));
        }
        if resolved.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(resolved) }
    }
}
