//! The task that manages the mesh device creates it, keeps it as required and removes it: served by a process here, and
//! in the guest by the kernel too.

mod node;
mod proof;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use otherix_agent::model::mesh_device::MeshFaults;
use otherix_agent::wireguard::{Backend, rotation};
use otherix_testkit::wait::wait_for_blocking;
use otherix_vmtest::TestGuest;
use rustix::process::{Signal, kill_process};

use self::node::{BINARY, DEADLINE, MeshNode, join, nodes};

/// The summary of the device of the first of two nodes.
const READY: &str = r#"up 1440 otherix:mesh ["10.42.0.1/32"] ["10.42.0.2"]"#;

fn in_guest(body: impl FnOnce()) {
    TestGuest::default().with_program(BINARY).with_deadline(Duration::from_secs(170)).run(body);
}

#[track_caller]
fn wait_until_ready(node: &MeshNode) {
    wait_for_blocking(DEADLINE, "the device to be ready", || {
        let summary = node.summary();
        if summary == READY { Ok(()) } else { Err(format!("{summary}, {:?}", node.faults())) }
    });
}

/// Returns two nodes that reach each other.
fn pair(backends: [Backend; 2], kinds: [&str; 2]) -> [MeshNode; 2] {
    let pair = nodes(backends);
    join(&pair);
    wait_until_ready(&pair[0]);
    pair[0].reaches(&pair[1]);
    pair[1].reaches(&pair[0]);
    assert_eq!([pair[0].kind(), pair[1].kind()], kinds);
    pair
}

/// Changes the first node's device in many ways, each of which must be repaired.
fn drift_is_repaired([node, other]: &[MeshNode; 2]) {
    let peer = || {
        let peer = node.status().peers.remove(0);
        (peer.public_key, peer.allowed_ips, peer.keepalive)
    };
    let before = peer();
    for change in [
        "ip link set otwg0 down",
        "ip link del otwg0",
        "ip addr flush dev otwg0",
        "ip addr add 10.42.0.9/16 dev otwg0",
        "ip link set otwg0 mtu 1300",
        "ip link set otwg0 alias mine",
        "ip route del 10.42.0.2 dev otwg0",
        // Before Linux 6.2 it must be down to be renamed, and the agent sets it up again immediately.
        r#"until printf "link set otwg0 down\nlink set otwg0 name lost0\n" | ip -batch -; do true; done"#,
    ] {
        let start = Instant::now();
        node.sh(change);
        wait_until_ready(node);
        node.reaches(other);
        other.reaches(node);
        eprintln!("{change}: repaired within {} ms", start.elapsed().as_millis());
        assert_eq!((peer(), node.faults()), (before.clone(), MeshFaults::default()), "{change}");
        assert_eq!(node.sh("ip -br link | grep -c -e otwg -e lost").trim(), "1");
    }
}

/// Waits until `ping` ends, and returns how many packets were lost.
fn lost_packets(ping: Child) -> u32 {
    let text = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    let line = text.lines().find(|line| line.contains("packets transmitted")).unwrap();
    let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers[0] - numbers[1]
}

/// Rotates the key of the first node: both nodes use the new one, with a short interruption.
fn key_is_rotated(pair: &[MeshNode; 2]) {
    let [node, other] = pair;
    let (before, ping) = (node.offered(), node.ping(other, 400));
    let state = node.state.path().to_owned();
    let rotation = std::thread::spawn(move || rotation::rotate(&state, DEADLINE).unwrap());
    wait_for_blocking(DEADLINE, "a new offer", || node.offered() != before);
    join(pair);
    let rotation = rotation.join().unwrap();
    assert_eq!(rotation.previous.as_bytes(), &before.bytes());
    assert_eq!(rotation.current.as_bytes(), &node.offered().bytes());
    let lost = lost_packets(ping);
    eprintln!("lost during the rotation: {lost} of 400 pings, one every 10 ms");
    assert!(lost <= 100, "{lost}");
    assert_eq!(node.status().private_key.unwrap().public(), rotation.current);
    assert_eq!(other.status().peers[0].public_key, rotation.current);
    node.reaches(other);
}

