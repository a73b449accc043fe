//! Faults of the mesh's device, its process and its key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use otherix_testkit::wait::wait_for_blocking;

use super::restarts::{NODES, Ring, next};
use crate::lab::Lab;

/// Time-out for the mesh's process to be restarted.
const RESTART_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest interruption after the process was killed, far below the shortest time-out of WireGuard, 5 s.
const NO_HANDSHAKE_MISSED_MS: u64 = 2_000;

/// Time-out for a repair: one second, with a margin for a busy machine.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest interruption by a key rotation.
const ROTATION_MS: u64 = 1_000;

/// Kinds of drift, each with its command. PEER stands for another node's key, ADDRESS for its address
/// and OWN for the node's own.
const DRIFTS: [(&str, &str); 10] = [
    ("deleted", "ip link delete otwg0"),
    ("down", "ip link set otwg0 down"),
    // In one step: a device only set down would be repaired before the rename.
    ("renamed", r#"until printf "link set otwg0 down\nlink set otwg0 name mine\n" | ip -batch -; do true; done"#),
    ("alias", "ip link set otwg0 alias mine"),
    ("address", "ip address add 10.42.99.99/32 dev otwg0 && ip address delete OWN/32 dev otwg0"),
    ("MTU", "ip link set otwg0 mtu 1300"),
    ("route", "ip route delete ADDRESS dev otwg0"),
    ("peer removed", "wg set otwg0 peer PEER remove"),
    ("peer's allowed IPs", "wg set otwg0 peer PEER allowed-ips 10.42.99.99/32"),
    ("unknown peer", "wg set otwg0 peer $(wg genkey | wg pubkey) allowed-ips 10.42.99.99/32"),
];

#[test]
fn lab_cluster_overlay_survives_mesh_faults() {
    let mut ring = Ring::up("mesh");
    (1..=NODES).for_each(|node| process_killed(&mut ring, node));
    DRIFTS.iter().for_each(|drift| device_repaired(&mut ring, 1, *drift));
    key_rotated(&mut ring, 3);
    ring.all_ready();
    ring.assert_none_lost("at the end", 1);
}

/// The id of the mesh's process on a node.
fn mesh_process(lab: &Lab, node: u32) -> Option<String> {
    let namespace = lab.namespace(&format!("node-{node}"));
    let output = Command::new("ip").args(["netns", "pids", &namespace]).output().unwrap();
    let pids = String::from_utf8(output.stdout).unwrap();
    let is_mesh = |pid: &&str| {
        let line = fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == b"otherix:mesh")
    };
    pids.lines().find(is_mesh).map(str::to_owned)
}

fn process_killed(ring: &mut Ring, node: u32) {
    let before = mesh_process(&ring.lab, node).unwrap();
    assert!(Command::new("kill").args(["-9", &before]).status().unwrap().success());
    let start = Instant::now();
    wait_for_blocking(RESTART_TIMEOUT, "the mesh's process to be restarted", || {
        mesh_process(&ring.lab, node).is_some_and(|now| now != before)
    });
    println!("mesh of node-{node} killed: restarted after {} ms", start.elapsed().as_millis());
    for pinger in ring.pingers.values_mut() {
        let pings = pinger.wait_for_recovery(&format!("mesh of node-{node} killed"));
        assert!(pings.gap_ms < NO_HANDSHAKE_MISSED_MS, "mesh of node-{node} killed: {pings:?}");
    }
}

fn device_repaired(ring: &mut Ring, node: u32, (kind, command): (&str, &str)) {
    let before = ring.overlay_state(node);
    let memberships = ring.lab.mesh_memberships(NODES);
    let (own, other) = (&memberships[&node], &memberships[&next(node)]);
    let command = command.replace("PEER", &other.key).replace("ADDRESS", &other.address).replace("OWN", &own.address);
    ring.lab.sh(&format!("node-{node}"), &command);
    let start = Instant::now();
    wait_for_blocking(REPAIR_TIMEOUT, &format!("{kind}: the mesh's device to be restored"), || {
        let current = ring.overlay_state(node);
        if current == before { Ok(()) } else { Err(current) }
    });
    println!("mesh's device, {kind}: repaired within {} ms", start.elapsed().as_millis());
    for pinger in ring.pingers.values_mut() {
        pinger.wait_for_recovery(kind);
    }
    wait_for_blocking(REPAIR_TIMEOUT, "the network to be ready", || ring.lab.is_ready("ov", NODES));
}

fn key_rotated(ring: &mut Ring, node: u32) {
    let state = PathBuf::from("/var/lib/otherix-lab").join(&ring.lab.name).join(format!("node-{node}"));
    let agent = Path::new(env!("CARGO_BIN_EXE_otherix-lab")).with_file_name("otherix-agent");
    let before = ring.lab.mesh_memberships(NODES)[&node].clone();
    ring.assert_none_lost("before its key is rotated", 1);
    let rotated = Command::new(agent).arg("rotate-key").arg("--state").arg(&state).output().unwrap();
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    for pinger in ring.pingers.values_mut() {
        let pings = pinger.wait_for_recovery("key rotated");
        assert!(pings.gap_ms <= ROTATION_MS, "key rotated: {pings:?}");
    }
    let current = ring.lab.mesh_memberships(NODES)[&node].clone();
    assert_ne!(current.key, before.key);
    assert_eq!((&current.address, &current.endpoint), (&before.address, &before.endpoint));
    let output_text = String::from_utf8(rotated.stdout).unwrap();
    assert!(output_text.contains(&current.key) && output_text.contains(&before.key), "{output_text}");
    for other in (1..=NODES).filter(|other| *other != node) {
        let is_known = || {
            let peers = ring.lab.wg_peers(other);
            if peers.contains_key(&current.key) && !peers.contains_key(&before.key) { Ok(()) } else { Err(peers) }
        };
        wait_for_blocking(REPAIR_TIMEOUT, &format!("node-{other} to know the new key only"), is_known);
    }
    let mode = |file: &str| fs::metadata(state.join(file)).map(|file| file.permissions().mode() & 0o777).ok();
    assert_eq!((mode("mesh.key"), mode("mesh.key.next")), (Some(0o600), None));
}
