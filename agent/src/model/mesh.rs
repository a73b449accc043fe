//! What the mesh device of this node must be according to the decisions: its address, key and MTU, and a peer for each
//! other node of the mesh; and what to change about its link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::NodeId;
use otherix_schemas::network::{NetworkSpec, OverlaySpec};
use otherix_schemas::node::MeshPeer;
use otherix_schemas::value::{MeshEndpoint, MeshPublicKey, Mtu};

use super::cluster_view::{ClusterView, NetworkState};
use super::ip::{Address, AddressIndex, Ipv4Config};
use super::link::Link;
use super::mesh_device::{MESH, MESH_ALIAS};
use super::need::{Need, Needs};
use super::route::Prefix;

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
    /// The addresses and routes of the other links.
    pub others: Ipv4Config,
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

/// What the mesh address of a node would take away from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshConflict {
    /// This node must be able to reach the address itself.
    Need(Need),
    /// Another link's address has a prefix with it. The interface index of the link, and the address.
    Address(u32, Address),
    /// A route leads to it, or to a prefix with it. The prefix, and the interface index of the link.
    Route(Prefix, Option<u32>),
}

/// What to change about the mesh device's link, and what must not be added to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshLinkPlan {
    pub changes: Option<MeshLinkChanges>,
    /// By mesh address, of this node or of others.
    pub conflicts: BTreeMap<Ipv4Addr, MeshConflict>,
}

impl MeshLinkPlan {
    /// Compares the link with what it must be. Unless all decisions are known (`is_current`), no address or route is
    /// removed: it may belong to a node that is not known yet. `needed` are the mesh addresses that this node must be
    /// able to reach for another reason.
    pub fn of(desired: &DesiredMeshDevice, current: &MeshLink, is_current: bool, needed: &Needs) -> Self {
        let MeshLink { link, addresses, routes, others } = current;
        let own = Address { address: desired.address, prefix: 32 };
        let nodes: BTreeSet<_> = desired.peers.values().map(|peer| peer.address).collect();
        let index = others.address_index();
        let conflict = |address, is_present| conflict(address, is_present, needed, others, &index);
        let mut conflicts = BTreeMap::new();
        conflicts.extend(conflict(own.address, addresses.contains(&own)).map(|found| (own.address, found)));
        if conflicts.is_empty() {
            let found = nodes.iter().filter_map(|node| Some((*node, conflict(*node, routes.contains(node))?)));
            conflicts = found.collect();
        }
        let is_kept_out = conflicts.contains_key(&own.address);
        let is_harmful = |address: &Ipv4Addr| matches!(conflicts.get(address), Some(MeshConflict::Need(_)));
        let foreign = addresses
            .iter()
            .filter(|address| (is_current && **address != own) || (**address == own && is_harmful(&own.address)));
        let obsolete = routes.iter().filter(|node| (is_current && !nodes.contains(node)) || is_harmful(node));
        let missing = nodes.difference(routes).filter(|node| !is_kept_out && !conflicts.contains_key(node));
        let none = MeshLinkChanges {
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
        let changes = MeshLinkChanges {
            name: link.name != MESH,
            alias: link.alias.as_deref() != Some(MESH_ALIAS),
            mtu: (link.mtu != desired.mtu).then_some(desired.mtu),
            up: !link.up,
            add_address: (!addresses.contains(&own) && !is_kept_out).then_some(own),
            remove_addresses: foreign.copied().collect(),
            add_routes: missing.copied().collect(),
            remove_routes: obsolete.copied().collect(),
            ..none.clone()
        };
        Self { changes: (changes != none).then_some(changes), conflicts }
    }
}

/// Returns what a mesh address, as an address or a route of the mesh device, would take away from this node. If the
/// device has it already, prefixes around it are no obstacle for the mesh: the more specific route is used.
fn conflict(
    address: Ipv4Addr,
    is_present: bool,
    needed: &Needs,
    others: &Ipv4Config,
    index: &AddressIndex,
) -> Option<MeshConflict> {
    // Other nodes cause most needs: they must not break what works.
    if let Some(need) = needed.get(&address).filter(|need| !is_present || **need == Need::ControlPlane) {
        return Some(MeshConflict::Need(*need));
    }
    let host = Prefix::host(address);
    let mut addresses = index.overlaps(host).filter(|(_, other)| !other.network().is_default());
    if let Some((link, other)) = addresses.find(|(_, other)| !is_present || other.address == address) {
        return Some(MeshConflict::Address(link, other));
    }
    let mut routes = others.routes.overlaps(host).filter(|route| !route.follows_from_address());
    let route = routes.find(|route| !is_present || route.to == host)?;
    Some(MeshConflict::Route(route.to, route.links.first().copied()))
}

#[cfg(test)]
mod tests {
    use otherix_schemas::event::Event;
    use otherix_schemas::id::NetworkId;
    use otherix_schemas::network::{Egress, NetworkCreated, NetworkEvent};
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
                egress: Egress::None,
                mtu: i64::from(mtu).try_into().unwrap(),
                dhcp: None,
                allow_spoofing: false,
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
        let others = Ipv4Config::default();
        let ready = MeshLink { link, addresses: [address(1, 32)].into(), routes: [two].into(), others };
        let plan = |current: &MeshLink, is_current| {
            let plan = MeshLinkPlan::of(&desired, current, is_current, &Needs::new());
            assert!(plan.conflicts.is_empty());
            plan.changes
        };
        assert_eq!(plan(&ready, true), None);
        let mut other = MeshLink { addresses: [address(1, 16)].into(), routes: [five].into(), ..ready.clone() };
        let changes = plan(&other, true).unwrap();
        assert_eq!((changes.add_address, changes.remove_addresses), (Some(address(1, 32)), [address(1, 16)].into()));
        assert_eq!((changes.add_routes, changes.remove_routes), ([two].into(), [five].into()));
        let changes = plan(&other, false).unwrap();
        assert!(changes.remove_addresses.is_empty() && changes.remove_routes.is_empty());
        other = ready;
        (other.link.up, other.link.mtu, other.link.alias) = (false, 1500, None);
        let changes = plan(&other, true).unwrap();
        assert_eq!((changes.up, changes.mtu, changes.alias, changes.name), (true, Some(1440), true, false));
    }

