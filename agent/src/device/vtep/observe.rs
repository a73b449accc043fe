//! What VTEPs depend on in the observed state: the mesh device, and other VXLAN devices.

use std::net::Ipv4Addr;

use super::text;
use crate::engine::text::name_conflict;
use crate::model::desired::{DesiredOverlay, DesiredVtep};
use crate::model::link::Link;
use crate::model::mesh_device::MESH;
use crate::model::observed::Observed;
use crate::model::vxlan::Vxlan;

/// Why VTEPs cannot send, as the text of an outcome.
pub(super) enum MeshProblem {
    /// The mesh device does not exist, or lacks the address.
    Absent(String),
    /// The mesh device has the address, but another fault.
    Faulty(String),
    /// A foreign device has the name of the mesh device.
    Conflict(String),
}

impl MeshProblem {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Absent(text) | Self::Faulty(text) | Self::Conflict(text) => text,
        }
    }
}

/// Returns what prevents a VTEP with this source address from using the mesh.
pub(super) fn mesh_problem(observed: &Observed, local: Ipv4Addr) -> Option<MeshProblem> {
    let fault = observed.mesh_faults.device.as_deref();
    let Some(link) = observed.mesh() else {
        let conflict = observed.named(MESH).map(|link| MeshProblem::Conflict(name_conflict(link)));
        return Some(conflict.unwrap_or_else(|| MeshProblem::Absent(text::no_mesh(fault))));
    };
    let mut addresses = observed.ip.addresses.get(&link.index).into_iter().flatten();
    if !addresses.any(|address| address.address == local) {
        return Some(MeshProblem::Absent(text::mesh_without_address(local, fault)));
    }
    if link.name != MESH {
        return Some(MeshProblem::Faulty(text::mesh_renamed(&link.name)));
    }
    let down = (!link.up).then(text::mesh_down);
    fault.map(text::mesh_fault).or(down).map(MeshProblem::Faulty)
}

/// Returns why a node with NICs of the network is unreachable, if one is.
pub(super) fn unreachable_node(observed: &Observed, overlay: &DesiredOverlay) -> Option<String> {
    let nodes = &observed.mesh_faults.nodes;
    let (node, why) = overlay.flood.iter().find_map(|node| nodes.get_key_value(node))?;
    Some(text::node_unreachable(*node, why))
}

/// Returns another device with the VNI of the VTEP, besides which the kernel creates none.
pub(super) fn same_vni<'a>(observed: &'a Observed, vtep: &DesiredVtep) -> Option<&'a Link> {
    let Vxlan { vni, port, .. } = Vxlan::ours(vtep.vni.get(), vtep.port, vtep.local);
    observed.links().find(|link| link.vxlan.is_some_and(|vxlan| (vxlan.vni, vxlan.port) == (vni, port)))
}
