//! Overlays: what leads to other nodes is what the decisions say, at every moment, and nothing else gets in.

mod injection;
mod world;

use otherix_agent::model::desired::Want;
use otherix_agent::model::owner::Owner;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use serde_json::Value;

use self::world::{MTU, Placement, forwarding, implied, lone_mesh, overlay, place, world};
use crate::host::Host;
use crate::node::{Node, REPAIR, cluster, is_up, names, network};
use crate::taps::{bridge_json, mac};

/// Two guests here, two on node 2, one on node 3.
fn placement() -> Placement {
    [(1, (1, 1)), (2, (1, 2)), (3, (1, 2)), (4, (1, 3)), (5, (1, 1))].into()
}

/// Node 1 alone, with its mesh device.
fn alone() -> Node {
    enter_new();
    lone_mesh(1);
    let mut node = Node::new();
    place(&mut node, &[1], &placement(), 1);
    node
}

/// A VTEP and its bridge, as independent tools see them.
fn is_whole(number: u16, placement: &Placement, here: u16) -> bool {
    let (bridge, vtep) = (format!("otb{}", world::vni(number)), format!("otvx{}", world::vni(number)));
    let (Some(bridge_link), Some(is)) = (link(&bridge), link(&vtep)) else { return false };
    let data = &is["linkinfo"]["info_data"];
    let alias: Value = Owner::of_network(cluster(), network(number)).to_string().into();
    let port = bridge_json(&format!("-d link show dev {vtep}"));
    let flags = port.first().map(|port| (port["locked"].clone(), port["learning"].clone()));
    (&is["ifalias"], &is["mtu"], &is["master"]) == (&alias, &MTU.into(), &bridge.as_str().into())
        && (&bridge_link["ifalias"], &bridge_link["mtu"]) == (&alias, &MTU.into())
        && is_up(&is)
        && is_up(&bridge_link)
        && (&data["id"], &data["port"]) == (&world::vni(number).into(), &4789.into())
        && data["local"] == world::mesh_address(here).to_string()
        && data["learning"] == false
        && data["udp_csum"] == false
        && flags == Some((true.into(), false.into()))
        && forwarding(&vtep) == implied(number, placement, here)
}

#[test]
fn guests_on_different_nodes_reach_each_other_and_those_of_another_overlay_not() {
    let nodes = world(2);
    // The same addresses on both.
    let placement: Placement = [(1, (1, 1)), (2, (1, 2)), (3, (2, 1)), (4, (2, 2))].into();
    for (number, node) in (1..).zip(&nodes) {
        node.settle(&[1, 2], &placement, number);
    }
    let one = nodes[0].guest(1, "10.1.0.1");
    let two = nodes[1].guest(2, "10.1.0.2");
    let three = nodes[0].guest(3, "10.1.0.1");
    let four = nodes[1].guest(4, "10.1.0.4");
    one.comes_to_reach("10.1.0.2");
    three.comes_to_reach("10.1.0.4");
    assert!(one.reaches_with("10.1.0.2", 1362) && two.reaches_with("10.1.0.1", 1362));
    assert!(!one.reaches_with("10.1.0.2", 1363), "1390 bytes are the most");
    assert!(one.is_kept_from("10.1.0.4"), "a guest of the other overlay");
    assert!(four.is_kept_from("10.1.0.2"), "a guest of the other overlay");
    for (number, node) in (1..).zip(&nodes) {
        let placement = placement.clone();
        node.run(move |_, _| {
            assert!(is_whole(1, &placement, number) && is_whole(2, &placement, number), "nothing was learnt");
            for bridge in ["otb1000", "otb2000"] {
                let learnt = bridge_json(&format!("fdb show br {bridge}"));
                let learnt: Vec<_> = learnt.iter().filter(|entry| entry["state"] == "").collect();
                assert_eq!(learnt, Vec::<&Value>::new());
            }
        });
    }
    assert_eq!(sh("bridge -j fdb show br underlay | grep -c 52:54:00 || true").trim(), "0");
}

