//! Networks without egress: rules that frames between guests pass.

use otherix_agent::engine::Pass;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, sh};

use super::traffic::Traffic;
use super::{ALL, Case, NEWS, NOTHING, expect_pending, expect_ready, free, lost, nft, outcome_of, try_all};
use crate::host::Host;
use crate::node::{Node, bridge, unmanaged};
use crate::taps::{attach_nic, nic};

const UNDO: &str = "for family in inet ip arp bridge netdev; do nft delete table $family t 2>/dev/null || true; done";

/// Enabled by default in kernels that support it.
const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

const CASES: &[Case] = &[
    lost(
        "table bridge t { chain c { type filter hook forward priority 0; policy drop; ether type arp accept; } }",
        NOTHING,
        "`bridge t c` drops packets between guests",
    ),
    lost(
        "table bridge t { chain c { type filter hook prerouting priority 0; ip protocol tcp drop; } }",
        [true, false, true],
        "drops TCP between guests",
    ),
    lost(
        "table bridge t { chain c { type filter hook postrouting priority 0; oifname \"p-*\" ether type ip drop; } }",
        NOTHING,
        "drops packets between guests",
    ),
    lost(
        "table netdev t { chain c { type filter hook ingress device p-1 priority 0; ether type ip drop; } }",
        NOTHING,
        "`netdev t c` drops",
    ),
    free(
        "table bridge t { chain c { type filter hook forward priority 0; policy drop; iifname \"p-*\" accept; } \
        chain d { type filter hook input priority 0; policy drop; } }",
    ),
    free("table inet t { chain c { type filter hook input priority 0; policy drop; } }"),
];

fn guests(bridge: &str) -> [Host; 2] {
    [1, 2].map(|number| {
        let host = Host::new(&format!("p-{number}"));
        sh(&format!("ip link set p-{number} master {bridge}"));
        host.sh(&format!("ip address add 10.30.0.{number}/24 dev eth0"));
        host
    })
}

fn traffic([one, other]: &[Host; 2]) -> Traffic {
    let traffic = Traffic::new(one.command("python3"), other.command("python3"), "10.30.0.2");
    assert_eq!(traffic.passes(), ALL);
    traffic
}

fn set_bridge_calls(on: bool) -> bool {
    let exists = std::path::Path::new(BRIDGE_CALLS).exists();
    if exists {
        sh(&format!("echo {} > {BRIDGE_CALLS}", u8::from(on)));
    }
    exists
}

#[tokio::test]
async fn managed_and_unmanaged_bridges_are_pending_while_rules_lose_frames() {
    enter_new();
    set_bridge_calls(false);
    let mut node = Node::new();
    sh("ip link add br-ext type bridge; ip link set br-ext up");
    node.set_desired(1, bridge("br-plain", 1500));
    node.set_desired(2, unmanaged("br-ext"));
    node.settle().await;
    for (number, name) in [(1, "br-plain"), (2, "br-ext")] {
        let guests = guests(name);
        node.settle().await;
        let traffic = traffic(&guests);
        try_all(&mut node, number, &traffic, UNDO, CASES).await;
        drop(traffic);
        sh("ip link del p-1\nip link del p-2");
    }
}

#[tokio::test]
async fn bridged_packets_that_traverse_the_ipv4_filter_are_judged_there() {
    enter_new();
    if !set_bridge_calls(true) {
        // This kernel does not support it.
        return;
    }
    let mut node = Node::new();
    node.set_desired(1, bridge("br-plain", 1500));
    node.settle().await;
    let guests = guests("br-plain");
    let traffic = traffic(&guests);
    for (rules, passes) in [
        ("iptables -P FORWARD DROP", NOTHING),
        ("iptables -A FORWARD -m physdev --physdev-is-bridged -j DROP", NOTHING),
        ("iptables -t mangle -A PREROUTING -i br-plain -j DROP", NOTHING),
        ("iptables -P FORWARD DROP; iptables -A FORWARD -i br-plain -j ACCEPT", ALL),
        ("iptables -P FORWARD DROP; iptables -A FORWARD -m physdev --physdev-is-bridged -j ACCEPT", ALL),
    ] {
        sh(rules);
        if passes == ALL {
            node.restart();
            node.settle().await;
            assert_eq!(outcome_of(&node, 1).0, Outcome::Ready, "{rules}");
        } else {
            expect_pending(&mut node, 1, "between guests").await;
        }
        assert_eq!(traffic.passes(), passes, "{rules}");
        sh("for table in filter mangle; do nft delete table ip $table 2>/dev/null || true; done");
        if passes != ALL {
            expect_ready(&mut node, 1).await;
        }
    }
}

/// What filters do depends on the ports: the network is planned again with each.
#[tokio::test]
async fn what_is_lost_between_guests_keeps_a_network_pending_from_the_second_one_on() {
    enter_new();
    set_bridge_calls(false);
    let mut node = Node::new();
    node.set_desired(1, bridge("br-plain", 1500));
    attach_nic(&mut node, 1, 1);
    node.settle().await;
    nft("table bridge t { chain c { type filter hook forward priority 0; policy drop; } }");
    let is_warned = |pass: &Pass| pass.outcomes.iter().any(|outcome| !outcome.warnings.is_empty());
    node.run_until_pass(NEWS, is_warned).await;
    assert_eq!((outcome_of(&node, 1).0, node.nic_outcome(nic(1)).await), (Outcome::Ready, Outcome::Ready));

    attach_nic(&mut node, 2, 1);
    node.settle().await;
    let (outcome, warnings) = outcome_of(&node, 1);
    assert!(matches!(&outcome, Outcome::Pending(text) if text.contains("`bridge t c` drops packets between guests")));
    assert!(warnings.is_empty(), "{warnings:?}");
    for number in [1, 2] {
        let outcome = node.nic_outcome(nic(number)).await;
        assert!(matches!(&outcome, Outcome::Pending(text) if text.contains("its network is pending")), "{outcome:?}");
    }
    sh(UNDO);
    expect_ready(&mut node, 1).await;
    assert_eq!(node.nic_outcome(nic(2)).await, Outcome::Ready);
}
