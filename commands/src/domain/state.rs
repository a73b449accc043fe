//! The state that decisions rest on: a function of the events alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::cluster::{ClusterEvent, ClusterRestored};
use otherix_schemas::event::{Event, Family, StreamId};
use otherix_schemas::id::{NetworkId, NodeId, VmId};
use otherix_schemas::network::{NetworkCreated, NetworkDeleted, NetworkEvent, NetworkSpec};
use otherix_schemas::nic::NicEvent;
use otherix_schemas::node::{
    MeshPeer, NodeChanged, NodeEvent, NodeJoined, NodeReachable, NodeReconciled, NodeUnreachable,
};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{NetworkName, NodeName, Vni};
use otherix_schemas::vm::VmEvent;

use super::flaps::Allowance;
use super::mesh::Mesh;
use super::presence::Roster;
use super::said::Said;
use super::vms::{Nics, Vm};

/// All that is known of the cluster at a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) position: Position,
    pub(super) decision_head: Position,
    pub(super) time: Option<Timestamp>,
    /// How often a new epoch began.
    pub(super) restorations: u32,
    pub(super) networks: BTreeMap<NetworkId, Network>,
    /// Networks that are not deleted, by the key of their name.
    pub(super) names: HashMap<String, NetworkId>,
    /// Networks that are not deleted, by the bridge they are on.
    pub(super) bridges: HashMap<String, BTreeSet<NetworkId>>,
    /// The highest VNI ever given, deleted overlays included.
    pub(super) highest_vni: Option<Vni>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) mesh: Mesh,
    /// The same nodes, whether they are reachable, and which were removed; shared with who keeps watch of them.
    pub(super) roster: Arc<Roster>,
    /// Nodes by the key of their name.
    pub(super) node_names: HashMap<String, NodeId>,
    pub(super) vms: BTreeMap<VmId, Vm>,
    /// VMs by the key of their name.
    pub(super) vm_names: HashMap<String, VmId>,
    pub(super) nics: Nics,
}

/// A network, kept until every node has confirmed its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: NetworkName,
    /// What it is.
    pub spec: NetworkSpec,
    /// Its number of events.
    pub version: u32,
    /// The position of its last decision.
    pub generation: Position,
    /// When it was created.
    pub created_at: Timestamp,
    /// That it was deleted.
    pub deletion: Option<Deletion>,
    /// What nodes last said of it.
    pub outcomes: BTreeMap<NodeId, Said>,
}

/// That a network was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Nodes that have not confirmed its removal.
    pub awaited: BTreeSet<NodeId>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its number of events.
    pub version: u32,
    /// Incarnation and sequence of the last report that was recorded.
    pub last_report: Option<(u64, u64)>,
    /// How often it may still change its mind.
    pub allowance: Allowance,
    /// How many VMs are on it.
    pub vms: usize,
    /// Its place in the mesh, if it has one.
    pub mesh: Option<MeshPeer>,
}

impl State {
    /// The last event taken in.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The last decision taken in.
    pub fn decision_head(&self) -> Position {
        self.decision_head
    }

    /// The time of the last event.
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// The highest VNI that may ever have been given.
    pub fn highest_vni(&self) -> Option<Vni> {
        self.highest_vni
    }

