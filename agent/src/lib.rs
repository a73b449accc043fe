//! The node agent, from the events to the kernel and back.
//!
//! - [`model`]: what is pure: `view` -> `desired` -> `plan` over `observed`, and the bookkeeping of reports
//! - [`kernel`]: the kernel's netlink interfaces
//! - [`engine`]: reconciliation: plan, execute, observe, retry
//! - [`device`]: the kinds of devices that it reconciles
//! - [`identity`]: who this node is, kept on disk
//! - [`ledger`]: what has been decided, kept on disk
//! - [`release`]: which deletions an operator has released
//! - [`control`]: joining, reporting, signs of life
//! - [`wireguard`]: the mesh's device made and kept, whatever serves it
//! - [`agent`]: the loop that ties them together

pub mod agent;
pub mod control;
pub mod device;
pub mod engine;
pub mod identity;
pub mod kernel;
pub mod ledger;
pub mod model;
pub mod release;
pub mod wireguard;
