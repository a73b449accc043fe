//! What this node must be in the mesh, from the decisions alone: its address, its key, and a peer for each other node
//! that has a place. And what is to be changed about the mesh's device as a link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::NodeId;
use otherix_schemas::network::{NetworkSpec, OverlaySpec};
use otherix_schemas::node::MeshPeer;
use otherix_schemas::value::{MeshEndpoint, MeshPublicKey, Mtu};

use super::ip::Address;
use super::link::Link;
use super::mesh_device::{MESH, MESH_ALIAS};
use super::view::{NetworkState, View};

/// What VXLAN over IPv4 takes of the mesh's MTU: Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
const VXLAN_OVERHEAD: u32 = 50;

/// The mesh's MTU while there is no overlay: an underlay of 1,500 bytes less 60 for WireGuard over IPv4.
const DEFAULT_MTU: u32 = 1440;

/// This node's place in the mesh, and everybody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: Ipv4Addr,
    /// The key that the others know it by.
    pub public_key: MeshPublicKey,
    /// The mesh device's MTU in bytes: enough for the largest of the overlays.
    pub mtu: u32,
    /// The other nodes, by the keys that they have.
    pub peers: BTreeMap<MeshPublicKey, Neighbour>,
}

/// Another node of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Which.
    pub node: NodeId,
    /// Its address in the mesh, the only one that it may send from.
    pub address: Ipv4Addr,
    /// Where it is reached.
    pub endpoint: MeshEndpoint,
}

/// The place of a node, once it has been given one.
pub fn place(view: &View, node: NodeId) -> Option<Place> {
    let MeshPeer { address, public_key, endpoint: _ } = *view.mesh_peer(node)?;
    let others = view.mesh_peers().filter(|(other, _)| *other != node);
    let peers = others.map(|(node, peer)| {
        let MeshPeer { address, public_key, endpoint } = *peer;
        (public_key, Neighbour { node, address, endpoint })
    });
    Some(Place { address, public_key, mtu: mtu(view), peers: peers.collect() })
}

/// The control plane knows the underlay's MTU, and has taken the whole way's headers off it for each overlay.
fn mtu(view: &View) -> u32 {
    let overlays = view.networks().filter_map(|(_, network)| match &network.state {
        NetworkState::Defined(NetworkSpec::Overlay(OverlaySpec { mtu, .. })) => Some(Mtu::get(*mtu)),
        NetworkState::Defined(NetworkSpec::Bridge(_)) | NetworkState::Deleted => None,
    });
    overlays.max().map_or(DEFAULT_MTU, |mtu| u32::from(mtu) + VXLAN_OVERHEAD)
}

/// The mesh's device as a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The link.
    pub link: Link,
    /// Its IPv4 addresses.
    pub addresses: BTreeSet<Address>,
    /// The addresses of the mesh that routes of ours lead to by it.
    pub routes: BTreeSet<Ipv4Addr>,
}

/// What is to be changed about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceChanges {
    /// It gets its name back.
    pub name: bool,
    /// It gets its alias back.
    pub alias: bool,
    /// The MTU in bytes that it must have.
    pub mtu: Option<u32>,
    /// It is set up.
    pub up: bool,
    /// This node's address, which it sends from to all others.
    pub source: Ipv4Addr,
    /// The address that it is given.
    pub give: Option<Address>,
    /// Addresses that are taken from it.
    pub take: BTreeSet<Address>,
    /// Addresses of the mesh that a route by it is made to.
    pub route: BTreeSet<Ipv4Addr>,
    /// Those whose route is removed.
    pub unroute: BTreeSet<Ipv4Addr>,
}

impl InterfaceChanges {
    /// What is to be changed about a device that is like this, if anything. While the view may not be `current`,
    /// nothing is taken away: it may belong to nodes that are not known yet.
    pub fn of(place: &Place, is: &Interface, current: bool) -> Option<Self> {
        let Interface { link, addresses, routes } = is;
        let own = Address { address: place.address, prefix: 32 };
        let nodes: BTreeSet<_> = place.peers.values().map(|peer| peer.address).collect();
        let foreign = addresses.iter().filter(|address| current && **address != own);
        let none = Self {
            name: false,
            alias: false,
            mtu: None,
            up: false,
            source: place.address,
            give: None,
            take: BTreeSet::new(),
            route: BTreeSet::new(),
            unroute: BTreeSet::new(),
        };
        let changes = Self {
            name: link.name != MESH,
            alias: link.alias.as_deref() != Some(MESH_ALIAS),
            mtu: (link.mtu != place.mtu).then_some(place.mtu),
            up: !link.up,
            give: (!addresses.contains(&own)).then_some(own),
            take: foreign.copied().collect(),
            route: nodes.difference(routes).copied().collect(),
            unroute: routes.difference(&nodes).filter(|_| current).copied().collect(),
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
    fn peers_are_the_other_nodes_as_last_decided() {
        let mut view = View::default();
        view.apply(Position::new(1), changed(2, "192.0.2.2:51820"));
        assert_eq!(place(&view, node(1)), None);
        view.apply(Position::new(2), changed(1, "192.0.2.1:51820"));
        view.apply(Position::new(3), changed(2, "192.0.2.9:51820"));
        let place = place(&view, node(1)).unwrap();
        assert_eq!((place.address, place.mtu), (Ipv4Addr::new(10, 42, 0, 1), 1440));
        let peers: Vec<_> = place.peers.values().map(|peer| (peer.node, peer.endpoint.to_string())).collect();
        assert_eq!(peers, [(node(2), "192.0.2.9:51820".to_owned())]);
    }

    #[test]
    fn the_mtu_fits_the_largest_overlay() {
        let mut view = View::default();
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
        assert_eq!(place(&view, node(1)).unwrap().mtu, 8940);
    }

    #[test]
    fn the_device_gets_what_it_lacks_and_loses_the_rest_once_all_is_known() {
        let mut view = View::default();
        view.apply(Position::new(1), changed(1, "192.0.2.1:51820"));
        view.apply(Position::new(2), changed(2, "192.0.2.2:51820"));
        let place = place(&view, node(1)).unwrap();
        let link: Link = serde_json::from_value(serde_json::json!({
            "index": 9, "name": MESH, "alias": MESH_ALIAS, "kind": "tun", "mtu": 1440, "up": true
        }))
        .unwrap();
        let address = |number, prefix| Address { address: Ipv4Addr::new(10, 42, 0, number), prefix };
        let (two, five) = (Ipv4Addr::new(10, 42, 0, 2), Ipv4Addr::new(10, 42, 0, 5));
        let ready = Interface { link, addresses: [address(1, 32)].into(), routes: [two].into() };
        assert_eq!(InterfaceChanges::of(&place, &ready, true), None);
        let mut other = Interface { addresses: [address(1, 16)].into(), routes: [five].into(), ..ready.clone() };
        let changes = InterfaceChanges::of(&place, &other, true).unwrap();
        assert_eq!((changes.give, changes.take), (Some(address(1, 32)), [address(1, 16)].into()));
        assert_eq!((changes.route, changes.unroute), ([two].into(), [five].into()));
        let changes = InterfaceChanges::of(&place, &other, false).unwrap();
        assert!(changes.take.is_empty() && changes.unroute.is_empty());
        other = ready;
        (other.link.up, other.link.mtu, other.link.alias) = (false, 1500, None);
        let changes = InterfaceChanges::of(&place, &other, true).unwrap();
        assert_eq!((changes.up, changes.mtu, changes.alias, changes.name), (true, Some(1440), true, false));
    }
}