#[test]
fn a_nic_that_moves_is_followed() {
    let nodes = world(3);
    let mut placement: Placement = [(1, (1, 1)), (2, (1, 2))].into();
    let settle = |placement: &Placement| {
        (1..).zip(&nodes).for_each(|(number, node)| node.settle(&[1], placement, number));
    };
    settle(&placement);
    let one = nodes[0].guest(1, "10.1.0.1");
    let two = nodes[1].guest(2, "10.1.0.2");
    one.comes_to_reach("10.1.0.2");
    drop(two);
    placement.insert(2, (1, 3));
    settle(&placement);
    let two = nodes[2].guest(2, "10.1.0.2");
    one.comes_to_reach("10.1.0.2");
    drop(two);
    placement.insert(2, (1, 1));
    settle(&placement);
    let _two = nodes[0].guest(2, "10.1.0.2");
    one.comes_to_reach("10.1.0.2");
    nodes[0].run(move |_, _| assert_eq!(forwarding("otvx1000"), implied(1, &placement, 1)));
}

/// Numbers that look random and are the same each time (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u16) -> u16 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u16::try_from((mixed ^ (mixed >> 31)) % u64::from(sides)).unwrap()
    }
}

#[test]
fn the_forwarding_databases_are_what_the_placement_implies_after_every_step() {
    let nodes = world(3);
    let mut placement = Placement::new();
    for seed in [1, 2] {
        let mut dice = Dice(seed);
        for step in 0..40 {
            let number = 1 + dice.roll(8);
            // Detached; attached, to another network perhaps; moved.
            if dice.roll(3) == 0 {
                placement.remove(&number);
            } else {
                placement.insert(number, (1 + dice.roll(2), 1 + dice.roll(3)));
            }
            for (here, node) in (1..).zip(&nodes) {
                node.settle(&[1, 2], &placement, here);
                let placement = placement.clone();
                node.run(move |_, _| {
                    for network in [1, 2] {
                        let is = forwarding(&format!("otvx{}", world::vni(network)));
                        assert_eq!(
                            is,
                            implied(network, &placement, here),
                            "{seed}: step {step}, node {here}: {placement:?}"
                        );
                    }
                });
            }
        }
    }
}

#[tokio::test]
async fn an_overlay_is_made_as_asked_and_goes_whole() {
    let mut node = alone();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(is_whole(1, &placement(), 1));
    assert_eq!(sh("cat /proc/sys/net/ipv6/conf/otvx1000/disable_ipv6").trim(), "1");
    let index = link("otvx1000").unwrap()["ifindex"].clone();
    node.restart();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(link("otvx1000").unwrap()["ifindex"], index, "it outlives the agent");
    assert!(is_whole(1, &placement(), 1));

    sh("ip tuntap add foreign mode tap\nip link set foreign master otb1000");
    node.desired.nics.clear();
    node.want(1, Want::Nothing);
    node.fails(1, &["otb1000", "foreign"]).await;
    assert!(link("otvx1000").is_none(), "it leads nowhere any more");
    sh("ip link del foreign");
    node.becomes(REPAIR, 1, Outcome::Removed).await;
    node.settle().await;
    assert_eq!(names(), ["lo", "otwg0"]);
    assert!(!sh("nft list tables").contains("otherix"));
}

#[tokio::test]
async fn what_is_done_to_a_vtep_is_undone_within_a_second() {
    let mut node = alone();
    node.settle().await;
    sh("ip link add other type bridge");
    let station = mac(2).to_string();
    for harm in [
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
        let harm = harm.replace("MAC", &station).replace("ALIAS", &node.alias(1));
        sh(&harm);
        let guarded = || sh("nft list ruleset").contains("udp dport 4789");
        node.work_until(REPAIR, || guarded() && is_whole(1, &placement(), 1)).await;
        assert!(link("stolen").is_none(), "{harm}");
        assert_eq!(node.outcome(1).await, Outcome::Ready, "{harm}");
        node.restart();
        node.settle().await;
    }
}

