//! Frames that only the network may send.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use otherix_agent::model::desired::{DesiredLease, GATEWAY_MAC, Want};
use otherix_agent::model::ip::Gateway;
use otherix_agent::model::link_group::LinkGroup;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::value::MacAddress;
use otherix_testkit::netns::{enter_new, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_tun::{FRAME_MAX, TapDevice};

use super::{delete_tables, warns_of_address};
use crate::host::Host;
use crate::node::{Node, REPAIR, bridge, unmanaged};
use crate::taps::{attach_nic, attach_nic_with, frame, mac, nic, received};

/// Prints the marks of the frames that are received.
const SNIFFER: &str = "
import re, socket
receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
receiver.bind(('eth0', 3))
print('listening', flush=True)
while True:
    frame, address = receiver.recvfrom(4096)
    for mark in re.findall(rb'mark(\\d\\d)', frame):
        if address[2] != 4:
            print(mark.decode(), flush=True)
";

/// The last of several frames, of an experimental type.
const END: u8 = 99;

fn mark(number: u8) -> Vec<u8> {
    format!("mark{number:02}").into_bytes()
}

/// Returns a frame of NIC 1. `hex` is what follows the source address.
pub(super) fn from_guest(destination: &str, hex: &str, number: u8) -> Vec<u8> {
    from_mac(mac(1), destination, hex, number)
}

/// As [`from_guest`], with another source address.
pub(super) fn from_mac(source: MacAddress, destination: &str, hex: &str, number: u8) -> Vec<u8> {
    let bytes = |hex: &str| -> Vec<u8> {
        let digits: Vec<_> = hex.chars().filter(char::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
    };
    let source = source.octets().to_vec();
    let mut frame = [bytes(destination), source, bytes(hex), mark(number)].concat();
    frame.resize(frame.len().max(80), 0);
    frame
}

pub(super) const ALL: &str = "ff:ff:ff:ff:ff:ff";
const SWITCH: &str = "02:aa:bb:cc:dd:01";
pub(super) const ALL_NODES: &str = "33:33:00:00:00:01";
/// Addresses of an IPv6 packet from fe80::1 to ff02::1.
const IPV6: &str = "fe800000000000000000000000000001 ff020000000000000000000000000001";

/// Returns an IPv6 packet of a marked ICMPv6 message, whose payload has 8 bytes more.
fn icmpv6(kind: &str, number: u8) -> Vec<u8> {
    from_guest(ALL_NODES, &format!("86dd 60000000 0010 3a ff {IPV6} {kind} 00 0000 00000000"), number)
}

/// Returns an IPv4 or IPv6 packet of a marked datagram.
fn udp(ports: &str, number: u8, is_ipv6: bool) -> Vec<u8> {
    let udp = format!("{ports} 0010 0000");
    if is_ipv6 {
        from_guest(ALL_NODES, &format!("86dd 60000000 0010 11 40 {IPV6} {udp}"), number)
    } else {
        from_guest(ALL, &format!("0800 45000024 00000000 40117083 0a420005 ffffffff {udp}"), number)
    }
}

/// Returns an IPv4 packet, with the router alert option, of a marked IGMP message.
fn igmp(kind: &str, number: u8) -> Vec<u8> {
    from_guest(
        ALL,
        &format!("0800 46000026 00000000 01023a8a 0a420005 e0000001 94040000 {kind}00 0000 00000000"),
        number,
    )
}

/// Returns a fragment of a marked IPv6 packet: the type of the header after the fragment header, the offset with its
/// flag, and the first 8 of 16 bytes.
fn fragment(next: &str, offset: &str, hex: &str, number: u8) -> Vec<u8> {
    from_guest(ALL_NODES, &format!("86dd 60000000 0018 2c ff {IPV6} {next}00 {offset} 00000001 {hex}"), number)
}

/// Returns the mark of a frame.
fn number_of(frame: &[u8]) -> u8 {
    let text = String::from_utf8_lossy(frame).into_owned();
    text.split_once("mark").unwrap().1[..2].parse().unwrap()
}

/// The frames that are dropped.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let extended = format!("86dd 60000000 0018 00 ff {IPV6} 3a00 010400000000 86 00 0000 00000000");
    vec![
        ("a VLAN", from_guest(ALL, "8100 000a 88b5", 1)),
        ("a priority", from_guest(ALL, "8100 e000 88b5", 2)),
        ("two VLANs", from_guest(ALL, "88a8 0014 8100 000a 88b5", 3)),
        ("two VLANs of the old type", from_guest(ALL, "9100 0014 8100 000a 88b5", 4)),
        ("a BPDU", from_guest("01:80:c2:00:00:00", "0026 424203 0000000000", 5)),
        ("a BPDU of PVST+", from_guest("01:00:0c:cc:cc:cd", "0026 aaaa03 00000c010b", 6)),
        ("GVRP", from_guest("01:80:c2:00:00:21", "0026 424203 0001", 7)),
        ("a router advertisement", icmpv6("86", 8)),
        ("a router advertisement after another header", from_guest(ALL_NODES, &extended, 9)),
        ("a redirect", icmpv6("89", 10)),
        ("an answer of a DHCP server", udp("0043 0044", 11, false)),
        ("an answer of a DHCPv6 server", udp("0223 0222", 12, true)),
        ("an answer of a DHCP server at another port", udp("1234 0044", 13, false)),
        ("an answer of a DHCPv6 server at another port", udp("1234 0222", 14, true)),
        ("two VLANs of another type", from_guest(ALL, "9200 0014 8100 000a 88b5", 15)),
        ("LACP to all", from_guest(ALL, "8809 0101", 16)),
        ("LLDP to all", from_guest(ALL, "88cc 0207 0400", 17)),
        ("EAPOL to a switch's own address", from_guest(SWITCH, "888e 0101 0000", 18)),
        ("a pause frame to a switch's own address", from_guest(SWITCH, "8808 0001 ffff", 19)),
        ("continuity checks", from_guest("01:80:c2:00:00:31", "8902 0000", 20)),
        ("CGMP", from_guest("01:00:0c:dd:dd:dd", "0026 aaaa03 00000c2001", 21)),
        ("a router advertisement in LLC/SNAP", {
            let packet = format!("60000000 0010 3a ff {IPV6} 86 00 0000 00000000");
            from_guest(ALL_NODES, &format!("0042 aaaa03 000000 86dd {packet}"), 22)
        }),
        ("a router advertisement in a fragment", fragment("3a", "0000", "86 00 0000 00000000", 23)),
        ("a query of an MLD router", icmpv6("82", 26)),
        ("an advertisement of an IPv6 multicast router", icmpv6("97", 27)),
        ("a query of an IGMP router", igmp("11", 28)),
        ("an advertisement of an IPv4 multicast router", igmp("30", 29)),
        ("the headers before a router advertisement", fragment("3c", "0001", "3a00 010400000000", 24)),
        ("a router advertisement after these headers", fragment("3c", "0008", "86 00 0000 00000000", 25)),
    ]
}

/// What guests may send.
fn permitted() -> Vec<Vec<u8>> {
    vec![
        from_guest(ALL, "88b5", 40),
        icmpv6("85", 41),
        icmpv6("87", 42),
        udp("0044 0043", 43, false),
        udp("0222 0223", 44, true),
        udp("0044 0035", 45, false),
        fragment("3a", "0001", "80 00 0000 00000000", 46),
        fragment("11", "0008", "86 00 0000 00000000", 47),
        from_guest("01:80:c2:00:00:14", "0026 fefe03 83", 48),
        igmp("16", 50),
        icmpv6("8f", 51),
        from_guest(ALL, "8035 0001 0800 0604 0003", 49),
    ]
}

struct Sniffer(Child, Box<dyn Iterator<Item = u8>>);

impl Sniffer {
    fn start(host: &Host) -> Self {
        let mut child = host.command("python3").args(["-c", SNIFFER]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "listening");
        Self(child, Box::new(lines.map(|line| line.parse().unwrap())))
    }

    /// Sends the frames from the tap, and returns the marks of those that arrive.
    fn arriving(&mut self, tap: &TapDevice, frames: &[Vec<u8>]) -> Vec<u8> {
        frames.iter().for_each(|frame| tap.write(frame).unwrap());
        tap.write(&from_guest(ALL, "88b5", END)).unwrap();
        self.1.by_ref().take_while(|number| *number != END).collect()
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Waits until frames from the tap reach the other: a port forwards shortly after a process attaches.
pub(super) fn wait_until_forwarding(tap: &TapDevice, to: &TapDevice) {
    wait_for_blocking(Duration::from_secs(10), "the first frame", || {
        tap.write(&frame(mac(1), 1)).unwrap();
        received(to).contains(&1)
    });
}

#[tokio::test]
async fn frames_that_only_the_network_may_send_stay_on_the_tap() {
    enter_new();
    sh("ip link add br-ext type bridge mcast_snooping 0\nip link set br-ext up");
    let outside = Host::new("uplink");
    sh("ip link set uplink master br-ext");
    let mut node = Node::new();
    node.set_desired(1, unmanaged("br-ext"));
    let taps = [attach_nic(&mut node, 1, 1), attach_nic(&mut node, 2, 1)];
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    let [one, two] = taps.each_ref().map(|tap| TapDevice::attach(tap).unwrap());
    wait_until_forwarding(&one, &two);
    let mut sniffer = Sniffer::start(&outside);
    let attacks = attacks();
    let frames: Vec<_> = attacks.iter().map(|(_, frame)| frame.clone()).collect();
    assert_eq!(sniffer.arriving(&one, &permitted()), [40, 41, 42, 43, 44, 45, 46, 47, 48, 50, 51, 49]);
    assert!(sniffer.arriving(&one, &frames).is_empty());
    // The traffic of a port that is not ours is not filtered.
    let router = Host::new("router");
    sh("ip link set router master br-ext");
    router.sh("python3 -c 'import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((\"eth0\", 0))
s.send(bytes.fromhex(\"0180c2000000 02aabbccddee 0026 424203\") + b\"mark60\" + bytes(60))
s.send(bytes.fromhex(\"ffffffffffff 02aabbccddee 88b5\") + b\"mark99\" + bytes(60))'");
    let numbers: Vec<_> = sniffer.1.by_ref().take_while(|number| *number != END).collect();
    assert_eq!(numbers, [60]);

    delete_tables();
    let all: Vec<_> = frames.iter().map(|frame| number_of(frame)).collect();
    assert_eq!(sniffer.arriving(&one, &frames), all, "{attacks:?} without the tables");
    node.run_until(REPAIR, || sh("nft list tables").contains("table bridge otherix_guests")).await;
    node.settle().await;
    assert!(sniffer.arriving(&one, &frames).is_empty());
    sh(&format!("ip link set {} group 7", taps[0]));
    assert_eq!(sniffer.arriving(&one, &frames), all, "in another group");
    let group = || otherix_testkit::netns::link(&taps[0]).unwrap()["group"].as_str().unwrap().to_owned();
    node.run_until(REPAIR, || group() != "7").await;
    assert!(sniffer.arriving(&one, &frames).is_empty());
}

/// Whether the node answers an ARP request of NIC 1 for this address.
fn answers_arp(tap: &TapDevice, to: &TapDevice, target: &str) -> bool {
    let target = format!("{:08x}", target.parse::<std::net::Ipv4Addr>().unwrap().to_bits());
    let source: String = mac(1).octets().iter().map(|byte| format!("{byte:02x}")).collect();
    let request = format!("0806 0001 0800 06 04 0001 {source} 0a420005 000000000000 {target}");
    tap.write(&from_guest(ALL, &request, 1)).unwrap();
    tap.write(&frame(mac(1), END)).unwrap();
    wait_for_blocking(Duration::from_secs(10), "the last frame", || received(to).contains(&END));
    let mut buffer = vec![0; FRAME_MAX];
    let mut is_answered = false;
    while let Ok(length) = tap.read(&mut buffer) {
        is_answered |= length > 22 && buffer[12..14] == [8, 6] && buffer[20..22] == [0, 2];
    }
    is_answered
}

#[tokio::test]
async fn nothing_from_a_tap_reaches_a_node_that_has_an_address_on_the_bridge() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    let taps = [attach_nic(&mut node, 1, 1), attach_nic(&mut node, 2, 1)];
    node.settle().await;
    sh("ip address add 10.66.0.1/24 dev br-app");
    node.run_until_pass(REPAIR, warns_of_address).await;
    let [one, two] = taps.map(|tap| TapDevice::attach(&tap).unwrap());
    wait_until_forwarding(&one, &two);
    assert!(!answers_arp(&one, &two, "10.66.0.1"));
    delete_tables();
    assert!(answers_arp(&one, &two, "10.66.0.1"), "without the tables");
}

/// Returns an ARP packet of NIC 1 with this sender, as a request (1) or an answer (2).
pub(super) fn arp_from(sender: &str, operation: u8, number: u8) -> Vec<u8> {
    let hex = |address: &str| format!("{:08x}", address.parse::<std::net::Ipv4Addr>().unwrap().to_bits());
    let source: String = mac(1).octets().iter().map(|byte| format!("{byte:02x}")).collect();
    let (sender, target) = (hex(sender), hex("10.20.1.6"));
    from_guest(ALL, &format!("0806 0001 0800 06 04 00{operation:02} {source} {sender} 000000000000 {target}"), number)
}

/// Returns the marks of the frames that arrive at a tap, when another one sends these.
pub(super) fn arriving_at(to: &TapDevice, from: &TapDevice, frames: &[Vec<u8>]) -> Vec<u8> {
    let (mut marks, mut buffer) = (Vec::new(), vec![0; FRAME_MAX]);
    frames.iter().for_each(|frame| from.write(frame).unwrap());
    from.write(&from_guest(ALL, "88b5", END)).unwrap();
    wait_for_blocking(Duration::from_secs(10), "the last frame", || {
        while let Ok(length) = to.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            marks.extend(text.split("mark").skip(1).filter_map(|rest| rest.get(..2)?.parse::<u8>().ok()));
        }
        marks.pop_if(|mark| *mark == END).is_some()
    });
    marks
}

#[tokio::test]
async fn no_guest_uses_the_address_of_its_gateway() {
    let (mut node, _outside) = crate::nat::node_with_uplink();
    node.set_desired(1, crate::nat::nat(1));
    let taps = [attach_nic(&mut node, 1, 1), attach_nic(&mut node, 2, 1)];
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    let [one, two] = taps.each_ref().map(|tap| TapDevice::attach(tap).unwrap());
    wait_until_forwarding(&one, &two);
    let _delayed = received(&two);
    let frames = [
        arp_from("10.20.1.1", 1, 1),
        arp_from("10.20.1.1", 2, 2),
        from_guest(ALL, "0800 45000024 00000000 40117083 0a140101 ffffffff 1234 0035 0010 0000", 3),
        arp_from("10.20.1.5", 1, 4),
        arp_from("10.20.1.5", 2, 5),
        from_guest(ALL, "0800 45000024 00000000 40117083 0a140105 ffffffff 1234 0035 0010 0000", 6),
    ];
    assert_eq!(arriving_at(&two, &one, &frames), [4, 5, 6]);
    sh("nft delete table bridge otherix");
    assert_eq!(arriving_at(&two, &one, &frames), [1, 2, 3, 4, 5, 6], "without the table");
    node.run_until(REPAIR, || sh("nft list tables").contains("table bridge otherix\n")).await;
    node.settle().await;
    assert_eq!(arriving_at(&two, &one, &frames), [4, 5, 6]);
    // As on every network.
    let (_, advertisement) = attacks().swap_remove(7);
    assert_eq!(arriving_at(&two, &one, &[advertisement]), [0; 0]);
}

#[tokio::test]
async fn what_asks_for_an_address_stays_on_the_tap() {
    assert_requests_stay_on_the_tap(bridge("br-app", 1500), LinkGroup::AssignedTap, &[5]).await;
}

#[tokio::test]
async fn what_asks_for_an_address_stays_on_the_tap_behind_nat() {
    // There the gateway has the MAC address of the bridge.
    assert_requests_stay_on_the_tap(crate::nat::nat(1), LinkGroup::AssignedGatewayTap, &[3, 5]).await;
}

async fn assert_requests_stay_on_the_tap(want: Want, group: LinkGroup, passing: &[u8]) {
    let gateway = Gateway { address: "10.20.1.1".parse().unwrap(), subnet: "10.20.1.0/24".parse().unwrap() };
    let lease = |last| DesiredLease { address: std::net::Ipv4Addr::new(10, 20, 1, last), gateway };
    let to_gateway: String = GATEWAY_MAC.iter().map(|byte| format!("{byte:02x}")).collect();
    let frames = [
        udp("0044 0043", 1, false),
        udp("1234 0043", 2, false),
        from_guest(&to_gateway, "88b5", 3),
        from_guest(ALL, "88b5", 5),
    ];
    let (mut node, _outside) = crate::nat::node_with_uplink();
    node.set_desired(1, want);
    let taps = [2, 3].map(|last| attach_nic_with(&mut node, u16::from(last) - 1, 1, Some(lease(last))));
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    let shown = otherix_testkit::netns::link(&taps[0]).unwrap()["group"].as_str().unwrap().to_owned();
    assert_eq!(shown, group.number().to_string());
    let [one, two] = taps.each_ref().map(|tap| TapDevice::attach(tap).unwrap());
    wait_until_forwarding(&one, &two);
    let _delayed = received(&two);
    assert_eq!(arriving_at(&two, &one, &frames), passing);
    delete_tables();
    assert_eq!(arriving_at(&two, &one, &frames), [1, 2, 3, 5], "without the tables");
}

#[tokio::test]
async fn no_guest_becomes_the_root_of_the_spanning_tree_of_an_unmanaged_bridge() {
    enter_new();
    sh("ip link add br-ext type bridge mcast_snooping 0 stp_state 1 forward_delay 200\nip link set br-ext up");
    let mut node = Node::new();
    node.set_desired(1, unmanaged("br-ext"));
    let taps = [attach_nic(&mut node, 1, 1), attach_nic(&mut node, 2, 1)];
    node.settle().await;
    let [one, two] = taps.each_ref().map(|tap| TapDevice::attach(tap).unwrap());
    wait_until_forwarding(&one, &two);
    // Of a bridge with the lowest identifier: root, cost, bridge, port, age, maximum, hello, delay.
    let source: String = mac(1).octets().iter().map(|byte| format!("{byte:02x}")).collect();
    let times = "0000 1400 0200 0f00";
    let root = from_guest(
        "01:80:c2:00:00:00",
        &format!("0026 424203 0000 00 00 00 0000{source} 00000000 0000{source} 8001 {times}"),
        1,
    );
    let is_root = || otherix_testkit::netns::link("br-ext").unwrap()["linkinfo"]["info_data"]["root_port"] == 0;
    let attack = || (0..3).for_each(|_| one.write(&root).unwrap());
    let port = || crate::taps::bridge_json(&format!("-d link show dev {}", taps[0])).remove(0);
    attack();
    wait_for_blocking(REPAIR, "the port is blocked instead", || port()["state"] == "listening");
    assert!(is_root());
    sh(&format!("bridge link set dev {} root_block off", taps[0]));
    wait_for_blocking(REPAIR, "another root without the setting", || {
        attack();
        !is_root()
    });
    node.run_until(REPAIR, || port()["root_block"] == true).await;
}
