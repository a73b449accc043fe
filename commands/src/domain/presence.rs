//! Which nodes are heard of. A node is reachable from its joining on, and until it is recorded that it fell silent; whatever
//! comes from it then, a report as well as a heartbeat, makes it reachable again.

use std::collections::BTreeMap;

use otherix_schemas::command::Silence;
use otherix_schemas::event::{Event, NodeReachable, NodeUnreachable};
use otherix_schemas::id::NodeId;

use super::{Decision, Rejection, State};

/// The nodes of the cluster, and whether each is reachable.
pub type Roster = BTreeMap<NodeId, bool>;

/// Only what changes is recorded. All of it follows from one command, so that however many nodes go at once are one batch.
pub(super) fn record(state: &State, silent: &[Silence], heard: &[NodeId]) -> Result<Decision, Rejection> {
    let silences = silent.iter().map(|silence| (silence.node_id, Some(silence.last_heard_at)));
    let mut changed = Roster::new();
    let mut events = Vec::new();
    for (node_id, silence) in silences.chain(heard.iter().map(|node_id| (*node_id, None))) {
        let recorded = state.roster().get(&node_id).ok_or(Rejection::NoSuchNode(node_id))?;
        let reachable = silence.is_none();
        if changed.insert(node_id, reachable).unwrap_or(*recorded) != reachable {
            events.push(match silence {
                Some(last_heard_at) => Event::NodeUnreachable(NodeUnreachable { node_id, last_heard_at }),
                None => Event::NodeReachable(NodeReachable { node_id }),
            });
        }
    }
    Ok(events.into())
}

/// That something came from a node of the cluster.
pub(super) fn heard(state: &State, node_id: NodeId) -> Option<Event> {
    let unreachable = state.roster().get(&node_id) == Some(&false);
    unreachable.then_some(Event::NodeReachable(NodeReachable { node_id }))
}
