//! Networks whose subnet would take away from the node what it needs or has: nothing is made, and the node keeps what
//! it has; and connected routes are guarded.

use std::net::Ipv4Addr;

use otherix_agent::engine::Pass;
use otherix_agent::model::desired::{DesiredBridge, Want};
use otherix_agent::model::ip::Gateway;
use otherix_agent::model::need::Need;
use otherix_schemas::outcome::{Outcome, ResourceRef};
use otherix_schemas::value::Ipv4Subnet;
use otherix_testkit::netns::{ip_json, link, sh};

use crate::nat::{REMOTE, forwards, guest, has_gateway, nat, node_with_uplink};
use crate::node::{Node, REPAIR, network};

/// Returns a managed bridge with NAT egress and this subnet.
pub(crate) fn nat_with(bridge: &str, subnet: &str) -> Want {
    let subnet: Ipv4Subnet = subnet.parse().unwrap();
    let gateway = Gateway { address: subnet.first_host(), subnet };
    Want::Bridge(DesiredBridge {
        name: bridge.into(),
        mtu: 1500,
        mac: None,
        vlan: None,
        nat: Some(gateway),
        allow_spoofing: false,
        dns: false,
    })
}

/// Sets what the node must be able to reach.
pub(crate) fn set_needs(node: &mut Node, needs: &[(&str, Need)]) {
    let needs = needs.iter().map(|(address, need)| (address.parse::<Ipv4Addr>().unwrap(), *need)).collect();
    node.reconciler.observe(|observed| {
        observed.needs = needs;
        true
    });
}

/// Returns all addresses and routes of the node.
fn ip_state() -> (serde_json::Value, String) {
    let links: Vec<_> = ip_json(&["-4", "address", "show"]).as_array().unwrap().clone();
    let addresses = links.iter().map(|link| link["addr_info"].clone()).collect();
    (addresses, sh("ip -4 route show table all"))
}

pub(crate) fn failed_with(pass: &Pass, number: u16, text: &str) -> bool {
    pass.outcomes.iter().any(|outcome| {
        outcome.resource == ResourceRef::Network(network(number))
            && matches!(&outcome.outcome, Outcome::Failed(error) if error.contains(text))
    })
}

