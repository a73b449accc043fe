//! Which nodes are reachable. A node is reachable from its join until it is recorded as unreachable, and again from its
//! next heartbeat, join or report. A node that was removed has no presence.

use std::collections::BTreeMap;

use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{
    NodeConditionKind, NodeConditionsChanged, NodeEvent, NodeJoined, NodeReachable, NodeRemoved, NodeUnreachable,
    UnreachableNode,
};
use otherix_schemas::value::NodeName;
use serde::{Deserialize, Serialize};

use crate::domain::{Decision, Rejection, State};

/// The members of the cluster, and whether each is reachable.
pub type Members = BTreeMap<NodeId, bool>;

/// The conditions of nodes that have any, with their details.
pub type RecordedConditions = BTreeMap<NodeId, BTreeMap<NodeConditionKind, String>>;

/// The nodes that are or were members of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    pub members: Members,
    /// What is wrong with members.
    pub conditions: RecordedConditions,
    /// Removed nodes with their names: their ids can never join again.
    pub removed: BTreeMap<NodeId, NodeName>,
}

impl Roster {
    /// Returns whether an event changes the roster.
    pub fn is_changed_by(event: &Event) -> bool {
        match event {
            Event::Node(event) => match event {
                NodeEvent::Joined(_)
                | NodeEvent::Unreachable(_)
                | NodeEvent::Reachable(_)
                | NodeEvent::Removed(_)
                | NodeEvent::ConditionsChanged(_) => true,
                NodeEvent::Changed(_)
                | NodeEvent::Reconciled(_)
                | NodeEvent::Described(_)
                | NodeEvent::Cordoned(_)
                | NodeEvent::Uncordoned(_)
                | NodeEvent::CapacityReported(_)
                | NodeEvent::Labelled(_) => false,
            },
            Event::Network(_)
            | Event::Vm(_)
            | Event::Nic(_)
            | Event::User(_)
            | Event::Enrollment(_)
            | Event::Cluster(_) => false,
        }
    }

    /// Applies an event.
    pub fn apply(&mut self, event: &NodeEvent) {
        match event {
            NodeEvent::Joined(NodeJoined { node_id, name: _ }) => {
                self.members.insert(*node_id, true);
            }
            NodeEvent::Unreachable(NodeUnreachable { node_id, last_heard_at: _ }) => self.set(*node_id, false),
            NodeEvent::Reachable(NodeReachable { node_id }) => self.set(*node_id, true),
            NodeEvent::Removed(NodeRemoved { node_id, name }) => {
                self.members.remove(node_id);
                self.conditions.remove(node_id);
                self.removed.insert(*node_id, name.clone());
            }
            NodeEvent::ConditionsChanged(NodeConditionsChanged { node_id, conditions }) => {
                let conditions: BTreeMap<_, _> =
                    conditions.iter().map(|condition| (condition.kind, condition.detail.clone())).collect();
                if conditions.is_empty() {
                    self.conditions.remove(node_id);
                } else {
                    self.conditions.insert(*node_id, conditions);
                }
            }
            NodeEvent::Changed(_)
            | NodeEvent::Reconciled(_)
            | NodeEvent::Described(_)
            | NodeEvent::Cordoned(_)
            | NodeEvent::Uncordoned(_)
            | NodeEvent::CapacityReported(_)
            | NodeEvent::Labelled(_) => {}
        }
    }

    fn set(&mut self, node_id: NodeId, is_reachable: bool) {
        if let Some(member) = self.members.get_mut(&node_id) {
            *member = is_reachable;
        }
    }

    /// Returns the rejection of a request by a node that is not a member.
    pub fn unknown(&self, node: NodeId) -> Rejection {
        match self.removed.get(&node) {
            Some(name) => Rejection::NodeRemoved { node, name: name.clone() },
            None => Rejection::NoSuchNode(node),
        }
    }
}

/// Records only changes, and none of nodes that were removed meanwhile. One command covers all nodes, so that they
/// share a batch, however many they are.
pub(super) fn record(
    state: &State,
    unreachable: &[UnreachableNode],
    reachable: &[NodeId],
) -> Result<Decision, Rejection> {
    let unreachable = unreachable.iter().map(|UnreachableNode { node_id, last_heard_at }| {
        let event: Event = NodeUnreachable { node_id: *node_id, last_heard_at: *last_heard_at }.into();
        (*node_id, false, event)
    });
    let reachable = reachable.iter().map(|node_id| (*node_id, true, NodeReachable { node_id: *node_id }.into()));
    let Roster { members, removed, .. } = state.roster();
    let mut changed = Members::new();
    let mut events = Vec::new();
    for (node_id, is_reachable, event) in unreachable.chain(reachable) {
        if removed.contains_key(&node_id) {
            continue;
        }
        let recorded = members.get(&node_id).ok_or(Rejection::NoSuchNode(node_id))?;
        if changed.insert(node_id, is_reachable).unwrap_or(*recorded) != is_reachable {
            events.push(event);
        }
    }
    Ok(events.into())
}

/// Records only changes of the kinds that are present, and none of nodes that were removed meanwhile.
pub(super) fn record_conditions(state: &State, changes: &[NodeConditionsChanged]) -> Decision {
    let Roster { members, conditions, .. } = state.roster();
    let is_change = |change: &&NodeConditionsChanged| {
        let recorded = conditions.get(&change.node_id).into_iter().flat_map(BTreeMap::keys);
        members.contains_key(&change.node_id)
            && !recorded.copied().eq(change.conditions.iter().map(|condition| condition.kind))
    };
    changes.iter().filter(is_change).map(|change| Event::from(change.clone())).collect::<Vec<_>>().into()
}

/// Returns the event that a node which sent a request is reachable again, if it was not.
pub(super) fn reachable_again(state: &State, node_id: NodeId) -> Option<Event> {
    let is_unreachable = state.roster().members.get(&node_id) == Some(&false);
    is_unreachable.then(|| NodeReachable { node_id }.into())
}
