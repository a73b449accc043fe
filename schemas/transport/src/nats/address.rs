//! The addresses of NATS servers.

use std::fmt;
use std::str::FromStr;

/// The port of a server whose URL has none.
const PORT: u16 = 4222;

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name or an IP address; an IPv6 address has no brackets.
    pub host: String,
    pub port: u16,
    /// The scheme is `tls`: plain text is refused.
    pub requires_tls: bool,
}

/// Why a text is not the address of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("there is no address")]
    Empty,
    #[error("the scheme must be `nats` or `tls`")]
    Scheme,
    /// It would be visible in the process list and in messages.
    #[error("an address must not contain a user or password")]
    User,
    #[error("an address must not have a path or a query")]
    Extra,
    #[error("the host is missing or malformed")]
    Host,
    #[error("the port must be 1 to 65535")]
    Port,
}

impl ServerAddress {
    /// Parses addresses separated by commas, at least one.
    ///
    /// # Errors
    /// [`AddressError`], for the first that is malformed.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, AddressError> {
        text.split(',').map(|address| address.trim().parse()).collect()
    }
}

impl ServerAddress {
    /// Whether only this machine reaches it, as far as the text tells.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        address.map_or_else(|_| self.host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
    }
}

/// Accepts `nats://HOST[:PORT]`, `tls://HOST[:PORT]` and `HOST[:PORT]`.
impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let (requires_tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("nats") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tls") => (true, rest),
            Some(_) => return Err(AddressError::Scheme),
            None => (false, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(AddressError::User);
        }
        if rest.contains(['/', '?', '#']) {
            return Err(AddressError::Extra);
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(AddressError::Host)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| AddressError::Host)?;
                (host, port)
            }
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port > 0).ok_or(AddressError::Port)?
            }
            None if port.is_empty() => PORT,
            Some(_) | None => return Err(AddressError::Port),
        };
        let is_host = |char: char| char.is_alphanumeric() || matches!(char, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(AddressError::Host);
        }
        Ok(Self { host: host.to_owned(), port, requires_tls })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, requires_tls: _ } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_hosts_addresses_and_ports() {
        for (text, expected) in [
            ("nats://127.0.0.1:4222", "127.0.0.1:4222"),
            ("NATS://control.example/", "control.example:4222"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("nats://[fe80::1]:4333", "[fe80::1]:4333"),
            ("[::1]", "[::1]:4222"),
            ("tls://a", "a:4222"),
        ] {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), expected);
        }
        assert_eq!(ServerAddress::parse_list("a, nats://b:1").unwrap().len(), 2);
    }

    #[test]
    fn rejects_what_is_no_address() {
        use AddressError::{Empty, Extra, Host, Port, Scheme, User};
        for (text, error) in [
            ("", Empty),
            ("https://a", Scheme),
            ("nats://", Host),
            ("nats://:4222", Host),
            ("nats://user:pass@a", User),
            ("nats://a/b", Extra),
            ("nats://a:0", Port),
            ("nats://a:65536", Port),
            ("nats://a:+1", Port),
            ("nats://a b", Host),
            ("nats://[::1", Host),
            ("nats://[::1]x", Port),
        ] {
            assert_eq!(text.parse::<ServerAddress>().unwrap_err(), error, "{text}");
        }
        assert!(ServerAddress::parse_list("a,,b").is_err());
    }
}
