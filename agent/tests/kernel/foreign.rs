//! Foreign devices and ports are never changed, even those that have our names or are ports of our bridges.

use std::time::Duration;

use otherix_agent::device::bridge::action::CreateBridge;
use otherix_agent::engine::Step;
use otherix_agent::engine::execute;
use otherix_agent::engine::remove::RemoveLink;
use otherix_agent::kernel::Kernel;
use otherix_agent::model::desired::{DesiredBridge, Want};
use otherix_agent::model::owner::Owner;
use otherix_schemas::id::ClusterId;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use serde_json::Value;
use uuid::Uuid;

use crate::node::{Node, REPAIR, bridge, is_ready, link_names, network, snapshot};

#[tokio::test]
async fn a_name_conflict_lasts_until_the_foreign_device_is_renamed() {
    enter_new();
    for foreign in [
        "br-app mtu 1400 type vxlan id 5 dstport 4789",
        "br-app mtu 1400 type bridge stp_state 1",
        "br-app type veth peer name veth1",
        "br-app type ifb",
    ] {
        let mut node = Node::new();
        sh(&format!("ip link add {foreign}\nip link set br-app alias mine"));
        let before = link("br-app");
        node.set_desired(1, bridge("br-app", 1500));
        node.expect_failure(1, &["`br-app`", "`mine`", "remove or rename it"]).await;
        for change in ["up", "mtu 1300", "down", "alias yours"] {
            sh(&format!("ip link set br-app {change}"));
            node.settle().await;
        }
        sh("ip link set br-app mtu 1400 alias mine || true");
        node.settle().await;
        let identity = |link: &Value| (link["ifindex"].clone(), link["address"].clone());
        assert_eq!(link("br-app").as_ref().map(identity), before.as_ref().map(identity));
        sh("ip link set br-app name br-else");
        node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
        assert!(is_ready("br-app", 1500));
        assert_eq!(link("br-else").as_ref().map(identity), before.as_ref().map(identity));
        sh("ip link del br-else");
        node.set_desired(1, Want::Nothing);
        assert_eq!(node.outcome(1).await, Outcome::Removed);
    }
}