#[test]
fn drift_of_the_userspace_device_is_repaired_and_its_key_rotated() {
    let pair = pair([Backend::Userspace; 2], ["tun"; 2]);
    drift_is_repaired(&pair);
    key_is_rotated(&pair);
}

#[test]
fn a_killed_process_is_started_again_with_its_peers() {
    let pair = pair([Backend::Userspace; 2], ["tun"; 2]);
    let [node, other] = &pair;
    let first = node.process().unwrap();
    kill_process(first, Signal::KILL).unwrap();
    wait_for_blocking(DEADLINE, "another process", || node.process().is_some_and(|process| process != first));
    other.reaches(node);
    node.reaches(other);
    assert_eq!((node.summary().as_str(), node.faults()), (READY, MeshFaults::default()));
}

#[test]
fn peers_are_removed_once_the_view_is_current_and_the_device_when_the_node_leaves() {
    let nodes = nodes([Backend::Userspace; 3]);
    join(&nodes);
    nodes[0].reaches(&nodes[2]);
    let peers = || nodes[0].status().peers.len();
    nodes[0].set_desired(Some(nodes[0].desired(nodes[..2].iter())), false, false);
    nodes[0].sh("ip link set otwg0 mtu 1300");
    wait_for_blocking(DEADLINE, "a pass", || nodes[0].summary().contains("1440"));
    assert_eq!(peers(), 2, "a peer may be of a node that is not known yet");
    nodes[0].reaches(&nodes[2]);
    nodes[0].set_desired(Some(nodes[0].desired(nodes[..2].iter())), false, true);
    wait_until_ready(&nodes[0]);
    wait_for_blocking(DEADLINE, "the third peer to be removed", || peers() == 1);
    nodes[0].reaches(&nodes[1]);

    nodes[0].set_desired(None, false, true);
    nodes[0].sh("ip link set otwg0 down");
    nodes[0].set_desired(None, true, true);
    wait_for_blocking(DEADLINE, "the device to be removed", || nodes[0].summary() == "");
    wait_for_blocking(DEADLINE, "its process to end", || nodes[0].process().is_none());
}

#[test]
fn a_foreign_route_to_a_node_is_not_changed_and_affects_no_other_node() {
    let nodes = nodes([Backend::Userspace; 3]);
    join(&nodes);
    nodes[0].reaches(&nodes[1]);
    nodes[0].reaches(&nodes[2]);
    nodes[0].sh("ip route replace 10.42.0.2 dev u0");
    let error = "there is a route to it that otherix did not add: remove it".to_owned();
    let faults = MeshFaults { device: None, nodes: [("10.42.0.2".parse().unwrap(), error)].into() };
    wait_for_blocking(DEADLINE, "the fault", || nodes[0].faults() == faults);
    nodes[0].reaches(&nodes[2]);
    assert_eq!(nodes[0].sh("ip route show 10.42.0.2").trim(), "10.42.0.2 dev u0 scope link");
    // A node that joins meanwhile is reached.
    nodes[0].set_desired(Some(nodes[0].desired(nodes[..2].iter())), false, true);
    wait_for_blocking(DEADLINE, "the third route to be removed", || !nodes[0].summary().contains("10.42.0.3"));
    nodes[0].set_desired(Some(nodes[0].desired(nodes.iter())), false, true);
    nodes[0].reaches(&nodes[2]);
    nodes[0].sh("ip route del 10.42.0.2 dev u0");
    nodes[0].reaches(&nodes[1]);
    wait_for_blocking(DEADLINE, "the end of the fault", || nodes[0].faults() == MeshFaults::default());
}

