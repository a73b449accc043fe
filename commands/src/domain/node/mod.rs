//! Nodes: their state, the decisions about them, and the reply.

mod capacity;
mod flap_limit;
mod label;
mod mesh;
mod presence;
mod report;

pub(super) use self::report::Known;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::{Event, Family};
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{
    CapacityReceipt, CordonView, JoinAnswer, MeshOffer, MeshPeer, NodeCapacity, NodeCapacityReported, NodeChanged,
    NodeCommand, NodeConditionsChanged, NodeCordoned, NodeDescribed, NodeEvent, NodeJoined, NodeReachable, NodeRemoved,
    NodeUncordoned, NodeUnreachable, RemovedNodeView, ReportNumber, ReportReceipt, Resources,
};
use otherix_schemas::outcome::ResourceRef;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{Metadata, NodeName};
use otherix_schemas::vm::Arch;
use serde::{Deserialize, Serialize};

use super::codec::optional_mesh;
use super::{Decision, Rejection, Reply, State, enrollment};
use crate::config::{ClusterConfig, StoreIdentity};

pub use flap_limit::FlapAllowance;
pub use mesh::Mesh;
pub use presence::{Members, RecordedConditions, Roster};

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: NodeName,
    /// Stream version of its last event.
    pub version: u32,
    /// The last report that was recorded.
    pub last_report: Option<ReportNumber>,
    pub allowance: FlapAllowance,
    /// VMs placed on it.
    pub vms: usize,
    /// NICs bound to it that are not detached.
    pub nics: usize,
    #[serde(with = "optional_mesh")]
    pub mesh: Option<MeshPeer>,
    /// The architecture of the VMs that it can run, once it has told.
    pub arch: Option<Arch>,
    /// No VMs are placed on it.
    pub cordoned: bool,
    /// What people say about it.
    pub metadata: Metadata,
    /// What it offers to machines, once it has told.
    pub capacity: Option<NodeCapacity>,
    /// What the machines of its VMs take.
    pub allocated: Resources,
}

impl Node {
    /// Whether VMs of this architecture can run on it, as far as is known.
    pub fn can_run(&self, arch: Arch) -> bool {
        self.arch.is_none_or(|own| own == arch)
    }
}

/// The members of the cluster, with indexes, and what must never be assigned to another node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SavedNodes")]
pub struct Nodes {
    by_id: BTreeMap<NodeId, Node>,
    roster: Roster,
    pub(super) mesh: Mesh,
    #[serde(skip_serializing)]
    by_name: HashMap<String, NodeId>,
    /// Reachable nodes by the number of their NICs, then of their VMs.
    #[serde(skip_serializing)]
    by_load: BTreeSet<(usize, usize, NodeId)>,
}

/// What a state snapshot holds of [`Nodes`].
#[derive(Deserialize)]
struct SavedNodes {
    by_id: BTreeMap<NodeId, Node>,
    roster: Roster,
    mesh: Mesh,
}

impl From<SavedNodes> for Nodes {
    fn from(SavedNodes { by_id, roster, mesh }: SavedNodes) -> Self {
        let by_name = by_id.iter().map(|(id, node)| (node.name.key(), *id)).collect();
        let is_reachable = |id: &NodeId| roster.members.get(id) == Some(&true);
        let reachable = by_id.iter().filter(|(id, _)| is_reachable(id));
        let by_load = reachable.map(|(id, node)| (node.nics, node.vms, *id)).collect();
        Self { by_id, roster, mesh, by_name, by_load }
    }
}

impl Nodes {
    /// Returns the reachable nodes that are not cordoned, the least loaded first.
    pub(super) fn available_by_load(&self) -> impl Iterator<Item = NodeId> {
        let is_available = |id: &NodeId| self.by_id.get(id).is_some_and(|node| !node.cordoned);
        self.by_load.iter().map(|(_, _, id)| *id).filter(is_available)
    }

    /// Changes what is placed on a node.
    pub(super) fn change_load(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        let Some(node) = self.by_id.get_mut(&id) else { return };
        let was_reachable = self.by_load.remove(&(node.nics, node.vms, id));
        change(node);
        if was_reachable {
            self.by_load.insert((node.nics, node.vms, id));
        }
    }

    fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.by_id.get_mut(&id)
    }

    fn join(&mut self, header: &Header, event: &NodeJoined) {
        let NodeJoined { node_id, name } = event;
        self.by_name.insert(name.key(), *node_id);
        let node = Node {
            name: name.clone(),
            version: header.stream_version,
            last_report: None,
            allowance: FlapAllowance::default(),
            vms: 0,
            nics: 0,
            mesh: None,
            arch: None,
            cordoned: false,
            metadata: Metadata::default(),
            capacity: None,
            allocated: Resources::default(),
        };
        self.by_load.insert((node.nics, node.vms, *node_id));
        self.by_id.insert(*node_id, node);
    }

    fn set_presence(&mut self, header: &Header, id: NodeId, is_reachable: bool) {
        let Some(node) = self.by_id.get_mut(&id) else { return };
        node.version = header.stream_version;
        let load = (node.nics, node.vms, id);
        if is_reachable {
            self.by_load.insert(load);
        } else {
            self.by_load.remove(&load);
        }
    }

    fn remove(&mut self, id: NodeId) {
        let Some(node) = self.by_id.remove(&id) else { return };
        self.by_name.remove(&node.name.key());
        self.by_load.remove(&(node.nics, node.vms, id));
    }
}

impl State {
    /// Returns the members of the cluster.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes.by_id
    }

    /// Returns the member with this name, without regard to case.
    pub(super) fn node_named(&self, name: &NodeName) -> Option<NodeId> {
        self.nodes.by_name.get(&name.key()).copied()
    }

    /// Returns which nodes are members, whether each is reachable, and which were removed.
    pub fn roster(&self) -> &Roster {
        &self.nodes.roster
    }

    /// Returns the mesh addresses and keys that were assigned.
    pub fn mesh(&self) -> &Mesh {
        &self.nodes.mesh
    }

    pub(super) fn evolve_node(&mut self, header: &Header, event: &NodeEvent) {
        self.nodes.roster.apply(event);
        match event {
            NodeEvent::Joined(event) => self.nodes.join(header, event),
            NodeEvent::Changed(event) => {
                self.nodes.mesh.apply(event);
                let NodeChanged { node_id, mesh } = *event;
                if let Some(node) = self.nodes.get_mut(node_id) {
                    node.version = header.stream_version;
                    node.mesh = Some(mesh);
                }
            }
            NodeEvent::Unreachable(NodeUnreachable { node_id, last_heard_at: _ }) => {
                self.nodes.set_presence(header, *node_id, false);
            }
            NodeEvent::Reachable(NodeReachable { node_id }) => self.nodes.set_presence(header, *node_id, true),
            NodeEvent::Removed(NodeRemoved { node_id, name: _ }) => {
                self.nodes.remove(*node_id);
                self.nics.node_removed(*node_id);
                self.vms.node_removed(*node_id);
                self.networks.node_removed(*node_id);
            }
            NodeEvent::Reconciled(event) => self.node_reconciled(header, event),
            NodeEvent::ConditionsChanged(NodeConditionsChanged { node_id, conditions: _ }) => {
                if let Some(node) = self.nodes.get_mut(*node_id) {
                    node.version = header.stream_version;
                }
            }
            NodeEvent::Cordoned(NodeCordoned { node_id }) => self.set_cordoned(header, *node_id, true),
            NodeEvent::Uncordoned(NodeUncordoned { node_id }) => self.set_cordoned(header, *node_id, false),
            NodeEvent::CapacityReported(event) => self.nodes.capacity_reported(header, event),
            NodeEvent::Labelled(event) => self.nodes.labelled(header, event),
            NodeEvent::Described(NodeDescribed { node_id, arch }) => {
                if let Some(node) = self.nodes.get_mut(*node_id) {
                    node.version = header.stream_version;
                    node.arch = Some(*arch);
                }
            }
        }
    }
}

impl State {
    fn set_cordoned(&mut self, header: &Header, node_id: NodeId, cordoned: bool) {
        if let Some(node) = self.nodes.get_mut(node_id) {
            (node.version, node.cordoned) = (header.stream_version, cordoned);
        }
    }
}

pub(super) fn decide(
    state: &State,
    config: &ClusterConfig,
    now: Timestamp,
    command: &NodeCommand,
) -> Result<Decision, Rejection> {
    match command {
        NodeCommand::Join { node_id, name, key, mesh, arch } => {
            let mut events = join(state, config, *node_id, name, *mesh)?;
            events.extend(enrollment::key_in_use(state, *node_id, key));
            events.extend(describe(state, *node_id, *arch));
            Ok(events.into())
        }
        NodeCommand::Remove { node_id } => remove(state, *node_id),
        NodeCommand::Cordon { node_id, cordoned } => cordon(state, *node_id, *cordoned),
        NodeCommand::Change { node_id, changes } => label::change(state, *node_id, changes),
        NodeCommand::RecordCapacity(reported) => capacity::record(state, now, reported),
        NodeCommand::RecordReport(report) => report::record(state, now, report),
        NodeCommand::RecordPresence { unreachable, reachable } => presence::record(state, unreachable, reachable),
        NodeCommand::RecordConditions(changes) => Ok(presence::record_conditions(state, changes)),
    }
}

