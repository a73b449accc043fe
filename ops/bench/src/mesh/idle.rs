//! What the mesh costs a node that sends nothing itself: the process of the device and the part of the agent that
//! manages it and probes the other nodes, which all answer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use otherix_agent::model::mesh::{DesiredMeshDevice, DesiredPeer};
use otherix_agent::model::mesh_device::MeshFaults;
use otherix_agent::wireguard::{Backend, MeshHandle, MeshTaskOptions};
use otherix_mesh::key::{WgPrivateKey, WgPublicKey};
use otherix_runtime::SystemRuntime;
use otherix_schemas::id::NodeId;
use otherix_schemas::value::MeshPublicKey;
use otherix_testkit::netns::{enter_new, ip_json, sh};
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::{Credentials, NatsEndpoint};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::hub;
use crate::BenchError;
use crate::processor::{processor_time, stat_time};
use crate::report::{report_progress, target_result};
use crate::thread::BenchThread;

/// How long all nodes may take to be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(120);

/// How long the node is observed: as long as WireGuard uses a session's keys.
const IDLE: Duration = Duration::from_secs(120);

/// Most processor time, in percent of a core, and most bits per second for each peer and direction, headers included.
const TARGETS: (f64, f64) = (0.5, 1000.0);

/// What the agent's thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Read,
    /// Watch all other nodes, as if there were an overlay with NICs on each node.
    Watch,
}

/// What is read at both ends of the period.
struct Sample {
    at: Instant,
    device: f64,
    agent: f64,
    bytes: [f64; 2],
}

/// Measures with this many other nodes.
pub(crate) async fn run(bin_dir: &Path, count: u16) -> Result<String, BenchError> {
    let state = tempdir()?;
    let keys = (0..count).map(|_| WgPrivateKey::generate()).collect::<Result<Vec<_>, _>>()?;
    let publics: Vec<WgPublicKey> = keys.iter().map(WgPrivateKey::public).collect();
    let (namespace_sender, namespace) = std::sync::mpsc::channel();
    let (offered_sender, offered) = oneshot::channel();
    let (faults_sender, mut faults) = mpsc::unbounded_channel();
    let (readings_sender, mut readings) = mpsc::unbounded_channel();
    let (order_sender, mut orders) = mpsc::unbounded_channel();
    let options = options(bin_dir, &state);
    let folder = state.path().to_owned();
    let mut agent = BenchThread::start("agent", move || {
        enter_new();
        let (process, thread) = (std::process::id(), rustix::thread::gettid().as_raw_nonzero());
        namespace_sender.send(format!("/proc/{process}/task/{thread}/ns/net"))?;
        Ok(async move {
            let credentials = Credentials::password("node".parse()?, "");
            let nats = NatsEndpoint::new("nats://192.0.2.250:4222", credentials);
            let (mut mesh, task) = MeshHandle::start(options, &folder, nats, SystemRuntime::shared()).await?;
            let public_key = mesh.offers().borrow().as_ref().ok_or("no offer")?.public_key;
            let _receiver_dropped = offered_sender.send(public_key);
            let _task = tokio::spawn(task.run());
            let desired = desired(public_key, &publics)?;
            let all: BTreeSet<_> = desired.peers.values().map(|peer| peer.address).collect();
            mesh.set_desired(Some(desired), false, true);
            loop {
                tokio::select! {
                    changed = mesh.faults() => faults_sender.send(changed)?,
                    Some(order) = orders.recv() => match order {
                        Order::Read => readings_sender.send(reading(&folder).map_err(|error| error.to_string()))?,
                        Order::Watch => mesh.set_watched(all.clone()),
                    },
                }
            }
        })
    })?;
    let mut hub = start_hub(namespace.recv()?, keys, WgPublicKey::from_bytes(offered.await?.bytes()))?;
    report_progress(&format!("bench: waiting until {count} nodes are reached"));
    let all_reached = async {
        loop {
            let MeshFaults { device, nodes } = faults.recv().await.ok_or("the agent has ended")?;
            if device.is_none() && nodes.is_empty() {
                return Ok::<_, BenchError>(());
            }
        }
    };
    let measure = async {
        // The first faults are those of the device that does not exist yet.
        sleep(Duration::from_secs(5)).await;
        match timeout(REACHED_WITHIN, all_reached).await {
            Ok(result) => result?,
            Err(_) => report_progress("bench: not all nodes were reached"),
        }
        observe(count, &order_sender, &mut readings).await
    };
    let result = tokio::select! {
        result = measure => result,
        result = agent.result() => result,
        result = hub.result() => Err(result.err().unwrap_or_else(|| "the nodes have ended".into())),
    };
    // The process of the device would outlive the bench.
    let _ended_before = kill_process(device_process(state.path())?, Signal::KILL);
    result
}

