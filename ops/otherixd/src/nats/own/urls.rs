//! The URLs of the servers of an existing NATS, and which trust they need.

use std::path::Path;
use std::str::FromStr;

use otherix_transport::TrustedCa;
use otherix_transport::nats::{AddressError, ServerAddress};

use super::OwnNatsError;

/// At least one URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrls(Vec<ServerAddress>);

impl FromStr for ServerUrls {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        ServerAddress::parse_list(text).map(Self)
    }
}

impl ServerUrls {
    /// Whether connections must be encrypted: somebody may be between.
    fn require_tls(&self, has_ca: bool) -> bool {
        has_ca || self.0.iter().any(|address| address.requires_tls || !address.is_loopback())
    }

    /// The CA that connections trust; `None` if they need not be encrypted.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn ca(&self, file: Option<&Path>) -> Result<Option<TrustedCa>, OwnNatsError> {
        match file {
            Some(path) => Ok(Some(TrustedCa::load(path)?)),
            None if self.require_tls(false) => Ok(Some(TrustedCa::system()?)),
            None => Ok(None),
        }
    }

    /// The URLs as clients get them. Where TLS is required, they say so: a client without a CA file, too, then refuses
    /// plain text.
    pub(super) fn render(&self, has_ca: bool) -> String {
        self.each(has_ca).join(",")
    }

    /// The URL of each server.
    pub(super) fn each(&self, has_ca: bool) -> Vec<String> {
        let scheme = if self.require_tls(has_ca) { "tls" } else { "nats" };
        self.0.iter().map(|address| format!("{scheme}://{address}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_may_be_in_plain_text() {
        for (urls, has_ca, rendered) in [
            ("127.0.0.1:4222,nats://[::1]:5", false, "nats://127.0.0.1:4222,nats://[::1]:5"),
            ("127.0.0.1:4222", true, "tls://127.0.0.1:4222"),
            ("tls://localhost", false, "tls://localhost:4222"),
            ("nats://127.0.0.1:1,nats://10.0.0.1:2", false, "tls://127.0.0.1:1,tls://10.0.0.1:2"),
            ("nats://nats.example", false, "tls://nats.example:4222"),
        ] {
            let parsed: ServerUrls = urls.parse().unwrap();
            assert_eq!(parsed.render(has_ca), rendered);
        }
        assert!("nats://a,,nats://b".parse::<ServerUrls>().is_err());
    }
}
