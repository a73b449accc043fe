//! What an overlay requires on a node: a bridge, a VTEP, and the forwarding to other nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::{NetworkId, NodeId};
use otherix_schemas::network::{Egress, OverlaySpec};
use otherix_schemas::nic::NicAttached;
use otherix_schemas::value::{BridgeName, MacAddress, Vni};
use serde::{Deserialize, Serialize};

use super::{DesiredBridge, GATEWAY_MAC};
use crate::model::cluster_view::ClusterView;
use crate::model::ip::Gateway;
use crate::model::vxlan::{PORT, vtep_name};

/// An overlay: a managed bridge, and a VTEP as the port of it that leads to the other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredOverlay {
    pub bridge: DesiredBridge,
    /// It has the MTU of the bridge, and is always up.
    pub vtep: DesiredVtep,
    /// The MAC addresses of the NICs on other nodes, with the mesh address of their node.
    #[serde(default)]
    pub remote: BTreeMap<MacAddress, Ipv4Addr>,
    /// The flood list: the mesh addresses of the nodes with such NICs.
    #[serde(default)]
    pub flood: BTreeSet<Ipv4Addr>,
}

/// The VXLAN device of an overlay network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredVtep {
    pub name: String,
    pub vni: Vni,
    /// The source address, which is the mesh address of this node.
    pub local: Ipv4Addr,
    /// The UDP port, the same on all nodes.
    #[serde(default = "default_port", skip_serializing_if = "is_default_port")]
    pub port: u16,
}

const fn default_port() -> u16 {
    PORT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_default_port(port: &u16) -> bool {
    *port == PORT
}

impl DesiredOverlay {
    /// Returns what an overlay with this spec requires on the node with the mesh address `local`.
    pub(super) fn of(
        spec: &OverlaySpec,
        mac: Option<MacAddress>,
        local: Ipv4Addr,
        remote: BTreeMap<MacAddress, Ipv4Addr>,
    ) -> Self {
        let OverlaySpec { vni, subnet: _, egress, mtu, dhcp, allow_spoofing } = spec;
        let (name, mtu) = (BridgeName::of_overlay(*vni), mtu.get().into());
        let (mac, nat) = match egress {
            Egress::None => (mac, None),
            // The same on every node, so that guests find it wherever they are.
            Egress::Nat(nat) => (MacAddress::try_from(GATEWAY_MAC).ok(), Some(Gateway::from(*nat))),
        };
        let dns = nat.is_some() && dhcp.is_some_and(|dhcp| dhcp.dns);
        let bridge = DesiredBridge { name, mtu, mac, vlan: None, nat, allow_spoofing: *allow_spoofing, dns };
        let vtep = DesiredVtep { name: vtep_name(vni.get()), vni: *vni, local, port: PORT };
        let flood = remote.values().copied().collect();
        Self { bridge, vtep, remote, flood }
    }
}

/// Returns, for each network, its NICs on other nodes of the mesh, with the mesh address of their node.
pub(super) fn remote_nics(view: &ClusterView, node: NodeId) -> BTreeMap<NetworkId, BTreeMap<MacAddress, Ipv4Addr>> {
    let mut nics: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (_, nic) in view.nics().filter(|(_, nic)| nic.detached_at.is_none()) {
        if let Some(other) = nic.node().filter(|other| *other != node)
            && let Some(peer) = view.mesh_peer(other)
        {
            let NicAttached { nic_id: _, vm_id: _, network_id, mac, ip: _ } = nic.attached;
            nics.entry(network_id).or_default().insert(mac, peer.address);
        }
    }
    nics
}