fn join(
    state: &State,
    config: &ClusterConfig,
    node_id: NodeId,
    name: &NodeName,
    offer: Option<MeshOffer>,
) -> Result<Vec<Event>, Rejection> {
    if state.roster().removed.contains_key(&node_id) {
        return Err(state.roster().unknown(node_id));
    }
    enrollment::check_name(state, node_id, name)?;
    let first = if state.nodes().contains_key(&node_id) {
        presence::reachable_again(state, node_id)
    } else {
        Some(NodeJoined { node_id, name: name.clone() }.into())
    };
    let changed = offer.map(|offer| mesh::accept(state, config, node_id, offer)).transpose()?.flatten();
    Ok(first.into_iter().chain(changed).collect())
}

/// Returns the event that a node is of this architecture, unless that is recorded.
fn describe(state: &State, node_id: NodeId, arch: Option<Arch>) -> Option<Event> {
    let recorded = state.nodes().get(&node_id).and_then(|node| node.arch);
    let arch = arch.filter(|arch| recorded != Some(*arch))?;
    Some(NodeDescribed { node_id, arch }.into())
}

/// A node is removed whether or not it is reachable, but not while VMs are placed on it.
fn remove(state: &State, node_id: NodeId) -> Result<Decision, Rejection> {
    let node = state.nodes().get(&node_id).ok_or(Rejection::NoSuchNode(node_id))?;
    let name = node.name.clone();
    if node.vms > 0 {
        return Err(Rejection::NodeInUse { name, vms: node.vms });
    }
    let removed = NodeRemoved { node_id, name }.into();
    let events: Vec<Event> = [removed].into_iter().chain(enrollment::keys_revoked(state, node_id)).collect();
    Ok(events.into())
}

/// Nothing is recorded if it is so already.
fn cordon(state: &State, node_id: NodeId, cordoned: bool) -> Result<Decision, Rejection> {
    let node = state.nodes().get(&node_id).ok_or(Rejection::NoSuchNode(node_id))?;
    let event = match (node.cordoned, cordoned) {
        (false, true) => Some(NodeCordoned { node_id }.into()),
        (true, false) => Some(NodeUncordoned { node_id }.into()),
        (true, true) | (false, false) => None,
    };
    Ok(event.into_iter().collect::<Vec<_>>().into())
}

pub(super) fn reply(
    before: &State,
    identity: StoreIdentity,
    command: &NodeCommand,
    unknown: Vec<ResourceRef>,
    envelopes: &[EventEnvelope],
) -> Reply {
    match command {
        NodeCommand::Join { .. } => {
            let StoreIdentity { cluster, epoch } = identity;
            Reply::Joined(JoinAnswer { cluster, epoch, decision_head: decision_head(before, envelopes) })
        }
        NodeCommand::Remove { .. } => envelopes.iter().find_map(removed).map_or(Reply::Nothing, Reply::Removed),
        NodeCommand::Cordon { node_id, cordoned } => cordon_view(before, *node_id, *cordoned),
        NodeCommand::Change { node_id, .. } => {
            let applied = label::applied(before, *node_id, envelopes).map(Box::new);
            applied.map_or(Reply::Nothing, Reply::AppliedNode)
        }
        NodeCommand::RecordCapacity(NodeCapacityReported { node_id, .. }) => {
            Reply::Capacity(CapacityReceipt { node_id: *node_id })
        }
        NodeCommand::RecordReport(report) => {
            Reply::Receipt(ReportReceipt { unknown, outdated: report::outdated_by(before, report) })
        }
        NodeCommand::RecordPresence { .. } | NodeCommand::RecordConditions(_) => Reply::Nothing,
    }
}

fn cordon_view(before: &State, id: NodeId, cordoned: bool) -> Reply {
    let Some(node) = before.nodes().get(&id) else { return Reply::Nothing };
    let vms = u64::try_from(node.vms).unwrap_or(u64::MAX);
    Reply::Cordoned(CordonView { id, name: node.name.clone(), cordoned, vms })
}

/// Returns the position of the last decision after the events.
fn decision_head(before: &State, envelopes: &[EventEnvelope]) -> Position {
    let mut decisions = envelopes.iter().filter(|envelope| envelope.event.family() == Family::Decision);
    decisions.next_back().map_or(before.decision_head(), |last| last.header.position)
}

fn removed(EventEnvelope { header, event }: &EventEnvelope) -> Option<RemovedNodeView> {
    let Event::Node(NodeEvent::Removed(NodeRemoved { node_id, name })) = event else { return None };
    Some(RemovedNodeView { id: *node_id, name: name.clone(), deleted_at: header.time })
}
