//! Taps of NICs: made as asked, kept so, and deaf to frames that are not the NIC's.

use std::time::Duration;

use otherix_agent::device::port::action::PortChanges;
use otherix_agent::device::tap::action::RepairTap;
use otherix_agent::engine::Step;
use otherix_agent::engine::execute;
use otherix_agent::kernel::Kernel;
use otherix_agent::model::desired::{DesiredNic, DesiredTap, Want};
use otherix_agent::model::owner::Owner;
use otherix_schemas::id::NicId;
use otherix_schemas::nic::tap_name;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_schemas::value::MacAddress;
use otherix_testkit::netns::{enter_new, link, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_tun::{FRAME_MAX, TapDevice};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::node::{Node, REPAIR, bridge, is_up, names, network, unmanaged};

pub(crate) fn nic(number: u16) -> NicId {
    NicId::new(Uuid::from_u128((u128::from(number) << 96) | u128::from(number)))
}

pub(crate) fn mac(number: u16) -> MacAddress {
    MacAddress::assigned(number.into())
}

pub(crate) fn plug(node: &mut Node, number: u16, on: u16) -> String {
    let name = tap_name(nic(number));
    let tap = DesiredTap { name: name.clone(), network: network(on), mac: mac(number) };
    node.desired.nics.insert(nic(number), DesiredNic { generation: Position::new(9), tap: Some(tap) });
    name
}

fn unplug(node: &mut Node, number: u16) {
    node.desired.nics.insert(nic(number), DesiredNic { generation: Position::new(11), tap: None });
}

pub(crate) fn bridge_json(args: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(&sh(&format!("bridge -j {args}"))).unwrap().as_array().unwrap().clone()
}

/// The stations at a port that are not the node's own.
fn stations(tap: &str) -> Vec<(String, String)> {
    let entries = bridge_json(&format!("fdb show brport {tap}"));
    let entries = entries.iter().filter(|entry| entry["state"] != "permanent");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries.map(|entry| (text(&entry["mac"]), text(&entry["state"]))).collect()
}

fn is_whole(node: &Node, number: u16, on: &str) -> bool {
    let name = tap_name(nic(number));
    let Some(tap) = link(&name) else { return false };
    let alias = Owner::of_nic(node.desired.cluster, nic(number)).to_string();
    let port = bridge_json(&format!("-d link show dev {name}"));
    let plain = json!({
        "locked": true, "learning": false, "flood": true, "mcast_flood": true, "bcast_flood": true, "hairpin": false,
        "guard": false, "root_block": false, "fastleave": false, "isolated": false, "neigh_suppress": false,
    });
    let is_plain =
        |port: &Value| plain.as_object().unwrap().iter().all(|(name, on)| port.get(name).is_none_or(|is| is == on));
    (&tap["ifalias"], &tap["mtu"], &tap["master"]) == (&alias.into(), &1400.into(), &on.into())
        && is_up(&tap)
        && port.first().is_some_and(is_plain)
        && stations(&name) == [(mac(number).to_string(), "static".to_owned())]
}

#[tokio::test]
async fn a_tap_is_made_as_asked_and_goes_with_its_nic() {
    enter_new();
    let mut node = Node::new();
    let name = plug(&mut node, 1, 1);
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Pending(format!("waiting for network `{}`", network(1))));
    node.want(1, bridge("br-app", 1400));
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    let made = link(&name).unwrap();
    let data = &made["linkinfo"]["info_data"];
    assert_eq!((&data["type"], &data["persist"]), (&"tap".into(), &true.into()));
    assert!(is_whole(&node, 1, "br-app"));
    assert_eq!(sh(&format!("cat /proc/sys/net/ipv6/conf/{name}/disable_ipv6")).trim(), "1");

    // It outlives the agent, and who is plugged in.
    drop(TapDevice::attach(&name).unwrap());
    node.restart();
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    assert_eq!(link(&name).unwrap()["ifindex"], made["ifindex"]);

    let _plugged_in = TapDevice::attach(&name).unwrap();
    unplug(&mut node, 1);
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Removed);
    assert_eq!(names(), ["lo", "br-app"]);
    plug(&mut node, 2, 1);
    node.settle().await;
    node.desired.nics.clear();
    node.want(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed, "taps of ours do not keep a bridge");
    node.settle().await;
    assert_eq!(names(), ["lo"], "a tap that no NIC has goes too");
}

