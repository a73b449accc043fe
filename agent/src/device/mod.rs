//! The device kinds. Each is a folder, whose desired state is in [`crate::model::desired`]:
//!
//! - `observe.rs`: what it derives from the observed state; pure
//! - `plan.rs`: the difference, as steps; pure
//! - `action.rs`: its actions, as data; pure
//! - `apply.rs`: [`crate::engine::StepAction`] of its actions, which executes them on the kernel
//! - `mod.rs`: its [`DeviceKind`], listed in [`KINDS`]
//!
//! [`port`] is not a kind: it has what taps and VTEPs share as bridge ports.

pub mod bridge;
pub mod foreign_filter;
pub mod guests;
pub mod mesh;
pub mod nat;
pub mod port;
pub mod tap;
pub mod vtep;

use crate::engine::DeviceKind;

/// The device kinds, in the order in which they are planned.
pub const KINDS: &[&dyn DeviceKind] = &[
    &bridge::BridgeKind,
    &guests::GuestFilterKind,
    &nat::NatKind,
    &vtep::VtepKind,
    &tap::TapKind,
    &mesh::MeshKind,
    &foreign_filter::ForeignFilterKind,
];
