//! The agent is killed after any message to the kernel.

use otherix_agent::device::bridge::action::CreateBridge;
use otherix_agent::engine::Step;
use otherix_agent::engine::execute;
use otherix_agent::engine::remove::RemoveLink;
use otherix_agent::kernel::Kernel;
use otherix_agent::model::desired::{DesiredBridge, Want};
use otherix_agent::model::owner::temporary_name;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};

use crate::node::{Node, is_as_asked, is_up, names, network};

fn wanted(number: u16) -> DesiredBridge {
    DesiredBridge { name: format!("br-{number}"), mtu: 1400 + u32::from(number), mac: None, vlan: None, nat: None }
}

/// Every bridge there is must be known for ours: by its alias, or, until it has one, by its name; then it is down.
fn nothing_is_nobodys(node: &Node, numbers: std::ops::RangeInclusive<u16>) {
    for link in ip_json(&["-d", "link", "show", "type", "bridge"]).as_array().unwrap() {
        let by_alias = numbers.clone().any(|number| link["ifalias"] == node.alias(number));
        let by_name = numbers.clone().any(|number| link["ifname"] == temporary_name(network(number).uuid()));
        assert!(by_alias || (by_name && !is_up(link)), "{link}");
    }
}

#[tokio::test]
async fn a_kill_in_a_creation_leaves_what_the_next_start_finishes_or_removes() {
    enter_new();
    let mut messages = 0;
    loop {
        let mut node = Node::new();
        let create = |number| Step::new(CreateBridge { network: network(number), bridge: wanted(number) });
        let mut kernel = Kernel::open().unwrap();
        kernel.fail_after(messages);
        let done = execute(&mut kernel, &[1, 2, 3].map(create), node.desired.cluster).iter().all(Result::is_ok);
        nothing_is_nobodys(&node, 1..=3);

        // Number 3 was deleted meanwhile.
        node.want(3, Want::Nothing);
        for number in [1, 2] {
            node.want(number, Want::Bridge(wanted(number)));
        }
        let round = node.settle().await;
        let ready = round.outcomes.iter().filter(|outcome| outcome.outcome == Outcome::Ready);
        assert_eq!(ready.count(), 2, "killed after {messages} messages: {round:?}");
        let mut names = names();
        names.sort();
        assert_eq!(names, ["br-1", "br-2", "lo"], "killed after {messages} messages");
        assert!(is_as_asked("br-1", 1401) && is_as_asked("br-2", 1402));
        sh("ip link del br-1\nip link del br-2");
        if done {
            break;
        }
        messages += 1;
    }
    // One to make it, one to complete it; before Linux 6.2 one in between to find it.
    assert!([6, 9].contains(&messages), "three bridges, of two or three messages each, and not {messages} in all");
}

#[tokio::test]
async fn a_kill_in_a_repair_or_a_removal_leaves_what_the_next_start_goes_on_with() {
    enter_new();
    let mut node = Node::new();
    node.want(1, Want::Bridge(wanted(1)));
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
        nothing_is_nobodys(&node, 1..=1);
    }
    node.restart();
    node.want(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert_eq!(names(), ["lo"]);
}

#[tokio::test]
async fn bridges_in_the_making_of_networks_that_are_gone_are_removed_before_the_view_is_current() {
    enter_new();
    let mut node = Node::new();
    node.current = false;
    for number in [1, 2] {
        sh(&format!("ip link add {} type bridge", temporary_name(network(number).uuid())));
    }
    node.want(1, Want::Bridge(wanted(1)));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(names(), ["lo", "br-1"]);
}
