//! What the mesh device of this node must be according to the decisions: its address, key and MTU, and a peer for each
//! other node of the mesh; and what to change about its link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::NodeId;
use otherix_schemas::network::{NetworkSpec, OverlaySpec};
use otherix_schemas::node::MeshPeer;
use otherix_schemas::value::{MeshEndpoint, MeshPublicKey, Mtu};

use super::cluster_view::{ClusterView, NetworkState};
use super::ip::Address;
use super::link::Link;
use super::mesh_device::{MESH, MESH_ALIAS};

/// The headers that VXLAN over IPv4 adds to a packet of an overlay, in bytes: Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
const VXLAN_OVERHEAD: u32 = 50;

/// The MTU without overlays, in bytes: an underlay of 1,500 less 60 for WireGuard over IPv4.
const DEFAULT_MTU: u32 = 1440;

/// What the mesh device must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredMeshDevice {
    /// The mesh address of this node.
    pub address: Ipv4Addr,
    /// The public key that the cluster has decided on for this node.
    pub public_key: MeshPublicKey,
    /// In bytes: enough for the overlay with the largest MTU.
    pub mtu: u32,
    /// The other nodes, by public key.
    pub peers: BTreeMap<MeshPublicKey, DesiredPeer>,
}

/// Another node of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredPeer {
    pub node: NodeId,
    /// Its mesh address, the only allowed IP.
    pub address: Ipv4Addr,
    pub endpoint: MeshEndpoint,
}

/// Returns what the mesh device of `node` must be, if the node is part of the mesh.
pub fn desired_mesh_device(view: &ClusterView, node: NodeId) -> Option<DesiredMeshDevice> {
    let MeshPeer { address, public_key, endpoint: _ } = *view.mesh_peer(node)?;
    let others = view.mesh_peers().filter(|(other, _)| *other != node);
    let peers = others.map(|(node, peer)| {
        let MeshPeer { address, public_key, endpoint } = *peer;
        (public_key, DesiredPeer { node, address, endpoint })
    });
    Some(DesiredMeshDevice { address, public_key, mtu: mtu(view), peers: peers.collect() })
}

/// The control plane knows the MTU of the underlay, and has subtracted all headers from it for each overlay.
fn mtu(view: &ClusterView) -> u32 {
    let overlays = view.networks().filter_map(|(_, network)| match &network.state {
        NetworkState::Defined(NetworkSpec::Overlay(OverlaySpec { mtu, .. })) => Some(Mtu::get(*mtu)),
        NetworkState::Defined(NetworkSpec::Bridge(_)) | NetworkState::Deleted => None,
    });
    overlays.max().map_or(DEFAULT_MTU, |mtu| u32::from(mtu) + VXLAN_OVERHEAD)
}

/// The link of the mesh device, with its addresses and routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshLink {
    pub link: Link,
    pub addresses: BTreeSet<Address>,
    /// The mesh addresses that routes of ours through this link lead to.
    pub routes: BTreeSet<Ipv4Addr>,
}

/// Changes of the mesh device's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshLinkChanges {
    /// Rename it back.
    pub name: bool,
    /// Set the alias.
    pub alias: bool,
    /// In bytes.
    pub mtu: Option<u32>,
    /// Set up.
    pub up: bool,
    /// The mesh address of this node, which is the source address of the routes.
    pub source: Ipv4Addr,
    pub add_address: Option<Address>,
    pub remove_addresses: BTreeSet<Address>,
    /// Mesh addresses of nodes to add a route to.
    pub add_routes: BTreeSet<Ipv4Addr>,
    /// Mesh addresses whose route to remove.
    pub remove_routes: BTreeSet<Ipv4Addr>,
}

impl MeshLinkChanges {
    /// Returns what to change, if anything. Unless all decisions are known (`is_current`), no address or route is
    /// removed: it may belong to a node that is not known yet.
    pub fn of(desired: &DesiredMeshDevice, current: &MeshLink, is_current: bool) -> Option<Self> {
        let MeshLink { link, addresses, routes } = current;
        let own = Address { address: desired.address, prefix: 32 };
        let nodes: BTreeSet<_> = desired.peers.values().map(|peer| peer.address).collect();
        let foreign = addresses.iter().filter(|address| is_current && **address != own);
        let none = Self {
            name: false,
            alias: false,
            mtu: None,
            up: false,
            source: desired.address,
            add_address: None,
            remove_addresses: BTreeSet::new(),
            add_routes: BTreeSet::new(),
            remove_routes: BTreeSet::new(),
        };
        let changes = Self {
            name: link.name != MESH,
            alias: link.alias.as_deref() != Some(MESH_ALIAS),
            mtu: (link.mtu != desired.mtu).then_some(desired.mtu),
            up: !link.up,
            add_address: (!addresses.contains(&own)).then_some(own),
            remove_addresses: foreign.copied().collect(),
            add_routes: nodes.difference(routes).copied().collect(),
            remove_routes: routes.difference(&nodes).filter(|_| is_current).copied().collect(),
            ..none.clone()
        };
        (changes != none).then_some(changes)
    }
}

