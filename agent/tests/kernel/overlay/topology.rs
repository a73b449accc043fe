//! Nodes, each with a namespace and a thread of its own, connected by an underlay and by a substitute for the mesh: a
//! second bridge with devices called `otwg0`. And guests, attached to their taps as a hypervisor does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use otherix_agent::model::desired::{DesiredBridge, DesiredMesh, DesiredOverlay, DesiredVtep, Want};
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_tun::{FRAME_MAX, TapDevice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::runtime::{Builder, Runtime};

use crate::node::Node;
use crate::taps::{attach_nic, mac, nic};

/// The MTU of an overlay over an underlay with 1,500 bytes.
pub(crate) const MTU: u32 = 1390;

const DEADLINE: Duration = Duration::from_secs(10);

/// The network and the node of each NIC, by its number.
pub(crate) type Placement = BTreeMap<u16, (u16, u16)>;

pub(crate) fn mesh_address(node: u16) -> Ipv4Addr {
    format!("10.42.0.{node}").parse().unwrap()
}

pub(crate) fn vni(network: u16) -> u32 {
    u32::from(network) * 1000
}

/// Returns what an overlay requires of node `here`.
pub(crate) fn overlay(network: u16, placement: &Placement, here: u16) -> Want {
    let remote: BTreeMap<_, _> = placement
        .iter()
        .filter(|(_, (on, node))| *on == network && *node != here)
        .map(|(nic, (_, node))| (mac(*nic), mesh_address(*node)))
        .collect();
    let flood: BTreeSet<_> = remote.values().copied().collect();
    let number = vni(network);
    let bridge = DesiredBridge {
        name: format!("otb{number}"),
        mtu: MTU,
        mac: None,
        vlan: None,
        nat: None,
        allow_spoofing: false,
        dns: false,
    };
    let vni = number.try_into().unwrap();
    let vtep = DesiredVtep { name: format!("otvx{number}"), vni, local: mesh_address(here), port: 4789 };
    Want::Overlay(DesiredOverlay { bridge, vtep, remote, flood })
}

/// Sets the desired state of node `here` for a placement.
pub(crate) fn set_placement(node: &mut Node, networks: &[u16], placement: &Placement, here: u16) {
    node.desired.mesh = Some(DesiredMesh { address: mesh_address(here) });
    networks.iter().for_each(|network| node.set_desired(*network, overlay(*network, placement, here)));
    node.desired.nics.clear();
    for (nic, (network, _)) in placement.iter().filter(|(_, (_, node))| *node == here) {
        attach_nic(node, *nic, *network);
    }
}

/// Creates a mesh device without peers in the test's namespace.
pub(crate) fn create_mesh_device(here: u16) {
    sh(&format!(
        "ip tuntap add otwg0 mode tun\nip link set otwg0 alias otherix:mesh mtu 1440\n\
         ip addr add {}/16 dev otwg0\nip link set otwg0 up",
        mesh_address(here)
    ));
}

/// Returns the FDB entries of a VTEP and of its bridge port: the MAC address, the node if there is one, and the state.
pub(crate) fn fdb(vtep: &str) -> BTreeSet<(String, String, String)> {
    let entries = crate::taps::bridge_json(&format!("fdb show dev {vtep}"));
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let all = entries.iter().map(|entry| (text(&entry["mac"]), text(&entry["dst"]), text(&entry["state"])));
    // Without the address of the VTEP itself.
    all.filter(|(_, node, state)| !node.is_empty() || state != "permanent").collect()
}

/// Returns the FDB entries that a placement requires.
pub(crate) fn expected_fdb(network: u16, placement: &Placement, here: u16) -> BTreeSet<(String, String, String)> {
    let remote = placement.iter().filter(|(_, (on, node))| *on == network && *node != here);
    remote
        .flat_map(|(nic, (_, node))| {
            let (mac, node) = (mac(*nic).to_string(), mesh_address(*node).to_string());
            [
                (mac.clone(), String::new(), "static".to_owned()),
                (mac, node.clone(), "permanent".to_owned()),
                ("00:00:00:00:00:00".to_owned(), node, "permanent".to_owned()),
            ]
        })
        .collect()
}

type Job = Box<dyn FnOnce(&Runtime, &mut Node) + Send>;

/// A node on a thread of its own.
pub(crate) struct OverlayNode {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    namespace: String,
}

impl OverlayNode {
    fn new() -> Self {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let (namespace_sender, namespace) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            namespace_sender.send(enter_namespace()).unwrap();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let mut node = runtime.block_on(async { Node::new() });
            receiver.into_iter().for_each(|job| job(&runtime, &mut node));
        });
        Self { jobs: Some(jobs), thread: Some(thread), namespace: namespace.recv().unwrap() }
    }

    /// Runs `job` on the node's thread, in its namespace.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce(&Runtime, &mut Node) -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        let job: Job = Box::new(move |runtime, node| sender.send(job(runtime, node)).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result.recv().expect("the node's thread has not panicked")
    }

    /// Runs a script on the node, and returns its output.
    pub(crate) fn sh(&self, script: &str) -> String {
        let script = script.to_owned();
        self.run(move |_, _| sh(&script))
    }

    /// Sets the placement, runs passes until no steps remain, and asserts that everything is ready.
    pub(crate) fn settle(&self, networks: &[u16], placement: &Placement, here: u16) {
        let (networks, placement) = (networks.to_vec(), placement.clone());
        self.run(move |runtime, node| {
            set_placement(node, &networks, &placement, here);
            let pass = runtime.block_on(node.settle());
            assert!(pass.outcomes.iter().all(|outcome| outcome.outcome == Outcome::Ready), "{here}: {pass:?}");
        });
    }

    /// Attaches a guest to the tap of a NIC on this node.
    pub(crate) fn guest(&self, number: u16, address: &str) -> Guest {
        let name = otherix_schemas::nic::tap_name(nic(number));
        let vm = self.run(move |_, _| TapDevice::attach(&name).unwrap());
        Guest::new(vm, number, address)
    }
}

