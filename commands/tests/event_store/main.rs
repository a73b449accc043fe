//! Tests of event stores: the conformance suite, state snapshots, and journals of earlier versions.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

mod backends;
mod conformance;
mod fixture;
mod given_up;
mod sample;
mod snapshots;