#[tokio::test]
async fn what_is_done_to_a_tap_is_undone_within_a_second() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1400));
    let tap = plug(&mut node, 1, 1);
    node.settle().await;
    sh("ip link add other type bridge");
    for harm in [
        "ip link del TAP",
        "ip link set TAP down",
        "ip link set TAP mtu 1300",
        "ip link set TAP alias mine",
        "ip link set TAP down name stolen",
        "ip link set TAP nomaster",
        "ip link set TAP master other",
        "bridge link set dev TAP locked off",
        "bridge link set dev TAP learning on",
        "ip link set TAP type bridge_slave locked off learning on",
        "bridge link set dev TAP isolated on",
        "bridge link set dev TAP flood off mcast_flood off",
        "bridge link set dev TAP hairpin on neigh_suppress on",
        "bridge fdb del MAC dev TAP master",
        "bridge fdb add 52:54:00:ff:ff:ff dev TAP master static",
        "ip link del br-app",
    ] {
        sh(&harm.replace("TAP", &tap).replace("MAC", &mac(1).to_string()));
        let mut whole = false;
        let check = Node::new();
        node.work_until(REPAIR, || {
            whole = is_whole(&check, 1, "br-app");
            whole
        })
        .await;
        assert!(link("stolen").is_none(), "{harm}");
        assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready, "{harm}");
        node.restart();
        node.settle().await;
    }
}

/// An Ethernet broadcast of an experimental type, with a number to know it by.
pub(crate) fn frame(from: MacAddress, number: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(from.octets());
    frame.extend([0x88, 0xb5, number]);
    frame.resize(60, 0);
    frame
}

/// The numbers of the frames that have come.
pub(crate) fn heard(tap: &TapDevice) -> Vec<u8> {
    let mut buffer = vec![0; FRAME_MAX];
    let mut numbers = Vec::new();
    while let Ok(length) = tap.read(&mut buffer) {
        if length > 14 && buffer[12..14] == [0x88, 0xb5] {
            numbers.push(buffer[14]);
        }
    }
    numbers
}

#[tokio::test]
async fn a_guest_is_heard_with_its_own_address_only() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1400));
    let (one, two) = (plug(&mut node, 1, 1), plug(&mut node, 2, 1));
    node.settle().await;
    let (one, two) = (TapDevice::attach(&one).unwrap(), TapDevice::attach(&two).unwrap());
    let mut all = Vec::new();
    // A bridge forwards only when its port has its carrier, which is a moment after somebody is plugged in.
    wait_for_blocking(Duration::from_secs(10), "the first frame", || {
        one.write(&frame(mac(1), 1)).unwrap();
        all.extend(heard(&two));
        all.contains(&1)
    });
    for (from, number) in [(mac(3), 2), (mac(2), 3), ("02:00:00:00:00:01".parse().unwrap(), 4), (mac(1), 5)] {
        one.write(&frame(from, number)).unwrap();
    }
    wait_for_blocking(Duration::from_secs(10), "the last frame", || {
        all.extend(heard(&two));
        all.contains(&5)
    });
    assert!(!all.iter().any(|number| [2, 3, 4].contains(number)), "{all:?}");

    // Somebody blocks the port of a guest that is plugged in.
    sh(&format!("bridge link set dev {} state 0", one.name()));
    let forwards = || bridge_json(&format!("link show dev {}", one.name()))[0]["state"] == "forwarding";
    assert!(!forwards());
    node.work_until(REPAIR, forwards).await;
}

#[tokio::test]
async fn a_port_that_lost_its_carrier_before_it_was_to_forward_is_no_failure() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1400));
    let name = plug(&mut node, 1, 1);
    node.settle().await;
    let index = u32::try_from(link(&name).unwrap()["ifindex"].as_u64().unwrap()).unwrap();
    let unblock = |index| {
        let changes = PortChanges { unblock: true, ..PortChanges::default() };
        let steps = [Step::new(RepairTap { nic: nic(1), index, changes })];
        execute(&mut Kernel::open().unwrap(), &steps, node.desired.cluster).remove(0)
    };
    assert!(unblock(index).is_ok());
    assert!(unblock(index + 1).is_err(), "there is no such tap");
}

#[tokio::test]
async fn a_nic_goes_to_another_network_and_a_squatter_is_left_alone() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1400));
    node.want(2, bridge("br-db", 1400));
    let tap = plug(&mut node, 1, 1);
    node.settle().await;
    let index = link(&tap).unwrap()["ifindex"].clone();
    plug(&mut node, 1, 2);
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    assert!(is_whole(&node, 1, "br-db"));
    assert_eq!(link(&tap).unwrap()["ifindex"], index, "the same tap");

    let squatted = tap_name(nic(2));
    sh(&format!("ip tuntap add {squatted} mode tap"));
    let before = link(&squatted);
    plug(&mut node, 2, 1);
    let outcome = node.nic_outcome(nic(2)).await;
    assert!(matches!(&outcome, Outcome::Failed(text) if text.contains(&squatted)), "{outcome:?}");
    assert_eq!(link(&squatted), before);
    sh(&format!("ip link del {squatted}"));
    let check = Node::new();
    node.work_until(REPAIR, || is_whole(&check, 2, "br-app")).await;
}

