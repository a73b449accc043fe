//! A node with a mesh device: a thread in a network namespace of its own, which does for the task what the agent's loop
//! does. The test acts as the control plane.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use otherix_agent::device::KINDS;
use otherix_agent::device::mesh::MeshKind;
use otherix_agent::engine::Reconciler;
use otherix_agent::model::mesh::{DesiredMeshDevice, DesiredPeer};
use otherix_agent::model::mesh_device::MeshFaults;
use otherix_agent::wireguard::kernel::KernelDevice;
use otherix_agent::wireguard::{Backend, MeshHandle, MeshTaskOptions};
use otherix_mesh::client::UapiClient;
use otherix_mesh::config::WgDeviceStatus;
use otherix_runtime::SystemRuntime;
use otherix_schemas::id::NodeId;
use otherix_schemas::value::MeshPublicKey;
use otherix_testkit::netns::{enter_new, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::{Credentials, NatsEndpoint};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_otherix-agent");
pub(crate) const PORT: u16 = 51820;
/// Emulated processors are slow.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Returns the path of a program.
fn program(name: &str) -> String {
    let mut paths = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().map(|folder| format!("{folder}/{name}"));
    paths.find(|path| fs::exists(path).unwrap()).unwrap()
}

type Job = Box<dyn FnOnce(&MeshHandle) + Send>;

pub(crate) struct MeshNode {
    pub(crate) number: u8,
    pub(crate) state: TempDir,
    pub(crate) backend: Backend,
    /// See [`MeshTaskOptions::vxlan_port`].
    pub(crate) vxlan_port: u16,
    namespace: String,
    jobs: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
    faults: Arc<Mutex<MeshFaults>>,
}

/// Starts nodes on one underlay, numbered from 1. Moves the calling thread into a network namespace of its own.
pub(crate) fn nodes<const COUNT: usize>(backends: [Backend; COUNT]) -> [MeshNode; COUNT] {
    nodes_with(backends.map(|backend| (backend, 4789)))
}

/// The same, with a UDP port of VXLAN for each node.
pub(crate) fn nodes_with<const COUNT: usize>(nodes: [(Backend, u16); COUNT]) -> [MeshNode; COUNT] {
    enter_new();
    sh("ip link add br0 type bridge; ip link set br0 up");
    let mut number = 0;
    nodes.map(|(backend, vxlan_port)| {
        number += 1;
        MeshNode::start(number, backend, vxlan_port)
    })
}

/// Makes each of the nodes a peer of all others.
pub(crate) fn join(nodes: &[MeshNode]) {
    for node in nodes {
        node.set_desired(Some(node.desired(nodes.iter())), false, true);
    }
}

impl MeshNode {
    fn start(number: u8, backend: Backend, vxlan_port: u16) -> Self {
        let state = tempdir().unwrap();
        // `rotate-key` requires the file of an agent's identity.
        fs::write(state.path().join("node.json"), "{}").unwrap();
        let mut node = Self {
            number,
            state,
            backend,
            vxlan_port,
            namespace: String::new(),
            jobs: None,
            thread: None,
            faults: Arc::default(),
        };
        node.start_thread();
        node
    }

    /// Starts the thread in a new network namespace, and connects it to the underlay.
    fn start_thread(&mut self) {
        let (jobs, receiver) = mpsc::unbounded_channel();
        let (number, faults) = (self.number, Arc::clone(&self.faults));
        let (state, options) = (self.state.path().to_owned(), self.options());
        let (namespace_sender, namespace) = channel();
        let thread = std::thread::spawn(move || {
            enter_new();
            let (process, thread) = (std::process::id(), rustix::thread::gettid().as_raw_nonzero());
            namespace_sender.send(format!("/proc/{process}/task/{thread}/ns/net")).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let credentials = Credentials::password("node".parse().unwrap(), "");
                let nats = NatsEndpoint::new("nats://192.0.2.250:4222", credentials);
                let (mesh, task) = MeshHandle::start(options, &state, nats, SystemRuntime::shared()).await.unwrap();
                tokio::spawn(task.run());
                run_agent_loop(mesh, receiver, &faults).await;
            });
            runtime.shutdown_timeout(DEADLINE);
        });
        let namespace = namespace.recv().unwrap();
        sh(&format!(
            "ip link add u{number} type veth peer name u0 netns {namespace}; ip link set u{number} master br0 up"
        ));
        (self.jobs, self.thread, self.namespace) = (Some(jobs), Some(thread), namespace);
        self.sh(&format!("ip addr add 192.0.2.{number}/24 dev u0; ip link set u0 up"));
    }

    fn options(&self) -> MeshTaskOptions {
        MeshTaskOptions {
            backend: self.backend,
            endpoint: Some(format!("192.0.2.{}:{PORT}", self.number).parse().unwrap()),
            port: PORT,
            vxlan_port: self.vxlan_port,
            socket_folder: self.state.path().join("sockets"),
            program: Some(BINARY.into()),
        }
    }

    /// Runs `job` on the node's thread, in its namespace.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce(&MeshHandle) -> T + Send + 'static) -> T {
        let (sender, result) = channel();
        let job: Job = Box::new(move |mesh| sender.send(job(mesh)).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result.recv().unwrap()
    }

    /// Runs a script on the node, and returns its output.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        // The guest's shell has a built-in `ip` with few features.
        let (ip, ping) = (program("ip"), program("ping"));
        let functions = format!("ip() {{ {ip} \"$@\"; }}; ping() {{ {ping} \"$@\"; }};");
        sh(&format!("exec nsenter --net={} sh -ec '{functions} {script}'", self.namespace))
    }

    /// Returns the output of `ip -j` on the node; null if it fails.
    fn ip_json(&self, args: &str) -> Value {
        let output = self.sh(&format!("ip -j {args} 2>/dev/null || true"));
        serde_json::from_str(&output).unwrap_or_default()
    }

    /// See [`MeshHandle::set_desired`].
    pub(crate) fn set_desired(&self, desired: Option<DesiredMeshDevice>, has_left: bool, is_current: bool) {
        self.run(move |mesh| mesh.set_desired(desired, has_left, is_current));
    }

    /// Returns the public key that the node offers.
    pub(crate) fn offered(&self) -> MeshPublicKey {
        self.run(|mesh| mesh.offers().borrow().unwrap().public_key)
    }

    pub(crate) fn address(&self) -> String {
        format!("10.42.0.{}", self.number)
    }

    /// Returns what the node's device must be if these are the nodes of the mesh, with the keys that they offer.
    pub(crate) fn desired<'a>(&self, nodes: impl Iterator<Item = &'a Self>) -> DesiredMeshDevice {
        let others = nodes.filter(|other| other.number != self.number);
        let peers: BTreeMap<_, _> = others.map(|other| (other.offered(), other.as_peer())).collect();
        DesiredMeshDevice { address: self.address().parse().unwrap(), public_key: self.offered(), mtu: 1440, peers }
    }

    fn as_peer(&self) -> DesiredPeer {
        DesiredPeer {
            node: NodeId::new(Uuid::from_u128(self.number.into())),
            address: self.address().parse().unwrap(),
            endpoint: format!("192.0.2.{}:{PORT}", self.number).parse().unwrap(),
        }
    }

    /// Returns the faults that the task published last.
    pub(crate) fn faults(&self) -> MeshFaults {
        self.faults.lock().unwrap().clone()
    }

    /// Waits until the other node replies to a ping.
    #[track_caller]
    pub(crate) fn reaches(&self, other: &Self) {
        let ping = format!("ping -n -q -c 1 -W 1 {} >/dev/null && echo yes || echo no", other.address());
        wait_for_blocking(DEADLINE, "a reply to a ping", || self.sh(&ping).trim() == "yes");
    }

    /// Starts `count` pings, one every 10 ms.
    pub(crate) fn ping(&self, other: &Self, count: u32) -> Child {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.namespace))
            .arg(program("ping"))
            .args(["-n", "-q", "-i", "0.01", "-W", "2", "-c"]);
        command.args([&count.to_string(), &other.address()]).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Returns the status of the node's device.
    pub(crate) fn status(&self) -> WgDeviceStatus {
        let sockets = self.options().socket_folder;
        match self.kind().as_str() {
            "wireguard" => self.run(|_| KernelDevice::new("otwg0").get()).unwrap(),
            _ => UapiClient::new(&sockets, "otwg0").get().unwrap(),
        }
    }

    /// Returns the link kind of the node's device.
    pub(crate) fn kind(&self) -> String {
        let link = self.ip_json("-d link show otwg0");
        link[0]["linkinfo"]["info_kind"].as_str().unwrap_or_default().to_owned()
    }

    /// Returns what `ip` shows of the device: up or down, MTU, alias, addresses, and destinations of routes.
    pub(crate) fn summary(&self) -> String {
        let Some(link) = self.ip_json("-d addr show otwg0").get(0).cloned() else { return String::new() };
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let state = if list(&link["flags"]).contains(&"UP".into()) { "up" } else { "down" };
        let addresses = list(&link["addr_info"]).into_iter().filter(|address| address["family"] == "inet");
        let addresses =
            addresses.map(|address| format!("{}/{}", address["local"].as_str().unwrap(), address["prefixlen"]));
        let addresses: Vec<_> = addresses.collect();
        let routes = list(&self.ip_json("route show dev otwg0"));
        let mut routes: Vec<_> = routes.iter().map(|route| route["dst"].as_str().unwrap()).collect();
        routes.sort_unstable();
        let alias = link["ifalias"].as_str().unwrap_or_default();
        format!("{state} {} {alias} {addresses:?} {routes:?}", link["mtu"])
    }

    /// Returns the process that serves the device, if there is one.
    pub(crate) fn process(&self) -> Option<Pid> {
        let stream = UnixStream::connect(self.options().socket_folder.join("otwg0.sock")).ok()?;
        Some(socket_peercred(&stream).unwrap().pid)
    }
}

/// Does what the agent's loop does for the task, and runs jobs, until their sender is dropped.
async fn run_agent_loop(mut mesh: MeshHandle, mut jobs: mpsc::UnboundedReceiver<Job>, last_faults: &Mutex<MeshFaults>) {
    let mut reconciler = Reconciler::new(KINDS, SystemRuntime::shared()).unwrap();
    // Reads the links, so that their changes are recognised.
    reconciler.owned().await.unwrap();
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => job(&mesh),
                None => return,
            },
            faults = mesh.faults() => *last_faults.lock().unwrap() = faults,
            () = reconciler.wait() => drop(reconciler.is_due()),
        }
        if let Some(observed) = reconciler.notified(MeshKind::NAME) {
            let index = observed.mesh().map(|link| link.index);
            mesh.device_changed(index);
        }
    }
}

impl Drop for MeshNode {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // A panic of the thread has been printed.
        let _panicked = self.thread.take().map(JoinHandle::join);
        if let Some(process) = self.process() {
            let _ended = kill_process(process, Signal::KILL);
        }
    }
}
