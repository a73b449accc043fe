//! Networks with a way out: what passes and what does not, and that it stays so.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use otherix_agent::model::desired::{DesiredBridge, Want};
use otherix_agent::model::ip::Gateway;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use serde_json::Value;

use crate::host::Host;
use crate::node::{Node, REPAIR};

/// The host outside, by its address on the uplink and by one behind that.
pub(crate) const OUTSIDE: &str = "192.0.2.9";
pub(crate) const BEYOND: &str = "203.0.113.1";

/// On by default where the kernel has it at all; a node is better without.
const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Somebody else's tables, which are to stay as they are.
const FOREIGN: &str = "
table ip theirs {
    set hosts { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 } }
    chain out { type nat hook postrouting priority 90; policy accept; ip saddr @hosts counter masquerade; }
}
table inet filter {
    chain forward { type filter hook forward priority 10; policy accept; ct state invalid drop; }
}
";

pub(crate) fn nat(number: u16) -> Want {
    let gateway = Gateway {
        address: format!("10.20.{number}.1").parse().unwrap(),
        subnet: format!("10.20.{number}.0/24").parse().unwrap(),
    };
    let mac = Some(format!("02:00:00:00:00:{number:02x}").parse().unwrap());
    Want::Bridge(DesiredBridge { name: format!("br-{number}"), mtu: 1500, mac, vlan: None, nat: Some(gateway) })
}

/// A node with an uplink, and the host outside.
pub(crate) fn node_with_uplink() -> (Node, Host) {
    enter_new();
    let outside = Host::new("uplink");
    sh("ip address add 192.0.2.7/24 dev uplink\nip route add default via 192.0.2.9");
    outside.sh(&format!("ip address add {OUTSIDE}/24 dev eth0; ip address add {BEYOND}/32 dev lo"));
    if std::path::Path::new(BRIDGE_CALLS).exists() {
        sh(&format!("echo 0 > {BRIDGE_CALLS}"));
    }
    (Node::new(), outside)
}

/// A guest on a network; its port is not ours.
pub(crate) fn guest(network: u16, number: u16) -> Host {
    let port = format!("g{network}-{number}");
    let guest = Host::new(&port);
    sh(&format!("ip link set {port} master br-{network}"));
    guest.sh(&format!(
        "ip address add 10.20.{network}.{number}/24 dev eth0; ip route add default via 10.20.{network}.1"
    ));
    guest
}

fn rules() -> String {
    sh("nft -j list table ip otherix")
}

