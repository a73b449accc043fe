//! The agent's data, and the functions between them: decisions -> cluster view -> desired state; kernel notifications
//! -> observed state; outcomes -> reports.
//!
//! Pure: no I/O, no clock, no randomness, no async. The modules use collections and formatting of `std`, `serde`,
//! `thiserror`, `uuid`, `otherix_schemas` and each other; each uses only those before it:
//!
//! 1. `chain_proof`, `route`, `rule`, `ip`, `need`, `vxlan`, `bridge_port`, `owner`, `mesh_device`: values
//! 2. `firewall`, `filter`, `link`, `notification`
//! 3. [`observed`]: the observed state
//! 4. [`decided_vm`], [`cluster_view`], [`mesh`], [`desired`]: what the decisions require of the node
//! 5. [`report`]: the outcomes to report

pub mod bridge_port;
pub mod chain_proof;
pub mod cluster_view;
mod decided_network;
pub mod decided_vm;
pub mod desired;
pub mod filter;
pub mod firewall;
pub mod ip;
pub mod link;
pub mod link_group;
pub mod mesh;
pub mod mesh_device;
pub mod need;
pub mod notification;
pub mod observed;
pub mod owner;
pub mod report;
pub mod route;
pub mod route_lookup;
pub mod rule;
pub mod tap_lock;
pub mod vxlan;
pub mod withdrawal;
