//! Copies the disks of VMs that move from node to node through the mesh (docs/adr/0051).

mod give;
mod take;
mod wire;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

pub(super) use self::give::{Gifts, serve};
pub(super) use self::take::{Abort, Incoming, TakeError, Taking, take};
use self::wire::PORT;
use crate::model::mesh_device::MESH;

/// How two nodes reach each other: through the mesh, except in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnEnd {
    /// The address of this node.
    pub(super) own: Ipv4Addr,
    pub(super) port: u16,
    /// The device that everything must come and go through.
    pub(super) device: Option<&'static str>,
}

impl OwnEnd {
    /// Through the mesh.
    pub(super) const fn mesh(own: Ipv4Addr) -> Self {
        Self { own, port: PORT, device: Some(MESH) }
    }
}
