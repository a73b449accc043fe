//! Two nodes that run the same engine, with a tunnel and a VXLAN between them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use otherix_mesh::client::UapiClient;
use otherix_mesh::config::{WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::WgPrivateKey;
use otherix_mesh::prefix::Prefix;
use serde_json::Value;

use super::node::MeshNode;
use crate::BenchError;
use crate::processor::processor_time;

const START_WITHIN: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireguardEngine {
    Ours,
    Boringtun,
    WireguardGo,
    Gotatun,
}

impl WireguardEngine {
    pub(super) const ALL: [Self; 4] = [Self::Ours, Self::Boringtun, Self::WireguardGo, Self::Gotatun];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "otherix-mesh",
            Self::Boringtun => "boringtun-cli",
            Self::WireguardGo => "wireguard-go",
            Self::Gotatun => "gotatun",
        }
    }

    /// How to install it.
    pub(super) const fn source(self) -> &'static str {
        match self {
            Self::Ours => "cargo build --release",
            Self::Boringtun => "cargo install boringtun-cli",
            Self::WireguardGo => "make setup",
            Self::Gotatun => "cargo install gotatun-cli --version 0.10.2",
        }
    }

    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Ours => &[],
            // The fastest setting on two cores.
            Self::Boringtun => &["--foreground", "--disable-drop-privileges", "--threads", "1", "otwg0"],
            Self::WireguardGo => &["--foreground", "otwg0"],
            Self::Gotatun => &["--foreground", "--disable-drop-privileges", "otwg0"],
        }
    }

    /// Finds the program beside the bench or on PATH.
    fn program(self, bin_dir: &Path) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(bin_dir.to_owned()).chain(std::env::split_paths(&path));
        folders.map(|folder| folder.join(self.name())).find(|program| program.is_file())
    }
}

/// One run of `iperf3`.
#[derive(Clone, Copy, Debug)]
pub(super) struct IperfRun {
    /// Megabits in a second.
    pub(super) rate: f64,
    pub(super) gigabits: f64,
    /// Processor time of both engines and both ends of `iperf3`.
    pub(super) seconds: f64,
    pub(super) retransmits: f64,
}

impl IperfRun {
    /// Processor time per gigabit, in seconds.
    pub(super) fn cost(&self) -> f64 {
        self.seconds / self.gigabits
    }
}

/// An engine's process, killed on drop.
struct EngineProcess(Child);

