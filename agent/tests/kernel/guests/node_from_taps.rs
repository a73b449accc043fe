//! What guests with assigned addresses reach of their node from their taps: on bridges, behind NAT and on overlays, at
//! each address that the node has, IPv6 included.

use std::net::{Ipv4Addr, Ipv6Addr};

use otherix_agent::model::desired::{DesiredLease, DesiredMesh, Want};
use otherix_agent::model::ip::Gateway;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::value::MacAddress;
use otherix_testkit::netns::{link, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_tun::TapDevice;

use super::delete_tables;
use super::frames::wait_until_forwarding;
use crate::host::Host;
use crate::node::{Node, REPAIR, bridge};
use crate::overlay::topology::{create_mesh_device, mesh_address, overlay};
use crate::taps::{attach_nic_with, mac, nic, received};

/// Addresses of the node: that of the uplink, of a service on `lo`, link-local ones, and the gateway's.
const NODE: [&str; 4] = ["192.0.2.7", "198.51.100.77", "169.254.10.1", "10.20.1.1"];

/// Returns the ones' complement sum of 16-bit words.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

/// Returns a frame of NIC 1 with a datagram from its address to port 22 of this one.
fn datagram(to_mac: MacAddress, to: Ipv4Addr) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 20, 1, 2];
    header.extend(to.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    let udp = [0x12, 0x34, 0, 22, 0, 8, 0, 0];
    [to_mac.octets().as_slice(), &mac(1).octets(), &[8, 0], &header, &udp].concat()
}

/// As [`datagram`], with IPv6.
fn datagram6(to_mac: MacAddress, to: Ipv6Addr) -> Vec<u8> {
    let from = link_local(mac(1)).octets();
    let mut udp = vec![0x12, 0x34, 0, 22, 0, 8, 0, 0];
    let sum = checksum(&[&from, &to.octets(), &[0, 0, 0, 8, 0, 0, 0, 17], &udp]);
    udp[6..8].copy_from_slice(&sum);
    let header = [0x60, 0, 0, 0, 0, 8, 17, 64];
    [to_mac.octets().as_slice(), &mac(1).octets(), &[0x86, 0xdd], &header, &from, &to.octets(), &udp].concat()
}

fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Returns how many datagrams for which it has no socket have reached the node: of IPv4, and of IPv6.
fn datagrams() -> (u64, u64) {
    let line = sh("grep ^Udp: /proc/net/snmp | tail -1");
    let line6 = sh("grep Udp6NoPorts /proc/net/snmp6");
    let number = |text: Option<&str>| text.unwrap().parse().unwrap();
    (number(line.split_whitespace().nth(2)), number(line6.split_whitespace().nth(1)))
}

#[tokio::test]
async fn on_a_bridge() {
    let (node, _outside) = crate::nat::node_with_uplink();
    assert_not_reached(node, bridge("br-app", 1500), "br-app").await;
}

#[tokio::test]
async fn behind_nat() {
    let (node, _outside) = crate::nat::node_with_uplink();
    assert_not_reached(node, crate::nat::nat(1), "br-1").await;
}

#[tokio::test]
async fn on_an_overlay() {
    let (mut node, _outside): (Node, Host) = crate::nat::node_with_uplink();
    create_mesh_device(1);
    node.desired.mesh = Some(DesiredMesh { address: mesh_address(1) });
    assert_not_reached(node, overlay(1, &[(1, (1, 1)), (2, (1, 1))].into(), 1), "otb1000").await;
}

async fn assert_not_reached(mut node: Node, want: Want, device: &str) {
    sh("ip link set lo up\nip address add 198.51.100.77/32 dev lo\nip address add 169.254.10.1/32 dev lo
        sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0");
    node.set_desired(1, want);
    let gateway = Gateway { address: "10.20.1.1".parse().unwrap(), subnet: "10.20.1.0/24".parse().unwrap() };
    let taps = [1, 2].map(|number: u16| {
        let address = Ipv4Addr::new(10, 20, 1, u8::try_from(number).unwrap() + 1);
        attach_nic_with(&mut node, number, 1, Some(DesiredLease { address, gateway }))
    });
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    // The agent is not running from here on.
    sh(&format!(
        "sysctl -qw net.ipv4.conf.{device}.rp_filter=0 net.ipv6.conf.{device}.accept_dad=0
        sysctl -qw net.ipv6.conf.{device}.disable_ipv6=0"
    ));
    let [one, two] = taps.each_ref().map(|tap| TapDevice::attach(tap).unwrap());
    wait_until_forwarding(&one, &two);
    let bridge_mac: MacAddress = link(device).unwrap()["address"].as_str().unwrap().parse().unwrap();
    let send = || {
        for address in NODE {
            one.write(&datagram(bridge_mac, address.parse().unwrap())).unwrap();
        }
        one.write(&datagram6(bridge_mac, link_local(bridge_mac))).unwrap();
        // A broadcast, which reaches the other guest after what was sent before has been processed.
        one.write(&crate::taps::frame(mac(1), 77)).unwrap();
        wait_for_blocking(REPAIR, "the last frame", || received(&two).contains(&77));
    };
    let before = datagrams();
    send();
    assert_eq!(datagrams(), before);
    delete_tables();
    // Without an address of the bridge, the gateway's is none of the node's.
    send();
    let (ipv4, ipv6) = datagrams();
    assert!(ipv4 >= before.0 + 3 && ipv6 == before.1 + 1, "without the tables: {ipv4} {ipv6}, before {before:?}");
}