#[test]
fn a_mesh_address_that_is_in_use_on_the_node_is_not_taken() {
    let nodes = nodes([Backend::Userspace; 2]);
    for (add, remove, fault) in [
        ("ip link add cni0 type bridge; ip addr add 10.42.0.1/24 dev cni0", "ip link del cni0", "10.42.0.1/24"),
        ("ip addr add 10.42.1.9/23 dev u0", "ip addr del 10.42.1.9/23 dev u0", "10.42.1.9/23"),
        ("ip route add 10.42.0.0/16 via 192.0.2.2", "ip route del 10.42.0.0/16", "10.42.0.0/16 through `u0`"),
    ] {
        nodes[0].sh(add);
        join(&nodes);
        wait_for_blocking(DEADLINE, "the fault", || {
            let device = nodes[0].faults().device.unwrap_or_default();
            if device.contains(fault) && device.contains("10.42.0.1") { Ok(()) } else { Err(device) }
        });
        assert_eq!(nodes[0].summary(), "up 1440 otherix:mesh [] []");
        nodes[0].sh(remove);
        wait_until_ready(&nodes[0]);
        nodes[0].reaches(&nodes[1]);
        wait_for_blocking(DEADLINE, "the end of the fault", || nodes[0].faults() == MeshFaults::default());
        nodes[0].set_desired(None, true, true);
        wait_for_blocking(DEADLINE, "the device to be removed", || nodes[0].summary() == "");
    }
}

#[test]
fn a_process_that_no_agent_started_is_not_terminated() {
    let [node] = nodes([Backend::Userspace]);
    // It serves the node's socket folder from another namespace, so that the node has no device.
    let mut command = Command::new(BINARY);
    command.args(["mesh", "--port", "0", "--socket-dir"]).arg(node.state.path().join("sockets"));
    let mut process = command.spawn().unwrap();
    wait_for_blocking(DEADLINE, "the process", || node.process().is_some());
    node.set_desired(None, true, true);
    // Make a pass fail and the next succeed, to know that there was one.
    node.sh("ip link add otwg0 type bridge");
    wait_for_blocking(DEADLINE, "the fault", || node.faults().device.is_some());
    node.sh("ip link del otwg0");
    wait_for_blocking(DEADLINE, "the end of the fault", || node.faults() == MeshFaults::default());
    assert_eq!(process.try_wait().unwrap(), None);
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn a_foreign_device_is_not_changed() {
    let [node] = nodes([Backend::Userspace]);
    for foreign in ["link add otwg0 type bridge", "tuntap add otwg0 mode tun"] {
        node.sh(&format!("ip {foreign}"));
        node.set_desired(Some(node.desired(std::iter::once(&node))), false, true);
        wait_for_blocking(DEADLINE, "the fault", || node.faults().device.is_some());
        assert_eq!(
            node.faults().device.unwrap(),
            "there is a device `otwg0` that otherix did not create: remove or rename it"
        );
        assert!(node.summary().starts_with("down 1500  []"), "{}", node.summary());
        assert!(node.process().is_none());
        node.sh("ip link del otwg0");
        wait_for_blocking(DEADLINE, "the device", || {
            node.summary().starts_with("up 1440 otherix:mesh [\"10.42.0.1/32\"]")
        });
        assert_eq!(node.faults(), MeshFaults::default());
        node.set_desired(None, true, true);
        wait_for_blocking(DEADLINE, "the device to be removed", || node.summary() == "");
    }
}

mod in_guest {
    use super::*;

    #[test]
    fn by_default_the_kernel_serves_the_device_and_its_drift_is_repaired() {
        super::in_guest(|| {
            let pair = pair([Backend::Auto, Backend::Userspace], ["wireguard", "tun"]);
            assert!(pair[0].process().is_none());
            drift_is_repaired(&pair);
        });
    }

    #[test]
    fn keys_of_both_kinds_of_devices_are_rotated() {
        super::in_guest(|| {
            let pair = pair([Backend::Kernel, Backend::Userspace], ["wireguard", "tun"]);
            key_is_rotated(&pair);
            let [first, second] = pair;
            key_is_rotated(&[second, first]);
        });
    }
}
