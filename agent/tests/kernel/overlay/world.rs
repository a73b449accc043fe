//! Several nodes, each with a namespace and a thread of its own, joined by an underlay and by a stand-in for the mesh:
//! a second wire whose ends are called `otwg0`. And guests, plugged into their taps as a hypervisor does it.

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
use crate::taps::{mac, nic, plug};

/// What the underlay's 1500 bytes leave.
pub(crate) const MTU: u32 = 1390;

const DEADLINE: Duration = Duration::from_secs(10);

/// Where each NIC is: by its number, the network and the node.
pub(crate) type Placement = BTreeMap<u16, (u16, u16)>;

pub(crate) fn mesh_address(node: u16) -> Ipv4Addr {
    format!("10.42.0.{node}").parse().unwrap()
}

pub(crate) fn vni(network: u16) -> u32 {
    u32::from(network) * 1000
}

/// What a network asks of a node.
pub(crate) fn overlay(network: u16, placement: &Placement, here: u16) -> Want {
    let remote: BTreeMap<_, _> = placement
        .iter()
        .filter(|(_, (on, node))| *on == network && *node != here)
        .map(|(nic, (_, node))| (mac(*nic), mesh_address(*node)))
        .collect();
    let flood: BTreeSet<_> = remote.values().copied().collect();
    let number = vni(network);
    let bridge = DesiredBridge { name: format!("otb{number}"), mtu: MTU, mac: None, vlan: None, nat: None };
    let vni = number.try_into().unwrap();
    let vtep = DesiredVtep { name: format!("otvx{number}"), vni, local: mesh_address(here) };
    Want::Overlay(DesiredOverlay { bridge, vtep, remote, flood })
}

/// Wants of a node what the placement asks for.
pub(crate) fn place(node: &mut Node, networks: &[u16], placement: &Placement, here: u16) {
    node.desired.mesh = Some(DesiredMesh { address: mesh_address(here) });
    networks.iter().for_each(|network| node.want(*network, overlay(*network, placement, here)));
    node.desired.nics.clear();
    for (nic, (network, _)) in placement.iter().filter(|(_, (_, node))| *node == here) {
        plug(node, *nic, *network);
    }
}

/// Gives the test's namespace a mesh device that leads nowhere.
pub(crate) fn lone_mesh(here: u16) {
    sh(&format!(
        "ip tuntap add otwg0 mode tun\nip link set otwg0 alias otherix:mesh mtu 1440\n\
         ip addr add {}/16 dev otwg0\nip link set otwg0 up",
        mesh_address(here)
    ));
}

/// What the forwarding databases say at a VTEP: the address, the node if it is the VTEP's own entry, and its state.
pub(crate) fn forwarding(vtep: &str) -> BTreeSet<(String, String, String)> {
    let entries = crate::taps::bridge_json(&format!("fdb show dev {vtep}"));
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let all = entries.iter().map(|entry| (text(&entry["mac"]), text(&entry["dst"]), text(&entry["state"])));
    // The address of the VTEP itself.
    all.filter(|(_, node, state)| !node.is_empty() || state != "permanent").collect()
}

/// What they must say for a placement.
pub(crate) fn implied(network: u16, placement: &Placement, here: u16) -> BTreeSet<(String, String, String)> {
    let there = placement.iter().filter(|(_, (on, node))| *on == network && *node != here);
    there
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
        let (jobs, work) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(enter()).unwrap();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let mut node = runtime.block_on(async { Node::new() });
            work.into_iter().for_each(|job| job(&runtime, &mut node));
        });
        Self { jobs: Some(jobs), thread: Some(thread), namespace: told.recv().unwrap() }
    }

    /// Does something on the node's thread, in its namespace.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce(&Runtime, &mut Node) -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job: Job = Box::new(move |runtime, node| tell.send(work(runtime, node)).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        told.recv().expect("the node's thread lives")
    }

    pub(crate) fn sh(&self, script: &str) -> String {
        let script = script.to_owned();
        self.run(move |_, _| sh(&script))
    }

    /// Wants the placement, and works until there is nothing to do; everything must be ready.
    pub(crate) fn settle(&self, networks: &[u16], placement: &Placement, here: u16) {
        let (networks, placement) = (networks.to_vec(), placement.clone());
        self.run(move |runtime, node| {
            place(node, &networks, &placement, here);
            let round = runtime.block_on(node.settle());
            assert!(round.outcomes.iter().all(|outcome| outcome.outcome == Outcome::Ready), "{here}: {round:?}");
        });
    }

    /// Plugs a guest into the tap of a NIC that is on this node.
    pub(crate) fn guest(&self, number: u16, address: &str) -> Guest {
        let name = otherix_schemas::nic::tap_name(nic(number));
        let vm = self.run(move |_, _| TapDevice::attach(&name).unwrap());
        Guest::new(vm, number, address)
    }
}

