//! Repair of managed bridges that other programs change.

use std::process::{Child, Command};
use std::time::Duration;

use otherix_agent::engine::Pass;
use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, link, sh};
use tokio::time::{Instant, timeout};

use crate::node::{Node, REPAIR, bridge, is_ready, is_up, link_names, snapshot};

/// Whether the bridge has this alias and all settings as required.
fn is_complete(name: &str, alias: &str) -> bool {
    link(name).is_some_and(|link| {
        let settings = &link["linkinfo"]["info_data"];
        let attributes = (&link["ifalias"], &link["mtu"], &settings["stp_state"]);
        let multicast = (&settings["mcast_snooping"], &settings["mcast_querier"]);
        attributes == (&alias.into(), &1500.into(), &0.into()) && multicast == (&1.into(), &0.into()) && is_up(&link)
    })
}

#[tokio::test]
async fn drift_is_repaired_within_a_second() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    let index = link("br-app").unwrap()["ifindex"].clone();
    for change in [
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
        sh(change);
        node.run_until(REPAIR, || is_complete("br-app", &node_alias())).await;
        assert_eq!(link_names(), ["lo", "br-app"], "{change}");
        assert_eq!(link("br-app").unwrap()["ifindex"], index, "{change}: repaired in place");
        // So that the repairs of the next change are not limited in rate.
        node.restart();
        node.settle().await;
    }
    sh("ip link del br-app");
    node.run_until(REPAIR, || is_complete("br-app", &node_alias())).await;
    sh("ip link del br-app\nip link add br-db type bridge");
    node.run_until(REPAIR, || is_complete("br-app", &node_alias())).await;
}

#[tokio::test]
async fn a_bridge_that_is_being_removed_is_created_again_without_a_failure() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    for _ in 0..5 {
        let index = link("br-app").unwrap()["ifindex"].clone();
        // The kernel notifies that it is down tens of milliseconds before it is removed.
        let mut removal = Command::new("ip").args(["link", "del", "br-app"]).spawn().unwrap();
        let is_recreated = |pass: &Pass| {
            assert!(!pass.outcomes.iter().any(|resource| matches!(resource.outcome, Outcome::Failed(_))), "{pass:?}");
            is_complete("br-app", &node_alias()) && link("br-app").unwrap()["ifindex"] != index
        };
        node.run_until_pass(REPAIR, is_recreated).await;
        assert!(removal.wait().unwrap().success());
    }
}

fn node_alias() -> String {
    Node::new().alias(1)
}

#[tokio::test]
async fn exchanged_aliases_and_names_are_repaired_in_place() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.set_desired(2, bridge("br-db", 1500));
    node.settle().await;
    let aliases = [node.alias(1), node.alias(2)];
    let indexes = ["br-app", "br-db"].map(|name| link(name).unwrap()["ifindex"].clone());
    let [one, two] = &aliases;
    sh(&format!("ip link set br-app alias {two}\nip link set br-db alias {one}"));
    node.run_until(REPAIR, || is_complete("br-app", one) && is_complete("br-db", two)).await;
    sh("ip link set br-app name x\nip link set br-db name br-app\nip link set x name br-db");
    node.run_until(REPAIR, || is_complete("br-app", one) && is_complete("br-db", two)).await;
    assert_eq!(["br-app", "br-db"].map(|name| link(name).unwrap()["ifindex"].clone()), indexes);
}

#[tokio::test]
async fn a_bridge_without_its_alias_is_ours_until_the_restart() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.set_desired(2, bridge("br-db", 1500));
    node.settle().await;
    sh("ip link set br-app alias mine");
    node.set_desired(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert_eq!(link_names(), ["lo", "br-db"]);

    sh("ip link set br-db alias mine");
    let before = snapshot();
    node.restart();
    node.expect_failure(2, &["`br-db`", "`mine`"]).await;
    node.set_desired(2, Want::Nothing);
    assert_eq!(node.outcome(2).await, Outcome::Removed);
    assert_eq!(snapshot(), before, "the bridge is foreign");
}

#[tokio::test]
async fn our_own_changes_cause_no_pass() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    assert!(!node.reconciler.is_due());
    sh("ip link add other type vxlan id 5 dstport 4789");
    assert!(!node.reconciler.is_due(), "nor do those of foreign devices");
    sh("ip link set br-app down");
    assert!(node.reconciler.is_due());
    node.settle().await;
    assert!(!node.reconciler.is_due());
}

/// A program that keeps undoing repairs.
struct Saboteur(Child);

impl Saboteur {
    fn start(script: &str) -> Self {
        Self(Command::new("sh").args(["-c", script]).spawn().unwrap())
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn repairs_that_are_always_undone_are_limited_in_rate() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.set_desired(2, bridge("br-db", 1500));
    node.settle().await;
    node.passes = 0;
    let saboteur = Saboteur::start("while ip link set br-app down; do :; done");
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut has_failed = false;
    while timeout(deadline - Instant::now(), node.reconciler.wait()).await.is_ok() && Instant::now() < deadline {
        if node.reconciler.is_due() {
            let outcome = node.outcome(1).await;
            has_failed |= matches!(&outcome, Outcome::Failed(text) if text.contains("again and again"));
        }
    }
    assert!(has_failed, "the failure is reported");
    assert!(node.passes < 250, "{} passes", node.passes);
    sh("ip link set br-db down");
    node.run_until(REPAIR, || is_ready("br-db", 1500)).await;
    drop(saboteur);
    node.expect_outcome(Duration::from_secs(4), 1, Outcome::Ready).await;
    assert!(is_ready("br-app", 1500));
}
