//! Networks that assign addresses: a guest can use no other, unless its network allows spoofing.

use std::net::Ipv4Addr;

use otherix_agent::model::desired::{DesiredLease, GATEWAY_MAC, Want};
use otherix_agent::model::ip::Gateway;
use otherix_agent::model::link_group::LinkGroup;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::value::MacAddress;
use otherix_testkit::netns::{link, sh};
use otherix_tun::TapDevice;

use super::delete_tables;
use super::frames::{ALL, ALL_NODES, arriving_at, from_guest, from_mac, wait_until_forwarding};
use crate::host::Host;
use crate::node::{Node, REPAIR, bridge};
use crate::taps::{attach_nic_with, detach_nic, mac, nic, received};

/// Guest 1 has 10.20.1.2, guest 2 has 10.20.1.3, and the gateway 10.20.1.1.
fn lease(number: u8) -> DesiredLease {
    let gateway = Gateway { address: "10.20.1.1".parse().unwrap(), subnet: "10.20.1.0/24".parse().unwrap() };
    DesiredLease { address: Ipv4Addr::new(10, 20, 1, number + 1), gateway }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex_of(address: &str) -> String {
    format!("{:08x}", address.parse::<Ipv4Addr>().unwrap().to_bits())
}

/// Returns the link-local address of a NIC in hexadecimal digits.
fn link_local(number: u16) -> String {
    let [a, b, c, d, e, f] = mac(number).octets();
    format!("fe80000000000000{}", hex(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]))
}

/// Returns an ARP packet: operation, MAC and IPv4 address of the sender, and the address that it is about.
fn arp(operation: u8, sender: (MacAddress, &str), target: &str, number: u8) -> Vec<u8> {
    let (source, sender) = (hex(&sender.0.octets()), hex_of(sender.1));
    let target = hex_of(target);
    from_guest(ALL, &format!("0806 0001 0800 0604 00{operation:02} {source} {sender} 000000000000 {target}"), number)
}

/// Returns a datagram from this address.
fn ipv4(source: &str, number: u8) -> Vec<u8> {
    from_guest(ALL, &format!("0800 45000024 00000000 40110000 {} ffffffff 1234 1234 0010 0000", hex_of(source)), number)
}

/// Returns an ICMPv6 message of this type, from this address, about that one.
fn icmpv6(kind: u8, source: &str, target: &str, number: u8) -> Vec<u8> {
    let all = "ff020000000000000000000000000001";
    let message = format!("{kind:02x} 00 0000 00000000 {target}");
    from_guest(ALL_NODES, &format!("86dd 60000000 001e 3a ff {source} {all} {message}"), number)
}

const NONE: &str = "00000000000000000000000000000000";
const OTHER: &str = "fe800000000000000000000000000bad";
const REPORT: u8 = 143;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// What guest 1 sends with addresses that it does not have.
fn attacks() -> Vec<Vec<u8>> {
    let own = link_local(1);
    let in_fragment = |next: &str| {
        let all = "ff020000000000000000000000000001";
        format!("86dd 60000000 0018 2c ff {own} {all} {next}00 0001 00000001 88 00 0000 00000000")
    };
    vec![
        arp(1, (mac(1), "10.20.1.3"), "10.20.1.9", 1),
        arp(2, (mac(1), "10.20.1.3"), "10.20.1.9", 2),
        arp(2, (mac(1), "10.20.1.1"), "10.20.1.3", 3),
        arp(1, (mac(1), "10.20.1.1"), "10.20.1.1", 4),
        arp(2, (mac(2), "10.20.1.2"), "10.20.1.3", 5),
        arp(1, (mac(1), "0.0.0.0"), "10.20.1.3", 6),
        arp(2, (mac(1), "0.0.0.0"), "10.20.1.2", 7),
        arp(1, (mac(1), "198.51.100.4"), "10.20.1.3", 8),
        ipv4("10.20.1.3", 9),
        ipv4("10.20.1.1", 10),
        ipv4("0.0.0.0", 11),
        ipv4("198.51.100.4", 12),
        icmpv6(ADVERTISEMENT, &own, &link_local(2), 13),
        icmpv6(ADVERTISEMENT, OTHER, OTHER, 14),
        icmpv6(ADVERTISEMENT, &link_local(2), &link_local(2), 15),
        icmpv6(SOLICITATION, NONE, OTHER, 16),
        icmpv6(SOLICITATION, OTHER, OTHER, 17),
        icmpv6(128, &link_local(2), NONE, 18),
        icmpv6(128, NONE, NONE, 19),
        icmpv6(ADVERTISEMENT, NONE, &own, 20),
        from_guest(ALL_NODES, &in_fragment("3a"), 21),
        // Another type of hardware, and addresses of other lengths, behind which the sender's is elsewhere.
        from_guest(
            ALL,
            &format!("0806 0006 0800 0604 0002 {} 0a140103 000000000000 0a140109", hex(&mac(1).octets())),
            22,
        ),
        from_guest(ALL, "0806 0001 0800 0404 0002 0a140103 0a140103 00000000 0a140109 0a140102", 23),
        // An answer about names to guest 2, as if it came from the gateway.
        from_guest(
            &mac(2).to_string(),
            "0800 4500002d 00000000 40110000 0a140101 0a140103 0035 c000 0019 0000 1234 8180 0001 0000 0000 0000",
            24,
        ),
    ]
}

