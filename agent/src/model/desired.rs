//! What must be on this node for the networks and NICs of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::{ClusterId, NetworkId, NicId, NodeId};
use otherix_schemas::network::{BridgeSpec, Egress, NetworkSpec, OverlaySpec, Ownership};
use otherix_schemas::nic::{NicAttached, tap_name};
use otherix_schemas::position::Position;
use otherix_schemas::value::{BridgeName, Ipv4Subnet, MacAddress, Nat, VlanId, Vni};
use serde::{Deserialize, Serialize};

use super::ip::Address;
use super::mesh::MESH;
use super::view::{Life, Network, Nic, View};
use super::vxlan::vtep_name;

/// Said of an overlay on a node that has no place in the mesh.
const NO_PLACE: &str = "this node is not part of the mesh, which overlay networks need: nothing was made on this node";

/// What must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// The cluster, whose devices alone are ours.
    pub cluster: ClusterId,
    /// The node's place in the mesh, if it has one.
    #[serde(default)]
    pub mesh: Option<DesiredMesh>,
    /// For each network that is known.
    pub networks: BTreeMap<NetworkId, DesiredNetwork>,
    /// For each NIC that is on this node, or was.
    #[serde(default)]
    pub nics: BTreeMap<NicId, DesiredNic>,
    /// The node is no longer part of this cluster. Nothing is said of the packet filter then: its table is the present one's.
    #[serde(default)]
    pub is_former: bool,
}

/// What must be for one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNetwork {
    /// Which decision asks for it.
    pub generation: Position,
    /// What it asks for.
    pub want: Want,
}

/// What a network asks of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// A bridge of ours.
    Bridge(DesiredBridge),
    /// A bridge of ours that spans the nodes.
    Overlay(DesiredOverlay),
    /// A bridge that the operator makes and keeps; it is looked at, and never touched.
    Unmanaged(DesiredBridge),
    /// Something that cannot be on this node; the text says what. Nothing is made of it, not even half.
    Unsupported(String),
    /// That nothing is left: it is deleted.
    Nothing,
}

/// A bridge. One of ours is always up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredBridge {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its hardware address, which guests know the gateway by; any will do when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// The VLAN of the network's NICs on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    /// The node's place in it, if guests reach the outside through the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<Gateway>,
}

/// The node's address in a network whose guests reach the outside through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// The address.
    pub address: Ipv4Addr,
    /// The network's subnet, which the address is in.
    pub subnet: Ipv4Subnet,
}

impl Gateway {
    /// What a bridge with this address is the gateway of.
    pub fn on(address: Address) -> Option<Self> {
        let Address { address, prefix } = address;
        Some(Self { address, subnet: Ipv4Subnet::new(address, prefix).ok()? })
    }

    /// The address as the bridge has it.
    pub fn on_bridge(self) -> Address {
        Address { address: self.address, prefix: self.subnet.prefix() }
    }
}

impl From<Nat> for Gateway {
    fn from(nat: Nat) -> Self {
        Self { address: nat.gateway(), subnet: nat.subnet() }
    }
}

/// An overlay: a bridge of ours, and a VTEP as a port of it that leads to the other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredOverlay {
    /// The bridge.
    pub bridge: DesiredBridge,
    /// The VTEP. It has the bridge's MTU, and is always up.
    pub vtep: DesiredVtep,
    /// The NICs on other nodes, and at which address of the mesh the node of each is.
    #[serde(default)]
    pub remote: BTreeMap<MacAddress, Ipv4Addr>,
    /// The other nodes that have NICs: those that broadcasts go to.
    #[serde(default)]
    pub flood: BTreeSet<Ipv4Addr>,
}

/// A VTEP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredVtep {
    /// Its name.
    pub name: String,
    /// Its id on the wire.
    pub vni: Vni,
    /// The node's address in the mesh, which it sends from.
    pub local: Ipv4Addr,
}

/// The node's place in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredMesh {
    /// Its address.
    pub address: Ipv4Addr,
}

/// What must be for one NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNic {
    /// Which decision asks for it.
    pub generation: Position,
    /// Its tap; none if the NIC is detached.
    pub tap: Option<DesiredTap>,
}

/// A tap: a port of its network's bridge, that a hypervisor plugs a VM into. It is always up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredTap {
    /// Its name.
    pub name: String,
    /// The network whose bridge it is a port of.
    pub network: NetworkId,
    /// The NIC's address: frames from others are not let in.
    pub mac: MacAddress,
}

impl Desired {
    /// The names of the devices that are wanted.
    pub fn names(&self) -> BTreeSet<String> {
        let networks = self.networks.values().flat_map(|network| network.want.names());
        let taps = self.nics.values().filter_map(|nic| nic.tap.as_ref());
        networks.chain(taps.map(|tap| tap.name.clone())).collect()
    }

    /// The overlays.
    pub fn overlays(&self) -> impl Iterator<Item = &DesiredOverlay> {
        self.networks.values().filter_map(|network| match &network.want {
            Want::Overlay(overlay) => Some(overlay),
            Want::Bridge(_) | Want::Unmanaged(_) | Want::Unsupported(_) | Want::Nothing => None,
        })
    }
}

impl Want {
    /// The bridge, whosesoever.
    pub fn bridge(&self) -> Option<&DesiredBridge> {
        match self {
            Self::Bridge(bridge) | Self::Unmanaged(bridge) => Some(bridge),
            Self::Overlay(overlay) => Some(&overlay.bridge),
            Self::Unsupported(_) | Self::Nothing => None,
        }
    }

