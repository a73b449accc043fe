//! Decisions about nodes, and what is recorded of their reports.

use std::collections::BTreeSet;

use otherix_schemas::event::{Event, NodeJoined, NodeReconciled};
use otherix_schemas::id::NodeId;
use otherix_schemas::outcome::{NetworkOutcome, NodeReport, Outcome};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::NodeName;

use super::{Decision, Rejection, State, flaps, presence};

pub(super) fn join(state: &State, node_id: NodeId, name: &NodeName) -> Result<Decision, Rejection> {
    match (state.nodes.get(&node_id), state.node_names.get(&name.key())) {
        (Some(node), _) if node.name == *name => {
            Ok(Decision { events: presence::heard(state, node_id).into_iter().collect(), unknown: Vec::new() })
        }
        (Some(node), _) => Err(Rejection::NodeHasName { node: node_id, name: node.name.clone() }),
        (None, Some(_)) => Err(Rejection::NodeNameTaken(name.clone())),
        (None, None) => Ok(Event::NodeJoined(NodeJoined { node_id, name: name.clone() }).into()),
    }
}

pub(super) fn record(state: &State, at: Timestamp, report: &NodeReport) -> Result<Decision, Rejection> {
    let NodeReport { node_id, incarnation, sequence, results } = report;
    let node = state.nodes.get(node_id).ok_or(Rejection::NoSuchNode(*node_id))?;
    let mut unknown = Vec::new();
    let mut changed = Vec::new();
    let mut seen = BTreeSet::new();
    let mut takes_back = false;
    for result in results.iter().filter(|result| seen.insert(result.network_id)) {
        match judge(state, *node_id, result) {
            Judgement::Unknown => unknown.push(result.network_id),
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
    events.push(Event::NodeReconciled(event));
    Ok(Decision { events, unknown })
}

enum Judgement {
    /// About no network, or no condition of it, that there can be.
    Unknown,
    /// The same as was recorded, or older.
    Known,
    /// Something to record.
    New,
    /// Something to record instead of a settled word.
    TakenBack,
}

fn judge(state: &State, node: NodeId, result: &NetworkOutcome) -> Judgement {
    let NetworkOutcome { network_id, generation, outcome } = result;
    let Some(network) = state.networks.get(network_id) else { return Judgement::Unknown };
    let deleted = network.deletion.is_some();
    let possible = match outcome {
        Outcome::Removed => deleted && *generation == network.generation,
        Outcome::Ready => !deleted || *generation < network.generation,
        Outcome::Pending(_) | Outcome::Failed(_) => true,
    };
    if !possible || *generation > network.generation {
        return Judgement::Unknown;
    }
    match network.outcomes.get(&node) {
        Some((recorded, _)) if generation < recorded => Judgement::Known,
        Some((recorded, last)) if generation == recorded && last == outcome => Judgement::Known,
        Some((recorded, last)) if generation == recorded && flaps::takes_back(last, outcome) => Judgement::TakenBack,
        Some(_) | None => Judgement::New,
    }
}
