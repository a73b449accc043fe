//! A node whose uplinks forward for its guests does not become a router between them, unless it was one before, or
//! someone makes it one.

use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::sh;
use otherix_testkit::wait::wait_for_blocking;

use crate::host::Host;
use crate::nat::{OUTSIDE_HOST, REMOTE, forwards, guest, has_table, nat, node_with_uplink};
use crate::node::{Node, REPAIR};

/// The host on the second uplink.
const SECOND_HOST: &str = "198.51.100.9";

/// Returns a node with two uplinks, and the hosts there, which use the node as their router.
fn node_with_two_uplinks() -> (Node, Host, Host) {
    let (node, outside) = node_with_uplink();
    let second = Host::new("second");
    sh("ip address add 198.51.100.7/24 dev second
        sysctl -qw net.ipv4.ip_forward=1\nsysctl -qw net.ipv4.ip_forward=0");
    second.sh(&format!("ip address add {SECOND_HOST}/24 dev eth0; ip route add 192.0.2.0/24 via 198.51.100.7"));
    outside.sh("ip route add 198.51.100.0/24 via 192.0.2.7");
    (node, outside, second)
}

#[tokio::test]
async fn the_node_does_not_become_a_router_between_its_uplinks() {
    let (mut node, outside, second) = node_with_two_uplinks();
    assert!(outside.cannot_reach(SECOND_HOST) && second.cannot_reach(OUTSIDE_HOST));
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);
    assert!(forwards("uplink") && forwards("second"));
    let is_no_router = || outside.cannot_reach(SECOND_HOST) && second.cannot_reach(OUTSIDE_HOST);
    assert!(is_no_router() && guest.reaches(REMOTE) && guest.reaches(SECOND_HOST));

    sh("nft flush chain ip otherix through");
    assert!(outside.reaches(SECOND_HOST) && second.reaches(OUTSIDE_HOST), "without the rules");
    node.run_until(REPAIR, || sh("nft list chain ip otherix through").contains("drop")).await;
    node.settle().await;
    assert!(is_no_router());

    // It is known after a restart, too.
    node.restart();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(is_no_router() && guest.reaches(REMOTE) && guest.reaches(SECOND_HOST));

    // An operator makes the node a router, and then no longer.
    sh("sysctl -qw net.ipv4.ip_forward=1");
    node.run_until(REPAIR, || !sh("nft list table ip otherix").contains("through")).await;
    node.settle().await;
    assert!(outside.reaches(SECOND_HOST) && second.reaches(OUTSIDE_HOST) && guest.reaches(REMOTE));
    node.restart();
    node.settle().await;
    assert!(outside.reaches(SECOND_HOST), "after a restart, too");
    sh("sysctl -qw net.ipv4.ip_forward=0");
    node.run_until(REPAIR, || forwards("uplink") && forwards("second")).await;
    node.settle().await;
    assert!(is_no_router() && guest.reaches(REMOTE) && guest.reaches(SECOND_HOST));

    sh("ip link del g1-5");
    node.set_desired(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    node.settle().await;
    assert!(!forwards("uplink") && !forwards("second") && !has_table(), "as before the network");
    assert!(is_no_router());
}

#[tokio::test]
async fn a_node_that_was_a_router_remains_one() {
    let (mut node, outside, second) = node_with_two_uplinks();
    sh("sysctl -qw net.ipv4.conf.uplink.forwarding=1 net.ipv4.conf.second.forwarding=1");
    assert!(outside.reaches(SECOND_HOST) && second.reaches(OUTSIDE_HOST));
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);
    assert!(outside.reaches(SECOND_HOST) && second.reaches(OUTSIDE_HOST) && guest.reaches(REMOTE));
    // A third uplink does not forward before.
    let third = Host::new("third");
    sh("ip address add 198.18.0.7/24 dev third");
    third.sh("ip address add 198.18.0.9/24 dev eth0; ip route add default via 198.18.0.7");
    node.run_until(REPAIR, || forwards("third")).await;
    node.settle().await;
    wait_for_blocking(REPAIR, "a reply to the guest", || guest.reaches("198.18.0.9"));
    assert!(third.cannot_reach(SECOND_HOST) && outside.reaches(SECOND_HOST));
    sh("ip link del g1-5");
    node.set_desired(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    node.settle().await;
    assert!(forwards("uplink") && forwards("second") && !forwards("third") && !has_table());
    assert!(outside.reaches(SECOND_HOST));
}
