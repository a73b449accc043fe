//! Networks with NAT egress: which packets pass and which do not, and repair of drift.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use otherix_agent::engine::Pass;
use otherix_agent::model::desired::{DesiredBridge, Want};
use otherix_agent::model::ip::Gateway;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use otherix_testkit::wait::wait_for_blocking;
use serde_json::Value;

use crate::host::Host;
use crate::node::{Node, REPAIR};

/// The address of the host outside on the uplink.
pub(crate) const OUTSIDE_HOST: &str = "192.0.2.9";
/// Another address of that host, which is reached through a route.
pub(crate) const REMOTE: &str = "203.0.113.1";

const DEADLINE: Duration = Duration::from_secs(10);

/// Enabled by default in kernels that support it; causes a warning.
const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Foreign tables, which must not be changed.
const FOREIGN: &str = "
table ip theirs {
    set hosts { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 } }
    chain out { type nat hook postrouting priority 90; policy accept; ip saddr @hosts counter masquerade; }
}
table inet filter {
    chain forward { type filter hook forward priority 10; policy accept; ct state invalid drop; }
}
";

/// Returns a managed bridge with NAT egress.
pub(crate) fn nat(number: u16) -> Want {
    let gateway = Gateway {
        address: format!("10.20.{number}.1").parse().unwrap(),
        subnet: format!("10.20.{number}.0/24").parse().unwrap(),
    };
    let mac = Some(format!("02:00:00:00:00:{number:02x}").parse().unwrap());
    Want::Bridge(DesiredBridge {
        name: format!("br-{number}"),
        mtu: 1500,
        mac,
        vlan: None,
        nat: Some(gateway),
        allow_spoofing: false,
        dns: false,
    })
}

/// Returns a node with an uplink, and the host outside.
pub(crate) fn node_with_uplink() -> (Node, Host) {
    enter_new();
    node_with_uplink_here()
}

/// As `node_with_uplink`, in the test's namespace.
pub(crate) fn node_with_uplink_here() -> (Node, Host) {
    let outside = Host::new("uplink");
    sh("ip address add 192.0.2.7/24 dev uplink\nip route add default via 192.0.2.9");
    outside.sh(&format!("ip address add {OUTSIDE_HOST}/24 dev eth0; ip address add {REMOTE}/32 dev lo"));
    if std::path::Path::new(BRIDGE_CALLS).exists() {
        sh(&format!("echo 0 > {BRIDGE_CALLS}"));
    }
    (Node::new(), outside)
}

/// Creates a guest on a network, with a foreign port.
pub(crate) fn guest(network: u16, number: u16) -> Host {
    let port = format!("g{network}-{number}");
    let guest = Host::new(&port);
    sh(&format!("ip link set {port} master br-{network}"));
    guest.sh(&format!(
        "ip address add 10.20.{network}.{number}/24 dev eth0; ip route add default via 10.20.{network}.1"
    ));
    guest
}

/// Whether our table with the rules of networks exists.
pub(crate) fn has_table() -> bool {
    sh("nft list tables").lines().any(|line| line == "table ip otherix")
}

/// Returns our table as JSON.
fn rules() -> String {
    sh("nft -j list table ip otherix")
}