#[tokio::test]
async fn guests_reach_the_outside_with_the_nodes_address_and_nothing_else() {
    let (mut node, outside) = node_with_uplink();
    sh(&format!("nft '{FOREIGN}'"));
    let foreign = sh("nft -s list ruleset");
    node.want(1, nat(1));
    node.want(2, nat(2));
    node.settle().await;
    assert_eq!((node.outcome(1).await, node.outcome(2).await), (Outcome::Ready, Outcome::Ready));
    let bridges = rules();
    assert!(
        bridges.contains(r#""elem": ["br-1", "br-2"]"#) || bridges.contains(r#""elem": ["br-2", "br-1"]"#),
        "{bridges}"
    );
    let (one, neighbour, two) = (guest(1, 5), guest(1, 6), guest(2, 5));

    assert!(one.reaches(OUTSIDE) && one.reaches(BEYOND) && two.reaches(BEYOND));
    let mut server = outside.command("python3");
    let mut server = server.args(["-c", SERVER]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "listening");
    let seen = one
        .sh(&format!("exec 3<>/dev/tcp/{BEYOND}/7; cat <&3").replace("exec", "bash -c 'exec").replace("<&3", "<&3'"));
    assert_eq!(seen.trim(), "192.0.2.7", "the outside sees the node's address");
    server.kill().unwrap();
    server.wait().unwrap();

    assert!(one.reaches("10.20.1.6") && neighbour.reaches("10.20.1.5"), "the same network");
    assert!(one.reaches("10.20.1.1"), "its own gateway");
    assert!(one.is_kept_from("10.20.2.5"), "a guest of another network");
    assert!(one.is_kept_from("10.20.2.1"), "another network's gateway");
    outside.sh("ip route add 10.20.0.0/16 via 192.0.2.7");
    assert!(outside.is_kept_from("10.20.1.5"), "from outside in");
    assert!(outside.reaches("192.0.2.7"));
    // With the address of another network's guest, so that the answer would be forwarded to that one.
    one.sh("ip address add 10.20.2.99/32 dev eth0");
    let spoofed =
        one.command("ping").args(["-q", "-c", "3", "-i", "0.1", "-W", "0.3", "-I", "10.20.2.99", BEYOND]).output();
    assert!(!spoofed.unwrap().status.success(), "with an address that is not its network's");

    node.want(1, Want::Nothing);
    sh("ip link del g1-5\nip link del g1-6");
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert!(two.reaches(BEYOND));
    node.want(2, Want::Nothing);
    sh("ip link del g2-5");
    assert_eq!(node.outcome(2).await, Outcome::Removed);
    assert_eq!(sh("nft -s list ruleset"), foreign, "nothing of ours is left, and all of theirs");
}

const SERVER: &str = "
import socket
server = socket.create_server(('', 7))
print('listening', flush=True)
while True:
    peer, address = server.accept()
    peer.sendall(address[0].encode())
    peer.close()
";

pub(crate) fn forwards(device: &str) -> bool {
    sh(&format!("cat /proc/sys/net/ipv4/conf/{device}/forwarding")).trim() == "1"
}

pub(crate) fn has_gateway() -> bool {
    let addresses = ip_json(&["-4", "address", "show", "dev", "br-1"]);
    let addresses = addresses[0]["addr_info"].as_array().cloned().unwrap_or_default();
    addresses.iter().any(|address| address["local"] == "10.20.1.1" && address["prefixlen"] == 24)
}

/// All of our table but for its handles, which are others each time.
fn whole() -> Value {
    let mut rules: Value = serde_json::from_str(&rules()).unwrap();
    for object in rules["nftables"].as_array_mut().unwrap() {
        for object in object.as_object_mut().unwrap().values_mut().filter_map(Value::as_object_mut) {
            object.remove("handle");
            if let Some(Value::Array(elements)) = object.get_mut("elem") {
                elements.sort_by_key(Value::to_string);
            }
        }
    }
    rules
}

#[tokio::test]
async fn what_is_done_to_the_way_out_is_undone_within_a_second() {
    let (mut node, _outside) = node_with_uplink();
    node.want(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);
    assert!(guest.reaches(BEYOND));
    let (is, mac) = (whole(), link("br-1").unwrap()["address"].clone());
    let handle = |chain: &str| {
        let rules: Value = serde_json::from_str(&sh("nft -j list table ip otherix")).unwrap();
        let objects = rules["nftables"].as_array().unwrap().clone();
        let rule = objects.iter().find(|object| object["rule"]["chain"] == chain).unwrap();
        rule["rule"]["handle"].clone()
    };
    for harm in [
        "nft flush ruleset".to_owned(),
        "nft delete table ip otherix".to_owned(),
        "nft flush table ip otherix".to_owned(),
        format!("nft delete rule ip otherix forward handle {}", handle("forward")),
        "nft insert rule ip otherix forward counter accept".to_owned(),
        "nft delete element ip otherix bridges { br-1 }".to_owned(),
        "nft add element ip otherix bridges { eth9 }".to_owned(),
        "nft add table ip otherix '{ flags dormant; }'".to_owned(),
        "nft add chain ip otherix mine".to_owned(),
        "ip address del 10.20.1.1/24 dev br-1".to_owned(),
        "echo 0 > /proc/sys/net/ipv4/conf/br-1/forwarding".to_owned(),
        "echo 0 > /proc/sys/net/ipv4/conf/uplink/forwarding".to_owned(),
        "ip link set br-1 address 02:00:00:00:00:99".to_owned(),
        "ip link del br-1; ip link set g1-5 down".to_owned(),
    ] {
        sh(&harm);
        node.work_until(REPAIR, || {
            link("br-1").is_some_and(|bridge| bridge["address"] == mac)
                && sh("nft list tables").contains("otherix")
                && whole() == is
                && has_gateway()
                && forwards("br-1")
                && forwards("uplink")
        })
        .await;
        assert_eq!(node.outcome(1).await, Outcome::Ready, "{harm}");
        if harm.contains("link del") {
            sh("ip link set g1-5 master br-1\nip link set g1-5 up");
        }
        assert!(guest.reaches(BEYOND), "{harm}");
        node.restart();
        node.settle().await;
    }
}

#[tokio::test]
async fn a_connection_goes_on_through_a_hundred_rewrites_and_others_tables_stay_as_they_are() {
    let (mut node, outside) = node_with_uplink();
    sh(&format!("nft '{FOREIGN}'"));
    let foreign = || sh("nft -j list table ip theirs; nft -j list table inet filter");
    let before = foreign();
    node.want(1, nat(1));
    node.settle().await;
    let guest = guest(1, 5);
    let mut server = outside.command("python3").args(["-c", ECHO]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "listening");
    let mut client = guest.command("python3");
    let client = client.args(["-c", &format!("ADDRESS = '{BEYOND}'\n{CLIENT}")]);
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut ask, mut answer) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let mut goes_on = || {
        ask.write_all(b"x").unwrap();
        let mut echo = [0];
        answer.read_exact(&mut echo).unwrap();
        echo == *b"x"
    };
    assert!(goes_on());
    for round in 0..100 {
        let number = 2 + round;
        node.want(number, nat(number));
        assert_eq!(node.outcome(number).await, Outcome::Ready);
        assert!(rules().contains(&format!("br-{number}")));
        assert!(goes_on(), "{round}");
        node.want(number, Want::Nothing);
        assert_eq!(node.outcome(number).await, Outcome::Removed);
        assert!(goes_on(), "{round}");
    }
    client.kill().unwrap();
    server.kill().unwrap();
    client.wait().unwrap();
    server.wait().unwrap();
    assert_eq!(foreign(), before);
}

