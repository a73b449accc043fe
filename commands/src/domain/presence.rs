//! Which nodes are heard of. A node is reachable from its joining on, and until it is recorded that it fell silent; whatever
//! comes from it then, a report as well as a heartbeat, makes it reachable again. A node that was removed is judged no more.

use std::collections::BTreeMap;

use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{NodeEvent, NodeReachable, NodeUnreachable, UnreachableNode};
use otherix_schemas::value::NodeName;

use super::{Decision, Rejection, State};

/// The nodes of the cluster, and whether each is reachable.
pub type Members = BTreeMap<NodeId, bool>;

/// The nodes of the cluster, and those that were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The nodes of the cluster, and whether each is reachable.
    pub members: Members,
    /// Nodes that were removed, and what they were called: none of them comes back.
    pub removed: BTreeMap<NodeId, NodeName>,
}

impl Roster {
    /// Why nothing is heard from a node that is not of the cluster.
    pub fn stranger(&self, node: NodeId) -> Rejection {
        match self.removed.get(&node) {
            Some(name) => Rejection::NodeRemoved { node, name: name.clone() },
            None => Rejection::NoSuchNode(node),
        }
    }
}

/// Only what changes is recorded, and nothing of nodes that were removed since it was asked for. All of it follows from one command, so that however many nodes go at once are one batch.
pub(super) fn record(state: &State, silent: &[UnreachableNode], heard: &[NodeId]) -> Result<Decision, Rejection> {
    let silences = silent.iter().map(|silence| (silence.node_id, Some(silence.last_heard_at)));
    let Roster { members, removed } = state.roster().as_ref();
    let mut changed = Members::new();
    let mut events = Vec::new();
    for (node_id, silence) in silences.chain(heard.iter().map(|node_id| (*node_id, None))) {
        if removed.contains_key(&node_id) {
            continue;
        }
        let envelope = members.get(&node_id).ok_or(Rejection::NoSuchNode(node_id))?;
        let reachable = silence.is_none();
        if changed.insert(node_id, reachable).unwrap_or(*envelope) != reachable {
            events.push(match silence {
                Some(last_heard_at) => Event::Node(NodeEvent::Unreachable(NodeUnreachable { node_id, last_heard_at })),
                None => Event::Node(NodeEvent::Reachable(NodeReachable { node_id })),
            });
        }
    }
    Ok(events.into())
}

/// That something came from a node of the cluster.
pub(super) fn heard(state: &State, node_id: NodeId) -> Option<Event> {
    let unreachable = state.roster().members.get(&node_id) == Some(&false);
    unreachable.then_some(Event::Node(NodeEvent::Reachable(NodeReachable { node_id })))
}
