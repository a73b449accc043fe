//! A kernel that has much to tell, and strange things.

use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::Duration;

use otherix_agent::kernel::{KernelWatch, NotificationsLost};
use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::NamedTempFile;
use otherix_testkit::netns::{enter_new, link, sh};

use crate::node::{Node, REPAIR, bridge, is_as_asked, snapshot};

/// Runs `ip -batch` on these lines.
fn ip_batch(lines: impl Iterator<Item = String>) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.collect::<String>()).unwrap();
    sh(&format!("ip -batch {}", file.path().display()));
}

#[tokio::test]
async fn more_news_than_there_is_room_for_is_made_up_by_reading_all_links() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    let mut witness = KernelWatch::open().unwrap();
    // Each change of a device with many long names is a long message.
    sh("ip link add noise type ifb");
    ip_batch((0..60).map(|number| format!("link property add dev noise altname {number:0>100}\n")));
    let flood = || ip_batch((0..3000).map(|number| format!("link set noise mtu {}\n", 1000 + number % 2)));
    flood();
    sh("ip link del br-app");
    assert_eq!(witness.drain(), Err(NotificationsLost), "this is more than there is room for");
    node.work_until(Duration::from_secs(5), || is_as_asked("br-app", 1500)).await;
    assert_eq!(node.outcome(1).await, Outcome::Ready);

    // What lost its alias while nobody heard of it may be somebody else's by now.
    flood();
    sh("ip link set br-app alias mine");
    let before = snapshot();
    node.fails(1, &["`br-app`", "`mine`"]).await;
    assert_eq!(snapshot(), before);
}

#[tokio::test]
async fn thousands_of_foreign_devices_are_neither_touched_nor_a_reason_to_do_anything() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    ip_batch((0..2000).map(|number| format!("link add f{number} type ifb\n")));
    assert!(!node.reconciler.is_due());
    node.restart();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    sh("ip link set br-app down");
    node.work_until(REPAIR, || is_as_asked("br-app", 1500)).await;
}

#[tokio::test]
async fn names_and_aliases_may_be_any_bytes() {
    enter_new();
    let ip = |before: &[&str], bytes: &[u8], after: &[&str]| {
        let bytes = std::ffi::OsStr::from_bytes(bytes);
        assert!(Command::new("ip").args(before).arg(bytes).args(after).status().unwrap().success());
    };
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1500));
    node.settle().await;
    ip(&["link", "add"], b"v\xff\"\xc3(", &["type", "veth", "peer", "name", "veth1"]);
    ip(&["link", "set"], b"v\xff\"\xc3(", &["master", "br-app"]);
    ip(&["link", "set", "br-app", "alias"], b"\xff\xfe", &[]);
    node.work_until(REPAIR, || link("br-app").unwrap()["ifalias"] == node_alias()).await;
    node.want(1, Want::Nothing);
    node.fails(1, &["has the port `v"]).await;

    ip(&["link", "add"], b"br-db", &["type", "bridge"]);
    ip(&["link", "set", "br-db", "alias"], b"\xff\xfe", &[]);
    node.want(2, bridge("br-db", 1500));
    node.fails(2, &["`br-db`"]).await;
    sh("ip link del br-db");
    node.becomes(REPAIR, 2, Outcome::Ready).await;
}

fn node_alias() -> String {
    Node::new().alias(1)
}