    #[test]
    fn nothing_is_added_that_would_take_something_away() {
        let mut view = ClusterView::default();
        for number in 1..=2 {
            view.apply(Position::new(number.into()), changed(number, &format!("192.0.2.{number}:51820")));
        }
        let desired = desired_mesh_device(&view, node(1)).unwrap();
        let link: Link = serde_json::from_value(serde_json::json!({
            "index": 9, "name": MESH, "alias": MESH_ALIAS, "kind": "tun", "mtu": 1440, "up": true
        }))
        .unwrap();
        let (one, two) = (Ipv4Addr::new(10, 42, 0, 1), Ipv4Addr::new(10, 42, 0, 2));
        let plan = |is_present: bool, others: serde_json::Value, needed: Needs| {
            let others = serde_json::from_value(others).unwrap();
            let own = Address { address: one, prefix: 32 };
            let (addresses, routes) = if is_present { ([own].into(), [two].into()) } else { Default::default() };
            let current = MeshLink { link: link.clone(), addresses, routes, others };
            MeshLinkPlan::of(&desired, &current, true, &needed)
        };
        let none = Needs::new();
        let pods = serde_json::json!({ "addresses": { "3": [{ "address": "10.42.0.1", "prefix": 24 }] } });
        let found = plan(false, pods.clone(), none.clone());
        assert_eq!(found.changes, None);
        assert!(matches!(found.conflicts.get(&one), Some(MeshConflict::Address(3, _))));
        assert!(plan(true, pods, none.clone()).conflicts.contains_key(&one), "the same address");
        let lan = serde_json::json!({ "addresses": { "3": [{ "address": "10.42.1.9", "prefix": 23 }] } });
        assert!(plan(false, lan.clone(), none.clone()).conflicts.contains_key(&one));
        assert_eq!(plan(true, lan, none.clone()), MeshLinkPlan::default(), "a network around it");
        let route = serde_json::json!({ "routes": [{ "to": "10.42.0.2/31", "links": [3] }, { "links": [3] }] });
        let found = plan(false, route, none.clone());
        assert_eq!(found.conflicts.into_keys().collect::<Vec<_>>(), [two]);
        let changes = found.changes.unwrap();
        assert!(changes.add_address.is_some() && changes.add_routes.is_empty());
        let found = plan(true, serde_json::json!({}), [(two, Need::ControlPlane)].into());
        assert_eq!(found.changes.unwrap().remove_routes, [two].into());
    }
}