/// What it sends with those that it has.
fn permitted() -> Vec<Vec<u8>> {
    let own = link_local(1);
    vec![
        arp(1, (mac(1), "10.20.1.2"), "10.20.1.3", 41),
        arp(2, (mac(1), "10.20.1.2"), "10.20.1.3", 42),
        arp(1, (mac(1), "10.20.1.2"), "10.20.1.2", 43),
        arp(1, (mac(1), "0.0.0.0"), "10.20.1.2", 44),
        ipv4("10.20.1.2", 45),
        icmpv6(SOLICITATION, &own, &link_local(2), 46),
        icmpv6(ADVERTISEMENT, &own, &own, 47),
        icmpv6(SOLICITATION, NONE, &own, 48),
        icmpv6(REPORT, NONE, NONE, 49),
        icmpv6(128, &own, NONE, 50),
        from_guest(ALL, "88b5", 51),
    ]
}

fn numbers(range: std::ops::RangeInclusive<u8>) -> Vec<u8> {
    range.collect()
}

/// A node with two guests on a network, with their taps.
struct Guests {
    node: Node,
    names: [String; 2],
    taps: [TapDevice; 2],
    _outside: Host,
}

impl Guests {
    async fn start(want: Want, group: LinkGroup) -> Self {
        let (mut node, outside) = crate::nat::node_with_uplink();
        node.set_desired(1, want);
        let names = [1, 2].map(|number| attach_nic_with(&mut node, number.into(), 1, Some(lease(number))));
        assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
        let shown = link(&names[0]).unwrap()["group"].as_str().unwrap().to_owned();
        assert_eq!(shown, group.number().to_string());
        let taps = names.each_ref().map(|tap| TapDevice::attach(tap).unwrap());
        wait_until_forwarding(&taps[0], &taps[1]);
        let _delayed = received(&taps[1]);
        Self { node, names, taps, _outside: outside }
    }

    /// Returns the marks of the frames of guest 1 that reach guest 2.
    fn arriving(&self, frames: &[Vec<u8>]) -> Vec<u8> {
        arriving_at(&self.taps[1], &self.taps[0], frames)
    }
}

fn spoofing(want: Want) -> Want {
    let Want::Bridge(bridge) = want else { unreachable!("{want:?}") };
    Want::Bridge(otherix_agent::model::desired::DesiredBridge { allow_spoofing: true, ..bridge })
}

#[tokio::test]
async fn a_guest_uses_no_address_but_its_own() {
    assert_locked(bridge("br-app", 1500), LinkGroup::AssignedTap).await;
}

#[tokio::test]
async fn a_guest_behind_nat_uses_no_address_but_its_own() {
    assert_locked(crate::nat::nat(1), LinkGroup::AssignedGatewayTap).await;
}

async fn assert_locked(want: Want, group: LinkGroup) {
    let mut guests = Guests::start(want, group).await;
    assert_eq!(guests.arriving(&attacks()), [0; 0]);
    assert_eq!(guests.arriving(&permitted()), numbers(41..=51));
    delete_tables();
    assert_eq!(guests.arriving(&attacks()), numbers(1..=24), "without the tables");
    guests.node.run_until(REPAIR, || sh("nft list tables").contains("table bridge otherix_guests")).await;
    guests.node.settle().await;
    assert_eq!(guests.arriving(&attacks()), [0; 0]);
    assert_eq!(guests.arriving(&permitted()), numbers(41..=51));
}

/// Returns the handle of the table, which another one does not get.
fn table_handle() -> String {
    let text = sh("nft -a list table bridge otherix_guests");
    text.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned()
}