#[tokio::test]
async fn guests_reach_the_outside_with_the_nodes_address_and_no_other_network() {
    let (mut node, outside) = node_with_uplink();
    sh(&format!("nft '{FOREIGN}'"));
    let foreign = sh("nft -s list ruleset");
    node.set_desired(1, nat(1));
    node.set_desired(2, nat(2));
    node.settle().await;
    assert_eq!((node.outcome(1).await, node.outcome(2).await), (Outcome::Ready, Outcome::Ready));
    let rules = rules();
    assert!(rules.contains(r#""elem": ["br-1", "br-2"]"#) || rules.contains(r#""elem": ["br-2", "br-1"]"#), "{rules}");
    let (one, neighbour, two) = (guest(1, 5), guest(1, 6), guest(2, 5));

    assert!(one.reaches(OUTSIDE_HOST) && one.reaches(REMOTE) && two.reaches(REMOTE));
    let mut server = outside.command("python3");
    let mut server = server.args(["-c", SERVER]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap()).lines();
    assert_eq!(output.next().unwrap().unwrap(), "listening");
    let source = one
        .sh(&format!("exec 3<>/dev/tcp/{REMOTE}/7; cat <&3").replace("exec", "bash -c 'exec").replace("<&3", "<&3'"));
    assert_eq!(source.trim(), "192.0.2.7", "the outside sees the node's address");
    server.kill().unwrap();
    server.wait().unwrap();

    assert!(one.reaches("10.20.1.6") && neighbour.reaches("10.20.1.5"), "the same network");
    assert!(one.reaches("10.20.1.1"), "its own gateway");
    assert!(one.cannot_reach("10.20.2.5"), "a guest of another network");
    assert!(one.cannot_reach("10.20.2.1"), "another network's gateway");
    outside.sh("ip route add 10.20.0.0/16 via 192.0.2.7");
    assert!(outside.cannot_reach("10.20.1.5"), "from the outside to a guest");
    assert!(outside.reaches("192.0.2.7"));
    // With an address of another network, so that a reply would be forwarded to that network.
    one.sh("ip address add 10.20.2.99/32 dev eth0");
    let spoofed =
        one.command("ping").args(["-q", "-c", "3", "-i", "0.1", "-W", "0.3", "-I", "10.20.2.99", REMOTE]).output();
    assert!(!spoofed.unwrap().status.success(), "with an address of another network");

    node.set_desired(1, Want::Nothing);
    sh("ip link del g1-5\nip link del g1-6");
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert!(two.reaches(REMOTE));
    node.set_desired(2, Want::Nothing);
    sh("ip link del g2-5");
    assert_eq!(node.outcome(2).await, Outcome::Removed);
    assert_eq!(sh("nft -s list ruleset"), foreign, "our table is removed, and foreign tables are not changed");
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

/// Whether the device forwards IPv4.
pub(crate) fn forwards(device: &str) -> bool {
    sh(&format!("cat /proc/sys/net/ipv4/conf/{device}/forwarding")).trim() == "1"
}

/// Whether `br-1` has its gateway address.
pub(crate) fn has_gateway() -> bool {
    let addresses = ip_json(&["-4", "address", "show", "dev", "br-1"]);
    let addresses = addresses[0]["addr_info"].as_array().cloned().unwrap_or_default();
    addresses.iter().any(|address| address["local"] == "10.20.1.1" && address["prefixlen"] == 24)
}

/// Returns our table without handles, which change with each write.
fn table() -> Value {
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
async fn drift_is_repaired_within_a_second() {
    let (mut node, _outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);
    assert!(guest.reaches(REMOTE));
    let routes = || {
        let routes = sh("ip route show dev br-1; ip route show table local dev br-1 type local");
        // Until its port forwards, the bridge has no carrier.
        routes.replace("linkdown ", "")
    };
    let expected_routes = routes();
    assert!(expected_routes.contains("10.20.1.0/24 proto kernel"), "{expected_routes}");
    let (expected, mac) = (table(), link("br-1").unwrap()["address"].clone());
    let handle = |chain: &str| {
        let rules: Value = serde_json::from_str(&sh("nft -j list table ip otherix")).unwrap();
        let objects = rules["nftables"].as_array().unwrap().clone();
        let rule = objects.iter().find(|object| object["rule"]["chain"] == chain).unwrap();
        rule["rule"]["handle"].clone()
    };
    for change in [
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
        "ip route flush dev br-1".to_owned(),
        "ip route flush table local dev br-1".to_owned(),
        "ip route del 10.20.1.0/24".to_owned(),
        "ip link set br-1 down; ip link set br-1 up".to_owned(),
        "echo 0 > /proc/sys/net/ipv4/conf/br-1/forwarding".to_owned(),
        "echo 0 > /proc/sys/net/ipv4/conf/uplink/forwarding".to_owned(),
        "ip link set br-1 address 02:00:00:00:00:99".to_owned(),
        "ip link del br-1; ip link set g1-5 down".to_owned(),
    ] {
        sh(&change);
        node.run_until(REPAIR, || {
            link("br-1").is_some_and(|bridge| bridge["address"] == mac)
                && has_table()
                && table() == expected
                && has_gateway()
                && routes() == expected_routes
                && forwards("br-1")
                && forwards("uplink")
        })
        .await;
        assert_eq!(node.outcome(1).await, Outcome::Ready, "{change}");
        if change.contains("link del") {
            sh("ip link set g1-5 master br-1\nip link set g1-5 up");
        }
        // The kernel may delay the news of a carrier.
        wait_for_blocking(DEADLINE, "a reply to the guest", || guest.reaches(REMOTE));
        node.restart();
        node.settle().await;
    }
}

#[tokio::test]
async fn a_connection_survives_a_hundred_replacements_of_our_table_and_foreign_tables_are_not_changed() {
    let (mut node, outside) = node_with_uplink();
    sh(&format!("nft '{FOREIGN}'"));
    let foreign = || sh("nft -j list table ip theirs; nft -j list table inet filter");
    let before = foreign();
    node.set_desired(1, nat(1));
    node.settle().await;
    let guest = guest(1, 5);
    let mut server = outside.command("python3").args(["-c", ECHO]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap()).lines();
    assert_eq!(output.next().unwrap().unwrap(), "listening");
    let mut client = guest.command("python3");
    let client = client.args(["-c", &format!("ADDRESS = '{REMOTE}'\n{CLIENT}")]);
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut reply) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let mut is_alive = || {
        input.write_all(b"x").unwrap();
        let mut echo = [0];
        reply.read_exact(&mut echo).unwrap();
        echo == *b"x"
    };
    assert!(is_alive());
    for round in 0..100 {
        let number = 2 + round;
        node.set_desired(number, nat(number));
        assert_eq!(node.outcome(number).await, Outcome::Ready);
        assert!(rules().contains(&format!("br-{number}")));
        assert!(is_alive(), "{round}");
        node.set_desired(number, Want::Nothing);
        assert_eq!(node.outcome(number).await, Outcome::Removed);
        assert!(is_alive(), "{round}");
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
async fn obstacles_are_reported_until_they_are_removed() {
    let (mut node, _outside) = node_with_uplink();
    sh("ip route del default");
    node.set_desired(1, nat(1));
    let is_pending =
        |outcome: &Outcome, text: &str| matches!(outcome, Outcome::Pending(reason) if reason.contains(text));
    assert!(is_pending(&node.outcome(1).await, "default route"));
    sh("ip route add default via 192.0.2.9");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    assert!(forwards("br-1") && forwards("uplink"));
    assert!(!forwards("lo"), "enabled only where it is required");
    sh("ip route del default");
    node.run_until(REPAIR, || true).await;
    assert!(is_pending(&node.outcome(1).await, "default route"));
    sh("ip route add default via 192.0.2.9");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;

    sh("ip address add 10.20.2.77/16 dev uplink");
    node.set_desired(2, nat(2));
    node.expect_failure(2, &["`uplink`", "10.20.2.77/16", "overlaps"]).await;
    assert!(link("br-2").is_none());
    sh("ip address del 10.20.2.77/16 dev uplink");
    node.expect_outcome(REPAIR, 2, Outcome::Ready).await;

    sh("nft 'add table inet firewall; add chain inet firewall forward \
         { type filter hook forward priority 0; policy drop; }'");
    let is_dropped = |pass: &Pass| {
        pass.outcomes.iter().all(|outcome| is_pending(&outcome.outcome, "`inet firewall forward` drops packets"))
    };
    node.run_until_pass(REPAIR, is_dropped).await;
    sh("nft delete table inet firewall");
    node.run_until_pass(REPAIR, |pass| pass.outcomes.iter().all(|outcome| outcome.outcome == Outcome::Ready)).await;
}
