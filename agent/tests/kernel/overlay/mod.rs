//! Overlays: forwarding to other nodes is as decided at any time, and no other host can inject frames.

mod egress;
mod injection;
mod spoofing;
pub(crate) mod topology;

use std::time::Duration;

use otherix_agent::model::desired::Want;
use otherix_agent::model::owner::Owner;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use serde_json::Value;

use self::topology::{MTU, Placement, create_mesh_device, expected_fdb, fdb, nodes, overlay, set_placement};
use crate::host::Host;
use crate::node::{Node, REPAIR, cluster, is_up, link_names, network};
use crate::taps::{bridge_json, mac};

/// Time-out for what is retried, because nothing notifies of its end.
const RETRY: Duration = Duration::from_secs(30);

/// Two guests on node 1, two on node 2, one on node 3.
fn placement() -> Placement {
    [(1, (1, 1)), (2, (1, 2)), (3, (1, 2)), (4, (1, 3)), (5, (1, 1))].into()
}

/// Returns node 1, with its mesh device and no other nodes.
fn single_node() -> Node {
    enter_new();
    create_mesh_device(1);
    let mut node = Node::new();
    set_placement(&mut node, &[1], &placement(), 1);
    node
}

/// Whether a VTEP and its bridge are as required, as `ip` and `bridge` show them.
fn is_complete(number: u16, placement: &Placement, here: u16) -> bool {
    let (bridge, vtep) = (format!("otb{}", topology::vni(number)), format!("otvx{}", topology::vni(number)));
    let (Some(bridge_link), Some(vtep_link)) = (link(&bridge), link(&vtep)) else { return false };
    let data = &vtep_link["linkinfo"]["info_data"];
    let alias: Value = Owner::of_network(cluster(), network(number)).to_string().into();
    let port = bridge_json(&format!("-d link show dev {vtep}"));
    let flags = port.first().map(|port| (port["locked"].clone(), port["learning"].clone()));
    (&vtep_link["ifalias"], &vtep_link["mtu"], &vtep_link["master"]) == (&alias, &MTU.into(), &bridge.as_str().into())
        && (&bridge_link["ifalias"], &bridge_link["mtu"]) == (&alias, &MTU.into())
        && is_up(&vtep_link)
        && is_up(&bridge_link)
        && (&data["id"], &data["port"]) == (&topology::vni(number).into(), &4789.into())
        && data["local"] == topology::mesh_address(here).to_string()
        && data["learning"] == false
        && data["udp_csum"] == false
        && flags == Some((true.into(), false.into()))
        && fdb(&vtep) == expected_fdb(number, placement, here)
}

#[test]
fn guests_on_different_nodes_reach_each_other_and_none_of_another_overlay() {
    let nodes = nodes(2);
    // Both overlays use the same IP addresses.
    let placement: Placement = [(1, (1, 1)), (2, (1, 2)), (3, (2, 1)), (4, (2, 2))].into();
    for (number, node) in (1..).zip(&nodes) {
        node.settle(&[1, 2], &placement, number);
    }
    let one = nodes[0].guest(1, "10.1.0.1");
    let two = nodes[1].guest(2, "10.1.0.2");
    let three = nodes[0].guest(3, "10.1.0.1");
    let four = nodes[1].guest(4, "10.1.0.4");
    one.wait_until_reached("10.1.0.2");
    three.wait_until_reached("10.1.0.4");
    assert!(one.reaches_with("10.1.0.2", 1362) && two.reaches_with("10.1.0.1", 1362));
    assert!(!one.reaches_with("10.1.0.2", 1363), "larger than the MTU");
    assert!(one.cannot_reach("10.1.0.4"), "a guest of the other overlay");
    assert!(four.cannot_reach("10.1.0.2"), "a guest of the other overlay");
    for (number, node) in (1..).zip(&nodes) {
        let placement = placement.clone();
        node.run(move |_, _| {
            assert!(is_complete(1, &placement, number) && is_complete(2, &placement, number), "no address was learned");
            for bridge in ["otb1000", "otb2000"] {
                let learned = bridge_json(&format!("fdb show br {bridge}"));
                let learned: Vec<_> = learned.iter().filter(|entry| entry["state"] == "").collect();
                assert_eq!(learned, Vec::<&Value>::new());
            }
        });
    }
    assert_eq!(sh("bridge -j fdb show br underlay | grep -c 52:54:00 || true").trim(), "0");
}

