//! Which guests a node answers, from decisions.

use std::net::Ipv4Addr;

use otherix_responder::dns::Upstreams;
use otherix_runtime::SystemRuntime;
use otherix_schemas::event::Event;
use otherix_schemas::id::{ClusterId, NetworkId, NicId, NodeId, VmId};
use otherix_schemas::network::{
    BridgeSpec, Dhcp, Egress, NetworkCreated, NetworkDeleted, NetworkSpec, OverlaySpec, Ownership,
};
use otherix_schemas::nic::{NicAttached, NicBound, NicDetached, tap_name};
use otherix_schemas::node::{MeshPeer, NodeChanged};
use otherix_schemas::position::Position;
use otherix_schemas::value::{GatewaySubnet, MacAddress, Mtu};
use otherix_schemas::vm::{VmCreated, VmDeleted};
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

fn zones() -> Zones {
    let upstreams = Upstreams::new(vec!["192.0.2.1:53".parse().unwrap()]);
    Zones::new(Arc::new(Relay::new(SystemRuntime::shared(), upstreams)))
}

fn update(zones: &mut Zones, number: u128, view: &ClusterView) -> AnsweredGuests {
    zones.update(view, &desired(view, ClusterId::new(Uuid::nil()), node(number)))
}

/// Who is answered on a node, with the view as it is and as it is read from the ledger. Those that can ask for names
/// compare as different ones: each time it is another zone.
fn answered_on(number: u128, view: &ClusterView) -> BTreeMap<String, Guest> {
    let of = |view: &ClusterView| update(&mut zones(), number, view).guests;
    let guests = of(view);
    let restored = ClusterView::restored(view.position(), view.decisions()).with_names(view.names().clone());
    let mut restored = of(&restored);
    restored.iter_mut().for_each(|(tap, guest)| {
        let (Some(names), Some(known)) = (&mut guest.names, guests.get(tap).and_then(|guest| guest.names.as_ref()))
        else {
            return;
        };
        assert_eq!((names.zone.names(), names.zone.domain()), (known.zone.names(), known.zone.domain()));
        names.zone = Arc::clone(&known.zone);
    });
    assert_eq!(restored, guests);
    guests
}

fn vm(number: u128) -> VmId {
    VmId::new(Uuid::from_u128(0xffff_0000 + number))
}

/// A VM without a machine on a node.
fn vm_created(number: u128, name: &str, on: u128) -> Event {
    let (image_url, arch) = ("http://images.example/a.img".parse().unwrap(), otherix_schemas::vm::Arch::Amd64);
    let (name, node_id) = (name.parse().unwrap(), node(on));
    VmCreated { vm_id: vm(number), name, image_url, arch, node_id, owner: None, machine: None }.into()
}

/// A VM with a NIC.
fn vm_on(number: u8, name: &str, network_number: u128, on: u128) -> [Event; 3] {
    let (nic_id, vm_id, network_id) = (nic(number.into()), vm(number.into()), network(network_number));
    let (mac, ip) = (MacAddress::assigned(number.into()), Some(Ipv4Addr::new(10, 20, 0, number + 1)));
    let attached = NicAttached { nic_id, vm_id, network_id, mac, ip }.into();
    [vm_created(number.into(), name, on), attached, NicBound { nic_id, node_id: node(on) }.into()]
}

fn subnet() -> GatewaySubnet {
    GatewaySubnet::new("10.20.0.0/23".parse().unwrap(), None).unwrap()
}

fn detach(view: &mut ClusterView, number: u8, network_number: u128) {
    let detached =
        NicDetached { nic_id: nic(number.into()), vm_id: vm(number.into()), network_id: network(network_number) };
    view.apply(view.position().next(), detached.into());
    let name = view.names()[&vm(number.into())].clone();
    view.apply(view.position().next(), VmDeleted { vm_id: vm(number.into()), name }.into());
}

#[test]
fn names_are_those_of_all_vms_of_the_network_wherever_they_run() {
    let dhcp = |dns| Some(Dhcp { subnet: subnet(), dns });
    let networks = [
        bridge(1, Egress::Nat(subnet()), dhcp(true)),
        bridge(2, Egress::None, dhcp(true)),
        bridge(3, Egress::None, dhcp(false)),
    ];
    let vms = [
        vm_on(1, "web", 1, HERE),
        vm_on(2, "Data Base_2", 1, THERE),
        vm_on(3, "other", 2, HERE),
        vm_on(4, "silent", 3, HERE),
        vm_on(5, "öß", 1, THERE),
        // Another one has this name already, and yet another one's own name it is.
        vm_on(6, "web_1", 1, THERE),
        vm_on(7, "web 1", 1, THERE),
        vm_on(8, "WEB-1", 1, THERE),
    ];
    let mut view = view(networks.into_iter().chain(vms.into_iter().flatten()));
    let mut zones = zones();
    let AnsweredGuests { guests, gateways } = update(&mut zones, HERE, &view);
    let names = |number: u128| guests[&tap_name(nic(number))].names.clone();
    let app = names(1).unwrap();
    assert_eq!((app.host.as_str(), app.zone.domain()), ("web", ["net-1", "otherix", "internal"]));
    let address = |zone: &Zone, label: &str| zone.names().address(label).map(|address| address.octets()[3]);
    let expected = [("web", 2), ("data-base-2", 3), ("vm-0000ffff0005", 6), ("web-1", 9)];
    for (label, last) in expected {
        assert_eq!(address(&app.zone, label), Some(last), "{label}");
    }
    assert_eq!(app.zone.names().count(), expected.len());
    let other = names(3).unwrap();
    assert_eq!((address(&other.zone, "other"), address(&other.zone, "web")), (Some(4), None));
    assert_eq!(names(4), None, "a network that resolves no names");
    // Over TCP where the node has the gateway's address.
    assert!(gateways.keys().eq(["br-1"]) && gateways["br-1"].address == Ipv4Addr::new(10, 20, 0, 1));

    // What changes is the names: no guest is answered anew, and networks without a change keep theirs.
    let before = other.zone.names();
    detach(&mut view, 8, 1);
    let after = update(&mut zones, HERE, &view);
    assert_eq!((&after.guests, &after.gateways), (&guests, &gateways));
    assert!(Arc::ptr_eq(&before, &other.zone.names()));
    assert_eq!(address(&app.zone, "web-1"), Some(7), "the first of those that have it by their names");
    let unchanged = app.zone.names();
    view.apply(view.position().next(), vm_created(9, "without-a-nic", HERE));
    update(&mut zones, HERE, &view);
    assert!(Arc::ptr_eq(&unchanged, &app.zone.names()));
    // One is deleted and another one created between two passes.
    detach(&mut view, 2, 1);
    for event in vm_on(10, "new", 1, THERE) {
        view.apply(view.position().next(), event);
    }
    assert_eq!(update(&mut zones, HERE, &view).guests, guests);
    assert_eq!((address(&app.zone, "data-base-2"), address(&app.zone, "new")), (None, Some(11)));
    // Without guests on this node, nothing is kept.
    detach(&mut view, 1, 1);
    let AnsweredGuests { guests, gateways } = update(&mut zones, HERE, &view);
    assert!(!guests.contains_key(&tap_name(nic(1))) && gateways.is_empty());
    assert!(zones.zones.keys().eq([&network(2)]));
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
    let of = |number| guests[&tap(number)].clone();
    let Guest { mac, lease, gateway_mac, answers_for_gateway, names } = of(1);
    assert_eq!(names.unwrap().host, "vm-000000000000", "the name of its VM is not known");
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
