//! Unmanaged bridges, which the operator creates and removes.

use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, link, sh};

use crate::node::{Node, REPAIR, bridge, link_names, snapshot, unmanaged};

#[tokio::test]
async fn an_unmanaged_bridge_is_followed_and_never_changed() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, unmanaged("br-ext"));
    node.set_desired(2, unmanaged("br-ext"));
    node.expect_failure(1, &["no bridge `br-ext`"]).await;
    assert_eq!(link_names(), ["lo"]);

    sh("ip link add br-ext mtu 1400 type bridge stp_state 1");
    let before = snapshot();
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    assert_eq!(node.outcome(2).await, Outcome::Ready);
    node.set_desired(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert_eq!(node.outcome(2).await, Outcome::Ready);
    assert_eq!(snapshot(), before);

    for removal in ["ip link set br-ext name br-else", "ip link del br-ext"] {
        sh(removal);
        node.run_until(REPAIR, || link("br-ext").is_none()).await;
        node.expect_failure(2, &["no bridge `br-ext`"]).await;
        sh("ip link set br-else name br-ext || ip link add br-ext type bridge");
        node.expect_outcome(REPAIR, 2, Outcome::Ready).await;
    }
    node.set_desired(2, Want::Nothing);
    assert_eq!(node.outcome(2).await, Outcome::Removed);
    assert_eq!(link_names(), ["lo", "br-ext"]);
}

#[tokio::test]
async fn a_device_of_another_kind_is_no_unmanaged_bridge() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, unmanaged("br-ext"));
    sh("ip link add br-ext type ifb");
    node.expect_failure(1, &["`br-ext`", "`ifb`", "not a bridge"]).await;
    sh("ip link del br-ext\nip link add br-real type bridge\nip link set br-real up");
    sh("ip link property add dev br-real altname br-ext");
    node.expect_failure(1, &["`br-ext`", "alternative name", "`br-real`"]).await;
    sh("ip link property del dev br-real altname br-ext\nip link set br-real name br-ext");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
}

#[tokio::test]
async fn the_bridge_of_a_deleted_managed_network_does_not_become_an_unmanaged_one() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-ext", 1500));
    node.settle().await;
    sh("ip link add veth0 type veth peer name veth1\nip link set veth0 master br-ext");
    node.set_desired(1, Want::Nothing);
    node.set_desired(2, unmanaged("br-ext"));
    let outcome = node.outcome(2).await;
    assert!(matches!(&outcome, Outcome::Pending(text) if text.contains("`veth0`")), "{outcome:?}");
    sh("ip link del veth0");
    node.expect_outcome(REPAIR, 1, Outcome::Removed).await;
    node.expect_failure(2, &["no bridge `br-ext`"]).await;
    sh("ip link add br-ext type bridge");
    node.expect_outcome(REPAIR, 2, Outcome::Ready).await;
}

#[tokio::test]
async fn an_unmanaged_bridge_is_foreign_to_a_managed_network() {
    enter_new();
    let mut node = Node::new();
    sh("ip link add br-ext type bridge");
    let before = snapshot();
    node.set_desired(1, unmanaged("br-ext"));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    node.set_desired(1, Want::Nothing);
    node.set_desired(2, bridge("br-ext", 1500));
    node.expect_failure(2, &["`br-ext`", "did not create"]).await;
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert_eq!(snapshot(), before);
}
