//! Streams through the mesh device.

use crate::node::{DEADLINE, PORT, TestNode, mesh, nodes, transfer, vxlan};
use otherix_mesh::config::WgPeerUpdate;
use otherix_testkit::wait::wait_for_blocking;

const BYTES: u32 = 24 << 20;

fn streams_arrive(offload: &str, expected: &str) {
    let nodes = mesh::<2>(&["--offload", offload]);
    let [one, other] = &nodes;
    assert!(one.log().contains(expected), "{}", one.log());
    one.reaches(&other.address());
    vxlan(one, other);
    transfer(one, other, &other.address(), BYTES);
    transfer(other, one, "fd42::1", BYTES);
    transfer(one, other, "10.99.0.2", BYTES);
    // The largest packet of an overlay passes, and one byte more is refused.
    one.sh("ping -n -q -c 1 -W 5 -M do -s 1362 10.99.0.2");
    one.sh("! ping -n -q -c 1 -W 1 -M do -s 1363 10.99.0.2");
    let dump = one.dump(other);
    assert!(dump[5].parse::<u64>().unwrap() > 24 << 20, "{dump:?}");
    assert!(dump[6].parse::<u64>().unwrap() > 48 << 20, "{dump:?}");
}

#[test]
fn streams_arrive_with_tunnel_offload() {
    // An older kernel falls back to the level of the next test.
    streams_arrive("tunnel", "offload");
}

#[test]
fn streams_arrive_with_udp_offload() {
    streams_arrive("udp", "offload Some(");
}

#[test]
fn streams_arrive_with_tcp_offload() {
    streams_arrive("tcp", "offload Some(Tcp)");
}

#[test]
fn streams_arrive_without_offload() {
    streams_arrive("none", "offload Some(None)");
}

#[test]
fn streams_arrive_over_an_underlay_without_gso() {
    let nodes = mesh::<2>(&[]);
    let [one, other] = &nodes;
    for node in [one, other] {
        node.sh("ethtool -K u0 tx-udp-segmentation off rx-gro-list off >/dev/null");
    }
    one.reaches(&other.address());
    transfer(one, other, &other.address(), BYTES);
    // With an MTU below the size of the messages, they are fragmented.
    for node in [one, other] {
        node.sh("ip link set u0 mtu 1280");
    }
    transfer(other, one, &one.address(), BYTES);
}

#[test]
fn streams_arrive_over_an_ipv6_underlay() {
    let nodes = mesh::<2>(&[]);
    let [one, other] = &nodes;
    for (node, peer) in [(one, other), (other, one)] {
        let endpoint = format!("[2001:db8::{}]:{PORT}", peer.number).parse().unwrap();
        node.change(WgPeerUpdate { endpoint: Some(endpoint), ..WgPeerUpdate::new(peer.key.public()) });
    }
    one.reaches(&other.address());
    transfer(one, other, &other.address(), BYTES);
    assert_eq!(other.dump(one)[2], "[2001:db8::1]:51820");
}

#[test]
fn streams_arrive_with_wireguard_go_as_peer() {
    let mut nodes = nodes::<2>();
    nodes[0].start(&[]);
    nodes[1].start_wireguard_go();
    for node in &nodes {
        node.join(&nodes);
        node.sh("ip link set otwg0 mtu 1440");
    }
    let [one, other]: &[TestNode; 2] = &nodes;
    one.reaches(&other.address());
    transfer(one, other, &other.address(), BYTES);
    transfer(other, one, &one.address(), BYTES);
    vxlan(one, other);
    transfer(one, other, "10.99.0.2", BYTES);
    transfer(other, one, "10.99.0.1", BYTES);
    let (ours, theirs) = (one.dump(other), other.dump(one));
    // Both count bytes of WireGuard messages.
    for (sent, received) in [(&ours[6], &theirs[5]), (&theirs[6], &ours[5])] {
        let (sent, received): (u64, u64) = (sent.parse().unwrap(), received.parse().unwrap());
        assert!(received > 48 << 20 && received <= sent, "{sent} {received}");
    }
    let difference = ours[4].parse::<i64>().unwrap() - theirs[4].parse::<i64>().unwrap();
    assert!(difference.abs() <= 2, "{ours:?} {theirs:?}");
}

#[test]
fn the_time_of_the_last_handshake_is_correct() {
    let before = std::time::SystemTime::now();
    let nodes = mesh::<2>(&[]);
    let [one, other] = &nodes;
    one.reaches(&other.address());
    for node in [one, other] {
        let time = wait_for_blocking(DEADLINE, "a handshake", || node.client().get().unwrap().peers[0].last_handshake);
        assert!(time > before && time <= std::time::SystemTime::now());
    }
    let age = one.sh("echo $(( $(date +%s) - $(wg show otwg0 latest-handshakes | cut -f 2) ))");
    assert!((0..=30).contains(&age.trim().parse::<i64>().unwrap()), "{age}");
}
