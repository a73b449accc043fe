//! The desired state that decisions produce.

use std::collections::BTreeSet;

use otherix_schemas::event::Event;
use otherix_schemas::network::{BridgeSpec, NetworkCreated, NetworkEvent, OverlaySpec};
use otherix_schemas::nic::{NicAttached, NicBound, NicDetached, NicEvent, tap_name};
use otherix_schemas::node::{MeshPeer, NodeChanged, NodeEvent, NodeRemoved};
use otherix_schemas::value::{GatewaySubnet, MacAddress, MeshPublicKey, Mtu};

use super::*;
use crate::model::ip::Gateway;

fn bridge(ownership: Ownership, vlan: Option<i64>) -> NetworkSpec {
    NetworkSpec::Bridge(BridgeSpec {
        bridge_name: "br-app".parse().unwrap(),
        ownership,
        mtu: Mtu::try_from(9000).unwrap(),
        vlan: vlan.map(|number| number.try_into().unwrap()),
        dhcp: None,
        allow_spoofing: false,
    })
}

fn want(spec: NetworkSpec) -> Want {
    let network_id = "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap();
    let mut view = ClusterView::default();
    let created = NetworkCreated { network_id, name: "net".parse().unwrap(), spec };
    view.apply(Position::new(3), Event::Network(NetworkEvent::Created(created)));
    let mut desired = desired(&view, ClusterId::new(uuid::Uuid::nil()), NodeId::new(uuid::Uuid::nil()));
    desired.networks.remove(&network_id).unwrap().want
}

#[test]
fn derives_bridges() {
    let mac = Some("02:02:09:9a:80:58".parse().unwrap());
    let wanted = DesiredBridge {
        name: "br-app".into(),
        mtu: 9000,
        mac,
        vlan: None,
        nat: None,
        allow_spoofing: false,
        dns: false,
    };
    assert_eq!(want(bridge(Ownership::Managed(Egress::None), None)), Want::Bridge(wanted.clone()));
    let vlan = Some(7.try_into().unwrap());
    let tagged = DesiredBridge { vlan, ..wanted.clone() };
    assert_eq!(want(bridge(Ownership::Managed(Egress::None), Some(7))), Want::Bridge(tagged.clone()));
    assert_eq!(want(bridge(Ownership::Unmanaged, Some(7))), Want::Unmanaged(DesiredBridge { mac: None, ..tagged }));
    let subnet = "10.1.0.0/24".parse().unwrap();
    let nat = GatewaySubnet::new(subnet, None).unwrap();
    let wanted = DesiredBridge { nat: Some(Gateway { address: "10.1.0.1".parse().unwrap(), subnet }), ..wanted };
    assert_eq!(want(bridge(Ownership::Managed(Egress::Nat(nat)), None)), Want::Bridge(wanted));
}

#[test]
fn rejects_overlays_outside_the_mesh() {
    let subnet = "10.1.0.0/24".parse().unwrap();
    let wanted = want(NetworkSpec::Overlay(OverlaySpec {
        vni: 1000.try_into().unwrap(),
        subnet,
        egress: Egress::None,
        mtu: Mtu::DEFAULT,
        dhcp: None,
        allow_spoofing: false,
    }));
    assert!(matches!(&wanted, Want::Unsupported(text) if text.contains("mesh")), "{wanted:?}");
}

/// Four nodes in the mesh, and NICs on overlays 1 and 2.
fn overlays() -> ClusterView {
    let mut events = Vec::new();
    for number in [1, 2, 3, 4] {
        let mesh = MeshPeer {
            address: address(number),
            public_key: MeshPublicKey::try_from([number; 32]).unwrap(),
            endpoint: format!("192.0.2.{number}:51820").parse().unwrap(),
        };
        events.push(Event::Node(NodeEvent::Changed(NodeChanged { node_id: node(number), mesh })));
    }
    for number in [1, 2] {
        let vni = (u32::from(number) * 1000).try_into().unwrap();
        let spec = OverlaySpec {
            vni,
            subnet: "10.1.0.0/24".parse().unwrap(),
            egress: Egress::None,
            mtu: 1390.try_into().unwrap(),
            dhcp: None,
            allow_spoofing: false,
        };
        let (network_id, name) = (NetworkId::new(id(number)), format!("net-{number}").parse().unwrap());
        events.push(Event::Network(NetworkEvent::Created(NetworkCreated {
            network_id,
            name,
            spec: NetworkSpec::Overlay(spec),
        })));
    }
    let vm_id = otherix_schemas::id::VmId::new(id(1));
    // Node 5 is not part of the mesh.
    for (number, network, node_number) in [(1, 1, 1), (2, 1, 2), (3, 1, 2), (4, 1, 3), (5, 2, 4), (6, 1, 5), (7, 1, 4)]
    {
        let (nic_id, network_id) = (NicId::new(id(number)), NetworkId::new(id(network)));
        let mac = MacAddress::assigned(number.into());
        events.push(Event::Nic(NicEvent::Attached(NicAttached { nic_id, vm_id, network_id, mac, ip: None })));
        events.push(Event::Nic(NicEvent::Bound(NicBound { nic_id, node_id: node(node_number) })));
    }
    // NIC 4 moves, NIC 7 is detached.
    events.push(Event::Nic(NicEvent::Bound(NicBound { nic_id: NicId::new(id(4)), node_id: node(2) })));
    let (nic_id, network_id) = (NicId::new(id(7)), NetworkId::new(id(1)));
    events.push(Event::Nic(NicEvent::Detached(NicDetached { nic_id, vm_id, network_id })));
    let mut view = ClusterView::default();
    for (position, event) in (1..).zip(events) {
        view.apply(Position::new(position), event);
    }
    view
}

