//! Services of the node, of other nodes and of the control plane.

use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, link, sh};

use super::{Server, attack, delete_tables, warns_of_address};
use crate::host::Host;
use crate::nat::{REMOTE, guest, nat, node_with_uplink};
use crate::node::{Node, REPAIR, bridge};

/// What a guest behind NAT tries against its node, which has another address on `lo`.
const AGAINST_THE_NODE: [&str; 11] = [
    "tcp 10.20.1.1 8022",
    "tcp 192.0.2.7 8022",
    "tcp 198.51.100.77 8022",
    "tcp 10.20.2.1 8022",
    "udp 10.20.1.1 8022 10.20.1.5",
    "udp 192.0.2.7 8022 10.20.1.5",
    "udp 198.51.100.77 8022 10.20.1.5",
    "arp eth0 10.20.1.5 192.0.2.7",
    "arp eth0 10.20.1.5 198.51.100.77",
    "arp eth0 10.20.1.5 10.20.2.1",
    "arp eth0 192.0.2.9 192.0.2.7",
];

#[tokio::test]
async fn behind_nat_only_an_echo_of_the_gateway_is_reached() {
    let (mut node, _outside) = node_with_uplink();
    sh("ip link set lo up\nip address add 198.51.100.77/32 dev lo");
    node.set_desired(1, nat(1));
    node.set_desired(2, nat(2));
    node.settle().await;
    let (guest, _server) = (guest(1, 5), Server::start(None, "8022"));
    let is_prevented = |attacks: &[&str]| attacks.iter().all(|arguments| !attack(&guest, arguments));
    assert!(guest.reaches("10.20.1.1") && guest.reaches(REMOTE));
    for arguments in AGAINST_THE_NODE {
        assert!(!attack(&guest, arguments), "{arguments}");
    }
    for address in ["192.0.2.7", "198.51.100.77", "10.20.2.1"] {
        assert!(guest.cannot_reach(address), "{address}");
    }
    assert!(attack(&guest, "arp eth0 10.20.1.5 10.20.1.1"), "the gateway answers ARP");
    sh("ping -q -c 1 -W 1 10.20.1.5");
    let _at_guest = Server::start(Some(&guest), "9000");
    sh("python3 -c 'import socket; socket.create_connection((\"10.20.1.5\", 9000), 1)'");

    delete_tables();
    for arguments in AGAINST_THE_NODE {
        // The last one is answered only where reverse paths are not checked.
        assert!(attack(&guest, arguments) || arguments.contains("192.0.2.9"), "{arguments} without the tables");
    }
    node.run_until(REPAIR, || sh("nft list tables").contains("table arp otherix\n")).await;
    node.settle().await;
    assert!(is_prevented(&AGAINST_THE_NODE) && guest.reaches("10.20.1.1"));
    sh("nft delete table arp otherix");
    node.run_until(REPAIR, || sh("nft list tables").contains("table arp otherix\n")).await;
}

#[tokio::test]
async fn behind_nat_no_node_and_no_nats_server_is_reached_as_the_node() {
    let (mut node, outside) = node_with_uplink();
    outside.sh("ip address add 192.0.2.20/24 dev eth0");
    node.set_desired(1, nat(1));
    node.settle().await;
    let guest = guest(1, 5);
    let _server = Server::start(Some(&outside), "22 4222 51820");
    let (nats, another_node) = (format!("tcp {REMOTE} 4222"), ["tcp 192.0.2.20 22", "udp 192.0.2.20 51820 10.20.1.5"]);
    // Without the addresses of the cluster, they are reached, with the node's address.
    assert!(attack(&guest, &nats) && another_node.iter().all(|arguments| attack(&guest, arguments)));
    node.desired.cluster_addresses.nodes = ["192.0.2.20".parse().unwrap()].into();
    node.desired.cluster_addresses.nats = [format!("{REMOTE}:4222").parse().unwrap()].into();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(!attack(&guest, &nats) && another_node.iter().all(|arguments| !attack(&guest, arguments)));
    assert!(guest.cannot_reach("192.0.2.20"));
    assert!(guest.reaches(REMOTE) && attack(&guest, &format!("tcp {REMOTE} 22")), "the rest of the outside");
    assert!(attack(&guest, &format!("udp {REMOTE} 4222 10.20.1.5")));
    sh(&format!("python3 -c 'import socket; socket.create_connection((\"{REMOTE}\", 4222), 1)'"));
}

