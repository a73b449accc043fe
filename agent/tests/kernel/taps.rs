//! Taps of NICs: created as required, repaired, and accept no frames with the address of another NIC.

use std::time::Duration;

use otherix_agent::device::port::action::PortChanges;
use otherix_agent::device::tap::action::RepairTap;
use otherix_agent::engine::execute;
use otherix_agent::engine::{Pass, Step};
use otherix_agent::kernel::Kernel;
use otherix_agent::model::desired::{DesiredLease, DesiredNic, DesiredTap, Want};
use otherix_agent::model::owner::Owner;
use otherix_schemas::id::NicId;
use otherix_schemas::nic::tap_name;
use otherix_schemas::outcome::{Outcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::value::MacAddress;
use otherix_testkit::netns::{enter_new, link, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_tun::{FRAME_MAX, TapDevice};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::node::{Node, REPAIR, bridge, is_up, link_names, network, unmanaged};

pub(crate) fn nic(number: u16) -> NicId {
    NicId::new(Uuid::from_u128((u128::from(number) << 96) | u128::from(number)))
}

pub(crate) fn mac(number: u16) -> MacAddress {
    MacAddress::assigned(number.into())
}

/// Attaches a NIC to network `on`, and returns the name of its tap.
pub(crate) fn attach_nic(node: &mut Node, number: u16, on: u16) -> String {
    attach_nic_with(node, number, on, None)
}

/// As [`attach_nic`], on a network that assigns addresses.
pub(crate) fn attach_nic_with(node: &mut Node, number: u16, on: u16, lease: Option<DesiredLease>) -> String {
    let name = tap_name(nic(number));
    let tap = DesiredTap { name: name.clone(), network: network(on), mac: mac(number), lease };
    node.desired.nics.insert(nic(number), DesiredNic { generation: Position::new(9), tap: Some(tap) });
    name
}

/// Detaches a NIC.
pub(crate) fn detach_nic(node: &mut Node, number: u16) {
    node.desired.nics.insert(nic(number), DesiredNic { generation: Position::new(11), tap: None });
}

/// Returns the output of `bridge -j`.
pub(crate) fn bridge_json(args: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(&sh(&format!("bridge -j {args}"))).unwrap().as_array().unwrap().clone()
}

/// Returns the addresses in the FDB entries of a port, except the node's own, with their state.
fn fdb_entries(tap: &str) -> Vec<(String, String)> {
    let entries = bridge_json(&format!("fdb show brport {tap}"));
    let entries = entries.iter().filter(|entry| entry["state"] != "permanent");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries.map(|entry| (text(&entry["mac"]), text(&entry["state"]))).collect()
}

/// Whether the tap of a NIC is as required, as a port of bridge `on`.
fn is_complete(node: &Node, number: u16, on: &str) -> bool {
    let name = tap_name(nic(number));
    let Some(tap) = link(&name) else { return false };
    let alias = Owner::of_nic(node.desired.cluster, nic(number)).to_string();
    let port = bridge_json(&format!("-d link show dev {name}"));
    let required = json!({
        "locked": true, "learning": false, "flood": true, "mcast_flood": true, "bcast_flood": true, "hairpin": false,
        "guard": false, "root_block": true, "fastleave": false, "isolated": false, "neigh_suppress": false,
    });
    let has_required = |port: &Value| {
        let required = required.as_object().unwrap();
        required.iter().all(|(name, value)| port.get(name).is_none_or(|current| current == value))
    };
    (&tap["ifalias"], &tap["mtu"], &tap["master"]) == (&alias.into(), &1400.into(), &on.into())
        && is_up(&tap)
        && port.first().is_some_and(has_required)
        && fdb_entries(&name) == [(mac(number).to_string(), "static".to_owned())]
}

#[tokio::test]
async fn a_tap_is_created_as_required_and_removed_with_its_nic() {
    enter_new();
    let mut node = Node::new();
    let name = attach_nic(&mut node, 1, 1);
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Pending(format!("waiting for network `{}`", network(1))));
    node.set_desired(1, bridge("br-app", 1400));
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    let created = link(&name).unwrap();
    let data = &created["linkinfo"]["info_data"];
    assert_eq!((&data["type"], &data["persist"]), (&"tap".into(), &true.into()));
    assert!(is_complete(&node, 1, "br-app"));
    assert_eq!(sh(&format!("cat /proc/sys/net/ipv6/conf/{name}/disable_ipv6")).trim(), "1");

    // It outlives the agent and the process that was attached.
    drop(TapDevice::attach(&name).unwrap());
    node.restart();
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    assert_eq!(link(&name).unwrap()["ifindex"], created["ifindex"]);

    let _attached = TapDevice::attach(&name).unwrap();
    detach_nic(&mut node, 1);
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Removed);
    assert_eq!(link_names(), ["lo", "br-app"]);
    attach_nic(&mut node, 2, 1);
    node.settle().await;
    node.desired.nics.clear();
    node.set_desired(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed, "taps of ours do not prevent the removal of a bridge");
    node.settle().await;
    assert_eq!(link_names(), ["lo"], "a tap of no known NIC is removed too");
}