    /// The names of the devices that it has, or depends on.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let vtep = match self {
            Self::Overlay(overlay) => Some([overlay.vtep.name.clone(), MESH.to_owned()]),
            Self::Bridge(_) | Self::Unmanaged(_) | Self::Unsupported(_) | Self::Nothing => None,
        };
        let bridge = self.bridge().map(|bridge| bridge.name.clone());
        bridge.into_iter().chain(vtep.into_iter().flatten())
    }

    /// The bridge, if it is ours.
    pub fn managed(&self) -> Option<&DesiredBridge> {
        match self {
            Self::Bridge(bridge) => Some(bridge),
            Self::Overlay(overlay) => Some(&overlay.bridge),
            Self::Unmanaged(_) | Self::Unsupported(_) | Self::Nothing => None,
        }
    }
}

/// What must be on `node`, which is one of `cluster`, for what was decided: nothing, once it was removed from it.
pub fn desired(view: &View, cluster: ClusterId, node: NodeId) -> Desired {
    if view.is_removed(node) {
        let (networks, nics) = (BTreeMap::new(), BTreeMap::new());
        return Desired { cluster, mesh: None, networks, nics, is_former: false };
    }
    let mesh = view.place(node).map(|place| DesiredMesh { address: place.address });
    let mut elsewhere = elsewhere(view, node);
    let networks = view.networks().map(|(id, network)| {
        let Network { name: _, generation, life } = network;
        let want = match life {
            Life::Defined(NetworkSpec::Bridge(spec)) => bridge(spec, bridge_mac(id, node)),
            Life::Defined(NetworkSpec::Overlay(spec)) => match mesh {
                Some(mesh) => overlay(spec, bridge_mac(id, node), mesh, elsewhere.remove(&id).unwrap_or_default()),
                None => Want::Unsupported(NO_PLACE.to_owned()),
            },
            Life::Deleted => Want::Nothing,
        };
        (id, DesiredNetwork { generation: *generation, want })
    });
    let networks = networks.collect();
    let here = view.nics().filter(|(_, nic)| nic.node() == Some(node));
    let nics = here.map(|(id, nic)| (id, DesiredNic { generation: nic.generation(), tap: tap(id, nic) }));
    Desired { cluster, mesh, networks, nics: nics.collect(), is_former: false }
}

/// For each network, the NICs that it has on other nodes of the mesh, and where in the mesh.
fn elsewhere(view: &View, node: NodeId) -> BTreeMap<NetworkId, BTreeMap<MacAddress, Ipv4Addr>> {
    let mut elsewhere: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (_, nic) in view.nics().filter(|(_, nic)| nic.detached_at.is_none()) {
        if let Some(other) = nic.node().filter(|other| *other != node)
            && let Some(place) = view.place(other)
        {
            let NicAttached { nic_id: _, vm_id: _, network_id, mac } = nic.attached;
            elsewhere.entry(network_id).or_default().insert(mac, place.address);
        }
    }
    elsewhere
}

fn overlay(
    spec: &OverlaySpec,
    mac: Option<MacAddress>,
    mesh: DesiredMesh,
    remote: BTreeMap<MacAddress, Ipv4Addr>,
) -> Want {
    let OverlaySpec { vni, subnet: _, mtu } = spec;
    let bridge =
        DesiredBridge { name: BridgeName::of_overlay(*vni), mtu: mtu.get().into(), mac, vlan: None, nat: None };
    let vtep = DesiredVtep { name: vtep_name(vni.get()), vni: *vni, local: mesh.address };
    let flood = remote.values().copied().collect();
    Want::Overlay(DesiredOverlay { bridge, vtep, remote, flood })
}

fn bridge(spec: &BridgeSpec, mac: Option<MacAddress>) -> Want {
    let BridgeSpec { bridge_name, ownership, mtu, vlan } = spec;
    let (nat, mac) = match ownership {
        Ownership::Managed(Egress::Nat(nat)) => (Some(Gateway::from(*nat)), mac),
        Ownership::Managed(Egress::None) => (None, mac),
        Ownership::Unmanaged => (None, None),
    };
    let bridge = DesiredBridge { name: bridge_name.to_string(), mtu: mtu.get().into(), mac, vlan: *vlan, nat };
    match ownership {
        Ownership::Managed(Egress::None | Egress::Nat(_)) => Want::Bridge(bridge),
        Ownership::Unmanaged => Want::Unmanaged(bridge),
    }
}

fn tap(id: NicId, nic: &Nic) -> Option<DesiredTap> {
    let Nic { attached, attached_at: _, bound: _, detached_at } = nic;
    let tap = DesiredTap { name: tap_name(id), network: attached.network_id, mac: attached.mac };
    detached_at.is_none().then_some(tap)
}

/// The address of a network's bridge on a node: locally administered, and made of the random ends of both ids, so that a
/// bridge that is made anew has the one that guests know, and no two on a wire have the same.
fn bridge_mac(network: NetworkId, node: NodeId) -> Option<MacAddress> {
    let mixed = network.uuid().as_u128() ^ node.uuid().as_u128();
    let [.., a, b, c, d, e] = mixed.to_be_bytes();
    MacAddress::try_from([0x02, a, b, c, d, e]).ok()
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