const ECHO: &str = "
import socket
server = socket.create_server(('', 7))
print('listening', flush=True)
peer, address = server.accept()
while data := peer.recv(1):
    peer.sendall(data)
";

const CLIENT: &str = "
import os, socket
peer = socket.create_connection((ADDRESS, 7), timeout=10)
while data := os.read(0, 1):
    peer.sendall(data)
    os.write(1, peer.recv(1))
";

#[tokio::test]
async fn what_is_in_the_way_is_said_and_waited_for() {
    let (mut node, _outside) = node_with_uplink();
    sh("ip route del default");
    node.want(1, nat(1));
    let pending = |outcome: &Outcome, word: &str| matches!(outcome, Outcome::Pending(text) if text.contains(word));
    assert!(pending(&node.outcome(1).await, "default route"));
    sh("ip route add default via 192.0.2.9");
    node.becomes(REPAIR, 1, Outcome::Ready).await;
    assert!(forwards("br-1") && forwards("uplink"));
    assert!(!forwards("lo"), "only where it must be");
    sh("ip route del default");
    node.work_until(REPAIR, || true).await;
    assert!(pending(&node.outcome(1).await, "default route"));
    sh("ip route add default via 192.0.2.9");
    node.becomes(REPAIR, 1, Outcome::Ready).await;

    sh("ip address add 10.20.2.77/16 dev uplink");
    node.want(2, nat(2));
    node.fails(2, &["`uplink`", "10.20.2.77/16", "overlaps"]).await;
    assert!(link("br-2").is_none());
    sh("ip address del 10.20.2.77/16 dev uplink");
    node.becomes(REPAIR, 2, Outcome::Ready).await;

    sh("nft 'add table inet firewall; add chain inet firewall forward \
         { type filter hook forward priority 0; policy drop; }'");
    let warnings = |node: &mut Node| {
        let round = node.last.take().unwrap();
        let outcomes = round.outcomes.into_iter();
        outcomes.map(|outcome| outcome.warnings.concat()).collect::<Vec<_>>()
    };
    node.work_until(REPAIR, || true).await;
    node.settle().await;
    let said = warnings(&mut node);
    assert!(said.iter().all(|warning| warning.contains("`inet firewall forward`")), "{said:?}");
    sh("nft delete table inet firewall");
    node.work_until(REPAIR, || true).await;
    node.settle().await;
    assert_eq!(warnings(&mut node), ["", ""]);
}
