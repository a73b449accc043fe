//! Promises of the write side, on a real SQLite journal and a real `nats-server`: what is answered is durable, what
//! fails is taken back as a whole, what is altered shows, and the stream is the journal's copy whatever happens to
//! either side.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

mod faults;
mod gathering;
mod journal;
mod keys;
mod races;
mod recovery;
mod relay;
mod relay_repair;
mod support;
#[path = "../support/things.rs"]
mod things;
mod writer;
