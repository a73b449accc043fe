//! The VTEP that an overlay requires on a node, and the forwarding to other nodes, which follows from decisions alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::{NetworkId, NodeId};
use otherix_schemas::network::OverlaySpec;
use otherix_schemas::nic::NicAttached;
use otherix_schemas::value::{BridgeName, MacAddress, Vni};
use serde::{Deserialize, Serialize};

use crate::device::bridge::desired::DesiredBridge;
use crate::model::view::View;
use crate::model::vxlan::vtep_name;

/// An overlay: a managed bridge, and a VTEP as a port of it that leads to the other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredOverlay {
    pub bridge: DesiredBridge,
    /// It has the bridge's MTU, and is always up.
    pub vtep: DesiredVtep,
    /// The NICs on other nodes, with the mesh address of their node.
    #[serde(default)]
    pub remote: BTreeMap<MacAddress, Ipv4Addr>,
    /// The flood list: the mesh addresses of the nodes that have such NICs.
    #[serde(default)]
    pub flood: BTreeSet<Ipv4Addr>,
}

/// The VXLAN device of an overlay network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredVtep {
    pub name: String,
    pub vni: Vni,
    /// The source address: the node's in the mesh.
    pub local: Ipv4Addr,
}

/// Returns what an overlay with this spec requires on the node with the mesh address `local`.
pub fn overlay(
    spec: &OverlaySpec,
    mac: Option<MacAddress>,
    local: Ipv4Addr,
    remote: BTreeMap<MacAddress, Ipv4Addr>,
) -> DesiredOverlay {
    let OverlaySpec { vni, subnet: _, mtu } = spec;
    let bridge =
        DesiredBridge { name: BridgeName::of_overlay(*vni), mtu: mtu.get().into(), mac, vlan: None, nat: None };
    let vtep = DesiredVtep { name: vtep_name(vni.get()), vni: *vni, local };
    let flood = remote.values().copied().collect();
    DesiredOverlay { bridge, vtep, remote, flood }
}

/// Returns, for each network, its NICs on other nodes of the mesh, with the mesh address of their node.
pub fn remote_nics(view: &View, node: NodeId) -> BTreeMap<NetworkId, BTreeMap<MacAddress, Ipv4Addr>> {
    let mut nics: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (_, nic) in view.nics().filter(|(_, nic)| nic.detached_at.is_none()) {
        if let Some(other) = nic.node().filter(|other| *other != node)
            && let Some(peer) = view.mesh_peer(other)
        {
            let NicAttached { nic_id: _, vm_id: _, network_id, mac } = nic.attached;
            nics.entry(network_id).or_default().insert(mac, peer.address);
        }
    }
    nics
}
