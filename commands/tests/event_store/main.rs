//! Promises of every event store (`conformance`), of state snapshots, and of the SQLite store that opens the journals
//! of earlier versions.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

mod backends;
mod conformance;
mod fixture;
mod sample;
mod snapshots;
