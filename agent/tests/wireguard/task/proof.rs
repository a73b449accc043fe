//! A node is reached only if full-size packets pass to it and back; otherwise the fault states the likely cause. The
//! breaks are made by `nft` and `ip` in the nodes' namespaces, and judged by `ping`.

use std::time::{Duration, Instant};

use otherix_agent::model::mesh_device::MeshFaults;
use otherix_agent::wireguard::Backend;
use otherix_testkit::netns::sh;
use otherix_testkit::wait::wait_for_blocking;

use super::node::{DEADLINE, MeshNode, join, nodes, nodes_with};
use super::pair;

/// Drops packets that arrive at a node.
const DROP: &str = "nft add table inet broken; \
    nft \"add chain inet broken input { type filter hook input priority 0; }\"; nft add rule inet broken input";

impl MeshNode {
    /// Returns the fault of another node, if there is one.
    fn fault_of(&self, other: &Self) -> Option<String> {
        self.faults().nodes.get(&other.address().parse().unwrap()).cloned()
    }

    /// Waits for a fault of another node whose text contains `wanted`, and returns how long it took.
    #[track_caller]
    fn finds_fault_of(&self, other: &Self, wanted: &str) -> Duration {
        let start = Instant::now();
        wait_for_blocking(DEADLINE, &format!("node {} to find {wanted:?}", self.number), || {
            match self.fault_of(other) {
                Some(text) if text.contains(wanted) => Ok(()),
                other => Err(other),
            }
        });
        start.elapsed()
    }

    /// Waits until there is no fault, and returns how long it took.
    #[track_caller]
    fn finds_no_fault(&self) -> Duration {
        let start = Instant::now();
        wait_for_blocking(DEADLINE, &format!("node {} to find no fault", self.number), || {
            let faults = self.faults();
            if faults == MeshFaults::default() { Ok(()) } else { Err(faults) }
        });
        start.elapsed()
    }

    /// Whether a packet of this size, including its IP header, passes to the other node and back.
    fn passes(&self, other: &Self, size: u16) -> bool {
        let ping = format!("ping -n -q -M do -c 1 -W 1 -s {} {} >/dev/null && echo yes || echo no", size - 28, {
            other.address()
        });
        self.sh(&ping).trim() == "yes"
    }
}

fn proven_pair() -> [MeshNode; 2] {
    let pair = pair([Backend::Userspace; 2], ["tun"; 2]);
    for node in &pair {
        node.finds_no_fault();
    }
    pair
}

#[test]
fn a_dropped_port_is_found_on_both_nodes_and_so_is_its_end() {
    let [first, second] = proven_pair();
    second.sh(&format!("{DROP} udp dport 51820 drop"));
    let found = [
        // Its packets still arrive at the first node.
        first.finds_fault_of(&second, "its packets arrive, but it does not answer"),
        second.finds_fault_of(&first, "nothing arrives from 192.0.2.1:51820 any more"),
    ];
    assert!(!first.passes(&second, 84), "the break breaks nothing");
    second.sh("nft delete table inet broken");
    let repaired = [first.finds_no_fault(), second.finds_no_fault()];
    assert!(first.passes(&second, 1440));
    eprintln!("a dropped port: found after {found:?}, its end after {repaired:?}");
}

#[test]
fn without_a_handshake_the_fault_says_so_and_ends_with_the_first_one() {
    let nodes = nodes([Backend::Userspace; 3]);
    nodes[1].sh(&format!("{DROP} udp dport 51820 drop"));
    join(&nodes);
    let wanted = "no handshake with 192.0.2.2:51820: a firewall";
    let found = nodes[0].finds_fault_of(&nodes[1], wanted);
    nodes[2].finds_fault_of(&nodes[1], wanted);
    nodes[1].finds_fault_of(&nodes[0], "no handshake with 192.0.2.1:51820: a firewall");
    nodes[0].reaches(&nodes[2]);
    assert_eq!(nodes[0].faults().nodes.len(), 1, "{:?}", nodes[0].faults());
    nodes[1].sh("nft delete table inet broken");
    let repaired = nodes[0].finds_no_fault();
    assert!(nodes[0].passes(&nodes[1], 1440));
    eprintln!("no handshake: found after {found:?}, its end after {repaired:?}");
}

