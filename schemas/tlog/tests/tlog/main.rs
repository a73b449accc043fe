//! Tests of the transparency log against its specifications, other implementations, and alterations of all kinds.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

mod checkpoints;
mod common;
mod crates;
mod entry_proofs;
mod formats;
mod notes;
mod programs;
mod proofs;
mod tree;
mod witnesses;