#[test]
fn forwarding_follows_a_nic_that_moves() {
    let nodes = nodes(3);
    let mut placement: Placement = [(1, (1, 1)), (2, (1, 2))].into();
    let settle = |placement: &Placement| {
        (1..).zip(&nodes).for_each(|(number, node)| node.settle(&[1], placement, number));
    };
    settle(&placement);
    let one = nodes[0].guest(1, "10.1.0.1");
    let two = nodes[1].guest(2, "10.1.0.2");
    one.wait_until_reached("10.1.0.2");
    drop(two);
    placement.insert(2, (1, 3));
    settle(&placement);
    let two = nodes[2].guest(2, "10.1.0.2");
    one.wait_until_reached("10.1.0.2");
    drop(two);
    placement.insert(2, (1, 1));
    settle(&placement);
    let _two = nodes[0].guest(2, "10.1.0.2");
    one.wait_until_reached("10.1.0.2");
    nodes[0].run(move |_, _| assert_eq!(fdb("otvx1000"), expected_fdb(1, &placement, 1)));
}

/// Reproducible pseudo-random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u16) -> u16 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u16::try_from((mixed ^ (mixed >> 31)) % u64::from(limit)).unwrap()
    }
}

#[test]
fn forwarding_databases_follow_random_placements() {
    let nodes = nodes(3);
    let mut placement = Placement::new();
    for seed in [1, 2] {
        let mut random = Random(seed);
        for step in 0..40 {
            let number = 1 + random.below(8);
            // Detach, attach, possibly to another network, or move.
            if random.below(3) == 0 {
                placement.remove(&number);
            } else {
                placement.insert(number, (1 + random.below(2), 1 + random.below(3)));
            }
            for (here, node) in (1..).zip(&nodes) {
                node.settle(&[1, 2], &placement, here);
                let placement = placement.clone();
                node.run(move |_, _| {
                    for network in [1, 2] {
                        let actual = fdb(&format!("otvx{}", topology::vni(network)));
                        assert_eq!(
                            actual,
                            expected_fdb(network, &placement, here),
                            "{seed}: step {step}, node {here}: {placement:?}"
                        );
                    }
                });
            }
        }
    }
}

#[tokio::test]
async fn an_overlay_is_created_as_required_and_removed_completely() {
    let mut node = single_node();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(is_complete(1, &placement(), 1));
    assert_eq!(sh("cat /proc/sys/net/ipv6/conf/otvx1000/disable_ipv6").trim(), "1");
    let index = link("otvx1000").unwrap()["ifindex"].clone();
    node.restart();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(link("otvx1000").unwrap()["ifindex"], index, "it outlives the agent");
    assert!(is_complete(1, &placement(), 1));

    sh("ip tuntap add foreign mode tap\nip link set foreign master otb1000");
    node.desired.nics.clear();
    node.set_desired(1, Want::Nothing);
    node.expect_failure(1, &["otb1000", "foreign"]).await;
    assert!(link("otvx1000").is_none(), "the VTEP is removed");
    sh("ip link del foreign");
    node.expect_outcome(REPAIR, 1, Outcome::Removed).await;
    node.settle().await;
    assert_eq!(link_names(), ["lo", "otwg0"]);
    assert!(!sh("nft list tables").contains("otherix"));
}

