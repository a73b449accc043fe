//! Promises of connections to servers that are not trusted, or do not trust the user:
//! - with a CA, nothing is sent to a server that does not prove that it has a certificate of this CA for its address;
//!   why is said in a sentence, and so is what to do;
//! - a user proves with its key who it is; expired, revoked and unknown credentials are told apart;
//! - a request that the server does not permit fails at once, with permission and role;
//! - a server that refuses is not stormed with attempts, and the log has a line for each change only.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a failed assumption is a failed test"
)]

mod cluster;
mod credentials;
mod credentials_file;
mod operator;
mod pki;
mod refusals;
mod tls;