/// The process that serves the device.
fn device_process(folder: &Path) -> Result<Pid, BenchError> {
    let socket = std::os::unix::net::UnixStream::connect(folder.join("sockets/otwg0.sock"))?;
    Ok(socket_peercred(&socket)?.pid)
}

/// Observes the node without and with overlays.
async fn observe(
    count: u16,
    orders: &mpsc::UnboundedSender<Order>,
    readings: &mut mpsc::UnboundedReceiver<Result<Sample, String>>,
) -> Result<String, BenchError> {
    let mut next = async || {
        orders.send(Order::Read)?;
        Ok::<_, BenchError>(readings.recv().await.ok_or("the agent has ended")??)
    };
    let mut lines = Vec::new();
    for title in ["no overlay", "an overlay on all nodes"] {
        sleep(Duration::from_secs(5)).await;
        let before = next().await?;
        report_progress(&format!("bench: {title}, observing for {} s", IDLE.as_secs()));
        sleep(IDLE).await;
        lines.push(render(count, title, &before, &next().await?));
        orders.send(Order::Watch)?;
    }
    Ok(lines.join("\n"))
}

/// Starts the other nodes, and connects them to the one in this namespace.
fn start_hub(namespace: String, keys: Vec<WgPrivateKey>, node: WgPublicKey) -> Result<BenchThread<()>, BenchError> {
    BenchThread::start("hub", move || {
        enter_new();
        sh(&format!(
            "ip link add u0 type veth peer name u0 netns {namespace}
            ip addr add 192.0.2.2/24 dev u0; ip link set u0 up
            nsenter --net={namespace} sh -ec 'ip addr add 192.0.2.1/24 dev u0; ip link set u0 up'"
        ));
        Ok(hub::answer(keys, Ipv4Addr::new(192, 0, 2, 2), node))
    })
}

fn options(bin_dir: &Path, state: &TempDir) -> MeshTaskOptions {
    MeshTaskOptions {
        backend: Backend::Userspace,
        endpoint: "192.0.2.1:51820".parse().ok(),
        port: 51820,
        vxlan_port: 4789,
        socket_folder: state.path().join("sockets"),
        program: Some(bin_dir.join("otherix-agent")).filter(|program| program.is_file()),
    }
}

/// Every second node has a lower address than this one.
fn desired(public_key: MeshPublicKey, publics: &[WgPublicKey]) -> Result<DesiredMeshDevice, BenchError> {
    let address = Ipv4Addr::new(10, 42, 128, 0);
    let peers = publics.iter().zip(0_u16..).map(|(public, number)| {
        let [high, low] = number.to_be_bytes();
        let endpoint = format!("192.0.2.2:{}", hub::FIRST_PORT + number).parse()?;
        let address = Ipv4Addr::new(10, 42, if number % 2 == 0 { high } else { 129 + high }, low);
        let node = NodeId::new(Uuid::from_u128(number.into()));
        Ok((MeshPublicKey::try_from(*public.as_bytes())?, DesiredPeer { node, address, endpoint }))
    });
    Ok(DesiredMeshDevice { address, public_key, mtu: 1440, peers: peers.collect::<Result<_, BenchError>>()? })
}

/// Read in the node's namespace.
fn reading(folder: &Path) -> Result<Sample, BenchError> {
    let device = processor_time(device_process(folder)?.as_raw_nonzero().get().try_into()?)?;
    let mut agent = 0.0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let thread = thread?.path();
        if std::fs::read_to_string(thread.join("comm"))?.trim() != "hub" {
            agent += stat_time(&thread.join("stat"))?;
        }
    }
    let link = ip_json(&["-s", "link", "show", "u0"]);
    let bytes = |direction: &str| {
        let path = format!("/0/stats64/{direction}/bytes");
        link.pointer(&path).and_then(serde_json::Value::as_f64).ok_or("no counters")
    };
    Ok(Sample { at: Instant::now(), device, agent, bytes: [bytes("tx")?, bytes("rx")?] })
}

fn render(count: u16, title: &str, before: &Sample, after: &Sample) -> String {
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let percent = |before: f64, after: f64| (after - before) / seconds * 100.0;
    let (device, agent) = (percent(before.device, after.device), percent(before.agent, after.agent));
    let rate = |before: f64, after: f64| (after - before) * 8.0 / seconds / f64::from(count);
    let [sent, received] = [0, 1].map(|at| match (before.bytes.get(at), after.bytes.get(at)) {
        (Some(before), Some(after)) => rate(*before, *after),
        _ => f64::NAN,
    });
    let (most_time, most_bits) = TARGETS;
    format!(
        "{count} peers, idle, {title}: {device:.2} % of a core for the device, {agent:.2} % for the agent; \
        target {most_time} % ({})\n  {sent:.0} bit/s sent to each peer and {received:.0} received, Ethernet included; \
        target {most_bits} ({})",
        target_result(device + agent <= most_time),
        target_result(sent.max(received) <= most_bits)
    )
}
