//! The embedded NATS of the control plane: a `nats-server` child with the accounts of an operator of its own. Owns the
//! keys, the accounts, the configuration, the child process, the mirror of the events and users' consumers on it; never
//! writes an event.
//!
//! Its files are in the state folder: `identity/` (keys), `credentials/<user>.creds`, and in `nats/` the configuration,
//! the log, the lock, the accounts, the JetStream store, and `hold`, a file that an operator creates to keep NATS
//! stopped.

mod accounts;
mod config;
mod consumers;
mod disk;
mod error;
mod files;
mod former_users;
mod identity;
mod lock;
mod mirror;
mod process;
mod program;
mod readiness;
mod refusals;
mod revocation;
mod revoked_keys;
mod scope;
mod supervisor;
mod tls;
mod users;

pub(crate) use accounts::Revocations;
pub(crate) use consumers::{MirrorTurn, UserConsumers};
pub(crate) use disk::has_free_space;
pub(crate) use error::NatsError;
pub(crate) use files::{private_folder, read_private, write_private};
pub(crate) use former_users::FormerUsers;
pub(crate) use identity::Identity;
pub(crate) use mirror::{Mirror, MirrorError, MirrorProgress, is_not_found};
pub(crate) use refusals::NatsRefusals;
pub(crate) use revocation::{RevocationPusher, revocations};
pub(crate) use scope::Scope;
pub(crate) use supervisor::{NatsAccess, NatsSettings, NatsSupervisor};
pub(crate) use tls::{GivenCertificate, TlsSettings, parse_name};

#[cfg(test)]
mod tests;