#[tokio::test]
async fn drift_is_repaired_within_a_second() {
    let mut node = single_node();
    node.settle().await;
    sh("ip link add other type bridge");
    let remote_mac = mac(2).to_string();
    for change in [
        "ip link del otvx1000",
        "ip link del otb1000",
        "ip link set otvx1000 down",
        "ip link set otvx1000 mtu 1300",
        "ip link set otb1000 mtu 1300",
        "ip link set otvx1000 alias mine",
        "ip link set otvx1000 down name stolen",
        "ip link set otvx1000 nomaster",
        "ip link set otvx1000 master other",
        "ip link set otvx1000 type vxlan id 1000 learning",
        "ip link set otvx1000 type vxlan id 1000 local 10.42.0.9",
        "ip link set otvx1000 type vxlan id 1000 remote 10.42.0.9",
        "ip link del otvx1000\n\
         ip link add otvx1000 type vxlan id 1000 dstport 4789 local 10.42.0.1\n\
         ip link set otvx1000 alias ALIAS\nip link set otvx1000 up",
        "ip link del otvx1000\n\
         ip link add otvx1000 type vxlan id 7 dstport 4789 local 10.42.0.1 nolearning\n\
         ip link set otvx1000 alias ALIAS\nip link set otvx1000 up",
        "ip link del otvx1000\n\
         ip link add otvx1000 type vxlan id 1000 dstport 8472 local 10.42.0.1 nolearning\n\
         ip link set otvx1000 alias ALIAS\nip link set otvx1000 up",
        "bridge link set dev otvx1000 learning on",
        "bridge link set dev otvx1000 locked off",
        "bridge fdb del MAC dev otvx1000 master",
        "bridge fdb del MAC dev otvx1000 dst 10.42.0.2 self",
        "bridge fdb replace MAC dev otvx1000 dst 10.42.0.3 self",
        "bridge fdb append MAC dev otvx1000 dst 10.42.0.3 self",
        "bridge fdb replace MAC dev otvx1000 dst 10.42.0.2 vni 7 self",
        "bridge fdb append MAC dev otvx1000 dst 10.42.0.2 port 7 self",
        "bridge fdb del MAC dev otvx1000 dst 10.42.0.2 self\nbridge fdb add MAC dev otvx1000 dst 10.42.0.2 self static",
        "bridge fdb add 52:54:00:ff:ff:ff dev otvx1000 master static",
        "bridge fdb add 52:54:00:ff:ff:ff dev otvx1000 dst 10.42.0.9 self",
        "bridge fdb add 01:00:5e:00:00:01 dev otvx1000 dst 10.42.0.9 self",
        "bridge fdb append 00:00:00:00:00:00 dev otvx1000 dst 192.0.2.9 self",
        "bridge fdb append 00:00:00:00:00:00 dev otvx1000 dst 10.42.0.9 vni 7 self",
        "bridge fdb del 00:00:00:00:00:00 dev otvx1000 dst 10.42.0.3 self",
        "bridge fdb flush dev otvx1000 self",
        "nft delete table ip otherix",
        "nft flush chain ip otherix input",
    ] {
        let change = change.replace("MAC", &remote_mac).replace("ALIAS", &node.alias(1));
        sh(&change);
        let has_rules = || sh("nft list ruleset").contains("udp dport 4789");
        node.run_until(REPAIR, || has_rules() && is_complete(1, &placement(), 1)).await;
        assert!(link("stolen").is_none(), "{change}");
        assert_eq!(node.outcome(1).await, Outcome::Ready, "{change}");
        node.restart();
        node.settle().await;
    }
}

#[tokio::test]
async fn without_the_mesh_an_overlay_is_pending_and_has_no_vtep() {
    let mut node = single_node();
    node.settle().await;
    let pending = |text: &str| Outcome::Pending(format!("waiting for the mesh: {text}"));
    let has_vtep = || link("otvx1000").is_some();
    sh("ip link set otwg0 down");
    node.expect_outcome(REPAIR, 1, pending("`otwg0` is down")).await;
    sh("ip link set otwg0 up");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    sh("ip addr del 10.42.0.1/16 dev otwg0\nip addr add 10.42.0.9/16 dev otwg0");
    node.expect_outcome(REPAIR, 1, pending("`otwg0` does not have the address 10.42.0.1")).await;
    node.settle().await;
    assert!(!has_vtep());
    assert!(link("otb1000").is_some(), "guests on the same node need no mesh");
    sh("ip addr add 10.42.0.1/32 dev otwg0");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    sh("ip link del otwg0");
    node.expect_outcome(REPAIR, 1, pending("this node has no `otwg0`")).await;
    node.settle().await;
    assert!(!has_vtep());
    node.restart();
    assert_eq!(node.outcome(1).await, pending("this node has no `otwg0`"));
    create_mesh_device(1);
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    assert!(is_complete(1, &placement(), 1));

    // The node gets another mesh address.
    let Want::Overlay(mut moved) = overlay(1, &placement(), 1) else { unreachable!() };
    moved.vtep.local = "10.42.0.7".parse().unwrap();
    node.set_desired(1, Want::Overlay(moved));
    assert_eq!(node.outcome(1).await, pending("`otwg0` does not have the address 10.42.0.7"));
    assert!(!has_vtep());
}