#[tokio::test]
async fn drift_is_repaired_within_a_second() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1400));
    let tap = attach_nic(&mut node, 1, 1);
    node.settle().await;
    sh("ip link add other type bridge");
    for change in [
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
        sh(&change.replace("TAP", &tap).replace("MAC", &mac(1).to_string()));
        let check = Node::new();
        node.run_until(REPAIR, || is_complete(&check, 1, "br-app")).await;
        assert!(link("stolen").is_none(), "{change}");
        assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready, "{change}");
        node.restart();
        node.settle().await;
    }
}

/// Returns an Ethernet broadcast of an experimental type, identified by a number.
pub(crate) fn frame(from: MacAddress, number: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(from.octets());
    frame.extend([0x88, 0xb5, number]);
    frame.resize(60, 0);
    frame
}

/// Returns the numbers of the frames that have been received.
pub(crate) fn received(tap: &TapDevice) -> Vec<u8> {
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
async fn frames_with_the_address_of_another_nic_are_dropped() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1400));
    let (one, two) = (attach_nic(&mut node, 1, 1), attach_nic(&mut node, 2, 1));
    node.settle().await;
    let (one, two) = (TapDevice::attach(&one).unwrap(), TapDevice::attach(&two).unwrap());
    let mut all = Vec::new();
    // A bridge forwards once its port has a carrier, shortly after a process attaches.
    wait_for_blocking(Duration::from_secs(10), "the first frame", || {
        one.write(&frame(mac(1), 1)).unwrap();
        all.extend(received(&two));
        all.contains(&1)
    });
    for (from, number) in [(mac(3), 2), (mac(2), 3), ("02:00:00:00:00:01".parse().unwrap(), 4), (mac(1), 5)] {
        one.write(&frame(from, number)).unwrap();
    }
    wait_for_blocking(Duration::from_secs(10), "the last frame", || {
        all.extend(received(&two));
        all.contains(&5)
    });
    assert!(!all.iter().any(|number| [2, 3, 4].contains(number)), "{all:?}");

    // Another program blocks the port of an attached guest.
    sh(&format!("bridge link set dev {} state 0", one.name()));
    let forwards = || bridge_json(&format!("link show dev {}", one.name()))[0]["state"] == "forwarding";
    assert!(!forwards());
    node.run_until(REPAIR, forwards).await;
}

