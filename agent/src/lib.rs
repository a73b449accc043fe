//! The node agent, from the events to the kernel and back.
//!
//! - [`model`]: what is pure: `view` -> `desired` -> `plan` over `observed`, and the bookkeeping of reports
//! - [`kernel`]: links read, watched, made, changed and removed over rtnetlink
//! - [`reconcile`]: one round: plan, execute, observe, plan again
//! - [`identity`]: who this node is, kept on disk
//! - [`ledger`]: what has been decided, kept on disk
//! - [`release`]: which deletions an operator has released
//! - [`control`]: joining, reporting, signs of life
//! - [`mesh`]: the mesh device, a process of its own
//! - [`wireguard`]: the kernel's WireGuard, in place of the mesh process
//! - [`agent`]: the loop that ties them together

pub mod agent;
pub mod control;
mod files;
pub mod identity;
pub mod kernel;
pub mod ledger;
pub mod mesh;
pub mod model;
pub mod reconcile;
pub mod release;
pub mod wireguard;