/// Connects a guest to a bridge, with a foreign port and an address of a subnet of its own.
fn guest_on(bridge: &str) -> Host {
    let guest = Host::new("guest");
    sh(&format!("ip link set guest master {bridge}"));
    guest.sh("ip address add 10.66.0.5/24 dev eth0\nip route add default dev eth0");
    guest
}

#[tokio::test]
async fn without_a_gateway_the_node_does_not_exist_on_a_bridge() {
    enter_new();
    sh("ip link set lo up\nip address add 198.51.100.77/32 dev lo\nip link add eth9 type veth peer name eth8
        ip link set eth9 up\nip link set eth8 up\nip address add 192.0.2.7/24 dev eth9
        ip route add 10.66.0.0/24 dev eth9\nsysctl -qw net.ipv4.conf.all.rp_filter=0");
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    let (guest, _server) = (guest_on("br-app"), Server::start(None, "8022"));
    let attacks =
        ["arp eth0 10.66.0.5 192.0.2.7", "arp eth0 0.0.0.0 198.51.100.77", "arp eth0 10.66.0.5 198.51.100.77"];
    for arguments in attacks {
        assert!(!attack(&guest, arguments), "{arguments}");
    }
    // Datagrams reach the node, whatever it answers.
    let received = || {
        let text = sh("cat /proc/net/snmp");
        let line = text.lines().filter(|line| line.starts_with("Udp: ")).nth(1).unwrap().to_owned();
        line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
    };
    let mac = link("br-app").unwrap()["address"].as_str().unwrap().to_owned();
    for address in ["192.0.2.7", "198.51.100.77"] {
        guest.sh(&format!("ip neighbour replace {address} lladdr {mac} dev eth0"));
    }
    let send = || {
        for source in ["10.66.0.5", "203.0.113.99", "198.51.100.4"] {
            attack(&guest, &format!("udp 198.51.100.77 8022 {source}"));
            attack(&guest, &format!("udp 192.0.2.7 8022 {source}"));
        }
    };
    let before = received();
    send();
    assert_eq!(received(), before, "datagrams with any source");

    delete_tables();
    for arguments in attacks {
        assert!(attack(&guest, arguments), "{arguments} without the tables");
    }
    send();
    assert!(received() > before, "datagrams without the tables");

    node.run_until(REPAIR, || sh("nft list tables").matches("otherix_guests").count() == 4).await;
    node.settle().await;
    assert!(!attacks.iter().any(|arguments| attack(&guest, arguments)));
    for change in [
        "nft delete table bridge otherix_guests",
        "nft flush table ip otherix_guests",
        "nft insert rule arp otherix_guests input accept",
        "nft delete chain ip6 otherix_guests output || nft flush chain ip6 otherix_guests output",
        "ip link set br-app group 0",
    ] {
        let expected = (sh("nft list tables"), sh("nft -s list table arp otherix_guests"));
        sh(change);
        let group = || link("br-app").unwrap()["group"].as_str().unwrap().to_owned();
        node.run_until(REPAIR, || {
            (sh("nft list tables"), sh("nft -s list table arp otherix_guests")) == expected && group() != "default"
        })
        .await;
        node.settle().await;
        assert!(!attacks.iter().any(|arguments| attack(&guest, arguments)), "{change}");
    }

    sh("ip link del guest");
    node.set_desired(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert!(!sh("nft list tables").contains("otherix"), "removed with the last network");
}

#[tokio::test]
async fn an_address_that_someone_gave_a_bridge_is_a_warning_and_works() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    let guest = guest_on("br-app");
    sh("ip address add 10.66.0.1/24 dev br-app");
    node.run_until_pass(REPAIR, warns_of_address).await;
    assert!(guest.reaches("10.66.0.1"), "through a port that is no tap");
    sh("ip address del 10.66.0.1/24 dev br-app");
    node.run_until_pass(REPAIR, |pass| !warns_of_address(pass)).await;
    sh("ip address add 10.66.0.1/24 dev lo");
    assert!(guest.cannot_reach("10.66.0.1"));
}
