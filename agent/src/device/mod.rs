//! The kinds of devices that the agent manages. A kind is a folder:
//!
//! - `desired.rs`: what of it a network or NIC requires; pure
//! - `observe.rs`: what of the observed state it depends on; pure
//! - `plan.rs`: the difference, as steps; pure
//! - `action.rs`: its actions, as data; pure
//! - `apply.rs`: the actions on the kernel, and what the engine must know of them
//! - `mod.rs`: its implementation of [`DeviceKind`], and its name in the list below
//!
//! [`port`] is no kind: it is what taps and VTEPs have in common as ports of a bridge.

pub mod bridge;
pub mod mesh;
pub mod nat;
pub mod port;
pub mod tap;
pub mod vtep;

use crate::engine::DeviceKind;

/// The kinds. A device that depends on another comes after it.
pub const KINDS: &[&dyn DeviceKind] = &[&bridge::Bridge, &nat::Nat, &vtep::Vtep, &tap::Tap, &mesh::Mesh];
