//! Networks with NAT egress: rules at every hook and family that packets of guests and answers pass.

use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::sh;

use super::outside_cases::{FREE, LOST};
use super::traffic::Traffic;
use super::{ALL, NOTHING, expect_pending, expect_ready, nft, outcome_of, try_all};
use crate::host::Host;
use crate::nat::{REMOTE, guest, nat, node_with_uplink};
use crate::node::Node;

pub(super) struct World {
    pub(super) node: Node,
    pub(super) traffic: Traffic,
    _outside: Host,
    _guest: Host,
}

/// Returns a node with a network, and traffic between a guest and the outside.
pub(super) async fn world() -> World {
    let (mut node, outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);
    assert!(guest.reaches(REMOTE));
    let traffic = Traffic::new(guest.command("python3"), outside.command("python3"), REMOTE);
    assert_eq!(traffic.passes(), ALL);
    World { node, traffic, _outside: outside, _guest: guest }
}

/// Removes what the cases add.
const UNDO: &str = "for family in inet ip ip6 arp bridge netdev; do nft destroy table $family t 2>/dev/null \
    || nft delete table $family t 2>/dev/null || true; done";

#[tokio::test]
async fn a_network_is_pending_while_rules_lose_packets_of_guests_or_answers() {
    let World { mut node, traffic, .. } = world().await;
    try_all(&mut node, 1, &traffic, UNDO, LOST).await;
}

#[tokio::test]
async fn a_network_is_ready_if_rules_let_its_packets_pass() {
    let World { mut node, traffic, .. } = world().await;
    try_all(&mut node, 1, &traffic, UNDO, FREE).await;
}

#[tokio::test]
async fn arp_of_guests_may_be_lost() {
    let (mut node, _outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    for (number, rules) in (5..).zip([
        "table arp t { chain c { type filter hook input priority 0; iifname br-1 drop; } }",
        "table arp t { chain c { type filter hook output priority 0; policy drop; oifname uplink accept; } }",
        "table bridge t { chain c { type filter hook prerouting priority 0; ether type arp drop; } }",
        "table bridge t { chain c { type filter hook output priority 0; arp operation reply drop; } }",
    ]) {
        nft(rules);
        expect_pending(&mut node, 1, "ARP").await;
        // It does not know the gateway yet.
        let guest = guest(1, number);
        assert!(guest.cannot_reach(REMOTE), "{rules}");
        sh(UNDO);
        expect_ready(&mut node, 1).await;
        assert!(guest.reaches(REMOTE), "{rules}");
    }
}

#[tokio::test]
async fn what_is_uncertain_is_a_warning() {
    let World { mut node, traffic, .. } = world().await;
    for (rules, warning) in [
        (
            "table inet t { chain c { type filter hook forward priority 0; meta length 4000-65535 drop; } }",
            "may \
        drop",
        ),
        (
            "table inet t { chain c { type filter hook forward priority 0; numgen random mod 65536 == 1 drop; } }",
            "may drop",
        ),
        (
            "table inet t { quota q { over 100000 mbytes; } chain c { type filter hook forward priority 0; \
                quota name q drop; } }",
            "may drop",
        ),
        (
            "table ip t { chain c { type filter hook forward priority 0; policy drop; ip saddr 10.20.1.0/25 \
                accept; ct state established accept; } }",
            "may drop",
        ),
        (
            "table ip t { chain c { type filter hook forward priority 0; tcp dport 1024-65535 accept; iifname \
                br-1 tcp dport != 28173 drop; } }",
            "may drop TCP",
        ),
        (
            "table ip t { chain c { type filter hook input priority 0; icmp type echo-request drop; } }",
            "drops ICMP echo from guests to the gateway",
        ),
    ] {
        nft(rules);
        node.restart();
        node.settle().await;
        let (outcome, warnings) = outcome_of(&node, 1);
        assert_eq!(outcome, Outcome::Ready, "{rules}");
        assert!(warnings.iter().any(|text| text.contains(warning) && text.contains("t c`")), "{rules}: {warnings:?}");
        assert_eq!(traffic.passes(), ALL, "{rules}");
        sh(UNDO);
        node.restart();
        node.settle().await;
        assert_eq!(outcome_of(&node, 1), (Outcome::Ready, vec![]));
    }
}

#[tokio::test]
async fn what_is_to_be_added_helps() {
    let World { mut node, traffic, .. } = world().await;
    for rules in [
        "table inet t { chain c { type filter hook forward priority 0; policy drop; } }",
        "table ip t { chain c { type filter hook forward priority 0; reject; } }",
        "table inet t { chain c { type filter hook forward priority 0; policy drop; iifname br-1 accept; } }",
        "table inet t { chain c { type filter hook prerouting priority 0; iifname br-1 drop; } }",
        "table inet t { chain c { type filter hook postrouting priority 0; oifname br-1 drop; } }",
    ] {
        nft(rules);
        let reason = expect_pending(&mut node, 1, "nft insert rule").await;
        assert_ne!(traffic.passes(), ALL);
        for command in reason.split('`').filter(|part| part.starts_with("nft insert")) {
            sh(command);
        }
        expect_ready(&mut node, 1).await;
        assert_eq!(traffic.passes(), ALL, "{reason}");
        sh(UNDO);
    }
}

#[tokio::test]
async fn a_large_ruleset_that_changes_all_the_time_does_not_keep_the_agent_busy() {
    let World { mut node, traffic, .. } = world().await;
    let rules: String = (0..3000)
        .map(|number| format!("add rule inet t c ip saddr 172.16.{}.{} drop\n", number / 250, number % 250))
        .collect();
    std::fs::write(
        "/tmp/otherix-filters.nft",
        format!(
            "add table inet t\nadd chain inet t c {{ type filter hook forward priority 0; policy accept; }}\n{rules}"
        ),
    )
    .unwrap();
    sh("nft -f /tmp/otherix-filters.nft; rm /tmp/otherix-filters.nft");
    node.settle().await;
    let passes = node.passes;
    for number in 0..50 {
        sh(&format!("nft add rule inet t c ip saddr 172.17.0.{number} drop"));
        if node.reconciler.is_due() {
            node.settle().await;
        }
    }
    assert!(node.passes - passes <= 15, "{}", node.passes - passes);
    sh("nft add rule inet t c drop");
    expect_pending(&mut node, 1, "`inet t c` drops").await;
    assert_eq!(traffic.passes(), NOTHING);
}
