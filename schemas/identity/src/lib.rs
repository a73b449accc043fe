//! Identities of NATS with decentralised authentication: an operator signs accounts, an account signs users, and a user
//! proves with its key that a JWT is its own. No clock and no network: times are arguments.

pub mod creds;
pub mod join_token;
pub mod jwt;
pub mod key;

pub use creds::{Creds, CredsError, CredsFormatError};
pub use join_token::{JoinToken, JoinTokenError};
pub use key::{KeyError, KeyKind, KeyPair, PublicKey};