impl Drop for OverlayNode {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // One that panicked has said why.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// Puts this thread into a namespace of its own, and gives its path.
fn enter() -> String {
    enter_new();
    let thread = rustix::thread::gettid();
    format!("/proc/{}/task/{}/ns/net", std::process::id(), thread.as_raw_nonzero())
}

/// So many nodes, numbered from 1. On the underlay they have 192.0.2.N.
pub(crate) fn world(count: u16) -> Vec<OverlayNode> {
    enter_new();
    sh("ip link add underlay type bridge\nip link set underlay up\nip link add mesh type bridge\nip link set mesh up");
    (1..=count)
        .map(|number| {
            let station = OverlayNode::new();
            let (to, address) = (&station.namespace, mesh_address(number));
            sh(&format!(
                "ip link add u{number} type veth peer name eth0 netns {to}
                ip link set u{number} master underlay up
                ip link add m{number} mtu 1440 type veth peer name otwg0 mtu 1440 netns {to}
                ip link set m{number} master mesh up"
            ));
            station.sh(&format!(
                "ip addr add 192.0.2.{number}/24 dev eth0\nip link set eth0 up
                ip addr add {address}/16 dev otwg0\nip link set otwg0 alias otherix:mesh up"
            ));
            station
        })
        .collect()
}

/// A guest: a namespace whose `eth0` is the NIC.
pub(crate) struct Guest {
    namespace: String,
    stop: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    fn new(vm: TapDevice, number: u16, address: &str) -> Self {
        let (stop, stopped) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let address = address.to_owned();
        let thread = std::thread::spawn(move || {
            let namespace = enter();
            let nic = TapDevice::create("eth0").unwrap();
            sh(&format!("ip link set eth0 address {} mtu {MTU} up\nip addr add {address}/24 dev eth0", mac(number)));
            tell.send(namespace).unwrap();
            relay(&vm, &nic, &stopped);
        });
        Self { namespace: told.recv().unwrap(), stop, thread: Some(thread) }
    }

    fn output(&self, script: &str) -> Output {
        let namespace = format!("--net={}", self.namespace);
        Command::new("nsenter").args([&namespace, "sh", "-e", "-c", script]).output().unwrap()
    }

    /// Whether an address answers before long: a bridge's port forwards a moment after somebody is plugged in.
    pub(crate) fn comes_to_reach(&self, address: &str) {
        wait_for_blocking(DEADLINE, "an answer", || {
            self.output(&format!("ping -q -c 1 -W 1 {address}")).status.success()
        });
    }

    /// Whether a packet of so many bytes of payload is answered, in one piece.
    pub(crate) fn reaches_with(&self, address: &str, bytes: u32) -> bool {
        self.output(&format!("ping -q -c 2 -i 0.2 -W 1 -M do -s {bytes} {address}")).status.success()
    }

    pub(crate) fn is_kept_from(&self, address: &str) -> bool {
        !self.output(&format!("ping -q -c 3 -i 0.1 -W 0.3 {address}")).status.success()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ended = self.stop.send(());
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// Carries frames both ways until it is stopped.
fn relay(one: &TapDevice, other: &TapDevice, stopped: &mpsc::Receiver<()>) {
    let mut buffer = vec![0; FRAME_MAX];
    while stopped.try_recv().is_err() {
        let mut ends = [PollFd::new(one, PollFlags::IN), PollFd::new(other, PollFlags::IN)];
        let _ready = poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
        for (from, to) in [(one, other), (other, one)] {
            while let Ok(length) = from.read(&mut buffer) {
                // What the other end does not take is lost, as on any wire.
                let _lost = to.write(&buffer[..length]);
            }
        }
    }
}
