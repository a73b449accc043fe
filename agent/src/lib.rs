//! The node agent: it reconciles this node's kernel with the decisions of the cluster, and reports the outcomes.
//!
//! A module uses only those before it:
//!
//! 1. [`model`]: data and pure functions: cluster view, desired and observed state, reports
//! 2. [`kernel`]: the kernel's netlink interfaces
//! 3. [`engine`]: reconciliation: plan, execute, observe, retry
//! 4. [`device`]: the device kinds, which the engine gets as a list
//! 5. [`trust`]: the control plane's key; [`control`]: join, reports and heartbeats over NATS; [`verified_feed`]: the
//!    decisions; [`witness`]: the transparency log; [`identity`]: the node's id, kept on disk; [`only_agent`]: one
//!    agent in a network namespace
//! 6. [`ledger`]: the decisions, kept on disk; [`release`]: held deletions; [`contradiction`]: another history than the
//!    node's; [`wireguard`]: the mesh device
//! 7. [`join`]: how a machine becomes a node; [`connection`]: how the node reaches its control plane; [`key_rotation`]:
//!    another key for that; [`status`]: what the state folder tells
//! 8. [`machines`]: VMs; `asks`: what the control plane asks of them
//! 9. [`agent`]: the main loop

pub mod agent;
mod asks;
pub mod capacity_report;
pub mod connection;
pub mod contradiction;
pub mod control;
pub mod device;
pub mod engine;
pub mod identity;
pub mod join;
pub mod kernel;
pub mod key_rotation;
pub mod ledger;
pub mod left;
pub mod machines;
pub mod model;
pub mod only_agent;
pub mod release;
pub mod status;
pub mod trust;
pub mod verified_feed;
pub mod wireguard;
pub mod withdrawn;
pub mod witness;