#[test]
fn an_underlay_that_is_too_narrow_is_measured() {
    let [first, second] = proven_pair();
    second.sh("ip link set u0 mtu 1400");
    let needed = "bytes, but full-size packets of the mesh need 1500";
    let found = [
        second.finds_fault_of(&first, &format!("the path MTU to 192.0.2.1:51820 is 1400 {needed}")),
        first.finds_fault_of(&second, needed),
    ];
    // The device receives up to four bytes more than its MTU.
    let fault = first.fault_of(&second).unwrap();
    let measured: u16 = fault.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!((1400..=1404).contains(&measured), "{fault}");
    assert!(first.passes(&second, measured - 60));
    assert!(!first.passes(&second, measured - 59), "the break breaks nothing");
    second.sh("ip link set u0 mtu 1500");
    let repaired = [second.finds_no_fault(), first.finds_no_fault()];
    assert!(first.passes(&second, 1440));
    eprintln!("a narrow underlay: found after {found:?}, its end after {repaired:?}");
}

#[test]
fn a_route_that_leads_elsewhere_is_found() {
    let [first, second] = proven_pair();
    first.sh("ip rule add priority 10 to 10.42.0.2 lookup 100; ip route add default via 192.0.2.2 table 100");
    // A ping is answered, because the second node has the address, but its request passes in clear text.
    first.finds_fault_of(&second, "sends them from 192.0.2.1 instead of through the tunnel");
    second.finds_fault_of(&first, "nothing arrives from 192.0.2.1:51820 any more");
    first.sh("ip rule del priority 10");
    first.finds_no_fault();
    second.finds_no_fault();
}

#[test]
fn a_further_node_has_a_fault_until_packets_have_passed() {
    let nodes = nodes([Backend::Userspace; 3]);
    join(&nodes[..2]);
    nodes[0].reaches(&nodes[1]);
    nodes[0].finds_no_fault();
    // The third node does not know the mesh yet.
    let all = nodes[0].desired(nodes.iter());
    let faults = nodes[0].run(move |mesh| {
        mesh.set_desired(Some(all), false, true);
        mesh.current_faults()
    });
    let unproven = "no packet has passed through the tunnel yet".to_owned();
    assert_eq!(faults.nodes, [("10.42.0.3".parse().unwrap(), unproven)].into());
    nodes[0].finds_fault_of(&nodes[2], "no handshake with 192.0.2.3:51820");
    join(&nodes);
    for node in &nodes {
        node.finds_no_fault();
    }
}

#[test]
fn nodes_with_different_ports_of_vxlan_find_out() {
    let nodes = nodes_with([(Backend::Userspace, 4789), (Backend::Userspace, 8472), (Backend::Userspace, 4789)]);
    join(&nodes);
    let [first, second, third] = &nodes;
    first.finds_fault_of(second, "it uses UDP port 8472 for VXLAN, and this node 4789");
    second.finds_fault_of(first, "it uses UDP port 4789 for VXLAN, and this node 8472");
    third.finds_fault_of(second, "it uses UDP port 8472");
    second.finds_fault_of(third, "it uses UDP port 4789");
    wait_for_blocking(DEADLINE, "the first and third to find no fault of each other", || {
        first.fault_of(third).is_none() && third.fault_of(first).is_none()
    });
}

#[test]
fn a_node_behind_nat_stays_reachable_when_the_nat_forgets_what_is_idle() {
    let nodes = nodes([Backend::Userspace; 2]);
    let [outside, inside] = &nodes;
    // The test's namespace is the router. It forgets a flow after two seconds, instead of the usual thirty and more.
    sh("ip link add br1 type bridge; ip link set br1 up; ip link set u2 master br1
        ip addr add 192.0.2.250/24 dev br0; ip addr add 198.51.100.1/24 dev br1
        echo 1 >/proc/sys/net/ipv4/ip_forward
        nft add table ip nat; nft 'add chain ip nat leave { type nat hook postrouting priority 100; }'
        nft add rule ip nat leave oifname br0 ip saddr 198.51.100.0/24 masquerade
        echo 2 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout
        echo 2 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream");
    inside.sh("ip addr flush dev u0; ip addr add 198.51.100.2/24 dev u0; ip route add default via 198.51.100.1");
    join(&nodes);
    inside.reaches(outside);
    outside.finds_no_fault();
    inside.finds_no_fault();
    let peer = || outside.status().peers[0].clone();
    assert_eq!(peer().endpoint.unwrap().ip().to_string(), "192.0.2.250", "it is not reached at its own endpoint");
    // Some seconds, in which nothing but probes is sent.
    let before = peer().tx_bytes;
    wait_for_blocking(DEADLINE, "some probes", || peer().tx_bytes >= before + 6 * 64);
    assert_eq!(outside.faults(), MeshFaults::default());
    assert!(outside.passes(inside, 1440));
}
