//! Messaging for every otherix process.
//!
//! [`transport`] is the interface: the few operations that otherix needs of a messaging system. [`nats`] implements
//! them over a NATS server, [`memory`] within one process, with seeded faults, for tests and simulations. Everything
//! else uses only this interface, through [`Connection`]: requests and their errors ([`request`]), serving requests
//! ([`service`]), and the event feed, which is in order and without gaps ([`feed`]).

mod admission;
pub mod connection;
pub mod credentials;
pub mod credentials_file;
mod denials;
pub mod feed;
pub mod jetstream;
pub mod memory;
pub mod nats;
pub mod request;
pub mod service;
pub mod tls;
pub mod transport;
mod turns;

pub use connection::Connection;
pub use credentials::{Credentials, CredentialsSource};
pub use credentials_file::CredentialsFile;
pub use denials::{Denials, NatsRefusal, shown};
pub use jetstream::JetStream;
pub use nats::{Nats, NatsEndpoint};
pub use tls::TrustedCa;