impl Drop for EngineProcess {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

pub(super) struct Pair {
    engine: WireguardEngine,
    nodes: [MeshNode; 2],
    processes: [EngineProcess; 2],
}

impl Pair {
    /// Returns `None` if the engine is not installed.
    pub(super) fn up(engine: WireguardEngine, bin_dir: &Path) -> Result<Option<Self>, BenchError> {
        let Some(program) = engine.program(bin_dir) else { return Ok(None) };
        let nodes = [MeshNode::new()?, MeshNode::new()?];
        let [one, other] = &nodes;
        one.sh(&format!(
            "ip link add u0 type veth peer name u0 netns {} && ip addr add 192.0.2.1/24 dev u0 && ip link set u0 up",
            other.id()
        ))?;
        other.sh("ip addr add 192.0.2.2/24 dev u0; ip link set u0 up")?;
        let start = |node: &MeshNode| -> Result<EngineProcess, BenchError> {
            let mut command = node.command(&program);
            command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1").env("OTHERIX_LOG", "error");
            let child = command.args(engine.arguments()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            Ok(EngineProcess(child))
        };
        let processes = [start(one)?, start(other)?];
        let keys = [WgPrivateKey::generate()?, WgPrivateKey::generate()?];
        let [first, second] = &keys;
        configure(one, (first, second), (1, 2))?;
        configure(other, (second, first), (2, 1))?;
        let pair = Self { engine, nodes, processes };
        let [one, _] = &pair.nodes;
        one.sh("for i in $(seq 100); do ping -n -q -c 1 -W 1 10.99.0.2 && exit; done; exit 1")?;
        Ok(Some(pair))
    }

    pub(super) const fn engine(&self) -> WireguardEngine {
        self.engine
    }

    pub(super) fn set_segmentation(&self, on: bool) -> Result<(), BenchError> {
        let state = if on { "on" } else { "off" };
        for node in &self.nodes {
            node.sh(&format!("ethtool -K u0 tx-udp-segmentation {state} >/dev/null"))?;
        }
        Ok(())
    }

    pub(super) fn measure(&self, vxlan: bool, streams: u32, seconds: u32) -> Result<IperfRun, BenchError> {
        let [one, other] = &self.nodes;
        let mut command = other.command(Path::new("iperf3"));
        let mut server = EngineProcess(command.args(["--server", "--one-off"]).stdout(Stdio::null()).spawn()?);
        other.sh("for i in $(seq 200); do ss -Hltn | grep -q :5201 && exit; sleep 0.02; done; exit 1")?;
        let before = self.processor_time()?;
        let to = if vxlan { "10.99.0.2" } else { "10.42.0.2" };
        let output = one
            .command(Path::new("iperf3"))
            .args(["--json", "--client", to, "--time", &seconds.to_string(), "--parallel", &streams.to_string()])
            .output()?;
        let spent = self.processor_time()? - before;
        server.0.wait()?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let number = |path: &str| {
            report.pointer(path).and_then(Value::as_f64).ok_or(format!("no `{path}` in the report of iperf3"))
        };
        let percent =
            number("/end/cpu_utilization_percent/host_total")? + number("/end/cpu_utilization_percent/remote_total")?;
        Ok(IperfRun {
            rate: number("/end/sum_received/bits_per_second")? / 1e6,
            gigabits: number("/end/sum_received/bytes")? * 8.0 / 1e9,
            seconds: spent + percent / 100.0 * f64::from(seconds),
            retransmits: number("/end/sum_sent/retransmits")?,
        })
    }

    fn processor_time(&self) -> Result<f64, BenchError> {
        let [one, other] = &self.processes;
        Ok(processor_time(one.0.id())? + processor_time(other.0.id())?)
    }
}

/// Waits for the device, and configures its key, peer and addresses and a VXLAN to the peer.
fn configure(
    node: &MeshNode,
    (own, other): (&WgPrivateKey, &WgPrivateKey),
    (number, peer): (u8, u8),
) -> Result<(), BenchError> {
    let client = UapiClient::new(&node.folder(), "otwg0");
    let allowed: Prefix = format!("10.42.0.{peer}").parse()?;
    let change = WgDeviceUpdate {
        private_key: Some(Some(own.clone())),
        listen_port: Some(51820),
        peers: vec![WgPeerUpdate {
            endpoint: Some(format!("192.0.2.{peer}:51820").parse()?),
            allowed_ips: vec![allowed.into()],
            ..WgPeerUpdate::new(other.public())
        }],
        ..WgDeviceUpdate::default()
    };
    let until = Instant::now() + START_WITHIN;
    while let Err(error) = client.set(&change) {
        if Instant::now() > until {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    node.sh(&format!(
        "ip addr add 10.42.0.{number}/16 dev otwg0; ip link set otwg0 mtu 1440 up; \
         ip link add vx0 type vxlan id 1000 local 10.42.0.{number} remote 10.42.0.{peer} dstport 4789 \
         nolearning noudpcsum; \
         ip link set vx0 mtu 1390 up; ip addr add 10.99.0.{number}/24 dev vx0"
    ))?;
    Ok(())
}

/// Starts our device on a node.
pub(super) fn start_ours(node: &MeshNode, bin_dir: &Path) -> Result<(Child, UapiClient), BenchError> {
    let program = WireguardEngine::Ours.program(bin_dir).ok_or("`otherix-mesh` not found beside the bench")?;
    let mut command: Command = node.command(&program);
    let child = command.env("OTHERIX_LOG", "error").spawn()?;
    let client = UapiClient::new(&node.folder(), "otwg0");
    let until = Instant::now() + START_WITHIN;
    while let Err(error) = client.get() {
        if Instant::now() > until {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((child, client))
}
