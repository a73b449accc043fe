//! The mesh device. It is kept by a task of its own ([`crate::wireguard`]), because the protocol with the process that
//! serves it must not delay the passes; its faults are part of the observed state.

use crate::engine::DeviceKind;
use crate::model::change::Change;
use crate::model::ip::IpChange;
use crate::model::link::LinkChange;
use crate::model::mesh_device::MESH;
use crate::model::observed::Observed;

/// The kind of the mesh device, of which a node has one.
pub struct Mesh;

impl Mesh {
    pub const NAME: &str = "mesh";
}

impl DeviceKind for Mesh {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn is_notified(&self, change: &Change, observed: &Observed) -> bool {
        let is_mesh = |index| observed.mesh().is_some_and(|link| link.index == index);
        match change {
            Change::Link(LinkChange::Seen(link)) => link.name == MESH || is_mesh(link.index),
            Change::Link(LinkChange::Gone(index)) | Change::Ip(IpChange::Address { index, .. }) => is_mesh(*index),
            Change::HostRoute => true,
            Change::Ip(_) | Change::Port(_) | Change::Firewall { .. } => false,
        }
    }
}