    /// A network that is known, deleted or not.
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id)
    }

    /// A network that is not deleted.
    pub fn live_network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id).filter(|network| network.deletion.is_none())
    }

    /// The networks that are not deleted.
    pub fn live_networks(&self) -> impl Iterator<Item = (NetworkId, &Network)> {
        self.networks.iter().filter(|(_, network)| network.deletion.is_none()).map(|(id, network)| (*id, network))
    }

    /// Whether a node that is reachable has yet to say what became of the last decision about a network.
    pub fn awaits_word_of(&self, id: NetworkId) -> bool {
        let Some(network) = self.networks.get(&id) else { return false };
        let is_outdated = |node| network.outcomes.get(node).is_none_or(|said| said.generation < network.generation);
        self.roster.members.iter().any(|(node, reachable)| *reachable && is_outdated(node))
    }

    /// The nodes of the cluster.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// What has been given of the mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The nodes of the cluster, whether each is reachable, and which were removed.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// The number that the next event of an aggregate gets.
    pub fn next_version(&self, stream: StreamId) -> u32 {
        let last = match stream {
            StreamId::Network(id) => self.networks.get(&id).map_or(0, |network| network.version),
            StreamId::Vm(id) => self.vms.get(&id).map_or(0, |vm| vm.version),
            StreamId::Nic(id) => self.nics.get(id).map_or(0, |nic| nic.version),
            StreamId::Node(id) => self.nodes.get(&id).map_or(0, |node| node.version),
            StreamId::Cluster(_) => self.restorations,
        };
        last + 1
    }

    /// Takes an event in. Total: whatever is recorded has happened.
    pub fn evolve(&mut self, envelope: &EventEnvelope) {
        let EventEnvelope { header, event } = envelope;
        self.position = header.position;
        self.time = Some(header.time);
        match event.family() {
            Family::Decision => self.decision_head = header.position,
            Family::Outcome => {}
        }
        match event {
            Event::Network(NetworkEvent::Created(event)) => self.network_created(header, event),
            Event::Network(NetworkEvent::Deleted(event)) => self.network_deleted(header, event),
            Event::Vm(VmEvent::Created(event)) => self.vm_created(header, event),
            Event::Vm(VmEvent::Deleted(event)) => self.vm_deleted(event),
            Event::Nic(NicEvent::Attached(event)) => self.nics.attach(header, event),
            Event::Nic(NicEvent::Bound(event)) => self.nics.bind(header, event),
            Event::Nic(NicEvent::Detached(event)) => self.nics.detach(header, event.nic_id),
            Event::Node(NodeEvent::Joined(event)) => self.node_joined(header, event),
            Event::Node(NodeEvent::Changed(event)) => self.node_changed(header, event),
            Event::Node(NodeEvent::Unreachable(NodeUnreachable { node_id, last_heard_at: _ })) => {
                self.node_presence(header, *node_id, false);
            }
            Event::Node(NodeEvent::Reachable(NodeReachable { node_id })) => self.node_presence(header, *node_id, true),
            Event::Node(NodeEvent::Removed(event)) => self.node_removed(event),
            Event::Node(NodeEvent::Reconciled(event)) => self.node_reconciled(header, event),
            Event::Cluster(ClusterEvent::Restored(event)) => self.cluster_restored(header, event),
        }
    }

    fn network_created(&mut self, header: &Header, event: &NetworkCreated) {
        let NetworkCreated { network_id, name, spec } = event.clone();
        self.names.insert(name.key(), network_id);
        self.bridges.entry(spec.bridge_name()).or_default().insert(network_id);
        self.highest_vni = self.highest_vni.max(spec.vni());
        let network = Network {
            name,
            spec,
            version: header.stream_version,
            generation: header.position,
            created_at: header.time,
            deletion: None,
            outcomes: BTreeMap::new(),
        };
        self.networks.insert(network_id, network);
    }

    fn network_deleted(&mut self, header: &Header, event: &NetworkDeleted) {
        let awaited: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        let Some(network) = self.networks.get_mut(&event.network_id) else { return };
        network.version = header.stream_version;
        network.generation = header.position;
        self.names.remove(&network.name.key());
        let bridge = network.spec.bridge_name();
        if let Some(networks) = self.bridges.get_mut(&bridge) {
            networks.remove(&event.network_id);
            if networks.is_empty() {
                self.bridges.remove(&bridge);
            }
        }
        network.deletion = Some(Deletion { awaited });
        self.forget_if_removed(event.network_id);
    }

    fn node_joined(&mut self, header: &Header, event: &NodeJoined) {
        let NodeJoined { node_id, name } = event.clone();
        self.node_names.insert(name.key(), node_id);
        let version = header.stream_version;
        let node = Node { name, version, last_report: None, allowance: Allowance::default(), vms: 0, mesh: None };
        self.nodes.insert(node_id, node);
        Arc::make_mut(&mut self.roster).members.insert(node_id, true);
    }

    fn node_changed(&mut self, header: &Header, event: &NodeChanged) {
        self.mesh.take_in(event);
        let Some(node) = self.nodes.get_mut(&event.node_id) else { return };
        node.version = header.stream_version;
        node.mesh = Some(event.mesh);
    }

    fn node_presence(&mut self, header: &Header, node_id: NodeId, reachable: bool) {
        let Some(node) = self.nodes.get_mut(&node_id) else { return };
        node.version = header.stream_version;
        Arc::make_mut(&mut self.roster).members.insert(node_id, reachable);
    }

    fn node_reconciled(&mut self, header: &Header, event: &NodeReconciled) {
        let NodeReconciled { node_id, incarnation, sequence, results } = event;
        if let Some(node) = self.nodes.get_mut(node_id) {
            node.version = header.stream_version;
            node.last_report = Some((*incarnation, *sequence));
        }
        let mut taken_back = false;
        for ResourceOutcome { resource, generation, outcome, warnings } in results {
            let word = Said { generation: *generation, outcome: outcome.clone(), warnings: warnings.clone() };
            let before = match resource {
                ResourceRef::Network(id) => self.network_said(*id, *node_id, word),
                ResourceRef::Nic(id) => self.nics.said(*id, *node_id, word),
            };
            taken_back |= before.is_some_and(|before| before.is_taken_back_by(*generation, outcome));
        }
        if taken_back && let Some(node) = self.nodes.get_mut(node_id) {
            node.allowance = node.allowance.less_one(header.time);
        }
    }

    /// Takes in what a node says of a network. Gives what it said before.
    fn network_said(&mut self, id: NetworkId, node_id: NodeId, word: Said) -> Option<Said> {
        let network = self.networks.get_mut(&id)?;
        let removed = word.outcome == Outcome::Removed;
        let before = network.outcomes.insert(node_id, word);
        if let (Some(deletion), true) = (&mut network.deletion, removed) {
            deletion.awaited.remove(&node_id);
            self.forget_if_removed(id);
        }
        before
    }

    fn cluster_restored(&mut self, header: &Header, event: &ClusterRestored) {
        self.restorations = header.stream_version;
        self.highest_vni = self.highest_vni.max(event.highest_vni);
        self.mesh.restore(event);
    }

    /// A deleted network that no node has anything of is not needed any more.
    fn forget_if_removed(&mut self, id: NetworkId) {
        let deletion = self.networks.get(&id).and_then(|network| network.deletion.as_ref());
        if deletion.is_some_and(|deletion| deletion.awaited.is_empty()) {
            self.networks.remove(&id);
        }
    }
}