#[cfg(test)]
mod tests {
    use otherix_schemas::event::Event;
    use otherix_schemas::id::NetworkId;
    use otherix_schemas::network::{NetworkCreated, NetworkEvent};
    use otherix_schemas::node::{NodeChanged, NodeEvent};
    use otherix_schemas::position::Position;
    use uuid::Uuid;

    use super::*;

    fn changed(number: u8, endpoint: &str) -> Event {
        let mesh = MeshPeer {
            address: Ipv4Addr::new(10, 42, 0, number),
            public_key: MeshPublicKey::try_from([number; 32]).unwrap(),
            endpoint: endpoint.parse().unwrap(),
        };
        Event::Node(NodeEvent::Changed(NodeChanged { node_id: NodeId::new(Uuid::from_u128(number.into())), mesh }))
    }

    fn node(number: u8) -> NodeId {
        NodeId::new(Uuid::from_u128(number.into()))
    }

    #[test]
    fn peers_are_the_other_nodes_with_their_last_endpoint() {
        let mut view = ClusterView::default();
        view.apply(Position::new(1), changed(2, "192.0.2.2:51820"));
        assert_eq!(desired_mesh_device(&view, node(1)), None);
        view.apply(Position::new(2), changed(1, "192.0.2.1:51820"));
        view.apply(Position::new(3), changed(2, "192.0.2.9:51820"));
        let desired = desired_mesh_device(&view, node(1)).unwrap();
        assert_eq!((desired.address, desired.mtu), (Ipv4Addr::new(10, 42, 0, 1), 1440));
        let peers: Vec<_> = desired.peers.values().map(|peer| (peer.node, peer.endpoint.to_string())).collect();
        assert_eq!(peers, [(node(2), "192.0.2.9:51820".to_owned())]);
    }

    #[test]
    fn mtu_fits_the_largest_overlay() {
        let mut view = ClusterView::default();
        view.apply(Position::new(1), changed(1, "192.0.2.1:51820"));
        for (position, mtu) in [(2, 8890_i32), (3, 1390)] {
            let spec = OverlaySpec {
                vni: u32::try_from(1000 + position).unwrap().try_into().unwrap(),
                subnet: "10.0.0.0/24".parse().unwrap(),
                mtu: i64::from(mtu).try_into().unwrap(),
            };
            let network_id = NetworkId::new(Uuid::from_u128(position.into()));
            let (name, spec) = ("net".parse().unwrap(), NetworkSpec::Overlay(spec));
            view.apply(
                Position::new(position),
                Event::Network(NetworkEvent::Created(NetworkCreated { network_id, name, spec })),
            );
        }
        assert_eq!(desired_mesh_device(&view, node(1)).unwrap().mtu, 8940);
    }

    #[test]
    fn addresses_and_routes_are_removed_only_when_all_decisions_are_known() {
        let mut view = ClusterView::default();
        view.apply(Position::new(1), changed(1, "192.0.2.1:51820"));
        view.apply(Position::new(2), changed(2, "192.0.2.2:51820"));
        let desired = desired_mesh_device(&view, node(1)).unwrap();
        let link: Link = serde_json::from_value(serde_json::json!({
            "index": 9, "name": MESH, "alias": MESH_ALIAS, "kind": "tun", "mtu": 1440, "up": true
        }))
        .unwrap();
        let address = |number, prefix| Address { address: Ipv4Addr::new(10, 42, 0, number), prefix };
        let (two, five) = (Ipv4Addr::new(10, 42, 0, 2), Ipv4Addr::new(10, 42, 0, 5));
        let ready = MeshLink { link, addresses: [address(1, 32)].into(), routes: [two].into() };
        assert_eq!(MeshLinkChanges::of(&desired, &ready, true), None);
        let mut other = MeshLink { addresses: [address(1, 16)].into(), routes: [five].into(), ..ready.clone() };
        let changes = MeshLinkChanges::of(&desired, &other, true).unwrap();
        assert_eq!((changes.add_address, changes.remove_addresses), (Some(address(1, 32)), [address(1, 16)].into()));
        assert_eq!((changes.add_routes, changes.remove_routes), ([two].into(), [five].into()));
        let changes = MeshLinkChanges::of(&desired, &other, false).unwrap();
        assert!(changes.remove_addresses.is_empty() && changes.remove_routes.is_empty());
        other = ready;
        (other.link.up, other.link.mtu, other.link.alias) = (false, 1500, None);
        let changes = MeshLinkChanges::of(&desired, &other, true).unwrap();
        assert_eq!((changes.up, changes.mtu, changes.alias, changes.name), (true, Some(1440), true, false));
    }
}
