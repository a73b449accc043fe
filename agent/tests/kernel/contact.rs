//! The second net: a network that takes the control plane away from the node is withdrawn, and is not created again
//! until it is updated or released; and what look-ups show that no list of routes does.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;

use otherix_agent::model::desired::{DesiredNetwork, Want};
use otherix_agent::model::need::Need;
use otherix_schemas::outcome::{Outcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_testkit::netns::{link, sh};

use crate::conflicts::{failed_with, nat_with, set_needs};
use crate::nat::{REMOTE, forwards, has_gateway, nat, node_with_uplink};
use crate::node::{Node, REPAIR, network};

/// Sets which of the needs must not be taken away now.
fn set_vital(node: &mut Node, vital: &[&str]) {
    let vital: BTreeSet<Ipv4Addr> = vital.iter().map(|address| address.parse().unwrap()).collect();
    node.reconciler.observe(|observed| {
        observed.vital = Some(vital);
        true
    });
}

fn warns(node: &Node, text: &str) -> bool {
    let outcomes = &node.last.as_ref().unwrap().outcomes;
    let network = outcomes.iter().find(|outcome| outcome.resource == ResourceRef::Network(network(1)));
    network.unwrap().warnings.iter().any(|warning| warning.contains(text))
}

#[tokio::test]
async fn what_takes_the_control_plane_away_is_withdrawn_until_updated_or_released() {
    let (mut node, _outside) = node_with_uplink();
    // The uplink has no address of its own: packets get one of another link, of which the first is used. An earlier
    // agent made the bridge before that link.
    let alias = node.alias(1);
    sh(&format!(
        "ip route flush dev uplink; ip address flush dev uplink; ip route add default dev uplink
         ip link add br-1 address 02:00:00:00:00:01 type bridge; ip link set br-1 alias {alias}; ip link set br-1 up
         ip link add host0 type veth peer name host1; ip link set host0 up; ip address add 192.0.2.7/32 dev host0"
    ));
    let keeps_source = || sh("ip route get 198.51.100.10").contains("src 192.0.2.7");
    assert!(keeps_source());
    sh("ip address add 10.20.1.1/24 dev br-1");
    assert!(!keeps_source(), "the address of the bridge is the source: nothing else shows that");
    set_needs(&mut node, &[("198.51.100.10", Need::ControlPlane)]);

    node.set_desired(1, nat(1));
    let texts = ["10.20.1.1", "198.51.100.10", "control plane", "withdrawn", "otherix-agent release"];
    node.expect_failure(1, &texts).await;
    assert!(keeps_source() && !has_gateway() && !forwards("br-1"));
    assert_eq!(node.withdrawn.len(), 1);
    let is_away = || sh("ip -4 -o address show dev br-1").is_empty();
    assert!(is_away());
    sh("ip link set br-1 down; ip link set br-1 up");
    node.run_until_pass(REPAIR, |pass| failed_with(pass, 1, "withdrawn")).await;
    node.restart();
    node.keep_withdrawn();
    set_needs(&mut node, &[("198.51.100.10", Need::ControlPlane)]);
    node.expect_failure(1, &texts).await;
    assert!(is_away() && keeps_source(), "it is not tried again, also after a restart");

    // Released; the address that this version adds is never a source.
    let kept = std::mem::take(&mut node.withdrawn);
    node.keep_withdrawn();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(has_gateway() && keeps_source() && node.withdrawn.is_empty());

    // Updated.
    node.withdrawn = kept;
    node.keep_withdrawn();
    node.expect_failure(1, &texts).await;
    assert!(is_away());
    let updated = DesiredNetwork { generation: Position::new(8), want: nat(1) };
    node.desired.networks.insert(network(1), updated);
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(has_gateway() && keeps_source());
}

#[tokio::test]
async fn a_running_network_stays_while_the_connection_of_now_is_not_affected() {
    let (mut node, _outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    // Another node's endpoint, a resolver, and a server that it is not connected to.
    for (need, text) in [
        (Need::MeshPeer, "another node of the mesh"),
        (Need::Resolver, "to resolve names"),
        (Need::ControlPlane, "to reach the control plane"),
    ] {
        set_needs(&mut node, &[("10.20.1.10", need), ("198.51.100.10", Need::ControlPlane)]);
        set_vital(&mut node, &["198.51.100.10"]);
        assert_eq!(node.outcome(1).await, Outcome::Ready);
        assert!(warns(&node, "contains 10.20.1.10") && warns(&node, text) && has_gateway());
    }
    set_vital(&mut node, &[]);
    assert_eq!(node.outcome(1).await, Outcome::Ready, "for a short time without a connection");
    // A route to it alone: nothing is cut off.
    sh("ip route add 10.20.1.10 via 192.0.2.9");
    set_vital(&mut node, &["10.20.1.10"]);
    node.expect_failure(1, &["10.20.1.10/32"]).await;
    assert!(has_gateway() && node.withdrawn.is_empty());
    sh("ip route del 10.20.1.10");
    node.expect_failure(1, &["contains 10.20.1.10", "control plane", "withdrawn"]).await;
    assert!(!has_gateway() && sh("ip route get 10.20.1.10").contains("via 192.0.2.9"));
    set_vital(&mut node, &[]);
    set_needs(&mut node, &[]);
    node.expect_failure(1, &["withdrawn"]).await;
    node.withdrawn.clear();
    node.keep_withdrawn();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
}

#[tokio::test]
async fn rules_that_drop_or_lead_away_packets_to_guests_fail_the_network() {
    let (mut node, _outside) = node_with_uplink();
    sh("ip route add default dev uplink table 100");
    for (rule, text, is_made) in [
        ("to 10.20.1.0/24 blackhole", "drops packets to guests of 10.20.1.0/24", false),
        ("to 10.20.1.0/24 prohibit", "drops packets to guests of 10.20.1.0/24", false),
        ("to 10.20.1.0/24 unreachable", "drops packets to guests of 10.20.1.0/24", true),
        ("to 10.20.1.0/24 lookup 100", "sends packets through `uplink` to guests of 10.20.1.0/24", true),
    ] {
        sh(&format!("ip rule add {rule}"));
        node.set_desired(1, nat(1));
        node.expect_failure(1, &[text, "ip rule"]).await;
        assert_eq!(link("br-1").is_some(), is_made, "{rule}");
        sh(&format!("ip rule del {rule}"));
        node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
        sh(&format!("ip rule add {rule}"));
        node.run_until_pass(REPAIR, |pass| failed_with(pass, 1, text)).await;
        assert!(has_gateway(), "a running network stays");
        sh(&format!("ip rule del {rule}"));
        node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
        node.set_desired(1, Want::Nothing);
        assert_eq!(node.outcome(1).await, Outcome::Removed);
        node.restart();
    }
    sh("ip rule add to 10.99.0.0/16 blackhole\nip rule add from 192.0.2.7 lookup 100");
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready, "other rules do not matter");
}

#[tokio::test]
async fn next_hops_that_are_not_listed_are_looked_up() {
    let (mut node, _outside) = node_with_uplink();
    sh("sysctl -qw net.ipv4.nexthop_compat_mode=0
        ip nexthop add id 7 via 198.18.7.1 dev uplink onlink
        ip route add 198.51.100.0/24 nhid 7");
    assert!(sh("ip route get 198.51.100.10").contains("via 198.18.7.1"));
    set_needs(&mut node, &[("198.51.100.10", Need::ControlPlane)]);
    node.set_desired(1, nat_with("br-1", "198.18.7.0/24"));
    node.expect_failure(1, &["contains 198.18.7.1", "reaches 198.51.100.10", "control plane"]).await;
    assert!(link("br-1").is_none());
}

#[tokio::test]
async fn another_network_at_the_uplink_does_not_cut_the_node_off() {
    // As after a new DHCP lease: the uplink's network is the one that guests have, and the router is in it.
    let lease = "ip route flush dev uplink; ip address flush dev uplink; ip address add 10.20.1.57/24 dev uplink
        ip route add default via 10.20.1.254 dev uplink";
    let strict = |on: u8| sh(&format!("echo {on} > /proc/sys/net/ipv4/conf/uplink/rp_filter"));
    let (mut node, outside) = node_with_uplink();
    // The router's ARP requests have its own address, as if the remote one were behind it.
    outside.sh("ip address add 10.20.1.254/24 dev eth0; echo 2 > /proc/sys/net/ipv4/conf/eth0/arp_announce");
    let is_reached = || Command::new("ping").args(["-q", "-c", "1", "-W", "0.3", REMOTE]).status().unwrap().success();
    // Without the agent.
    sh("ip link add other type bridge; ip link set other up; ip address add 10.20.1.1/24 dev other");
    sh(lease);
    strict(0);
    assert!(is_reached());
    strict(1);
    outside.sh("ip neigh flush all");
    assert!(!is_reached(), "the router's ARP requests are dropped");
    sh("ip link del other\nip address flush dev uplink\nip address add 192.0.2.7/24 dev uplink");
    sh("ip route add default via 192.0.2.9");
    strict(0);

    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    set_needs(&mut node, &[(REMOTE, Need::ControlPlane)]);
    sh(lease);
    node.expect_failure(1, &["10.20.1.57/24"]).await;
    assert!(has_gateway() && node.withdrawn.is_empty() && is_reached(), "nothing is cut off");
    strict(1);
    set_vital(&mut node, &[REMOTE]);
    node.expect_failure(1, &["contains 10.20.1.254", "control plane", "withdrawn"]).await;
    assert!(!has_gateway());
    outside.sh("ip neigh flush all");
    assert!(is_reached());
}

#[tokio::test]
async fn tunnels_keep_their_other_end() {
    let (mut node, _outside) = node_with_uplink();
    let tunnel = |remote: &str| {
        sh(&format!(
            "ip link add tun0 type vxlan id 7 dstport 4790 remote {remote}; ip link set tun0 up
             ip address add 10.88.0.1/24 dev tun0"
        ));
    };
    tunnel("198.18.7.77");
    set_needs(&mut node, &[("10.88.0.10", Need::ControlPlane)]);
    node.set_desired(1, nat_with("br-1", "198.18.7.0/24"));
    node.expect_failure(1, &["contains 198.18.7.77", "the other end of this node's tunnel `tun0`"]).await;
    assert!(link("br-1").is_none());
    sh("ip link del tun0");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    node.set_desired(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);

    // A tunnel that comes later.
    node.set_desired(1, nat(1));
    set_vital(&mut node, &[]);
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    tunnel("10.20.1.77");
    node.run_until_pass(REPAIR, |pass| {
        pass.outcomes.iter().any(|outcome| outcome.warnings.iter().any(|text| text.contains("tunnel `tun0`")))
    })
    .await;
    assert!(has_gateway());
    set_vital(&mut node, &["10.88.0.10"]);
    node.expect_failure(1, &["contains 10.20.1.77", "tunnel `tun0`", "withdrawn"]).await;
    assert!(!has_gateway() && sh("ip route get 10.20.1.77").contains("via 192.0.2.9"));
}
