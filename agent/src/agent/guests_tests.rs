//! Which guests a node answers, from decisions.

use std::net::Ipv4Addr;

use otherix_schemas::event::Event;
use otherix_schemas::id::{ClusterId, NetworkId, NicId, NodeId, VmId};
use otherix_schemas::network::{
    BridgeSpec, Dhcp, Egress, NetworkCreated, NetworkDeleted, NetworkSpec, OverlaySpec, Ownership,
};
use otherix_schemas::nic::{NicAttached, NicBound, NicDetached, tap_name};
use otherix_schemas::node::{MeshPeer, NodeChanged};
use otherix_schemas::position::Position;
use otherix_schemas::value::{GatewaySubnet, MacAddress, Mtu};
use uuid::Uuid;

use super::*;
use crate::model::cluster_view::ClusterView;
use crate::model::desired::desired;

const HERE: u128 = 1;
const THERE: u128 = 2;

fn node(number: u128) -> NodeId {
    NodeId::new(Uuid::from_u128(number))
}

fn network(number: u128) -> NetworkId {
    NetworkId::new(Uuid::from_u128(0x100 + number))
}

fn nic(number: u128) -> NicId {
    NicId::new(Uuid::from_u128(number << 80))
}

fn created(number: u128, spec: NetworkSpec) -> Event {
    NetworkCreated { network_id: network(number), name: format!("net-{number}").parse().unwrap(), spec }.into()
}

fn bridge(number: u128, egress: Egress, dhcp: Option<Dhcp>) -> Event {
    created(
        number,
        NetworkSpec::Bridge(BridgeSpec {
            bridge_name: format!("br-{number}").parse().unwrap(),
            ownership: Ownership::Managed(egress),
            mtu: Mtu::try_from(9000).unwrap(),
            vlan: None,
            dhcp,
            allow_spoofing: false,
        }),
    )
}

/// A NIC on a network, bound to a node.
fn attached(number: u8, network_number: u128, on: u128, ip: Option<Ipv4Addr>) -> [Event; 2] {
    let (nic_id, vm_id, network_id) = (nic(number.into()), VmId::new(Uuid::nil()), network(network_number));
    let mac = MacAddress::assigned(number.into());
    [NicAttached { nic_id, vm_id, network_id, mac, ip }.into(), NicBound { nic_id, node_id: node(on) }.into()]
}

fn view(events: impl IntoIterator<Item = Event>) -> ClusterView {
    let mut view = ClusterView::default();
    for (position, event) in (1..).zip(events) {
        view.apply(Position::new(position), event);
    }
    view
}

/// Who is answered on a node, with the view as it is and as it is read from the ledger.
fn answered_on(number: u128, view: &ClusterView) -> BTreeMap<String, Guest> {
    let of = |view: &ClusterView| answered(&desired(view, ClusterId::new(Uuid::nil()), node(number)));
    let guests = of(view);
    assert_eq!(of(&ClusterView::restored(view.position(), view.decisions())), guests);
    guests
}

#[test]
fn guests_are_answered_on_their_node_with_what_their_network_is() {
    let subnet = GatewaySubnet::new("10.20.0.0/23".parse().unwrap(), Some(Ipv4Addr::new(10, 20, 1, 254))).unwrap();
    let dhcp = Some(Dhcp { subnet, dns: true });
    let mesh = MeshPeer {
        address: Ipv4Addr::new(10, 42, 0, 1),
        public_key: [1; 32].try_into().unwrap(),
        endpoint: "192.0.2.1:51820".parse().unwrap(),
    };
    let overlay = OverlaySpec {
        vni: 1000.try_into().unwrap(),
        subnet: subnet.subnet(),
        egress: Egress::None,
        mtu: 1390.try_into().unwrap(),
        dhcp,
        allow_spoofing: false,
    };
    let ip = |last| Some(Ipv4Addr::new(10, 20, 0, last));
    let networks = [
        NodeChanged { node_id: node(HERE), mesh }.into(),
        bridge(1, Egress::Nat(subnet), dhcp),
        bridge(2, Egress::None, dhcp),
        created(3, NetworkSpec::Overlay(overlay)),
        bridge(4, Egress::None, None),
    ];
    let nics = [
        attached(1, 1, HERE, ip(2)),
        attached(2, 2, HERE, ip(3)),
        attached(3, 3, HERE, ip(4)),
        attached(4, 4, HERE, None),
        attached(5, 1, THERE, ip(6)),
    ];
    let mut view = view(networks.into_iter().chain(nics.into_iter().flatten()));
    let guests = answered_on(HERE, &view);
    let tap = |number| tap_name(nic(number));
    assert!(guests.keys().eq([tap(1), tap(2), tap(3)].iter()));
    let of = |number| guests[&tap(number)];
    let Guest { mac, lease, gateway_mac, answers_for_gateway } = of(1);
    let (netmask, server) = (Ipv4Addr::new(255, 255, 254, 0), Ipv4Addr::new(10, 20, 1, 254));
    assert_eq!(lease, Lease { address: ip(2).unwrap(), netmask, server, is_router: true, mtu: 9000 });
    assert_eq!(mac, MacAddress::assigned(1).octets());
    assert!(!answers_for_gateway && gateway_mac != GATEWAY_MAC, "the bridge has the address");
    assert!(of(2).answers_for_gateway && of(2).gateway_mac == GATEWAY_MAC && !of(2).lease.is_router);
    assert_eq!((of(3).lease.mtu, of(3).answers_for_gateway), (1390, true));
    assert!(answered_on(THERE, &view).keys().eq([tap(5)].iter()));

    let vm_id = VmId::new(Uuid::nil());
    let detached = NicDetached { nic_id: nic(1), vm_id, network_id: network(1) };
    view.apply(view.position().next(), detached.into());
    assert!(answered_on(HERE, &view).keys().eq([tap(2), tap(3)].iter()));
    let deleted = NetworkDeleted { network_id: network(2), name: "net-2".parse().unwrap() };
    view.apply(view.position().next(), deleted.into());
    assert!(answered_on(HERE, &view).keys().eq([tap(3)].iter()));
}

#[test]
fn networks_of_earlier_versions_are_not_answered() {
    let view = view(std::iter::once(bridge(1, Egress::None, None)).chain(attached(1, 1, HERE, None)));
    assert_eq!(answered_on(HERE, &view), BTreeMap::new());
}
