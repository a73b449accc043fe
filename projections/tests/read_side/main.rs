//! Promises of the read side: the read models follow the stream from wherever they stand, hold the same at a position
//! however they came there, and stop visibly at an event that they cannot take in.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod follow;
mod mesh;
mod pages;
mod prefixes;
mod presence;
mod rebuilt;
mod removed;
mod stopped;
mod support;
mod vms;
