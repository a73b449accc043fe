//! Texts of outcomes of overlays: what is wrong, and how to correct it.

use std::net::Ipv4Addr;

use otherix_schemas::value::Vni;

use crate::model::link::Link;
use crate::model::mesh_device::MESH;

/// There is no mesh device.
pub(super) fn no_mesh(fault: Option<&str>) -> String {
    fault.map_or_else(|| format!("waiting for the mesh: this node has no `{MESH}`"), mesh_fault)
}

/// The mesh device does not have the node's mesh address.
pub(super) fn mesh_without_address(address: Ipv4Addr, fault: Option<&str>) -> String {
    let text = || format!("waiting for the mesh: `{MESH}` does not have the address {address}");
    fault.map_or_else(text, mesh_fault)
}

/// The mesh device was renamed, so that the packet filter's rules do not apply to it.
pub(super) fn mesh_renamed(name: &str) -> String {
    format!("waiting for the mesh: `{MESH}` was renamed to `{name}`")
}

pub(super) fn mesh_fault(fault: &str) -> String {
    format!("waiting for the mesh: {fault}")
}

pub(super) fn mesh_down() -> String {
    format!("waiting for the mesh: `{MESH}` is down")
}

/// A node with NICs of the network is unreachable.
pub(super) fn node_unreachable(node: Ipv4Addr, why: &str) -> String {
    format!("waiting for the mesh to reach {node}: {why}")
}

/// A VTEP of ours has attributes that cannot be changed.
pub(super) fn recreating(link: &Link) -> String {
    format!(
        "waiting for removal of `{}`, which was created or changed by another program: creating it again",
        link.name
    )
}

/// A foreign device has a VTEP's VNI.
pub(super) fn vni_conflict(link: &Link, vni: Vni) -> String {
    format!("`{}` is a VXLAN device with the VNI {vni} that otherix did not create: remove it", link.name)
}

/// The UDP port of VTEPs is in use, by this foreign VXLAN device or by a program.
pub(super) fn port_in_use(port: u16, device: Option<&Link>) -> String {
    match device {
        Some(link) => format!(
            "UDP port {port} is in use by `{}`, a VXLAN device that otherix did not create: give it another port, or \
            start the agents of all nodes with another `--vxlan-port`",
            link.name
        ),
        None => format!(
            "another program uses UDP port {port}: stop it (`ss -lunp sport = {port}` shows which), or start the \
            agents of all nodes with another `--vxlan-port`"
        ),
    }
}
