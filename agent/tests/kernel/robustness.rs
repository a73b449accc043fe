//! Lost notifications, many foreign devices, and names of any bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::Duration;

use otherix_agent::kernel::{KernelWatch, NotificationsLost};
use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::NamedTempFile;
use otherix_testkit::netns::{enter_new, link, sh};

use crate::node::{Node, REPAIR, bridge, is_ready, snapshot};

/// Runs `ip -batch` with these lines.
fn ip_batch(lines: impl Iterator<Item = String>) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.collect::<String>()).unwrap();
    sh(&format!("ip -batch {}", file.path().display()));
}

#[tokio::test]
async fn after_lost_notifications_everything_is_read_again() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    let mut watch = KernelWatch::open().unwrap();
    // Notifications about a device with many long names are long.
    sh("ip link add busy type ifb");
    ip_batch((0..60).map(|number| format!("link property add dev busy altname {number:0>100}\n")));
    let flood = || ip_batch((0..3000).map(|number| format!("link set busy mtu {}\n", 1000 + number % 2)));
    flood();
    sh("ip link del br-app");
    assert_eq!(watch.drain(), Err(NotificationsLost), "the notifications do not fit into the buffer");
    node.run_until(Duration::from_secs(5), || is_ready("br-app", 1500)).await;
    assert_eq!(node.outcome(1).await, Outcome::Ready);

    // A device whose alias changed while notifications were lost may be foreign.
    flood();
    sh("ip link set br-app alias mine");
    let before = snapshot();
    node.expect_failure(1, &["`br-app`", "`mine`"]).await;
    assert_eq!(snapshot(), before);
}

#[tokio::test]
async fn thousands_of_foreign_devices_cause_no_pass() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    ip_batch((0..2000).map(|number| format!("link add f{number} type ifb\n")));
    assert!(!node.reconciler.is_due());
    node.restart();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    sh("ip link set br-app down");
    node.run_until(REPAIR, || is_ready("br-app", 1500)).await;
}

#[tokio::test]
async fn names_and_aliases_may_be_any_bytes() {
    enter_new();
    let ip = |before: &[&str], bytes: &[u8], after: &[&str]| {
        let bytes = OsStr::from_bytes(bytes);
        assert!(Command::new("ip").args(before).arg(bytes).args(after).status().unwrap().success());
    };
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    ip(&["link", "add"], b"v\xff\"\xc3(", &["type", "veth", "peer", "name", "veth1"]);
    ip(&["link", "set"], b"v\xff\"\xc3(", &["master", "br-app"]);
    ip(&["link", "set", "br-app", "alias"], b"\xff\xfe", &[]);
    node.run_until(REPAIR, || link("br-app").unwrap()["ifalias"] == node_alias()).await;
    node.set_desired(1, Want::Nothing);
    node.expect_failure(1, &["has the port `v"]).await;

    ip(&["link", "add"], b"br-db", &["type", "bridge"]);
    ip(&["link", "set", "br-db", "alias"], b"\xff\xfe", &[]);
    node.set_desired(2, bridge("br-db", 1500));
    node.expect_failure(2, &["`br-db`"]).await;
    sh("ip link del br-db");
    node.expect_outcome(REPAIR, 2, Outcome::Ready).await;
}

fn node_alias() -> String {
    Node::new().alias(1)
}
