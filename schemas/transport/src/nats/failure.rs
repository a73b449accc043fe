//! Why a server cannot be used, or refuses the credentials.

use std::io;
use std::time::Duration;

use otherix_schemas::timestamp::Timestamp;

use super::address::{AddressError, ServerAddress};
use super::protocol::ProtocolError;
use crate::credentials::Credentials;
use crate::tls::TlsFailure;

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    #[error("the address is malformed")]
    Address(#[from] AddressError),
    #[error("cannot connect to `{address}`")]
    Connect { address: ServerAddress, source: io::Error },
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("the server closed the connection")]
    Closed,
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the server does not speak the NATS protocol")]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Tls(#[from] TlsFailure),
    #[error(transparent)]
    Credentials(#[from] CredentialsRefusal),
    #[error("the server refuses the connection: {0}")]
    Refused(String),
    #[error("two pings were not answered")]
    Unanswered,
    #[error("other credentials are to be used")]
    Replaced,
}

/// Why the credentials are not accepted. The server tells little; the credentials' own expiry tells more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsRefusal {
    #[error("the credentials expired at {0}")]
    Expired(Timestamp),
    /// They were revoked while a connection used them.
    #[error("the credentials were revoked")]
    Revoked,
    /// The server does not tell one from the other.
    #[error("the credentials are revoked, or were issued by another cluster")]
    Unknown,
    #[error("the user is unknown, or the password is wrong")]
    Password,
    /// It authenticates by user and password, or not at all.
    #[error("the server does not authenticate by key, as these credentials require")]
    NoNonce,
    #[error("the server refuses the credentials: {0}")]
    Other(String),
}

impl CredentialsRefusal {
    /// Interprets an error of the server; `None` if it is about something else. `now` is the clock of this machine.
    pub(super) fn parse(error: &str, credentials: &Credentials, now: Option<Timestamp>) -> Option<Self> {
        let text = error.to_ascii_lowercase();
        if text.contains("timeout") || !(text.contains("authorization") || text.contains("authentication")) {
            return None;
        }
        let expiry = credentials.expires_at();
        let is_expired = expiry.zip(now).is_some_and(|(expiry, now)| expiry <= now);
        Some(match expiry {
            Some(expiry) if is_expired || text.contains("user authentication expired") => Self::Expired(expiry),
            _ if text.contains("user authentication revoked") => Self::Revoked,
            _ if !text.contains("violation") => Self::Other(error.escape_debug().to_string()),
            _ if credentials.is_password() => Self::Password,
            _ => Self::Unknown,
        })
    }
}