#[tokio::test]
async fn a_foreign_device_with_our_name_is_not_changed() {
    enter_new();
    sh("ip link add br-app mtu 1400 type bridge\nip link add other type veth peer name veth1");
    sh("ip link property add dev other altname br-db\nip addr add 192.0.2.1/24 dev br-app");
    let shown = || (snapshot(), ip_json(&["addr", "show"]));
    let before = shown();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.set_desired(2, bridge("br-db", 1500));
    node.expect_failure(1, &["`br-app`"]).await;
    node.expect_failure(2, &["`br-db`", "alternative name", "`other`"]).await;
    node.set_desired(1, Want::Nothing);
    node.set_desired(2, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert_eq!(node.outcome(2).await, Outcome::Removed);
    assert_eq!(shown(), before);
}

#[tokio::test]
async fn an_alternative_name_conflicts_until_it_is_removed() {
    enter_new();
    sh("ip link add other type ifb\nip link property add dev other altname br-app\nip link set other up");
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.expect_failure(1, &["`br-app`", "alternative name", "`other`"]).await;
    assert_eq!(link_names(), ["lo", "other"]);
    sh("ip link property del dev other altname br-app");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;

    // The kernel does not notify of alternative names of a device that is down.
    sh("ip link set other down\nip link property add dev other altname br-db");
    node.set_desired(2, bridge("br-db", 1500));
    node.expect_failure(2, &["`br-db`", "alternative name"]).await;
    sh("ip link property del dev other altname br-db");
    node.expect_outcome(Duration::from_secs(10), 2, Outcome::Ready).await;
}

#[tokio::test]
async fn a_name_conflict_between_observation_and_creation_is_detected() {
    enter_new();
    let mut kernel = Kernel::open().unwrap();
    let cluster = ClusterId::new(Uuid::from_u128(77));
    let create = |number: u16, name: &str| {
        let bridge = DesiredBridge {
            name: name.to_owned(),
            mtu: 1500,
            mac: None,
            vlan: None,
            nat: None,
            allow_spoofing: false,
            dns: false,
        };
        Step::new(CreateBridge { network: network(number), bridge })
    };
    sh("ip link add br-two mtu 1400 type bridge\nip link add x type ifb\nip link property add dev x altname br-three");
    let before = link("br-two");
    let steps = [create(1, "br-one"), create(2, "br-two"), create(3, "br-three"), create(4, "br-four")];
    let results: Vec<_> = execute(&mut kernel, &steps, cluster).iter().map(Result::is_ok).collect();
    assert_eq!(results, [true, false, false, true], "a failure affects no other step");
    assert_eq!(link("br-two"), before);
    let mut names = link_names();
    names.sort();
    assert_eq!(names, ["br-four", "br-one", "br-two", "lo", "x"], "failed creations leave nothing");
}

#[tokio::test]
async fn a_foreign_port_added_between_observation_and_removal_prevents_the_removal() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    let index = u32::try_from(link("br-app").unwrap()["ifindex"].as_u64().unwrap()).unwrap();
    sh("ip link add veth0 type veth peer name veth1\nip link set veth0 master br-app");
    let remove = |name: &str| {
        [Step::new(RemoveLink { index, name: name.to_owned(), kind: "bridge", link_kind: "bridge".to_owned() })]
    };
    let mut kernel = Kernel::open().unwrap();
    let error = execute(&mut kernel, &remove("br-app"), node.desired.cluster).remove(0).unwrap_err();
    assert!(error.to_string().contains("`veth0`"), "{error}");
    sh("ip link set veth0 nomaster\nip link set br-app name br-other");
    execute(&mut kernel, &remove("br-app"), node.desired.cluster).remove(0).unwrap_err();
    execute(&mut kernel, &remove("br-other"), node.desired.cluster).remove(0).unwrap();
    execute(&mut kernel, &remove("br-other"), node.desired.cluster)
        .remove(0)
        .expect("a link that does not exist counts as removed");
}

#[tokio::test]
async fn a_foreign_port_prevents_the_removal_until_it_is_detached_after_a_restart_too() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    sh("ip link add veth0 type veth peer name veth1\nip link set veth0 master br-app");
    node.set_desired(1, Want::Nothing);
    node.expect_failure(1, &["`veth0`", "`br-app`"]).await;
    node.restart();
    node.expect_failure(1, &["`veth0`", "`br-app`"]).await;
    let port = link("veth0").unwrap();
    assert_eq!(port["master"], "br-app");
    sh("ip link set veth0 nomaster");
    node.expect_outcome(REPAIR, 1, Outcome::Removed).await;
    assert_eq!(link_names().len(), 3, "the port remains");
}

#[tokio::test]
async fn a_network_is_pending_while_a_foreign_port_keeps_the_bridge_with_its_name() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    sh("ip link add veth0 type veth peer name veth1\nip link set veth0 master br-app");
    node.set_desired(1, Want::Nothing);
    node.set_desired(2, bridge("br-app", 1500));
    let outcome = node.outcome(2).await;
    assert!(matches!(&outcome, Outcome::Pending(text) if text.contains("`veth0`")), "{outcome:?}");
    sh("ip link del veth0");
    node.expect_outcome(REPAIR, 2, Outcome::Ready).await;
    assert_eq!(node.outcome(1).await, Outcome::Removed);
}

#[tokio::test]
async fn an_orphan_is_removed_only_when_the_view_is_current() {
    enter_new();
    let mut node = Node::new();
    let ours = node.alias(9);
    let foreign = Owner::of_network(ClusterId::new(Uuid::from_u128(78)), network(9));
    sh(&format!("ip link add br-ours type bridge\nip link set br-ours alias {ours}"));
    sh(&format!("ip link add br-theirs type bridge\nip link set br-theirs alias {foreign}"));
    node.current = false;
    node.settle().await;
    assert_eq!(link_names(), ["lo", "br-ours", "br-theirs"]);
    node.current = true;
    node.settle().await;
    assert_eq!(link_names(), ["lo", "br-theirs"]);
}
