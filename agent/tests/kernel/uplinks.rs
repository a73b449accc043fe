//! Networks with NAT egress follow changes of the default routes.

use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::{Outcome, ResourceRef};
use otherix_testkit::netns::sh;

use crate::host::Host;
use crate::nat::{REMOTE, forwards, guest, nat, node_with_uplink};
use crate::node::{Node, REPAIR, bridge, network};

/// Waits until network 1 is pending because its packets have no way out.
async fn expect_no_route(node: &mut Node) {
    node.run_until_pass(REPAIR, |pass| {
        pass.outcomes.iter().any(|outcome| {
            let Outcome::Pending(text) = &outcome.outcome else { return false };
            let is_expected = ["default route", "routing rule"].iter().any(|cause| text.contains(cause));
            outcome.resource == ResourceRef::Network(network(1)) && is_expected
        })
    })
    .await;
}

#[tokio::test]
async fn a_network_is_pending_while_the_uplink_is_down_or_removed() {
    let (mut node, outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);

    sh("ip link set uplink down");
    expect_no_route(&mut node).await;
    sh("ip link set uplink up; ip route add default via 192.0.2.9");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    assert!(guest.reaches(REMOTE));

    sh("ip address flush dev uplink");
    expect_no_route(&mut node).await;
    sh("ip address add 192.0.2.7/24 dev uplink; ip route add default via 192.0.2.9");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    assert!(guest.reaches(REMOTE));

    sh("ip link set uplink down; ip link set uplink name wan0; ip link set wan0 up; \
         ip route add default via 192.0.2.9");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    assert!(forwards("wan0") && guest.reaches(REMOTE));

    sh("ip link del wan0");
    expect_no_route(&mut node).await;
    let replacement = Host::new("wan0");
    sh("ip address add 192.0.2.7/24 dev wan0\nip route add default via 192.0.2.9");
    replacement.sh(&format!("ip address add 192.0.2.9/24 dev eth0; ip address add {REMOTE}/32 dev lo"));
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    assert!(forwards("wan0") && guest.reaches(REMOTE));
    drop(outside);
}

#[tokio::test]
async fn a_network_is_pending_while_rules_or_the_routes_that_they_select_drop_its_packets() {
    let (mut node, _outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);
    assert!(guest.reaches(REMOTE));
    for (apply, undo) in [
        ("ip rule add iif br-1 blackhole priority 91", "ip rule del priority 91"),
        ("ip rule add from 10.20.0.0/16 prohibit priority 92", "ip rule del priority 92"),
        (
            "ip route add table 77 unreachable default; ip rule add iif br-1 lookup 77 priority 93",
            "ip rule del priority 93; ip route flush table 77",
        ),
        (
            "ip route add unreachable 0.0.0.0/1; ip route add blackhole 128.0.0.0/1",
            "ip route flush type unreachable; ip route flush type blackhole",
        ),
    ] {
        sh(apply);
        expect_no_route(&mut node).await;
        assert!(!guest.reaches(REMOTE), "{apply}");
        sh(undo);
        node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
        assert!(guest.reaches(REMOTE), "{undo}");
    }

    sh("ip rule add to 203.0.113.0/24 iif br-1 blackhole priority 94");
    node.run_until_pass(REPAIR, |pass| {
        pass.outcomes.iter().any(|outcome| {
            outcome.outcome == Outcome::Ready && outcome.warnings.iter().any(|text| text.contains("203.0.113.0/24"))
        })
    })
    .await;
}

#[tokio::test]
async fn egress_works_with_several_uplinks_and_after_changes() {
    let (mut node, _outside) = node_with_uplink();
    let second = Host::new("second");
    sh("ip address add 198.51.100.7/24 dev second");
    second.sh(&format!("ip address add 198.51.100.9/24 dev eth0; ip address add {REMOTE}/32 dev lo"));
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);
    assert!(guest.reaches(REMOTE));
    assert!(forwards("second") && guest.reaches("198.51.100.9"), "a link with a connected route");

    sh("ip route replace default nexthop via 192.0.2.9 nexthop via 198.51.100.9");
    node.run_until(REPAIR, || forwards("second")).await;
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    sh("ip route replace default via 198.51.100.9");
    node.settle().await;
    assert!(guest.reaches(REMOTE));
    sh("ip route add default via 192.0.2.9 metric 50");
    node.settle().await;
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(guest.reaches(REMOTE));
}

