//! What the agent thinks, without touching anything: each is a function of its arguments.
//!
//! No I/O, no clock, no randomness, no async here: only `std`'s collections and texts, `serde`, `thiserror`, `uuid`,
//! `otherix_schemas` and each other.

pub mod desired;
pub mod firewall;
pub mod ip;
pub mod mesh;
pub mod observed;
pub mod owner;
pub mod plan;
pub mod port;
pub mod report;
pub mod view;
pub mod vxlan;
