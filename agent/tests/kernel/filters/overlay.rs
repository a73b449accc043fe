//! Overlays: rules that frames between guests and VXLAN between nodes pass.

use otherix_schemas::outcome::Outcome;

use super::{nft, outcome_of};
use crate::overlay::topology::{OverlayNode, Placement, nodes};

/// Restarts the agent of a node, and returns the outcome of network 1 and its warnings.
fn outcome(node: &OverlayNode) -> (Outcome, Vec<String>) {
    node.run(|runtime, node| {
        runtime.block_on(async {
            node.restart();
            node.settle().await;
        });
        outcome_of(node, 1)
    })
}

#[test]
fn an_overlay_is_pending_while_rules_lose_vxlan_or_frames() {
    let nodes = nodes(2);
    let placement: Placement = [(1, (1, 1)), (2, (1, 2))].into();
    for (number, node) in (1..).zip(&nodes) {
        node.settle(&[1], &placement, number);
    }
    let one = nodes[0].guest(1, "10.1.0.1");
    let _two = nodes[1].guest(2, "10.1.0.2");
    one.wait_until_reached("10.1.0.2");
    for (rules, reason) in [
        (
            "chain c { type filter hook input priority 0; policy drop; iifname != otwg0 accept; \
                ct state established,related accept; }",
            "`inet t c` drops VXLAN between nodes: `nft insert rule inet t c iifname otwg0 accept`",
        ),
        (
            "chain c { type filter hook output priority 0; udp dport 4789 reject; }",
            "`inet t c` rejects VXLAN between nodes: `nft insert rule inet t c oifname otwg0 accept`",
        ),
        (
            "chain c { type filter hook prerouting priority -300; iifname otwg0 udp dport 4789 drop; }",
            "`inet t c` drops VXLAN between nodes",
        ),
    ] {
        nodes[1].run(move |_, _| nft(&format!("table inet t {{ {rules} }}")));
        let outcome_before = outcome(&nodes[1]).0;
        let Outcome::Pending(text) = &outcome_before else { unreachable!("{rules}: {outcome_before:?}") };
        assert!(text.contains(reason), "{text}");
        assert!(one.cannot_reach("10.1.0.2"), "{rules}");
        for command in text.split('`').filter(|part| part.starts_with("nft insert")) {
            nodes[1].sh(command);
        }
        one.wait_until_reached("10.1.0.2");
        assert_eq!(outcome(&nodes[1]).0, Outcome::Ready);
        nodes[1].sh("nft delete table inet t");
    }
    nodes[0].run(|_, _| {
        nft("table bridge t { chain c { type filter hook forward priority 0; \
            iifname \"otvx*\" drop; oifname \"otvx*\" drop; } }");
    });
    let outcome = outcome(&nodes[0]).0;
    assert!(matches!(&outcome, Outcome::Pending(text) if text.contains("between guests")), "{outcome:?}");
    assert!(one.cannot_reach("10.1.0.2"));
}
