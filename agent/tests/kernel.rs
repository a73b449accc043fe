//! What is pinned here, in a network namespace of the test's own and as `ip -d -j link` sees it:
//! - a managed bridge is made as asked, and nothing is left of the making;
//! - what is done to it behind our back is undone, on the kernel's word alone;
//! - nothing that is not ours is touched, and a foreign port keeps its bridge;
//! - orphans go when the view is current, not before; a creation that was broken off is cleaned up and made good.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failed assumption is a failed test"
)]

use std::time::Duration;

use otherix_agent::kernel::{Kernel, Lost, Watch};
use otherix_agent::model::desired::{Desired, DesiredBridge, DesiredNetwork, Want};
use otherix_agent::model::owner::{Owner, temporary_name};
use otherix_agent::reconcile::{Reconciler, Round};
use otherix_schemas::id::{ClusterId, NetworkId};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// What behaviour promises for a repair.
const REPAIR: Duration = Duration::from_secs(1);

struct Node {
    reconciler: Reconciler,
    desired: Desired,
    current: bool,
}

impl Node {
    fn new() -> Self {
        let cluster = ClusterId::new(Uuid::from_u128(77));
        let desired = Desired { cluster, networks: [].into() };
        Self { reconciler: Reconciler::new().unwrap(), desired, current: true }
    }

    fn want(&mut self, number: u8, want: Want) {
        self.desired.networks.insert(network(number), DesiredNetwork { generation: Position::new(7), want });
    }

    fn alias(&self, number: u8) -> String {
        Owner { cluster: self.desired.cluster, network: network(number) }.to_string()
    }

    /// Rounds until nothing is left to do.
    async fn settle(&mut self) -> Round {
        for _ in 0..100 {
            let round = self.reconciler.round(&self.desired, self.current).await.unwrap();
            if !round.more {
                return round;
            }
        }
        unreachable!("the rounds do not end");
    }

    async fn outcome(&mut self, number: u8) -> Outcome {
        let outcomes = self.settle().await.outcomes;
        outcomes.into_iter().find(|outcome| outcome.network_id == network(number)).unwrap().outcome
    }

    /// What the agent's loop does, until `condition` holds.
    async fn work_until(&mut self, within: Duration, condition: impl Fn() -> bool) {
        let end = Instant::now() + within;
        while !condition() {
            let left = end.checked_duration_since(Instant::now()).expect("the deadline has not passed");
            timeout(left, self.reconciler.woken()).await.expect("the kernel tells of it");
            if self.reconciler.absorb() {
                self.settle().await;
            }
        }
    }
}

fn network(number: u8) -> NetworkId {
    NetworkId::new(Uuid::from_u128(number.into()))
}

fn bridge(name: &str, mtu: u32) -> Want {
    Want::Bridge(DesiredBridge { name: name.into(), mtu })
}

fn is_up(link: &Value) -> bool {
    link["flags"].as_array().unwrap().contains(&"UP".into())
}

fn is_as_asked(name: &str, mtu: u32) -> bool {
    link(name).is_some_and(|link| link["mtu"] == mtu && is_up(&link))
}

fn names() -> Vec<String> {
    let links = ip_json(&["link", "show"]);
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_bridge_is_made_as_asked_and_removed_without_trace() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 9000));
    node.want(2, bridge("br-db", 1500));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(node.outcome(2).await, Outcome::Ready);
    let made = link("br-app").unwrap();
    assert_eq!(made["linkinfo"]["info_kind"], "bridge");
    assert_eq!(made["linkinfo"]["info_data"]["stp_state"], 0);
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
async fn a_port_does_not_lower_the_mtu_of_a_bridge_of_ours() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    sh("ip link add veth0 mtu 1400 type veth peer name veth1\nip link set veth0 master br-app");
    assert_eq!(link("br-app").unwrap()["mtu"], 1500);
}

#[tokio::test]
async fn what_is_done_to_it_is_undone_within_a_second() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    for harm in [
        "ip link set br-app down",
        "ip link set br-app mtu 1300",
        "ip link del br-app",
        "ip link set br-app name br-stolen",
        "ip link set br-app down mtu 1301",
    ] {
        sh(harm);
        node.work_until(REPAIR, || is_as_asked("br-app", 1500)).await;
        assert_eq!(names(), ["lo", "br-app"], "{harm}");
        assert_eq!(link("br-app").unwrap()["ifalias"], node.alias(1), "{harm}");
    }
}

#[tokio::test]
async fn our_own_changes_are_no_reason_for_another_round() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    assert!(!node.reconciler.absorb());
    sh("ip link add other type vxlan id 5 dstport 4789\nip link set br-app down");
    assert!(node.reconciler.absorb());
    node.settle().await;
    assert!(!node.reconciler.absorb());
}