impl Drop for OverlayNode {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // A panic of the thread has been printed.
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

/// Moves this thread into a new network namespace, and returns its path.
fn enter_namespace() -> String {
    enter_new();
    let thread = rustix::thread::gettid();
    format!("/proc/{}/task/{}/ns/net", std::process::id(), thread.as_raw_nonzero())
}

/// Starts nodes, numbered from 1. Their underlay addresses are 192.0.2.N.
pub(crate) fn nodes(count: u16) -> Vec<OverlayNode> {
    enter_new();
    sh("ip link add underlay type bridge\nip link set underlay up\nip link add mesh type bridge\nip link set mesh up");
    (1..=count)
        .map(|number| {
            let node = OverlayNode::new();
            let (namespace, address) = (&node.namespace, mesh_address(number));
            sh(&format!(
                "ip link add u{number} type veth peer name eth0 netns {namespace}
                ip link set u{number} master underlay up
                ip link add m{number} mtu 1440 type veth peer name otwg0 mtu 1440 netns {namespace}
                ip link set m{number} master mesh up"
            ));
            node.sh(&format!(
                "ip addr add 192.0.2.{number}/24 dev eth0\nip link set eth0 up
                ip addr add {address}/16 dev otwg0\nip link set otwg0 alias otherix:mesh up"
            ));
            node
        })
        .collect()
}

/// A guest: a network namespace whose `eth0` is the NIC.
pub(crate) struct Guest {
    namespace: String,
    stop: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    fn new(vm: TapDevice, number: u16, address: &str) -> Self {
        let (stop, stopped) = mpsc::channel();
        let (namespace_sender, namespace) = mpsc::channel();
        let address = address.to_owned();
        let thread = std::thread::spawn(move || {
            let own_namespace = enter_namespace();
            let nic = TapDevice::create("eth0").unwrap();
            sh(&format!("ip link set eth0 address {} mtu {MTU} up\nip addr add {address}/24 dev eth0", mac(number)));
            namespace_sender.send(own_namespace).unwrap();
            relay(&vm, &nic, &stopped);
        });
        Self { namespace: namespace.recv().unwrap(), stop, thread: Some(thread) }
    }

    fn output(&self, script: &str) -> Output {
        let namespace = format!("--net={}", self.namespace);
        Command::new("nsenter").args([&namespace, "sh", "-e", "-c", script]).output().unwrap()
    }

    /// Runs a script on the guest, with bash.
    pub(crate) fn sh(&self, script: &str) {
        let output = self.output(&format!("bash -e -c '{script}'"));
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits until a ping of the address is answered: a bridge port forwards shortly after a process attaches.
    pub(crate) fn wait_until_reached(&self, address: &str) {
        wait_for_blocking(DEADLINE, "a reply to a ping", || {
            self.output(&format!("ping -q -c 1 -W 1 {address}")).status.success()
        });
    }

    /// Whether an unfragmented ping with this payload, in bytes, is answered.
    pub(crate) fn reaches_with(&self, address: &str, bytes: u32) -> bool {
        self.output(&format!("ping -q -c 2 -i 0.2 -W 1 -M do -s {bytes} {address}")).status.success()
    }

    /// Whether several pings of the address are not answered.
    pub(crate) fn cannot_reach(&self, address: &str) -> bool {
        !self.output(&format!("ping -q -c 3 -i 0.1 -W 0.3 {address}")).status.success()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _has_ended = self.stop.send(());
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

/// Forwards frames in both directions until it is stopped.
fn relay(one: &TapDevice, other: &TapDevice, stopped: &mpsc::Receiver<()>) {
    let mut buffer = vec![0; FRAME_MAX];
    while stopped.try_recv().is_err() {
        let mut ends = [PollFd::new(one, PollFlags::IN), PollFd::new(other, PollFlags::IN)];
        let _ready = poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
        for (from, to) in [(one, other), (other, one)] {
            while let Ok(length) = from.read(&mut buffer) {
                // A frame that the other end does not accept is lost, as on any link.
                let _lost = to.write(&buffer[..length]);
            }
        }
    }
}