#[tokio::test]
async fn unblocking_a_port_without_a_carrier_is_no_failure() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1400));
    let name = attach_nic(&mut node, 1, 1);
    node.settle().await;
    let index = u32::try_from(link(&name).unwrap()["ifindex"].as_u64().unwrap()).unwrap();
    let unblock = |index| {
        let changes = PortChanges { unblock: true, ..PortChanges::default() };
        let steps = [Step::new(RepairTap { nic: nic(1), index, changes })];
        execute(&mut Kernel::open().unwrap(), &steps, node.desired.cluster).remove(0)
    };
    assert!(unblock(index).is_ok());
    assert!(unblock(index + 1).is_err(), "the tap does not exist");
}

#[tokio::test]
async fn a_nic_moves_to_another_network_and_a_foreign_tap_is_not_changed() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1400));
    node.set_desired(2, bridge("br-db", 1400));
    let tap = attach_nic(&mut node, 1, 1);
    node.settle().await;
    let index = link(&tap).unwrap()["ifindex"].clone();
    attach_nic(&mut node, 1, 2);
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    assert!(is_complete(&node, 1, "br-db"));
    assert_eq!(link(&tap).unwrap()["ifindex"], index, "the same tap");

    let foreign = tap_name(nic(2));
    sh(&format!("ip tuntap add {foreign} mode tap"));
    let before = link(&foreign);
    attach_nic(&mut node, 2, 1);
    let outcome = node.nic_outcome(nic(2)).await;
    assert!(matches!(&outcome, Outcome::Failed(text) if text.contains(&foreign)), "{outcome:?}");
    assert_eq!(link(&foreign), before);
    sh(&format!("ip link del {foreign}"));
    let check = Node::new();
    node.run_until(REPAIR, || is_complete(&check, 2, "br-app")).await;
}

#[tokio::test]
async fn a_nic_is_pending_until_the_spanning_tree_forwards() {
    enter_new();
    // The shortest forward delay with a spanning tree is 2 s, in each of two states.
    sh("ip link add br-ext mtu 1400 type bridge stp_state 1 forward_delay 200 && ip link set br-ext up");
    let mut node = Node::new();
    node.set_desired(1, unmanaged("br-ext"));
    let tap = attach_nic(&mut node, 1, 1);
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready, "no VM is attached yet");
    let is_pending = |pass: &Pass, state: &str| {
        let expected = format!("its port `{tap}` is {state}");
        pass.outcomes.iter().any(|outcome| outcome.outcome.error().is_some_and(|text| text.contains(&expected)))
    };
    let attached = TapDevice::attach(&tap).unwrap();
    node.run_until_pass(REPAIR, |pass| is_pending(pass, "listening")).await;
    for (state, within) in [("learning", 4), ("forwarding", 4)] {
        let is_reached = || bridge_json(&format!("link show dev {tap}"))[0]["state"] == state;
        node.run_until(Duration::from_secs(within), is_reached).await;
        let pass = node.settle().await;
        assert_eq!(is_pending(&pass, state), state == "learning", "{pass:?}");
    }
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    drop(attached);
}

#[tokio::test]
async fn an_unmanaged_bridge_keeps_its_mtu() {
    enter_new();
    sh("ip link add br-ext mtu 9000 type bridge\nip link set br-ext up");
    let mut node = Node::new();
    node.set_desired(1, unmanaged("br-ext"));
    let tap = attach_nic(&mut node, 1, 1);
    let outcome = node.nic_outcome(nic(1)).await;
    assert!(
        matches!(&outcome, Outcome::Failed(text) if text.contains("9000") && text.contains("br-ext")),
        "{outcome:?}"
    );
    assert!(link(&tap).is_none());
    sh("ip link set br-ext mtu 1500");
    node.run_until(REPAIR, || link(&tap).is_some_and(|tap| tap["master"] == "br-ext" && is_up(&tap))).await;
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    assert_eq!(link("br-ext").unwrap()["mtu"], 1500);
}

