//! The write side with a SQLite journal and a real `nats-server`: answered commands are durable, a failed batch has no
//! effect, alterations are detected, and the stream is a copy of the journal whatever happens to either.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

mod addresses;
#[path = "../support/builders.rs"]
mod builders;
mod credentials;
mod faults;
mod gathering;
mod join_tokens;
mod journal;
mod keys;
mod log;
mod log_forks;
mod races;
mod recovery;
mod relay;
mod relay_repair;
mod retention;
mod support;
mod too_long;
mod users;
mod writer;
