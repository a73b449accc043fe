//! What is done to our bridges behind our back.

use std::process::{Child, Command};
use std::time::Duration;

use otherix_agent::engine::Pass;
use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, link, sh};
use tokio::time::{Instant, timeout};

use crate::node::{Node, REPAIR, bridge, is_as_asked, is_up, names, snapshot};

fn is_whole(name: &str, alias: &str) -> bool {
    link(name).is_some_and(|link| {
        let settings = &link["linkinfo"]["info_data"];
        let seen = (&link["ifalias"], &link["mtu"], &settings["stp_state"]);
        let multicast = (&settings["mcast_snooping"], &settings["mcast_querier"]);
        seen == (&alias.into(), &1500.into(), &0.into()) && multicast == (&1.into(), &0.into()) && is_up(&link)
    })
}

#[tokio::test]
async fn what_is_done_to_it_is_undone_within_a_second() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    let index = link("br-app").unwrap()["ifindex"].clone();
    for harm in [
        "ip link set br-app down",
        "ip link set br-app mtu 1300",
        "ip link set br-app alias ''",
        "ip link set br-app alias mine",
        "ip link set br-app alias otherix:garbage",
        "ip link set br-app name br-stolen",
        "ip link set br-app type bridge stp_state 1",
        "ip link set br-app type bridge mcast_snooping 0",
        "ip link set br-app type bridge mcast_querier 1",
        "ip link set br-app down mtu 1301 alias mine\nip link set br-app name br-stolen type bridge stp_state 1",
    ] {
        sh(harm);
        node.work_until(REPAIR, || is_whole("br-app", &node_alias())).await;
        assert_eq!(names(), ["lo", "br-app"], "{harm}");
        assert_eq!(link("br-app").unwrap()["ifindex"], index, "{harm}: in place");
        // Not so fast that it is taken for somebody's who never stops.
        node.restart();
        node.settle().await;
    }
    sh("ip link del br-app");
    node.work_until(REPAIR, || is_whole("br-app", &node_alias())).await;
    sh("ip link del br-app\nip link add br-db type bridge");
    node.work_until(REPAIR, || is_whole("br-app", &node_alias())).await;
}

#[tokio::test]
async fn a_bridge_that_is_just_being_removed_is_made_anew_at_once_and_no_failure() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    for _ in 0..5 {
        let index = link("br-app").unwrap()["ifindex"].clone();
        // The kernel tells that it is down tens of milliseconds before it is gone.
        let mut removal = Command::new("ip").args(["link", "del", "br-app"]).spawn().unwrap();
        let is_anew = |round: &Pass| {
            assert!(!round.outcomes.iter().any(|resource| matches!(resource.outcome, Outcome::Failed(_))), "{round:?}");
            is_whole("br-app", &node_alias()) && link("br-app").unwrap()["ifindex"] != index
        };
        node.work_until_round(REPAIR, is_anew).await;
        assert!(removal.wait().unwrap().success());
    }
}

fn node_alias() -> String {
    Node::new().alias(1)
}

#[tokio::test]
async fn another_networks_alias_does_not_make_it_another_networks_bridge() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.want(2, bridge("br-db", 1500));
    node.settle().await;
    let aliases = [node.alias(1), node.alias(2)];
    let indexes = ["br-app", "br-db"].map(|name| link(name).unwrap()["ifindex"].clone());
    let [one, two] = &aliases;
    sh(&format!("ip link set br-app alias {two}\nip link set br-db alias {one}"));
    node.work_until(REPAIR, || is_whole("br-app", one) && is_whole("br-db", two)).await;
    sh("ip link set br-app name x\nip link set br-db name br-app\nip link set x name br-db");
    node.work_until(REPAIR, || is_whole("br-app", one) && is_whole("br-db", two)).await;
    assert_eq!(["br-app", "br-db"].map(|name| link(name).unwrap()["ifindex"].clone()), indexes);
}

#[tokio::test]
async fn a_bridge_that_lost_its_alias_is_still_ours_to_remove_and_after_a_restart_no_more() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.want(2, bridge("br-db", 1500));
    node.settle().await;
    sh("ip link set br-app alias mine");
    node.want(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert_eq!(names(), ["lo", "br-db"]);

    sh("ip link set br-db alias mine");
    let before = snapshot();
    node.restart();
    node.fails(2, &["`br-db`", "`mine`"]).await;
    node.want(2, Want::Nothing);
    assert_eq!(node.outcome(2).await, Outcome::Removed);
    assert_eq!(snapshot(), before, "it is not ours to change");
}

#[tokio::test]
async fn our_own_changes_are_no_reason_for_another_round() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    assert!(!node.reconciler.is_due());
    sh("ip link add other type vxlan id 5 dstport 4789");
    assert!(!node.reconciler.is_due(), "nor are others'");
    sh("ip link set br-app down");
    assert!(node.reconciler.is_due());
    node.settle().await;
    assert!(!node.reconciler.is_due());
}

/// A program that undoes without end what we do.
struct Rival(Child);

impl Rival {
    fn start(script: &str) -> Self {
        Self(Command::new("sh").args(["-c", script]).spawn().unwrap())
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn somebody_who_undoes_repairs_without_end_is_answered_in_measure() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.want(2, bridge("br-db", 1500));
    node.settle().await;
    node.rounds = 0;
    let rival = Rival::start("while ip link set br-app down; do :; done");
    let end = Instant::now() + Duration::from_secs(2);
    let mut failed = false;
    while timeout(end - Instant::now(), node.reconciler.wait()).await.is_ok() && Instant::now() < end {
        if node.reconciler.is_due() {
            let outcome = node.outcome(1).await;
            failed |= matches!(&outcome, Outcome::Failed(text) if text.contains("again and again"));
        }
    }
    assert!(failed, "it is said");
    assert!(node.rounds < 250, "{} rounds", node.rounds);
    sh("ip link set br-db down");
    node.work_until(REPAIR, || is_as_asked("br-db", 1500)).await;
    drop(rival);
    node.work_until(Duration::from_secs(2), || is_as_asked("br-app", 1500)).await;
    assert_eq!(node.outcome(1).await, Outcome::Ready);
}
