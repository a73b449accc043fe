//! The steps of a sequence: chosen at random among those that the current state allows, and executed through the CLI.

use std::path::Path;
use std::{fmt, fs};

use super::model::Cluster;
use crate::lab::Lab;

/// Maxima, so that a long sequence also deletes.
const MAX_OVERLAYS: usize = 4;
const MAX_VMS: usize = 9;
const MAX_NODES: usize = 5;

/// Minimum number of nodes, so that there is a mesh.
const MIN_NODES: usize = 2;

/// Names of bridges; a name can be used again once its network is deleted.
const BRIDGES: [&str; 2] = ["br-a", "br-b"];

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    CreateOverlay(String),
    CreateBridge { bridge: &'static str, mtu: u64 },
    DeleteNetwork(String),
    CreateVm { name: String, network: String, node: String },
    DeleteVm(String),
    Join(u32),
    Rejoin(u32),
    Remove(u32),
}

/// Pseudo-random numbers, reproducible by their seed (SplitMix64).
pub(super) struct RandomGenerator(u64);

impl RandomGenerator {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, less than `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

fn machine(node: u32) -> String {
    format!("node-{node}")
}

fn number(machine: &str) -> u32 {
    machine.strip_prefix("node-").unwrap().parse().unwrap()
}

impl Step {
    /// The next step of a sequence; `count` is the number of steps so far. Each possible kind is chosen with its
    /// weight.
    pub(super) fn next(random: &mut RandomGenerator, cluster: &Cluster, count: usize) -> Self {
        let kinds = [
            (1, Self::add_node(random, cluster)),
            (1, Self::remove_node(random, cluster)),
            (2, Self::create_overlay(cluster, count)),
            (1, Self::create_bridge(random, cluster)),
            (2, Self::delete_network(random, cluster)),
            (6, Self::create_vm(random, cluster, count)),
            (4, Self::delete_vm(random, cluster)),
        ];
        let weighted = kinds.into_iter().filter_map(|(weight, step)| Some(vec![step?; weight]));
        random.one_of(&weighted.flatten().collect::<Vec<_>>())
    }

    /// Adds a node: the lab's next machine, or one that was removed.
    pub(super) fn add_node(random: &mut RandomGenerator, cluster: &Cluster) -> Option<Self> {
        let (members, machines) = (cluster.members(), cluster.machines());
        let next = u32::try_from(machines.len()).unwrap() + 1;
        let removed = machines.iter().filter(|name| !members.contains_key(name.as_str()));
        let mut steps: Vec<_> = removed.map(|name| Self::Rejoin(number(name))).collect();
        steps.extend((machines.len() < MAX_NODES).then_some(Self::Join(next)));
        (!steps.is_empty()).then(|| random.one_of(&steps))
    }

    /// Removes a node without VMs, unless too few would remain.
    pub(super) fn remove_node(random: &mut RandomGenerator, cluster: &Cluster) -> Option<Self> {
        let members = cluster.members();
        let free: Vec<u32> = members.iter().filter(|(_, nics)| **nics == 0).map(|(name, _)| number(name)).collect();
        (members.len() > MIN_NODES && !free.is_empty()).then(|| Self::Remove(random.one_of(&free)))
    }

    fn create_overlay(cluster: &Cluster, count: usize) -> Option<Self> {
        (cluster.networks(true).len() < MAX_OVERLAYS).then(|| Self::CreateOverlay(format!("ov{count}")))
    }

    fn create_bridge(random: &mut RandomGenerator, cluster: &Cluster) -> Option<Self> {
        let used = cluster.networks(false);
        let free: Vec<_> = BRIDGES.into_iter().filter(|bridge| !used.contains_key(bridge)).collect();
        let mtu = random.one_of(&[1500, 1450, 9000]);
        (!free.is_empty()).then(|| Self::CreateBridge { bridge: random.one_of(&free), mtu })
    }

    fn delete_network(random: &mut RandomGenerator, cluster: &Cluster) -> Option<Self> {
        let (overlays, bridges) = (cluster.networks(true), cluster.networks(false));
        let free = overlays.iter().chain(&bridges).filter(|(_, nics)| **nics == 0);
        let free: Vec<_> = free.map(|(name, _)| (*name).to_owned()).collect();
        (!free.is_empty()).then(|| Self::DeleteNetwork(random.one_of(&free)))
    }

    fn create_vm(random: &mut RandomGenerator, cluster: &Cluster, count: usize) -> Option<Self> {
        let (overlays, bridges) = (cluster.networks(true), cluster.networks(false));
        // Overlays are chosen more often, because they involve more state.
        let networks: Vec<_> = overlays.keys().chain(overlays.keys()).chain(bridges.keys()).collect();
        let nodes: Vec<_> = cluster.members().keys().map(|name| (*name).to_owned()).collect();
        (!networks.is_empty() && cluster.vms().len() < MAX_VMS).then(|| Self::CreateVm {
            name: format!("vm{count}"),
            network: (*random.one_of(&networks)).to_owned(),
            node: random.one_of(&nodes),
        })
    }

    fn delete_vm(random: &mut RandomGenerator, cluster: &Cluster) -> Option<Self> {
        let vms: Vec<_> = cluster.vms().into_iter().collect();
        (!vms.is_empty()).then(|| Self::DeleteVm(random.one_of(&vms).to_owned()))
    }

    /// Executes the step; returns once it is decided, before nodes have applied it.
    pub(super) fn execute(&self, lab: &Lab) {
        let image = ["--image-url", "https://images.example/debian-12.qcow2", "--arch", "amd64", "--tap-only"];
        match self {
            Self::CreateOverlay(name) => {
                drop(lab.ok(&["network", "create", name, "--type", "overlay", "--subnet", "10.50.0.0/24"]));
            }
            Self::CreateBridge { bridge, mtu } => {
                let mtu = mtu.to_string();
                drop(lab.ok(&["network", "create", bridge, "--bridge-name", bridge, "--managed", "--mtu", &mtu]));
            }
            Self::DeleteNetwork(name) => drop(lab.ok(&["network", "delete", name])),
            Self::CreateVm { name, network, node } => {
                let create = ["vm", "create", name, "--network", network, "--node", node];
                drop(lab.ok(&[&create[..], &image].concat()));
            }
            Self::DeleteVm(name) => drop(lab.ok(&["vm", "delete", name])),
            Self::Join(node) => drop(lab.lab(&["up", "--nodes", &node.to_string()])),
            Self::Rejoin(node) => {
                lab.lab(&["stop", &machine(*node)]);
                empty_state(&lab.folder().join(machine(*node)));
                lab.lab(&["start", &machine(*node)]);
            }
            Self::Remove(node) => drop(lab.ok(&["node", "delete", &machine(*node)])),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateOverlay(name) => write!(f, "create the overlay {name}"),
            Self::CreateBridge { bridge, mtu } => write!(f, "create the network {bridge} with MTU {mtu}"),
            Self::DeleteNetwork(name) => write!(f, "delete the network {name}"),
            Self::CreateVm { name, network, node } => write!(f, "create {name} in {network} on {node}"),
            Self::DeleteVm(name) => write!(f, "delete {name}"),
            Self::Join(node) => write!(f, "node-{node} joins"),
            Self::Rejoin(node) => write!(f, "node-{node} joins again with an empty state folder"),
            Self::Remove(node) => write!(f, "remove node-{node}"),
        }
    }
}

/// Deletes the files in an agent's state folder; the folder of the mesh device's socket, there in a lab only, stays.
fn empty_state(state: &Path) {
    for entry in fs::read_dir(state).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
}