#[tokio::test]
async fn a_bridge_of_ours_may_be_the_uplink() {
    let (mut node, _outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    node.set_desired(2, bridge("br-wan", 1500));
    node.settle().await;
    sh("ip address flush dev uplink; ip link set uplink master br-wan; ip address add 192.0.2.7/24 dev br-wan
        ip route add default via 192.0.2.9");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    assert_eq!(node.outcome(2).await, Outcome::Ready);
    assert!(forwards("br-wan"));
    let guest = guest(1, 5);
    assert!(guest.reaches(REMOTE));
    let passes = node.passes;
    node.settle().await;
    assert_eq!(node.passes, passes + 1, "no program undoes it");
    sh("ip link set uplink nomaster");
    node.set_desired(1, Want::Nothing);
    node.set_desired(2, Want::Nothing);
    sh("ip link del g1-5");
    node.settle().await;
}

#[tokio::test]
async fn forwarding_stays_as_required_when_that_of_all_links_is_changed() {
    let (mut node, _outside) = node_with_uplink();
    sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
    node.set_desired(1, nat(1));
    node.set_desired(2, bridge("br-plain", 1500));
    assert_eq!((node.outcome(1).await, node.outcome(2).await), (Outcome::Ready, Outcome::Ready));
    assert!(forwards("br-1") && !forwards("br-plain"));
    sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
    node.run_until(REPAIR, || forwards("br-1") && forwards("uplink") && !forwards("br-plain")).await;
    sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
    node.run_until(REPAIR, || forwards("br-1") && forwards("uplink") && !forwards("br-plain")).await;
    assert_eq!((node.outcome(1).await, node.outcome(2).await), (Outcome::Ready, Outcome::Ready));
}

/// A change of the routes, how it is undone, and the link that guests' packets to REMOTE leave by.
const ROUTES: &[(&str, &str)] = &[
    // A VPN.
    (
        "ip route add 0.0.0.0/1 via 198.51.100.9\nip route add 128.0.0.0/1 via 198.51.100.9",
        "ip route del 0.0.0.0/1\nip route del 128.0.0.0/1",
    ),
    // wg-quick.
    (
        "ip route add default via 198.51.100.9 table 51820\nip rule add not fwmark 0xca6c table 51820\n\
         ip rule add table main suppress_prefixlength 0",
        "ip rule del table main suppress_prefixlength 0\nip rule del table 51820\nip route flush table 51820",
    ),
    // Guests by another provider.
    (
        "ip route add default via 198.51.100.9 table 100\nip rule add from 10.20.0.0/16 table 100",
        "ip rule del table 100\nip route flush table 100",
    ),
    (
        "ip rule add iif br-1 table 7\nip route add default via 198.51.100.9 table 7",
        "ip rule del table 7; ip route flush table 7",
    ),
    ("ip route add 203.0.113.0/24 via 198.51.100.9", "ip route del 203.0.113.0/24"),
    (
        "ip route del default\nip route add default via 198.51.100.9",
        "ip route del default\nip route add default via 192.0.2.9",
    ),
];

#[tokio::test]
async fn links_forward_that_guests_packets_leave_by_according_to_all_tables_and_rules() {
    let (mut node, _outside) = node_with_uplink();
    let second = Host::new("second");
    sh("ip address add 198.51.100.7/32 dev second");
    second.sh(&format!("ip address add 198.51.100.9/24 dev eth0; ip address add {REMOTE}/32 dev lo"));
    second.sh("ip route add default dev eth0");
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);
    for (change, undo) in ROUTES {
        // Like a link that no route uses.
        sh("ip link set second down; ip link set second up; echo 0 > /proc/sys/net/ipv4/conf/second/forwarding");
        node.run_until(REPAIR, || true).await;
        assert!(!forwards("second") && guest.reaches(REMOTE));
        sh("ip route add 198.51.100.9 dev second");
        sh(change);
        node.run_until(REPAIR, || forwards("second")).await;
        assert_eq!(node.outcome(1).await, Outcome::Ready, "{change}");
        let uses = sh("ip route get 203.0.113.1 from 10.20.1.5 iif br-1");
        assert!(uses.contains("dev second"), "{uses}");
        assert!(guest.reaches(REMOTE), "{change}");
        sh(undo);
        sh("ip route del 198.51.100.9 dev second");
        node.settle().await;
        assert_eq!(node.outcome(1).await, Outcome::Ready, "{undo}");
        node.restart();
        node.settle().await;
    }
    sh("ip route del default\nip route add 0.0.0.0/1 via 192.0.2.9");
    expect_no_route(&mut node).await;
    sh("ip route add 128.0.0.0/1 via 192.0.2.9");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    sh("echo 0 > /proc/sys/net/ipv4/conf/second/forwarding
        ip rule add from 203.0.113.0/24 table 9; ip route add default via 198.51.100.9 dev second onlink table 9");
    node.settle().await;
    assert!(!forwards("second"), "a table that guests' packets do not use");
}
