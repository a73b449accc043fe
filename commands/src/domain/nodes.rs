//! Decisions about nodes, and what is recorded of their reports.

use std::collections::BTreeSet;
use std::sync::Arc;

use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{MeshOffer, NodeEvent, NodeJoined, NodeReconciled, NodeRemoved, NodeReport};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::NodeName;

use super::said::Said;
use super::{Decision, Rejection, State, mesh, presence};
use crate::config::ClusterConfig;

pub(super) fn join(
    state: &State,
    config: &ClusterConfig,
    node_id: NodeId,
    name: &NodeName,
    offer: Option<MeshOffer>,
) -> Result<Decision, Rejection> {
    if state.roster().removed.contains_key(&node_id) {
        return Err(state.roster().stranger(node_id));
    }
    let first = match (state.nodes.get(&node_id), state.node_names.get(&name.key())) {
        (Some(node), _) if node.name == *name => presence::heard(state, node_id),
        (Some(node), _) => return Err(Rejection::NodeHasName { node: node_id, name: node.name.clone() }),
        (None, Some(_)) => return Err(Rejection::NodeNameTaken(name.clone())),
        (None, None) => Some(Event::Node(NodeEvent::Joined(NodeJoined { node_id, name: name.clone() }))),
    };
    let changed = offer.map(|offer| mesh::offered(state, config, node_id, offer)).transpose()?.flatten();
    Ok(first.into_iter().chain(changed).collect::<Vec<_>>().into())
}

/// A node goes whether or not it is heard of, and nobody asks it; but not from under VMs.
pub(super) fn remove(state: &State, node_id: NodeId) -> Result<Decision, Rejection> {
    let node = state.nodes.get(&node_id).ok_or(Rejection::NoSuchNode(node_id))?;
    let name = node.name.clone();
    if node.vms > 0 {
        return Err(Rejection::NodeInUse { name, vms: node.vms });
    }
    Ok(Event::Node(NodeEvent::Removed(NodeRemoved { node_id, name })).into())
}

impl State {
    /// Nobody waits for the node any more; its name is free, its id, its address in the mesh and its keys are not.
    pub(super) fn node_removed(&mut self, event: &NodeRemoved) {
        let NodeRemoved { node_id, name } = event;
        self.nodes.remove(node_id);
        self.node_names.retain(|_, id| id != node_id);
        let roster = Arc::make_mut(&mut self.roster);
        roster.members.remove(node_id);
        roster.removed.insert(*node_id, name.clone());
        self.nics.node_removed(*node_id);
        for network in self.networks.values_mut() {
            network.outcomes.remove(node_id);
            if let Some(deletion) = &mut network.deletion {
                deletion.awaited.remove(node_id);
            }
        }
        self.networks
            .retain(|_, network| network.deletion.as_ref().is_none_or(|deletion| !deletion.awaited.is_empty()));
    }
}

pub(super) fn record(state: &State, at: Timestamp, report: &NodeReport) -> Result<Decision, Rejection> {
    let NodeReport { node_id, incarnation, sequence, results } = report;
    let node = state.nodes.get(node_id).ok_or_else(|| state.roster().stranger(*node_id))?;
    let mut unknown = Vec::new();
    let mut changed = Vec::new();
    let mut seen = BTreeSet::new();
    let mut takes_back = false;
    for result in results.iter().filter(|result| seen.insert(result.resource)) {
        match judge(state, *node_id, result) {
            Judgement::Unknown => unknown.push(result.resource),
            Judgement::Known => {}
            Judgement::New => changed.push(result.clone()),
            Judgement::TakenBack => {
                takes_back = true;
                changed.push(result.clone());
            }
        }
    }
    // A report that comes again, or late, says nothing that is not known or outdated.
    let recorded_before = node.last_report.is_some_and(|last| (*incarnation, *sequence) <= last);
    let mut events: Vec<Event> = presence::heard(state, *node_id).into_iter().collect();
    if recorded_before || changed.is_empty() {
        return Ok(Decision { events, unknown });
    }
    if takes_back && let Some(retry_after_ms) = node.allowance.wait_ms(at, state.time.unwrap_or(at)) {
        return Err(Rejection::TooManyChanges { node: *node_id, retry_after_ms });
    }
    let event = NodeReconciled { node_id: *node_id, incarnation: *incarnation, sequence: *sequence, results: changed };
    events.push(Event::Node(NodeEvent::Reconciled(event)));
    Ok(Decision { events, unknown })
}

enum Judgement {
    /// About nothing, or no condition of it, that there can be.
    Unknown,
    /// The same as was recorded, or older.
    Known,
    /// Something to record.
    New,
    /// Something to record instead of a settled word.
    TakenBack,
}

/// What a node's word is held against.
struct Matter<'a> {
    /// The position of the last decision about it.
    generation: Position,
    /// It is to be on the node.
    wanted: bool,
    /// What the node said before.
    said: Option<&'a Said>,
}

fn matter(state: &State, node: NodeId, resource: ResourceRef) -> Option<Matter<'_>> {
    match resource {
        ResourceRef::Network(id) => state.networks.get(&id).map(|network| Matter {
            generation: network.generation,
            wanted: network.deletion.is_none(),
            said: network.outcomes.get(&node),
        }),
        ResourceRef::Nic(id) => state.nics.get(id).map(|nic| Matter {
            generation: nic.generation,
            wanted: nic.is_wanted_on(node),
            said: nic.outcomes.get(&node),
        }),
    }
}

fn judge(state: &State, node: NodeId, result: &ResourceOutcome) -> Judgement {
    let ResourceOutcome { resource, generation, outcome, warnings } = result;
    let Some(Matter { generation: current, wanted, said }) = matter(state, node, *resource) else {
        return Judgement::Unknown;
    };
    let possible = match outcome {
        Outcome::Removed => !wanted && *generation == current,
        Outcome::Ready => wanted || *generation < current,
        Outcome::Pending(_) | Outcome::Failed(_) => true,
    };
    if !possible || *generation > current {
        return Judgement::Unknown;
    }
    let Some(said) = said else { return Judgement::New };
    let is_the_same = said.generation == *generation && said.outcome == *outcome && said.warnings == *warnings;
    if *generation < said.generation || is_the_same {
        Judgement::Known
    } else if said.is_taken_back_by(*generation, outcome) {
        Judgement::TakenBack
    } else {
        Judgement::New
    }
}