/// Returns how many elements the set of addresses has.
fn locks() -> usize {
    let text = sh("nft -j list set bridge otherix_guests addresses");
    let set: serde_json::Value = serde_json::from_str(&text).unwrap();
    set["nftables"][1]["set"]["elem"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn addresses_are_added_and_removed_one_by_one() {
    let mut guests = Guests::start(bridge("br-app", 1500), LinkGroup::AssignedTap).await;
    let (before, node) = (table_handle(), &mut guests.node);
    assert_eq!(locks(), 2);
    attach_nic_with(node, 3, 1, Some(lease(3)));
    assert_eq!(node.nic_outcome(nic(3)).await, Outcome::Ready);
    assert_eq!((locks(), table_handle()), (3, before.clone()));
    detach_nic(node, 3);
    assert_eq!(node.nic_outcome(nic(3)).await, Outcome::Removed);
    assert_eq!((locks(), table_handle()), (2, before.clone()));
    // What others remove and add is repaired, again without the rest of the table.
    let tap = &guests.names[0];
    let element = format!("\"{tap}\" . {} . 10.20.1.2", mac(1));
    for (verb, element) in [("delete", element.as_str()), ("add", &element.replace("1.2", "1.3"))] {
        sh(&format!("nft {verb} element bridge otherix_guests addresses '{{ {element} }}'"));
        node.run_until(REPAIR, || locks() == 2).await;
        node.settle().await;
        let shown = sh("nft list set bridge otherix_guests addresses");
        assert!(shown.contains("10.20.1.2") && table_handle() == before, "{shown}");
    }
    assert_eq!(guests.arriving(&attacks()), [0; 0]);
    // A tap without an entry sends nothing that has an address.
    sh(&format!("nft delete element bridge otherix_guests addresses '{{ {element} }}'"));
    assert_eq!(guests.arriving(&permitted()), numbers(46..=51));
    sh("nft flush set bridge otherix_guests link_locals");
    assert_eq!(guests.arriving(&permitted()), [49, 51]);
    guests.node.run_until(REPAIR, || sh("nft list set bridge otherix_guests link_locals").contains("fe80")).await;
    guests.node.settle().await;
    assert_eq!(guests.arriving(&permitted()), numbers(41..=51));
    guests.node.set_desired(1, spoofing(bridge("br-app", 1500)));
    guests.node.settle().await;
    assert_eq!((locks(), table_handle()), (0, before));
}

/// What a guest sends that may use all addresses but the gateway's, which is at this MAC address.
fn nested(gateway_mac: MacAddress) -> Vec<Vec<u8>> {
    let other: MacAddress = "02:11:22:33:44:55".parse().unwrap();
    vec![
        arp(2, (mac(1), "10.20.1.1"), "10.20.1.3", 1),
        ipv4("10.20.1.1", 2),
        from_mac(gateway_mac, ALL, "88b5", 3),
        from_mac(other, ALL, "0806 0001 0800 0604 0002 021122334455 0a140163 000000000000 0a140103", 4),
        from_mac(other, ALL, "0800 45000024 00000000 40110000 0a140163 ffffffff 1234 1234 0010 0000", 5),
        from_mac(mac(2), ALL, "88b5", 6),
        ipv4("10.20.1.3", 7),
        icmpv6(ADVERTISEMENT, OTHER, OTHER, 8),
    ]
}

#[tokio::test]
async fn where_spoofing_is_allowed_only_the_gateway_is_protected() {
    let gateway = MacAddress::try_from(GATEWAY_MAC).unwrap();
    assert_free(spoofing(bridge("br-app", 1500)), LinkGroup::SpoofingTap, gateway).await;
}

#[tokio::test]
async fn behind_nat_where_spoofing_is_allowed_only_the_gateway_is_protected() {
    let Want::Bridge(bridge) = crate::nat::nat(1) else { unreachable!() };
    let gateway = bridge.mac.unwrap();
    assert_free(spoofing(Want::Bridge(bridge)), LinkGroup::SpoofingGatewayTap, gateway).await;
}

async fn assert_free(want: Want, group: LinkGroup, gateway: MacAddress) {
    let mut guests = Guests::start(want.clone(), group).await;
    assert_eq!(guests.arriving(&nested(gateway)), numbers(4..=8));
    // Frames to the addresses inside a guest reach it, and those to the other guest still reach that.
    let inside = from_mac(mac(2), "02:11:22:33:44:55", "88b5", 9);
    assert_eq!(arriving_at(&guests.taps[0], &guests.taps[1], &[inside]), [9]);
    let to_other = from_guest(&mac(2).to_string(), "88b5", 10);
    assert_eq!(guests.arriving(&[to_other]), [10]);
    delete_tables();
    let all = guests.arriving(&nested(gateway));
    assert_eq!(all, numbers(1..=8), "without the tables");
    guests.node.run_until(REPAIR, || sh("nft list tables").contains("table bridge otherix_guests")).await;
    guests.node.settle().await;
    assert_eq!(guests.arriving(&nested(gateway)), numbers(4..=8));
    // Without permission, all of these are dropped, and so are other MAC addresses, by the lock of the port.
    let Want::Bridge(bridge) = want else { unreachable!() };
    let bridge = otherix_agent::model::desired::DesiredBridge { allow_spoofing: false, ..bridge };
    guests.node.set_desired(1, Want::Bridge(bridge));
    guests.node.settle().await;
    assert_eq!(guests.arriving(&nested(gateway)), [0; 0]);
    assert_eq!(guests.arriving(&permitted()), numbers(41..=51));
}
