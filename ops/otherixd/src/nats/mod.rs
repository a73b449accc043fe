//! The NATS of the control plane: a `nats-server` child with the accounts of an operator of its own ([`supervisor`]),
//! or an existing one ([`own`]). Owns the keys, the accounts, the configuration, the child process, the mirror of the
//! events and users' consumers on it; never writes an event.
//!
//! Its files are in the state folder: `identity/` (keys), `credentials/<user>.creds`, and in `nats/` the configuration,
//! the log, the lock, the accounts, the JetStream store, and `hold`, a file that an operator creates to keep NATS
//! stopped.

mod accounts;
mod checkpoints;
mod clock;
mod config;
mod consumers;
mod disk;
mod error;
mod files;
mod former_users;
mod identity;
mod lock;
mod mirror;
mod own;
mod process;
mod program;
mod readiness;
mod refusals;
mod revocation;
mod revoked_keys;
mod scope;
mod server;
mod state;
mod supervisor;
mod tls;
mod users;

pub(crate) use accounts::{AccountName, Revocations};
pub(crate) use checkpoints::CheckpointStream;
pub(crate) use clock::unix_now;
pub(crate) use consumers::{MirrorTurn, UserConsumers};
pub(crate) use disk::has_free_space;
pub(crate) use error::NatsError;
pub(crate) use files::{private_folder, read_private, write_private};
pub(crate) use former_users::FormerUsers;
pub(crate) use identity::{Identity, account_key, needed_files};
pub(crate) use mirror::{Mirror, MirrorError, MirrorProgress, is_not_found};
pub(crate) use own::{
    AccountPusher, OwnNatsSettings, Pushed, ServerUrls, SystemClient, Wanted, account_claims, label, note_given,
    operator_key, push_all, set_replicas,
};
pub(crate) use refusals::{NatsRefusals, RefusalSource};
pub(crate) use revocation::{PUSH_HINT, REVOKED_BY_SERVICES, RevocationPusher, RevocationSink, revocations};
pub(crate) use scope::Scope;
pub(crate) use server::{AccountAuthority, NatsAccess, NatsChoice, NatsServer};
pub(crate) use state::{StateMirrors, StatePublisher};
pub(crate) use supervisor::NatsSettings;
#[cfg(test)]
use supervisor::NatsSupervisor;
pub(crate) use tls::{GivenCertificate, TlsSettings, parse_name};

#[cfg(test)]
mod tests;
