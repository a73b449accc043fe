//! The agent is killed at any message to the kernel.

use otherix_agent::device::bridge::action::CreateBridge;
use otherix_agent::engine::Step;
use otherix_agent::engine::execute;
use otherix_agent::engine::remove::RemoveLink;
use otherix_agent::kernel::Kernel;
use otherix_agent::model::desired::{DesiredBridge, Want};
use otherix_agent::model::owner::temporary_name;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};

use crate::node::{Node, is_ready, is_up, link_names, network};

fn desired_bridge(number: u16) -> DesiredBridge {
    DesiredBridge {
        name: format!("br-{number}"),
        mtu: 1400 + u32::from(number),
        mac: None,
        vlan: None,
        nat: None,
        allow_spoofing: false,
        dns: false,
    }
}

/// Asserts that every bridge is identifiable as ours: by its alias, or if it has none, by its name and being down.
fn assert_identifiable(node: &Node, numbers: std::ops::RangeInclusive<u16>) {
    for link in ip_json(&["-d", "link", "show", "type", "bridge"]).as_array().unwrap() {
        let by_alias = numbers.clone().any(|number| link["ifalias"] == node.alias(number));
        let by_name = numbers.clone().any(|number| link["ifname"] == temporary_name(network(number).uuid()));
        assert!(by_alias || (by_name && !is_up(link)), "{link}");
    }
}

#[tokio::test]
async fn an_interrupted_creation_is_completed_or_removed_after_the_restart() {
    enter_new();
    let mut messages = 0;
    loop {
        let mut node = Node::new();
        let create = |number| Step::new(CreateBridge { network: network(number), bridge: desired_bridge(number) });
        let mut kernel = Kernel::open().unwrap();
        kernel.fail_after(messages);
        let is_complete = execute(&mut kernel, &[1, 2, 3].map(create), node.desired.cluster).iter().all(Result::is_ok);
        assert_identifiable(&node, 1..=3);

        // Network 3 was deleted meanwhile.
        node.set_desired(3, Want::Nothing);
        for number in [1, 2] {
            node.set_desired(number, Want::Bridge(desired_bridge(number)));
        }
        let pass = node.settle().await;
        let ready = pass.outcomes.iter().filter(|outcome| outcome.outcome == Outcome::Ready);
        assert_eq!(ready.count(), 2, "killed after {messages} messages: {pass:?}");
        let mut names = link_names();
        names.sort();
        assert_eq!(names, ["br-1", "br-2", "lo"], "killed after {messages} messages");
        assert!(is_ready("br-1", 1401) && is_ready("br-2", 1402));
        sh("ip link del br-1\nip link del br-2");
        if is_complete {
            break;
        }
        messages += 1;
    }
    // For each bridge: one to create it and one to complete it; before Linux 6.2 one in between to find it.
    assert!([6, 9].contains(&messages), "{messages} messages for three bridges, instead of two or three each");
}

#[tokio::test]
async fn an_interrupted_removal_is_completed_after_the_restart() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, Want::Bridge(desired_bridge(1)));
    node.settle().await;
    let index = u32::try_from(link("br-1").unwrap()["ifindex"].as_u64().unwrap()).unwrap();
    for messages in 0..3 {
        let mut kernel = Kernel::open().unwrap();
        kernel.fail_after(messages);
        let remove =
            [Step::new(RemoveLink { index, name: "br-1".to_owned(), kind: "bridge", link_kind: "bridge".to_owned() })];
        let results = execute(&mut kernel, &remove, node.desired.cluster);
        assert_eq!(results.len(), 1);
        assert_eq!(results[0].is_ok(), link("br-1").is_none());
        assert_identifiable(&node, 1..=1);
    }
    node.restart();
    node.set_desired(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert_eq!(link_names(), ["lo"]);
}

#[tokio::test]
async fn incomplete_bridges_are_removed_before_the_view_is_current() {
    enter_new();
    let mut node = Node::new();
    node.current = false;
    for number in [1, 2] {
        sh(&format!("ip link add {} type bridge", temporary_name(network(number).uuid())));
    }
    node.set_desired(1, Want::Bridge(desired_bridge(1)));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(link_names(), ["lo", "br-1"]);
}