#[tokio::test]
async fn an_unmanaged_bridge_keeps_its_address() {
    enter_new();
    sh("ip link add br-ext type bridge\nip link set br-ext up
        ip link add port address fa:00:00:00:00:01 type veth peer name other\nip link set port master br-ext");
    let before = link("br-ext").unwrap()["address"].clone();
    assert_eq!(before, "fa:00:00:00:00:01", "a bridge takes the address of its port");
    let mut node = Node::new();
    node.set_desired(1, unmanaged("br-ext"));
    for number in 1..=8 {
        attach_nic(&mut node, number, 1);
        assert_eq!(node.nic_outcome(nic(number)).await, Outcome::Ready);
    }
    assert_eq!(link("br-ext").unwrap()["address"], before);
}

#[tokio::test]
async fn taps_that_cannot_be_created_affect_no_others() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1400));
    node.set_desired(2, bridge("br-wide", 70_000));
    node.settle().await;
    let mut not_created = 0;
    for number in 1..=200 {
        // The kernel creates no bridge with that MTU, so that some taps wait; and some names are in use.
        attach_nic(&mut node, number, if number % 50 == 7 { 2 } else { 1 });
        if number % 50 == 8 {
            sh(&format!("ip tuntap add {} mode tap", tap_name(nic(number))));
        }
        if [7, 8].contains(&(number % 50)) {
            not_created += 1;
        }
    }
    let pass = node.settle().await;
    let ready = pass.outcomes.iter().filter(|outcome| outcome.outcome == Outcome::Ready);
    let ready = ready.filter(|outcome| matches!(outcome.resource, ResourceRef::Nic(_)));
    assert_eq!(ready.count(), 200 - not_created);
    let tap = tap_name(nic(1));
    let attached = TapDevice::attach(&tap).unwrap();
    sh(&format!("ip link del {tap}"));
    let check = Node::new();
    node.run_until(REPAIR, || is_complete(&check, 1, "br-app")).await;
    drop(attached);
    assert!(is_complete(&check, 1, "br-app"), "the end of the attached process removes nothing");
}

#[tokio::test]
async fn no_frame_is_lost_during_restarts_of_the_agent() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1400));
    let (one, two) = (attach_nic(&mut node, 1, 1), attach_nic(&mut node, 2, 1));
    node.settle().await;
    let (one, two) = (TapDevice::attach(&one).unwrap(), TapDevice::attach(&two).unwrap());
    wait_for_blocking(Duration::from_secs(10), "the first frame", || {
        one.write(&frame(mac(1), 0)).unwrap();
        received(&two).contains(&0)
    });
    let _delayed = received(&two);
    let (mut sent, mut arrived, mut restarts) = (0, 0, 0);
    // A restart may be as short as a frame: repeated until enough frames have been sent meanwhile.
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
                arrived += received(&two).len();
                tokio::time::sleep(Duration::from_micros(200)).await;
            } } => false,
        };
        assert!(settled);
    }
    wait_for_blocking(Duration::from_secs(10), "all frames", || {
        arrived += received(&two).len();
        arrived >= sent
    });
    assert_eq!(arrived, sent);
}

#[tokio::test]
async fn after_a_kill_at_any_message_every_device_is_identifiable_as_ours() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1400));
    node.settle().await;
    for messages in 0..12 {
        let tap = attach_nic(&mut node, 1, 1);
        node.reconciler.fail_after(messages);
        let _killed = node.reconciler.pass(&node.desired, true).await;
        for name in link_names().into_iter().filter(|name| !["lo", "br-app"].contains(&name.as_str())) {
            let device = link(&name).unwrap();
            let is_known = device["ifalias"] == Owner::of_nic(node.desired.cluster, nic(1)).to_string()
                || (name.starts_with("ot.") && !is_up(&device));
            assert!(is_known, "{messages}: {device}");
        }
        node.restart();
        assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready, "{messages}");
        assert_eq!(link_names(), ["lo".to_owned(), "br-app".to_owned(), tap], "{messages}");
        detach_nic(&mut node, 1);
        node.settle().await;
    }
}
