//! The agent's data, and the functions between them: decisions -> view -> desired state; kernel notifications ->
//! observed state; outcomes -> reports.
//!
//! Pure: no I/O, no clock, no randomness, no async. These modules name only `std`'s collections and texts, `serde`,
//! `thiserror`, `uuid`, `otherix_schemas` and each other, in this order (a module uses only those before it):
//!
//! 1. `ip`, `vxlan`, `bridge_port`, `owner`, `mesh_device`: values without dependencies
//! 2. `firewall`, `link`
//! 3. [`observed`]: what the node's kernel has
//! 4. [`view`], [`mesh`], [`desired`]: what the decisions require of the node
//! 5. [`report`]: what the control plane has been sent

pub mod bridge_port;
pub mod change;
pub mod desired;
pub mod firewall;
pub mod ip;
pub mod link;
pub mod mesh;
pub mod mesh_device;
pub mod observed;
pub mod owner;
pub mod report;
pub mod view;
pub mod vxlan;