#[tokio::test]
async fn nothing_is_made_that_would_take_something_away_from_the_node() {
    let (mut node, _outside) = node_with_uplink();
    sh("ip address add 10.42.0.7/23 dev uplink
        ip route add 172.31.0.0/16 via 192.0.2.9
        ip route add 172.16.7.0/25 via 192.0.2.9 table 100
        ip route add unreachable 172.20.0.0/16
        ip route add 198.18.5.5 dev uplink
        ip route add 198.18.6.0/24 via 198.18.5.5 dev uplink onlink
        ip route add 0.0.0.0/1 via 192.0.2.9\nip route add 128.0.0.0/1 via 192.0.2.9");
    let needs =
        [("198.51.100.10", Need::ControlPlane), ("203.0.113.77", Need::MeshPeer), ("100.64.1.53", Need::Resolver)];
    set_needs(&mut node, &needs);
    let before = ip_state();
    let cases = [
        ("198.51.100.0/24", ["subnet 198.51.100.0/24 contains 198.51.100.10", "to reach the control plane"]),
        ("198.51.96.0/20", ["contains 198.51.100.10", "control plane"]),
        ("198.51.100.8/30", ["contains 198.51.100.10", "control plane"]),
        ("203.0.113.0/24", ["contains 203.0.113.77", "another node of the mesh"]),
        ("100.64.0.0/10", ["contains 100.64.1.53", "to resolve names"]),
        ("172.31.5.0/24", ["172.31.0.0/16 via 192.0.2.9", "`uplink`"]),
        ("172.31.0.0/16", ["172.31.0.0/16 via 192.0.2.9", "`uplink`"]),
        ("172.16.0.0/16", ["172.16.7.0/25", "`uplink`"]),
        ("172.20.9.0/24", ["172.20.0.0/16", "overlaps"]),
        ("192.0.2.128/25", ["`uplink`", "192.0.2.7/24"]),
        ("192.0.0.0/16", ["`uplink`", "192.0.2.7/24"]),
        ("10.42.1.0/24", ["`uplink`", "10.42.0.7/23"]),
        ("198.18.5.0/24", ["198.18.5.5", "`uplink`"]),
    ];
    for (number, (subnet, texts)) in (1..).zip(cases) {
        node.set_desired(number, nat_with(&format!("br-{number}"), subnet));
        node.expect_failure(number, &texts).await;
        assert!(link(&format!("br-{number}")).is_none(), "{subnet}");
    }
    assert_eq!(ip_state(), before);
    assert!(!crate::nat::has_table(), "no rules for an address that may be the node's own");
    node.set_desired(50, nat_with("br-50", "198.51.101.0/24"));
    assert_eq!(node.outcome(50).await, Outcome::Ready, "a subnet beside all of them");
}

#[tokio::test]
async fn a_network_recovers_when_what_it_conflicts_with_is_gone() {
    let (mut node, _outside) = node_with_uplink();
    for (add, remove) in [
        ("ip route add 10.20.0.0/16 via 192.0.2.9", "ip route del 10.20.0.0/16"),
        ("ip route add 10.20.1.64/26 via 192.0.2.9 table 77", "ip route flush table 77"),
        ("ip address add 10.20.1.9/32 dev uplink", "ip address del 10.20.1.9/32 dev uplink"),
        (
            "ip link add dummy9 type bridge; ip address add 10.20.0.1/20 dev dummy9; ip link set dummy9 up",
            "ip link del dummy9",
        ),
        (
            "ip route add 10.20.1.0/24 via 192.0.2.9",
            "ip route replace 10.20.1.0/24 via 192.0.2.9 metric 5; \
            ip route del 10.20.1.0/24 metric 5; ip route del 10.20.1.0/24",
        ),
    ] {
        sh(add);
        node.set_desired(1, nat(1));
        node.expect_failure(1, &["10.20."]).await;
        assert!(link("br-1").is_none(), "{add}");
        sh(remove);
        node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
        assert!(has_gateway(), "{remove}");
        node.set_desired(1, Want::Nothing);
        assert_eq!(node.outcome(1).await, Outcome::Removed);
        // So that the repairs of the next change are not limited in rate.
        node.restart();
    }
    set_needs(&mut node, &[("10.20.1.200", Need::ControlPlane)]);
    node.set_desired(1, nat(1));
    node.expect_failure(1, &["10.20.1.200"]).await;
    set_needs(&mut node, &[]);
    assert_eq!(node.outcome(1).await, Outcome::Ready);
}

#[tokio::test]
async fn a_bridge_from_before_does_not_bring_the_conflict_back() {
    let (mut node, _outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(has_gateway() && forwards("br-1"));
    // An agent that starts on a node that an earlier one has cut off.
    node.restart();
    set_needs(&mut node, &[("10.20.1.10", Need::ControlPlane)]);
    node.expect_failure(1, &["10.20.1.10", "control plane"]).await;
    assert!(!has_gateway() && !forwards("br-1"));
    assert!(sh("ip route get 10.20.1.10").contains("via 192.0.2.9"), "it is reached as before");
    node.settle().await;
    assert!(!sh("nft list ruleset").contains("10.20.1.1"), "the rules end with the address");
    for change in ["ip link set br-1 down", "ip link del br-1"] {
        sh(change);
        node.run_until(REPAIR, || true).await;
        node.expect_failure(1, &["10.20.1.10"]).await;
        assert!(!has_gateway_or_no_bridge(), "{change}");
    }
    assert!(link("br-1").is_none(), "nothing is made");
    node.restart();
    set_needs(&mut node, &[("10.20.1.10", Need::ControlPlane)]);
    node.expect_failure(1, &["10.20.1.10"]).await;
    assert!(link("br-1").is_none());
    set_needs(&mut node, &[("10.21.1.10", Need::ControlPlane)]);
    node.expect_failure(1, &["10.20.1.10", "withdrawn"]).await;
    node.withdrawn.clear();
    node.keep_withdrawn();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(has_gateway() && forwards("br-1"));
}

fn has_gateway_or_no_bridge() -> bool {
    link("br-1").is_some() && has_gateway()
}

#[tokio::test]
async fn a_route_that_comes_later_fails_the_network_only_if_guests_are_not_reached() {
    let (mut node, _outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);
    sh("ip route add 10.20.0.0/16 via 192.0.2.9");
    node.run_until_pass(REPAIR, |pass| {
        pass.outcomes.iter().any(|outcome| {
            outcome.outcome == Outcome::Ready && outcome.warnings.iter().any(|text| text.contains("10.20.0.0/16"))
        })
    })
    .await;
    assert!(guest.reaches(REMOTE));
    sh("ip route del 10.20.0.0/16\nip route add 10.20.1.0/25 via 192.0.2.9");
    node.run_until_pass(REPAIR, |pass| failed_with(pass, 1, "10.20.1.0/25")).await;
    assert!(guest.cannot_reach(REMOTE) && has_gateway());
    sh("ip route del 10.20.1.0/25");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    assert!(guest.reaches(REMOTE));
}
