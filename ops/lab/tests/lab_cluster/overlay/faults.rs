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
const BACK: Duration = Duration::from_secs(1);

/// Longest interruption after the process was killed, far below the shortest time-out of WireGuard, 5 s.
const NO_HANDSHAKE_MISSED_MS: u64 = 2_000;

/// One second, with a margin for a busy machine.
const MENDED: Duration = Duration::from_secs(5);

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
    ("peer led astray", "wg set otwg0 peer PEER allowed-ips 10.42.99.99/32"),
    ("peer of nobody", "wg set otwg0 peer $(wg genkey | wg pubkey) allowed-ips 10.42.99.99/32"),
];

#[test]
fn lab_cluster_overlay_survives_mesh_faults() {
    let mut ring = Ring::up("mesh");
    (1..=NODES).for_each(|node| process_killed(&mut ring, node));
    DRIFTS.iter().for_each(|drift| mended(&mut ring, 1, *drift));
    key_rotated(&mut ring, 3);
    ring.all_ready();
    ring.none_lost("at the end", 1);
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
    let began = Instant::now();
    wait_for_blocking(BACK, "the mesh's process to be back", || {
        mesh_process(&ring.lab, node).is_some_and(|now| now != before)
    });
    println!("mesh of node-{node} killed: another process after {} ms", began.elapsed().as_millis());
    for pinger in ring.pingers.values_mut() {
        let felt = pinger.recovers(&format!("mesh of node-{node} killed"));
        assert!(felt.gap_ms < NO_HANDSHAKE_MISSED_MS, "mesh of node-{node} killed: {felt:?}");
    }
}

fn mended(ring: &mut Ring, node: u32, (kind, done): (&str, &str)) {
    let before = ring.shape(node);
    let places = ring.lab.places(NODES);
    let (own, other) = (&places[&node], &places[&next(node)]);
    let done = done.replace("PEER", &other.key).replace("ADDRESS", &other.address).replace("OWN", &own.address);
    ring.lab.sh(&format!("node-{node}"), &done);
    let began = Instant::now();
    wait_for_blocking(MENDED, &format!("{kind}: the mesh's device as it was"), || {
        let now = ring.shape(node);
        if now == before { Ok(()) } else { Err(now) }
    });
    println!("mesh's device, {kind}: mended within {} ms", began.elapsed().as_millis());
    for pinger in ring.pingers.values_mut() {
        pinger.recovers(kind);
    }
    wait_for_blocking(MENDED, "the network to be ready", || ring.lab.is_ready("ov", NODES));
}

fn key_rotated(ring: &mut Ring, node: u32) {
    let state = PathBuf::from("/var/lib/otherix-lab").join(&ring.lab.name).join(format!("node-{node}"));
    let agent = Path::new(env!("CARGO_BIN_EXE_otherix-lab")).with_file_name("otherix-agent");
    let before = ring.lab.places(NODES)[&node].clone();
    ring.none_lost("before its key is rotated", 1);
    let rotated = Command::new(agent).arg("rotate-key").arg("--state").arg(&state).output().unwrap();
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    for pinger in ring.pingers.values_mut() {
        let felt = pinger.recovers("key rotated");
        assert!(felt.gap_ms <= ROTATION_MS, "key rotated: {felt:?}");
    }
    let now = ring.lab.places(NODES)[&node].clone();
    assert_ne!(now.key, before.key);
    assert_eq!((&now.address, &now.endpoint), (&before.address, &before.endpoint));
    let said = String::from_utf8(rotated.stdout).unwrap();
    assert!(said.contains(&now.key) && said.contains(&before.key), "{said}");
    for other in (1..=NODES).filter(|other| *other != node) {
        let known = || {
            let peers = ring.lab.wg_peers(other);
            if peers.contains_key(&now.key) && !peers.contains_key(&before.key) { Ok(()) } else { Err(peers) }
        };
        wait_for_blocking(MENDED, &format!("node-{other} to know the new key alone"), known);
    }
    let mode = |file: &str| fs::metadata(state.join(file)).map(|file| file.permissions().mode() & 0o777).ok();
    assert_eq!((mode("mesh.key"), mode("mesh.key.next")), (Some(0o600), None));
}