#[tokio::test]
async fn an_unmanaged_bridge_keeps_its_mtu() {
    enter_new();
    sh("ip link add br-ext mtu 9000 type bridge\nip link set br-ext up");
    let mut node = Node::new();
    node.want(1, unmanaged("br-ext"));
    let tap = plug(&mut node, 1, 1);
    let outcome = node.nic_outcome(nic(1)).await;
    assert!(
        matches!(&outcome, Outcome::Failed(text) if text.contains("9000") && text.contains("br-ext")),
        "{outcome:?}"
    );
    assert!(link(&tap).is_none());
    sh("ip link set br-ext mtu 1500");
    node.work_until(REPAIR, || link(&tap).is_some_and(|tap| tap["master"] == "br-ext" && is_up(&tap))).await;
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    assert_eq!(link("br-ext").unwrap()["mtu"], 1500);
}

#[tokio::test]
async fn an_unmanaged_bridge_keeps_its_address() {
    enter_new();
    sh("ip link add br-ext type bridge\nip link set br-ext up
        ip link add port address fa:00:00:00:00:01 type veth peer name other\nip link set port master br-ext");
    let before = link("br-ext").unwrap()["address"].clone();
    assert_eq!(before, "fa:00:00:00:00:01", "it takes its port's");
    let mut node = Node::new();
    node.want(1, unmanaged("br-ext"));
    for number in 1..=8 {
        plug(&mut node, number, 1);
        assert_eq!(node.nic_outcome(nic(number)).await, Outcome::Ready);
    }
    assert_eq!(link("br-ext").unwrap()["address"], before);
}

#[tokio::test]
async fn many_taps_are_made_beside_some_that_cannot_be() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1400));
    node.want(2, bridge("br-wide", 70_000));
    node.settle().await;
    let mut bad = Vec::new();
    for number in 1..=200 {
        // The kernel makes no bridge of that MTU, so that these wait; and of some taps the name is taken.
        plug(&mut node, number, if number % 50 == 7 { 2 } else { 1 });
        if number % 50 == 8 {
            sh(&format!("ip tuntap add {} mode tap", tap_name(nic(number))));
        }
        if [7, 8].contains(&(number % 50)) {
            bad.push(nic(number));
        }
    }
    let begin = std::time::Instant::now();
    let round = node.settle().await;
    let taken = begin.elapsed();
    let ready = round.outcomes.iter().filter(|outcome| outcome.outcome == Outcome::Ready);
    let ready =
        ready.filter(|outcome| matches!(outcome.resource, otherix_schemas::outcome::ResourceRef::Nic(_))).count();
    assert_eq!(ready, 200 - bad.len(), "{taken:?}");
    let tap = tap_name(nic(1));
    let attached = TapDevice::attach(&tap).unwrap();
    sh(&format!("ip link del {tap}"));
    let check = Node::new();
    node.work_until(REPAIR, || is_whole(&check, 1, "br-app")).await;
    drop(attached);
    assert!(is_whole(&check, 1, "br-app"), "who was plugged in takes nothing along");
}

#[tokio::test]
async fn no_frame_is_lost_while_the_agent_begins_anew() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1400));
    let (one, two) = (plug(&mut node, 1, 1), plug(&mut node, 2, 1));
    node.settle().await;
    let (one, two) = (TapDevice::attach(&one).unwrap(), TapDevice::attach(&two).unwrap());
    wait_for_blocking(Duration::from_secs(10), "the first frame", || {
        one.write(&frame(mac(1), 0)).unwrap();
        heard(&two).contains(&0)
    });
    let _late = heard(&two);
    let (mut sent, mut came, mut restarts) = (0, 0, 0);
    // A restart may take no longer than a frame does: until enough have been sent on the way.
    while restarts < 20 || sent <= 20 {
        restarts += 1;
        assert!(restarts < 5_000, "{sent} frames sent");
        node.restart();
        let settled = tokio::select! {
            biased;
            _ = node.settle() => true,
            () = async { loop {
                one.write(&frame(mac(1), 9)).unwrap();
                sent += 1;
                came += heard(&two).len();
                tokio::time::sleep(Duration::from_micros(200)).await;
            } } => false,
        };
        assert!(settled);
    }
    wait_for_blocking(Duration::from_secs(10), "all frames", || {
        came += heard(&two).len();
        came >= sent
    });
    assert_eq!(came, sent);
}

#[tokio::test]
async fn a_kill_after_any_message_leaves_nothing_that_is_nobodys() {
    enter_new();
    let mut node = Node::new();
    node.want(1, bridge("br-app", 1400));
    node.settle().await;
    for messages in 0..12 {
        let tap = plug(&mut node, 1, 1);
        node.reconciler.fail_after(messages);
        let _killed = node.reconciler.pass(&node.desired, true).await;
        for name in names().into_iter().filter(|name| !["lo", "br-app"].contains(&name.as_str())) {
            let left = link(&name).unwrap();
            let is_known = left["ifalias"] == Owner::of_nic(node.desired.cluster, nic(1)).to_string()
                || (name.starts_with("ot.") && !is_up(&left));
            assert!(is_known, "{messages}: {left}");
        }
        node.restart();
        assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready, "{messages}");
        assert_eq!(names(), ["lo".to_owned(), "br-app".to_owned(), tap], "{messages}");
        unplug(&mut node, 1);
        node.settle().await;
    }
}