#[tokio::test]
async fn foreign_devices_are_not_changed() {
    let mut node = single_node();
    for foreign in
        ["otb1000 type bridge", "otvx1000 type bridge", "other type vxlan id 1000 dstport 4789 local 10.42.0.1"]
    {
        sh(&format!("ip link add {foreign}"));
        let (name, _) = foreign.split_once(' ').unwrap();
        let before = link(name);
        node.expect_failure(1, &[name]).await;
        assert_eq!(link(name), before);
        sh(&format!("ip link del {name}"));
        node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
        assert!(is_complete(1, &placement(), 1), "{foreign}");
        node.desired.nics.clear();
        node.set_desired(1, Want::Nothing);
        node.settle().await;
        node.set_desired(1, overlay(1, &placement(), 1));
    }
}

#[tokio::test]
async fn a_port_in_use_is_explained() {
    let mut node = single_node();
    // It receives all VNIs, which our VTEPs do not.
    sh("ip link add theirs type vxlan external dstport 4789\nip link set theirs up");
    node.expect_failure(1, &["UDP port 4789 is in use by `theirs`"]).await;
    sh("ip link del theirs");
    node.expect_outcome(RETRY, 1, Outcome::Ready).await;
    node.desired.nics.clear();
    node.set_desired(1, Want::Nothing);
    node.settle().await;
    let socket = std::net::UdpSocket::bind("0.0.0.0:4789").unwrap();
    node.set_desired(1, overlay(1, &placement(), 1));
    node.expect_failure(1, &["another program uses UDP port 4789"]).await;
    drop(socket);
    node.expect_outcome(RETRY, 1, Outcome::Ready).await;
}

#[tokio::test]
async fn no_forwarding_is_removed_while_the_view_is_not_current() {
    let mut node = single_node();
    node.settle().await;
    let before = fdb("otvx1000");
    node.restart();
    node.current = false;
    node.set_desired(1, overlay(1, &Placement::new(), 1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(fdb("otvx1000"), before);
    node.current = true;
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(fdb("otvx1000"), [].into());
}

#[tokio::test]
async fn after_a_kill_at_any_message_every_device_is_identifiable_as_ours() {
    let mut node = single_node();
    node.desired.nics.clear();
    let mut messages = 0;
    loop {
        node.set_desired(1, overlay(1, &placement(), 1));
        node.reconciler.fail_after(messages);
        for _ in 0..4 {
            let _killed = node.reconciler.pass(&node.desired, true).await;
        }
        let is_done = is_complete(1, &placement(), 1);
        for device in ip_json(&["-d", "link", "show"]).as_array().unwrap() {
            let name = device["ifname"].as_str().unwrap();
            let is_known = device["ifalias"] == node.alias(1) || (name.starts_with("ot.") && !is_up(device));
            assert!(["lo", "otwg0"].contains(&name) || is_known, "{messages}: {device}");
        }
        node.restart();
        assert_eq!(node.outcome(1).await, Outcome::Ready, "{messages}");
        assert!(is_complete(1, &placement(), 1), "{messages}");
        node.set_desired(1, Want::Nothing);
        assert_eq!(node.outcome(1).await, Outcome::Removed, "{messages}");
        if is_done {
            break;
        }
        messages += 1;
    }
    assert!(messages > 15, "{messages}");
}