#[tokio::test]
async fn without_the_mesh_an_overlay_is_pending_and_no_vtep_has_a_wrong_address() {
    let mut node = alone();
    node.settle().await;
    let pending = |text: &str| Outcome::Pending(format!("waiting for the mesh: {text}"));
    let has_vtep = || link("otvx1000").is_some();
    sh("ip link set otwg0 down");
    node.becomes(REPAIR, 1, pending("`otwg0` is down")).await;
    sh("ip link set otwg0 up");
    node.becomes(REPAIR, 1, Outcome::Ready).await;
    sh("ip addr del 10.42.0.1/16 dev otwg0\nip addr add 10.42.0.9/16 dev otwg0");
    node.becomes(REPAIR, 1, pending("`otwg0` does not have the address 10.42.0.1")).await;
    node.settle().await;
    assert!(!has_vtep());
    assert!(link("otb1000").is_some(), "guests on one node need no mesh");
    sh("ip addr add 10.42.0.1/32 dev otwg0");
    node.becomes(REPAIR, 1, Outcome::Ready).await;
    sh("ip link del otwg0");
    node.becomes(REPAIR, 1, pending("this node has no `otwg0`")).await;
    node.settle().await;
    assert!(!has_vtep());
    node.restart();
    assert_eq!(node.outcome(1).await, pending("this node has no `otwg0`"));
    lone_mesh(1);
    node.becomes(REPAIR, 1, Outcome::Ready).await;
    assert!(is_whole(1, &placement(), 1));

    // The node gets another place.
    let Want::Overlay(mut moved) = overlay(1, &placement(), 1) else { unreachable!() };
    moved.vtep.local = "10.42.0.7".parse().unwrap();
    node.want(1, Want::Overlay(moved));
    assert_eq!(node.outcome(1).await, pending("`otwg0` does not have the address 10.42.0.7"));
    assert!(!has_vtep());
}

#[tokio::test]
async fn squatters_are_left_alone() {
    let mut node = alone();
    for squatter in
        ["otb1000 type bridge", "otvx1000 type bridge", "other type vxlan id 1000 dstport 4789 local 10.42.0.1"]
    {
        sh(&format!("ip link add {squatter}"));
        let (name, _) = squatter.split_once(' ').unwrap();
        let before = link(name);
        node.fails(1, &[name]).await;
        assert_eq!(link(name), before);
        sh(&format!("ip link del {name}"));
        node.becomes(REPAIR, 1, Outcome::Ready).await;
        assert!(is_whole(1, &placement(), 1), "{squatter}");
        node.desired.nics.clear();
        node.want(1, Want::Nothing);
        node.settle().await;
        node.want(1, overlay(1, &placement(), 1));
    }
}

#[tokio::test]
async fn while_the_view_is_not_current_nobody_is_forgotten() {
    let mut node = alone();
    node.settle().await;
    let all = forwarding("otvx1000");
    node.restart();
    node.current = false;
    node.want(1, overlay(1, &Placement::new(), 1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(forwarding("otvx1000"), all);
    node.current = true;
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert_eq!(forwarding("otvx1000"), [].into());
}

#[tokio::test]
async fn a_kill_after_any_message_leaves_nothing_that_is_nobodys() {
    let mut node = alone();
    node.desired.nics.clear();
    let mut messages = 0;
    loop {
        node.want(1, overlay(1, &placement(), 1));
        node.reconciler.fail_after(messages);
        for _ in 0..4 {
            let _killed = node.reconciler.pass(&node.desired, true).await;
        }
        let done = is_whole(1, &placement(), 1);
        for left in ip_json(&["-d", "link", "show"]).as_array().unwrap() {
            let name = left["ifname"].as_str().unwrap();
            let is_known = left["ifalias"] == node.alias(1) || (name.starts_with("ot.") && !is_up(left));
            assert!(["lo", "otwg0"].contains(&name) || is_known, "{messages}: {left}");
        }
        node.restart();
        assert_eq!(node.outcome(1).await, Outcome::Ready, "{messages}");
        assert!(is_whole(1, &placement(), 1), "{messages}");
        node.want(1, Want::Nothing);
        assert_eq!(node.outcome(1).await, Outcome::Removed, "{messages}");
        if done {
            break;
        }
        messages += 1;
    }
    assert!(messages > 15, "{messages}");
}