fn id(number: u8) -> uuid::Uuid {
    uuid::Uuid::from_u128(number.into())
}

fn node(number: u8) -> NodeId {
    NodeId::new(id(number))
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, 0, number)
}

#[test]
fn overlays_forward_to_nodes_with_nics_only() {
    let view = overlays();
    assert_eq!(ClusterView::restored(view.position(), view.decisions()), view);
    let desired = desired(&view, ClusterId::new(id(0)), node(1));
    assert_eq!(desired.mesh, Some(DesiredMesh { address: address(1) }));
    let [one, two] = [1, 2].map(|number| {
        let want = desired.networks[&NetworkId::new(id(number))].want.clone();
        let Want::Overlay(overlay) = want else { unreachable!("{want:?}") };
        overlay
    });
    let vni = 1000.try_into().unwrap();
    assert_eq!(one.vtep, DesiredVtep { name: "otvx1000".into(), vni, local: address(1), port: 4789 });
    assert_eq!((one.bridge.name.as_str(), one.bridge.mtu, one.bridge.nat), ("otb1000", 1390, None));
    let remote = [2, 3, 4].map(|number: u8| (MacAddress::assigned(number.into()), address(2)));
    assert_eq!(one.remote, remote.into());
    assert_eq!(one.flood, [address(2)].into());
    assert_eq!(two.remote, [(MacAddress::assigned(5), address(4))].into());
    assert_eq!(two.flood, [address(4)].into());
}

#[test]
fn removed_nodes_require_nothing_and_get_no_traffic() {
    let mut view = overlays();
    let removed = NodeRemoved { node_id: node(2), name: "node-2".parse().unwrap() };
    view.apply(view.position().next(), Event::Node(NodeEvent::Removed(removed)));
    let cluster = ClusterId::new(id(0));
    let nothing = Desired::nothing(cluster, false);
    assert_eq!(desired(&view, cluster, node(2)), nothing);
    // The view keeps that, and so does a view restored from the ledger.
    view.forget_elsewhere(node(2));
    assert_eq!(desired(&ClusterView::restored(view.position(), view.decisions()), cluster, node(2)), nothing);

    let one = desired(&view, cluster, node(1));
    assert_eq!(one.mesh, Some(DesiredMesh { address: address(1) }));
    let Want::Overlay(overlay) = &one.networks[&NetworkId::new(id(1))].want else { unreachable!() };
    assert_eq!(
        (&overlay.remote, &overlay.flood),
        (&BTreeMap::new(), &BTreeSet::new()),
        "all of its NICs were on node 2"
    );
    assert_eq!(one.overlays().map(|overlay| overlay.flood.len()).sum::<usize>(), 1);
}

#[test]
fn nics_have_a_tap_on_their_node_only() {
    let [network_id, vm_id, nic_id, here, there] = [1, 2, 3, 4, 5].map(uuid::Uuid::from_u128);
    let (network_id, nic_id, here) = (NetworkId::new(network_id), NicId::new(nic_id), NodeId::new(here));
    let vm_id = otherix_schemas::id::VmId::new(vm_id);
    let mac = MacAddress::assigned(1);
    let mut view = ClusterView::default();
    let nics = |view: &ClusterView| desired(view, ClusterId::new(uuid::Uuid::nil()), here).nics;
    view.apply(
        Position::new(1),
        Event::Nic(NicEvent::Attached(NicAttached { nic_id, vm_id, network_id, mac, ip: None })),
    );
    assert!(nics(&view).is_empty());
    view.apply(Position::new(2), Event::Nic(NicEvent::Bound(NicBound { nic_id, node_id: NodeId::new(there) })));
    assert!(nics(&view).is_empty());
    view.apply(Position::new(3), Event::Nic(NicEvent::Bound(NicBound { nic_id, node_id: here })));
    let tap = DesiredTap { name: tap_name(nic_id), network: network_id, mac, lease: None };
    assert_eq!(nics(&view), [(nic_id, DesiredNic { generation: Position::new(3), tap: Some(tap) })].into());
    view.apply(Position::new(4), Event::Nic(NicEvent::Detached(NicDetached { nic_id, vm_id, network_id })));
    assert_eq!(nics(&view), [(nic_id, DesiredNic { generation: Position::new(4), tap: None })].into());
}
