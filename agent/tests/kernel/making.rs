//! Bridges are made and removed.

use std::time::Duration;

use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use tokio::time::Instant;

use crate::node::{Node, REPAIR, bridge, is_as_asked, is_up, names};

#[tokio::test]
async fn a_bridge_is_made_as_asked_and_removed_without_trace() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 9000));
    node.want(2, bridge("br-db", 1500));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(node.outcome(2).await, Outcome::Ready);
    let made = link("br-app").unwrap();
    let settings = &made["linkinfo"]["info_data"];
    assert_eq!(made["linkinfo"]["info_kind"], "bridge");
    assert_eq!((&settings["stp_state"], &settings["mcast_snooping"]), (&0.into(), &1.into()));
    assert_eq!(made["mtu"], 9000);
    assert_eq!(made["ifalias"], node.alias(1));
    assert!(is_up(&made), "{made}");
    assert_eq!(names(), ["lo", "br-app", "br-db"]);

    node.want(1, Want::Nothing);
    node.want(2, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert_eq!(names(), ["lo"]);
}

#[tokio::test]
async fn the_host_has_no_ipv6_on_it_not_even_after_an_mtu_that_is_too_small_for_it() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    sh("ip link add veth0 up type veth peer name veth1\nip link set veth1 up\nip link set veth0 master br-app");
    let ipv6 = || {
        let addresses = ip_json(&["-6", "addr", "show", "dev", "br-app"]);
        (sh("cat /proc/sys/net/ipv6/conf/br-app/disable_ipv6"), addresses.to_string().contains("inet6"))
    };
    assert_eq!(ipv6(), ("1\n".to_owned(), false));
    sh("ip link set br-app mtu 1000");
    node.work_until(REPAIR, || is_as_asked("br-app", 1500)).await;
    assert_eq!(ipv6(), ("1\n".to_owned(), false));
}

#[tokio::test]
async fn every_mtu_that_a_network_may_have_is_set_and_kept_whatever_its_ports_have() {
    enter_new();
    let mut node = Node::new();
    let all = [68, 69, 575, 576, 1279, 1280, 1499, 1500, 1501, 8999, 9000, 9001, 9214, 9215, 9216];
    for (number, mtu) in (1..).zip(all) {
        node.want(number, bridge(&format!("br-{mtu}"), mtu));
    }
    let round = node.settle().await;
    assert!(round.outcomes.iter().all(|outcome| outcome.outcome == Outcome::Ready), "{round:?}");
    for mtu in all {
        let name = format!("br-{mtu}");
        assert_eq!(link(&name).unwrap()["mtu"], mtu);
        sh(&format!("ip link add veth0 mtu 1400 type veth peer name veth1\nip link set veth0 master {name}"));
        assert_eq!(link(&name).unwrap()["mtu"], mtu, "with a port of 1400");
        sh("ip link del veth0");
    }
    assert!(!node.reconciler.is_due() || node.settle().await.outcomes.len() == all.len());
}

#[tokio::test]
async fn a_name_goes_from_a_deleted_network_to_a_new_one() {
    hand_over(20).await;
}

#[tokio::test]
#[ignore = "takes long: the kernel takes its time with removals; `make soak`"]
async fn a_name_goes_from_a_deleted_network_to_a_new_one_two_hundred_times() {
    hand_over(200).await;
}

async fn hand_over(cycles: u16) {
    enter_new();
    let mut node = Node::new();
    node.want(0, bridge("br-app", 1500));
    node.settle().await;
    for number in 1..=cycles {
        // Both decisions are known at once; every other time only the deletion has been carried out before.
        node.want(number - 1, Want::Nothing);
        if number % 2 == 0 {
            assert_eq!(node.outcome(number - 1).await, Outcome::Removed);
        }
        node.want(number, bridge("br-app", 1400 + u32::from(number)));
        assert_eq!(node.outcome(number).await, Outcome::Ready);
        assert_eq!(node.outcome(number - 1).await, Outcome::Removed);
        node.desired.networks.remove(&crate::node::network(number - 1));
    }
    let last = link("br-app").unwrap();
    assert_eq!((&last["ifalias"], &last["mtu"]), (&node.alias(cycles).into(), &(1400 + cycles).into()));
    assert_eq!(names(), ["lo", "br-app"]);
}

#[tokio::test]
async fn many_networks_are_made_in_little_time() {
    enter_new();
    let mut node = Node::new();
    for number in 0..200 {
        node.want(number, bridge(&format!("br-{number}"), 1500));
    }
    let begin = Instant::now();
    let round = node.settle().await;
    assert!(round.outcomes.iter().all(|outcome| outcome.outcome == Outcome::Ready));
    assert_eq!(round.outcomes.len(), 200);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}
