//! Default routes that come, go and change: a network with a way out follows.

use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::sh;

use crate::host::Host;
use crate::nat::{BEYOND, forwards, guest, nat, node_with_uplink};
use crate::node::{Node, REPAIR, bridge, network};

async fn waits_for_a_route(node: &mut Node) {
    node.work_until_round(REPAIR, |round| {
        round.outcomes.iter().any(|outcome| {
            outcome.resource == otherix_schemas::outcome::ResourceRef::Network(network(1))
                && matches!(&outcome.outcome, Outcome::Pending(text) if text.contains("default route"))
        })
    })
    .await;
}

#[tokio::test]
async fn an_uplink_that_goes_down_or_away_is_no_way_out() {
    let (mut node, outside) = node_with_uplink();
    node.want(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);

    sh("ip link set uplink down");
    waits_for_a_route(&mut node).await;
    sh("ip link set uplink up; ip route add default via 192.0.2.9");
    node.becomes(REPAIR, 1, Outcome::Ready).await;
    assert!(guest.reaches(BEYOND));

    sh("ip address flush dev uplink");
    waits_for_a_route(&mut node).await;
    sh("ip address add 192.0.2.7/24 dev uplink; ip route add default via 192.0.2.9");
    node.becomes(REPAIR, 1, Outcome::Ready).await;
    assert!(guest.reaches(BEYOND));

    sh("ip link set uplink down; ip link set uplink name wan0; ip link set wan0 up; \
         ip route add default via 192.0.2.9");
    node.becomes(REPAIR, 1, Outcome::Ready).await;
    assert!(forwards("wan0") && guest.reaches(BEYOND));

    sh("ip link del wan0");
    waits_for_a_route(&mut node).await;
    let again = Host::new("wan0");
    sh("ip address add 192.0.2.7/24 dev wan0\nip route add default via 192.0.2.9");
    again.sh(&format!("ip address add 192.0.2.9/24 dev eth0; ip address add {BEYOND}/32 dev lo"));
    node.becomes(REPAIR, 1, Outcome::Ready).await;
    assert!(forwards("wan0") && guest.reaches(BEYOND));
    drop(outside);
}

#[tokio::test]
async fn a_way_out_may_lead_by_several_uplinks_and_change() {
    let (mut node, _outside) = node_with_uplink();
    let second = Host::new("second");
    sh("ip address add 198.51.100.7/24 dev second");
    second.sh(&format!("ip address add 198.51.100.9/24 dev eth0; ip address add {BEYOND}/32 dev lo"));
    node.want(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(!forwards("second"));
    let guest = guest(1, 5);
    assert!(guest.reaches(BEYOND));

    sh("ip route replace default nexthop via 192.0.2.9 nexthop via 198.51.100.9");
    node.work_until(REPAIR, || forwards("second")).await;
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    sh("ip route replace default via 198.51.100.9");
    node.settle().await;
    assert!(guest.reaches(BEYOND));
    sh("ip route add default via 192.0.2.9 metric 50");
    node.settle().await;
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(guest.reaches(BEYOND));
}

#[tokio::test]
async fn a_bridge_of_ours_may_be_the_uplink() {
    let (mut node, _outside) = node_with_uplink();
    node.want(1, nat(1));
    node.want(2, bridge("br-wan", 1500));
    node.settle().await;
    sh("ip address flush dev uplink; ip link set uplink master br-wan; ip address add 192.0.2.7/24 dev br-wan
        ip route add default via 192.0.2.9");
    node.becomes(REPAIR, 1, Outcome::Ready).await;
    assert_eq!(node.outcome(2).await, Outcome::Ready);
    assert!(forwards("br-wan"));
    let guest = guest(1, 5);
    assert!(guest.reaches(BEYOND));
    let rounds = node.rounds;
    node.settle().await;
    assert_eq!(node.rounds, rounds + 1, "nobody undoes it");
    sh("ip link set uplink nomaster");
    node.want(1, Want::Nothing);
    node.want(2, Want::Nothing);
    sh("ip link del g1-5");
    node.settle().await;
}

#[tokio::test]
async fn forwarding_of_all_may_be_switched_at_any_time() {
    let (mut node, _outside) = node_with_uplink();
    sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
    node.want(1, nat(1));
    node.want(2, bridge("br-plain", 1500));
    assert_eq!((node.outcome(1).await, node.outcome(2).await), (Outcome::Ready, Outcome::Ready));
    assert!(forwards("br-1") && !forwards("br-plain"));
    sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
    node.work_until(REPAIR, || forwards("br-1") && forwards("uplink") && !forwards("br-plain")).await;
    sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
    node.work_until(REPAIR, || forwards("br-1") && forwards("uplink") && !forwards("br-plain")).await;
    assert_eq!((node.outcome(1).await, node.outcome(2).await), (Outcome::Ready, Outcome::Ready));
}