#[tokio::test]
async fn a_squatter_is_left_as_it_is_until_it_goes() {
    enter_new();
    for (number, squatter) in [(1, "type vxlan id 5 dstport 4789"), (2, "type bridge")] {
        let mut node = Node::new();
        sh(&format!("ip link add br-app mtu 1400 {squatter}"));
        let before = link("br-app");
        node.want(number, bridge("br-app", 1500));
        let outcome = node.outcome(number).await;
        assert!(matches!(&outcome, Outcome::Failed(text) if text.contains("`br-app`")), "{outcome:?}");
        assert_eq!(link("br-app"), before);
        sh("ip link del br-app");
        node.work_until(REPAIR, || is_as_asked("br-app", 1500)).await;
        node.want(number, Want::Nothing);
        assert_eq!(node.outcome(number).await, Outcome::Removed);
    }
}

#[tokio::test]
async fn a_bridge_that_lost_its_alias_is_ours_no_more() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    sh("ip link set br-app alias mine");
    let outcome = node.outcome(1).await;
    assert!(matches!(&outcome, Outcome::Failed(text) if text.contains("`mine`")), "{outcome:?}");
    node.want(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert!(link("br-app").is_some(), "it is not ours to remove");
}

#[tokio::test]
async fn a_foreign_port_keeps_its_bridge_until_it_is_taken_off() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    sh("ip link add veth0 type veth peer name veth1\nip link set veth0 master br-app");
    node.want(1, Want::Nothing);
    let outcome = node.outcome(1).await;
    assert!(matches!(&outcome, Outcome::Failed(text) if text.contains("`veth0`")), "{outcome:?}");
    assert!(link("br-app").is_some());
    sh("ip link set veth0 nomaster");
    node.work_until(REPAIR, || link("br-app").is_none()).await;
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert!(link("veth0").is_some());
}

#[tokio::test]
async fn an_orphan_goes_only_when_the_view_is_current() {
    enter_new();
    let mut node = Node::new();
    let ours = node.alias(9);
    let foreign = Owner { cluster: ClusterId::new(Uuid::from_u128(78)), network: network(9) };
    sh(&format!("ip link add br-ours type bridge\nip link set br-ours alias {ours}"));
    sh(&format!("ip link add br-theirs type bridge\nip link set br-theirs alias {foreign}"));
    node.current = false;
    node.settle().await;
    assert_eq!(names(), ["lo", "br-ours", "br-theirs"]);
    node.current = true;
    node.settle().await;
    assert_eq!(names(), ["lo", "br-theirs"]);
}

#[tokio::test]
async fn a_name_is_handed_from_a_deleted_network_to_a_new_one() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    node.want(1, Want::Nothing);
    node.want(2, bridge("br-app", 1400));
    assert_eq!(node.outcome(2).await, Outcome::Ready);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert_eq!(link("br-app").unwrap()["ifalias"], node.alias(2));
}

#[tokio::test]
async fn a_creation_that_was_broken_off_leaves_only_what_the_next_round_removes() {
    enter_new();
    let mut kernel = Kernel::open().unwrap();
    let wanted = DesiredBridge { name: "br-app".into(), mtu: 1500 };
    for number in [1, 2] {
        kernel.create_temporary(network(number), &wanted).unwrap();
    }
    let left = [temporary_name(network(1)), temporary_name(network(2))];
    assert_eq!(names()[1..], left);
    assert!(!is_up(&link(&left[0]).unwrap()));

    let mut node = Node::new();
    node.current = false;
    node.want(1, Want::Bridge(wanted));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(names(), ["lo", "br-app"]);
}

#[tokio::test]
async fn what_the_kernel_refuses_is_a_failure_that_names_it_and_is_tried_again() {
    enter_new();
    let mut node = Node::new();
    // An alternative name takes the name as much as a name does, and no list of links shows it to us.
    sh("ip link add other type vxlan id 5 dstport 4789\nip link property add dev other altname br-app");
    node.want(1, bridge("br-app", 1500));
    let outcome = node.outcome(1).await;
    assert!(matches!(&outcome, Outcome::Failed(text) if text.contains("File exists")), "{outcome:?}");
    assert_eq!(names(), ["lo", "other"]);
    sh("ip link property del dev other altname br-app");
    node.work_until(Duration::from_secs(10), || is_as_asked("br-app", 1500)).await;
}

#[tokio::test]
async fn more_news_than_there_is_room_for_is_made_up_by_reading_all_links() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    let mut witness = Watch::open().unwrap();
    sh("ip link add noise type vxlan id 5 dstport 4789");
    let batch: String = (0..6000).map(|number| format!("link set noise mtu {}\n", 1000 + number % 2)).collect();
    let file = otherix_testkit::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), batch).unwrap();
    sh(&format!("ip -batch {}\nip link del br-app", file.path().display()));
    assert_eq!(witness.drain(), Err(Lost), "this is more than there is room for");
    node.work_until(Duration::from_secs(2), || is_as_asked("br-app", 1500)).await;
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
