//! The embedded NATS of the control plane: a `nats-server` child with two accounts, `CONTROL` and `CLIENTS`. Owns the
//! credentials, the configuration, the child process and the clients' mirror; never reads or writes an event.
//!
//! Its files are in the state folder: `credentials/<user>.json`, and in `nats/` the configuration, the log, the lock,
//! the JetStream store, and `hold`, a file that an operator creates to keep NATS stopped.

mod accounts;
mod config;
mod credentials;
mod disk;
mod error;
mod files;
mod lock;
mod mirror;
mod process;
mod program;
mod readiness;
mod supervisor;
mod tls;

pub(crate) use disk::has_free_space;
pub(crate) use error::NatsError;
pub(crate) use files::{private_folder, write_private};
pub(crate) use mirror::{Mirror, MirrorError, MirrorProgress, is_not_found};
pub(crate) use supervisor::{NatsAccess, NatsSettings, NatsSupervisor};
pub(crate) use tls::{GivenCertificate, TlsSettings, parse_name};

#[cfg(test)]
mod tests;
