//! A node that keeps its mesh device: a thread in a network namespace of its own, with what the agent's loop does for the keeper, and
//! the test in place of the control plane.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use otherix_agent::device::KINDS;
use otherix_agent::engine::Reconciler;
use otherix_agent::model::mesh::{DesiredMeshDevice, DesiredPeer};
use otherix_agent::model::mesh_device::MeshFaults;
use otherix_agent::wireguard::kernel::Device;
use otherix_agent::wireguard::{Backend, Mesh, Options, keeper};
use otherix_mesh::client::UapiClient;
use otherix_mesh::config::WgDeviceStatus;
use otherix_schemas::id::NodeId;
use otherix_schemas::value::MeshPublicKey;
use otherix_testkit::netns::{enter_new, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::{Credentials, NatsEndpoint};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_otherix-agent");
pub(crate) const PORT: u16 = 51820;
/// A processor made by software takes its time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Where a program is.
fn program(name: &str) -> String {
    let mut all = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().map(|folder| format!("{folder}/{name}"));
    all.find(|path| fs::exists(path).unwrap()).unwrap()
}

type Job = Box<dyn FnOnce(&Mesh) + Send>;

pub(crate) struct Station {
    pub(crate) number: u8,
    pub(crate) state: TempDir,
    pub(crate) backend: Backend,
    namespace: String,
    jobs: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
    trouble: Arc<Mutex<MeshFaults>>,
}

/// So many nodes on one underlay, numbered from 1. The calling thread is in a network namespace of its own afterwards.
pub(crate) fn stations<const COUNT: usize>(backends: [Backend; COUNT]) -> [Station; COUNT] {
    enter_new();
    sh("ip link add br0 type bridge; ip link set br0 up");
    let mut number = 0;
    backends.map(|backend| {
        number += 1;
        Station::new(number, backend)
    })
}

/// Each of the nodes in its place, with all others as its peers.
pub(crate) fn join(stations: &[Station]) {
    for station in stations {
        station.want(Some(station.place(stations.iter())), false, true);
    }
}

impl Station {
    fn new(number: u8, backend: Backend) -> Self {
        let state = tempdir().unwrap();
        // What a running agent has there, for `rotate-key`.
        fs::write(state.path().join("node.json"), "{}").unwrap();
        let mut station = Self {
            number,
            state,
            backend,
            namespace: String::new(),
            jobs: None,
            thread: None,
            trouble: Arc::default(),
        };
        station.start();
        station
    }

    /// Starts the keeper, in a namespace that is new.
    fn start(&mut self) {
        let (jobs, work) = mpsc::unbounded_channel();
        let (number, trouble) = (self.number, Arc::clone(&self.trouble));
        let (state, options) = (self.state.path().to_owned(), self.options());
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            enter_new();
            tell.send(format!(
                "/proc/{}/task/{}/ns/net",
                std::process::id(),
                rustix::thread::gettid().as_raw_nonzero()
            ))
            .unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let credentials = Credentials { user: "node".parse().unwrap(), password: String::new() };
                let nats = NatsEndpoint { url: "nats://192.0.2.250:4222".to_owned(), credentials };
                let (mesh, keeping) = Mesh::begin(options, &state, nats).await.unwrap();
                tokio::spawn(keeper::keep(keeping));
                serve(mesh, work, &trouble).await;
            });
            runtime.shutdown_timeout(DEADLINE);
        });
        let namespace: String = told.recv().unwrap();
        sh(&format!(
            "ip link add u{number} type veth peer name u0 netns {namespace}; ip link set u{number} master br0 up"
        ));
        (self.jobs, self.thread, self.namespace) = (Some(jobs), Some(thread), namespace);
        self.sh(&format!("ip addr add 192.0.2.{number}/24 dev u0; ip link set u0 up"));
    }

    fn options(&self) -> Options {
        Options {
            backend: self.backend,
            endpoint: Some(format!("192.0.2.{}:{PORT}", self.number).parse().unwrap()),
            port: PORT,
            socket_folder: self.state.path().join("sockets"),
            program: Some(BINARY.into()),
        }
    }

    /// Does something on the node's thread, in its namespace.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce(&Mesh) -> T + Send + 'static) -> T {
        let (tell, told) = std::sync::mpsc::channel();
        let job: Job = Box::new(move |mesh| tell.send(work(mesh)).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        told.recv().unwrap()
    }

    /// What a script prints on the node.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        // The guest's shell has an `ip` of its own, which knows little.
        let (ip, ping) = (program("ip"), program("ping"));
        let own = format!("ip() {{ {ip} \"$@\"; }}; ping() {{ {ping} \"$@\"; }};");
        sh(&format!("exec nsenter --net={} sh -ec '{own} {script}'", self.namespace))
    }

    /// What `ip -j` says on the node; nothing if it fails.
    fn ip_json(&self, args: &str) -> Value {
        let said = self.sh(&format!("ip -j {args} 2>/dev/null || true"));
        serde_json::from_str(&said).unwrap_or_default()
    }

    pub(crate) fn want(&self, place: Option<DesiredMeshDevice>, leave: bool, current: bool) {
        self.run(move |mesh| mesh.want(place, leave, current));
    }

    /// The public half that the node offers the cluster at present.
    pub(crate) fn offered(&self) -> MeshPublicKey {
        self.run(|mesh| mesh.offers().borrow().unwrap().public_key)
    }

    pub(crate) fn address(&self) -> String {
        format!("10.42.0.{}", self.number)
    }

    /// Its place among these nodes, by what each offers.
    pub(crate) fn place<'a>(&self, all: impl Iterator<Item = &'a Self>) -> DesiredMeshDevice {
        let others = all.filter(|other| other.number != self.number);
        let peers: BTreeMap<_, _> = others.map(|other| (other.offered(), other.as_neighbour())).collect();
        DesiredMeshDevice { address: self.address().parse().unwrap(), public_key: self.offered(), mtu: 1440, peers }
    }

    fn as_neighbour(&self) -> DesiredPeer {
        DesiredPeer {
            node: NodeId::new(Uuid::from_u128(self.number.into())),
            address: self.address().parse().unwrap(),
            endpoint: format!("192.0.2.{}:{PORT}", self.number).parse().unwrap(),
        }
    }

    /// What is in the way, as the keeper said last.
    pub(crate) fn trouble(&self) -> MeshFaults {
        self.trouble.lock().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn reaches(&self, other: &Self) {
        let ping = format!("ping -n -q -c 1 -W 1 {} >/dev/null && echo yes || echo no", other.address());
        wait_for_blocking(DEADLINE, "an answer to a ping", || self.sh(&ping).trim() == "yes");
    }

    /// Starts so many pings, one every 10 ms.
    pub(crate) fn ping(&self, other: &Self, count: u32) -> Child {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.namespace))
            .arg(program("ping"))
            .args(["-n", "-q", "-i", "0.01", "-W", "2", "-c"]);
        command.args([&count.to_string(), &other.address()]).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// What the device says of itself.
    pub(crate) fn status(&self) -> WgDeviceStatus {
        let sockets = self.options().socket_folder;
        match self.kind().as_str() {
            "wireguard" => self.run(|_| Device::new("otwg0").get()).unwrap(),
            _ => UapiClient::new(&sockets, "otwg0").get().unwrap(),
        }
    }

    pub(crate) fn kind(&self) -> String {
        let link = self.ip_json("-d link show otwg0");
        link[0]["linkinfo"]["info_kind"].as_str().unwrap_or_default().to_owned()
    }

    /// The device as `ip` shows it: up, MTU, alias, addresses, and the nodes that routes lead to.
    pub(crate) fn shown(&self) -> String {
        let Some(link) = self.ip_json("-d addr show otwg0").get(0).cloned() else { return String::new() };
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let up = list(&link["flags"]).contains(&"UP".into());
        let addresses = list(&link["addr_info"]).into_iter().filter(|address| address["family"] == "inet");
        let addresses =
            addresses.map(|address| format!("{}/{}", address["local"].as_str().unwrap(), address["prefixlen"]));
        let addresses: Vec<_> = addresses.collect();
        let mut routes = list(&self.ip_json("route show dev otwg0"));
        let mut routes: Vec<_> = routes.drain(..).map(|route| route["dst"].as_str().unwrap().to_owned()).collect();
        routes.sort();
        let alias = link["ifalias"].as_str().unwrap_or_default();
        format!("{} {} {alias} {addresses:?} {routes:?}", if up { "up" } else { "down" }, link["mtu"])
    }

    /// The process that serves the device, if there is one.
    pub(crate) fn process(&self) -> Option<rustix::process::Pid> {
        let stream = UnixStream::connect(self.options().socket_folder.join("otwg0.sock")).ok()?;
        Some(socket_peercred(&stream).unwrap().pid)
    }
}

async fn serve(mut mesh: Mesh, mut work: mpsc::UnboundedReceiver<Job>, said: &Mutex<MeshFaults>) {
    let mut reconciler = Reconciler::new(KINDS).unwrap();
    loop {
        tokio::select! {
            job = work.recv() => match job {
                Some(job) => job(&mesh),
                None => return,
            },
            trouble = mesh.trouble() => *said.lock().unwrap() = trouble,
            () = reconciler.wait() => drop(reconciler.is_due()),
        }
        if let Some(observed) = reconciler.notified(otherix_agent::device::mesh::MeshKind::NAME) {
            let index = observed.mesh().map(|link| link.index);
            mesh.changed(index);
        }
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // One that panicked has said why.
        let _ended = self.thread.take().map(JoinHandle::join);
        if let Some(process) = self.process() {
            let _gone = kill_process(process, Signal::KILL);
        }
    }
}
