//! The read side: read models follow the event store from any position, have the same rows at a position whether they
//! followed or were rebuilt, and stop visibly at an event that they cannot apply.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod beside;
mod follow;
mod history;
mod mesh;
mod pages;
mod prefixes;
mod presence;
mod rebuild;
mod removal;
mod stopped;
mod support;
mod users;
mod vms;
