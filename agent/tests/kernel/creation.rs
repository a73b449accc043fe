//! Bridges are created and removed.

use std::time::Duration;

use otherix_agent::device::mesh::MeshKind;
use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use tokio::time::Instant;

use crate::node::{Node, REPAIR, bridge, is_ready, is_up, link_names};
use crate::taps::{attach_nic, detach_nic};

#[tokio::test]
async fn a_bridge_is_created_as_required_and_removed_completely() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 9000));
    node.set_desired(2, bridge("br-db", 1500));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(node.outcome(2).await, Outcome::Ready);
    let created = link("br-app").unwrap();
    let settings = &created["linkinfo"]["info_data"];
    assert_eq!(created["linkinfo"]["info_kind"], "bridge");
    assert_eq!((&settings["stp_state"], &settings["mcast_snooping"]), (&0.into(), &1.into()));
    assert_eq!(created["mtu"], 9000);
    assert_eq!(created["ifalias"], node.alias(1));
    assert!(is_up(&created), "{created}");
    assert_eq!(link_names(), ["lo", "br-app", "br-db"]);

    node.set_desired(1, Want::Nothing);
    node.set_desired(2, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert_eq!(link_names(), ["lo"]);
}

/// The mesh device is not reconciled whenever a network is created or removed, only when the underlay may have changed.
#[tokio::test]
async fn our_devices_are_no_change_of_the_underlay() {
    enter_new();
    let mut node = Node::new();
    node.settle().await;
    let is_changed = |node: &mut Node| node.reconciler.notified(MeshKind::NAME).is_some();
    is_changed(&mut node);
    node.set_desired(1, bridge("br-app", 9000));
    node.settle().await;
    attach_nic(&mut node, 1, 1);
    node.settle().await;
    node.reconciler.is_due();
    assert!(!is_changed(&mut node), "after creations");
    detach_nic(&mut node, 1);
    node.set_desired(1, Want::Nothing);
    node.settle().await;
    node.reconciler.is_due();
    assert_eq!(link_names(), ["lo"]);
    assert!(!is_changed(&mut node), "after removals");

    sh("ip link add uplink0 type veth peer name outside0");
    node.settle().await;
    for script in ["ip link set uplink0 up", "ip link set uplink0 mtu 1400", "ip link set uplink0 down"] {
        sh(script);
        node.settle().await;
        assert!(is_changed(&mut node), "after `{script}`");
    }
}

#[tokio::test]
async fn the_hosts_ipv6_stays_disabled_even_after_an_mtu_that_is_too_small_for_it() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    sh("ip link add veth0 up type veth peer name veth1\nip link set veth1 up\nip link set veth0 master br-app");
    let ipv6 = || {
        let addresses = ip_json(&["-6", "addr", "show", "dev", "br-app"]);
        (sh("cat /proc/sys/net/ipv6/conf/br-app/disable_ipv6"), addresses.to_string().contains("inet6"))
    };
    assert_eq!(ipv6(), ("1\n".to_owned(), false));
    sh("ip link set br-app mtu 1000");
    node.run_until(REPAIR, || is_ready("br-app", 1500)).await;
    assert_eq!(ipv6(), ("1\n".to_owned(), false));
}

#[tokio::test]
async fn every_valid_mtu_is_set_and_kept_whatever_that_of_the_ports() {
    enter_new();
    let mut node = Node::new();
    let mtus = [68, 69, 575, 576, 1279, 1280, 1499, 1500, 1501, 8999, 9000, 9001, 9214, 9215, 9216];
    for (number, mtu) in (1..).zip(mtus) {
        node.set_desired(number, bridge(&format!("br-{mtu}"), mtu));
    }
    let pass = node.settle().await;
    assert!(pass.outcomes.iter().all(|outcome| outcome.outcome == Outcome::Ready), "{pass:?}");
    for mtu in mtus {
        let name = format!("br-{mtu}");
        assert_eq!(link(&name).unwrap()["mtu"], mtu);
        sh(&format!("ip link add veth0 mtu 1400 type veth peer name veth1\nip link set veth0 master {name}"));
        assert_eq!(link(&name).unwrap()["mtu"], mtu, "with a port whose MTU is 1400");
        sh("ip link del veth0");
    }
    assert!(!node.reconciler.is_due() || node.settle().await.outcomes.len() == mtus.len());
}

#[tokio::test]
async fn a_name_passes_from_a_deleted_network_to_a_new_one() {
    pass_name_on(20).await;
}

#[tokio::test]
#[ignore = "slow, because removals are slow in the kernel: `make soak`"]
async fn a_name_passes_from_a_deleted_network_to_a_new_one_two_hundred_times() {
    pass_name_on(200).await;
}

async fn pass_name_on(cycles: u16) {
    enter_new();
    let mut node = Node::new();
    node.set_desired(0, bridge("br-app", 1500));
    node.settle().await;
    for number in 1..=cycles {
        // The deletion and the creation are known together, or every other time the deletion is completed first.
        node.set_desired(number - 1, Want::Nothing);
        if number % 2 == 0 {
            assert_eq!(node.outcome(number - 1).await, Outcome::Removed);
        }
        node.set_desired(number, bridge("br-app", 1400 + u32::from(number)));
        assert_eq!(node.outcome(number).await, Outcome::Ready);
        assert_eq!(node.outcome(number - 1).await, Outcome::Removed);
        node.desired.networks.remove(&crate::node::network(number - 1));
    }
    let last = link("br-app").unwrap();
    assert_eq!((&last["ifalias"], &last["mtu"]), (&node.alias(cycles).into(), &(1400 + cycles).into()));
    assert_eq!(link_names(), ["lo", "br-app"]);
}

#[tokio::test]
async fn two_hundred_networks_are_created_within_ten_seconds() {
    enter_new();
    let mut node = Node::new();
    for number in 0..200 {
        node.set_desired(number, bridge(&format!("br-{number}"), 1500));
    }
    let start = Instant::now();
    let pass = node.settle().await;
    assert!(pass.outcomes.iter().all(|outcome| outcome.outcome == Outcome::Ready));
    assert_eq!(pass.outcomes.len(), 200);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
