//! The mesh device with a thousand peers: the time to configure them, their memory, and processor time when idle.

use std::path::Path;
use std::time::{Duration, Instant};

use otherix_mesh::config::{WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::WgPrivateKey;
use otherix_mesh::prefix::Prefix;

use super::node::MeshNode;
use super::pair::start_ours;
use crate::BenchError;
use crate::processor::processor_time;
use crate::report::report_progress;

const PEERS: u16 = 1000;
/// How long the idle process is observed.
const IDLE: Duration = Duration::from_secs(10);

pub(super) fn measure(bin_dir: &Path) -> Result<Vec<String>, BenchError> {
    report_progress(&format!("bench: {PEERS} peers"));
    let (one, other) = (MeshNode::new()?, MeshNode::new()?);
    one.sh(&format!(
        "ip link add u0 type veth peer name u0 netns {} && ip addr add 192.0.2.1/24 dev u0 && ip link set u0 up",
        other.id()
    ))?;
    other.sh("ip addr add 192.0.2.2/24 dev u0; ip link set u0 up")?;
    let (mut child, client) = start_ours(&one, bin_dir)?;
    one.sh("ip addr add 10.42.0.1/16 dev otwg0; ip link set otwg0 up")?;
    let id = child.id();
    let empty = memory(id)?;
    let mut peers = Vec::new();
    for number in 0..PEERS {
        let [high, low] = number.to_be_bytes();
        let allowed = Prefix::new([10, 43, high, low].into(), 32)?;
        let endpoint = Some(([192, 0, 2, 2], 9).into());
        peers.push(WgPeerUpdate {
            endpoint,
            allowed_ips: vec![allowed.into()],
            ..WgPeerUpdate::new(WgPrivateKey::generate()?.public())
        });
    }
    let key = Some(Some(WgPrivateKey::generate()?));
    let (begun, before) = (Instant::now(), processor_time(id)?);
    client.set(&WgDeviceUpdate { private_key: key, peers: peers.clone(), ..WgDeviceUpdate::default() })?;
    let taken = begun.elapsed();
    std::thread::sleep(Duration::from_secs(2)); // the device creates their handshake state in portions
    let setup_time = processor_time(id)? - before;
    let full = memory(id)?;
    let (begun, status) = (Instant::now(), client.get()?);
    let read = begun.elapsed();
    if status.peers.len() != usize::from(PEERS) {
        return Err("some peers are missing".into());
    }
    let without_keepalive = idle(id)?;
    let peers = peers
        .into_iter()
        .map(|peer| WgPeerUpdate { keepalive: Some(25), ..WgPeerUpdate::new(peer.public_key) })
        .collect();
    client.set(&WgDeviceUpdate { peers, ..WgDeviceUpdate::default() })?;
    std::thread::sleep(Duration::from_secs(2));
    let with_keepalive = idle(id)?;
    child.kill()?;
    child.wait()?;
    Ok(vec![
        format!("{PEERS} peers: set in {:.1} ms, read in {:.1} ms", millis(taken), millis(read)),
        format!("  processor time until all can handshake: {setup_time:.2} s"),
        format!(
            "  memory: {empty:.1} MiB without, {full:.1} MiB with ({:.1} KiB each)",
            (full - empty) * 1024.0 / f64::from(PEERS)
        ),
        format!(
            "  processor time when idle: {:.2} % of a core; with all unreachable and retried every 5 s: {:.2} %",
            without_keepalive, with_keepalive
        ),
    ])
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Processor time of an idle process, in percent of a core.
fn idle(id: u32) -> Result<f64, BenchError> {
    let before = processor_time(id)?;
    std::thread::sleep(IDLE);
    Ok((processor_time(id)? - before) / IDLE.as_secs_f64() * 100.0)
}

/// Resident memory, in MiB.
fn memory(id: u32) -> Result<f64, BenchError> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no memory in the process status")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
