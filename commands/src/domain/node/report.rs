//! What is recorded of a node's report.

use std::collections::BTreeSet;

use otherix_schemas::cloudevent::Header;
use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{EVENT_RESULTS_BYTES_MAX, NodeReconciled, NodeReport, ReportNumber};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;

use super::presence;
use crate::domain::{Decision, Rejection, ReportedStatus, State};

impl State {
    pub(super) fn node_reconciled(&mut self, header: &Header, event: &NodeReconciled) {
        let NodeReconciled { node_id, incarnation, sequence, results } = event;
        let mut is_revoked = false;
        for ResourceOutcome { resource, generation, outcome, warnings, machine } in results {
            let (generation, warnings, machine) = (*generation, warnings.clone(), machine.clone());
            let status = ReportedStatus { generation, outcome: outcome.clone(), warnings, machine };
            let previous = match resource {
                ResourceRef::Network(id) => self.networks.report(*id, *node_id, status),
                ResourceRef::Nic(id) => self.nics.report(*id, *node_id, status),
                ResourceRef::Vm(id) => self.vms.report(*id, *node_id, status),
            };
            is_revoked |= previous.is_some_and(|previous| previous.is_revoked_by(generation, outcome));
        }
        let Some(node) = self.nodes.get_mut(*node_id) else { return };
        node.version = header.stream_version;
        let number = ReportNumber { incarnation: *incarnation, sequence: *sequence };
        // A report takes from the allowance once, however many events it is.
        is_revoked &= node.last_report != Some(number);
        // An earlier version recorded any number. After the highest, nothing could be recorded any more.
        if number.is_in_range(node.last_report) {
            node.last_report = Some(number);
        }
        if is_revoked {
            node.allowance = node.allowance.less_one(header.time);
        }
    }
}

/// Records what differs from the last statuses. A report also shows that its node is reachable.
pub(super) fn record(state: &State, now: Timestamp, report: &NodeReport) -> Result<Decision, Rejection> {
    let NodeReport { node_id, incarnation, sequence, results } = report;
    let node = state.nodes().get(node_id).ok_or_else(|| state.roster().unknown(*node_id))?;
    if !report.number().is_in_range(node.last_report) {
        return Err(Rejection::ReportOutOfRange { node: *node_id, number: report.number(), last: node.last_report });
    }
    let mut unknown = Vec::new();
    let (mut revoked, mut changed) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for result in results.iter().filter(|result| seen.insert(result.resource)) {
        match compare(state, *node_id, result) {
            Comparison::Unknown => unknown.push(result.resource),
            Comparison::Same => {}
            Comparison::Changed => changed.push(result.clone()),
            Comparison::Revoked => revoked.push(result.clone()),
        }
    }
    let mut events: Vec<Event> = presence::reachable_again(state, *node_id).into_iter().collect();
    if outdated_by(state, report).is_some() {
        return Ok(Decision { events, unknown });
    }
    if !revoked.is_empty()
        && let Some(retry_after_ms) = node.allowance.wait_ms(now, state.time().unwrap_or(now))
    {
        return Err(Rejection::TooManyChanges { node: *node_id, retry_after_ms });
    }
    let (incarnation, sequence) = (*incarnation, *sequence);
    let results = revoked.iter().chain(&changed);
    let decided: Vec<Event> = results.flat_map(|result| state.decided_by_report(*node_id, result)).collect();
    // Those that take from the allowance are in the first event, which sets the number of the last report.
    revoked.append(&mut changed);
    let parts = split(revoked).into_iter();
    events.extend(parts.map(|results| NodeReconciled { node_id: *node_id, incarnation, sequence, results }.into()));
    events.extend(decided);
    Ok(Decision { events, unknown })
}

/// Splits outcomes among events: those of one have at most [`EVENT_RESULTS_BYTES_MAX`] bytes, unless there is only one.
fn split(results: Vec<ResourceOutcome>) -> Vec<Vec<ResourceOutcome>> {
    let (mut parts, mut bytes) = (Vec::<Vec<_>>::new(), 0);
    for result in results {
        // What cannot be encoded fails later, by itself.
        let length = serde_json::to_vec(&result).map_or(EVENT_RESULTS_BYTES_MAX, |text| text.len() + 1);
        match parts.last_mut() {
            Some(part) if bytes + length <= EVENT_RESULTS_BYTES_MAX => {
                bytes += length;
                part.push(result);
            }
            _ => {
                bytes = length;
                parts.push(vec![result]);
            }
        }
    }
    parts
}

/// Returns the last recorded report, if it is the same as this one, or later: a repeated or delayed report holds
/// nothing that is not recorded or outdated.
pub(super) fn outdated_by(state: &State, report: &NodeReport) -> Option<ReportNumber> {
    let last = state.nodes().get(&report.node_id)?.last_report;
    last.filter(|last| report.number() <= *last)
}

/// How a reported outcome compares with the last status.
enum Comparison {
    /// The resource is unknown, or cannot have this generation or outcome.
    Unknown,
    /// The same, or older.
    Same,
    /// To be recorded.
    Changed,
    /// To be recorded in place of a settled status.
    Revoked,
}

/// What is known of a resource on a node.
pub(in crate::domain) struct Known<'a> {
    /// Position of the last decision about it.
    pub(in crate::domain) generation: Position,
    /// It belongs on the node.
    pub(in crate::domain) is_wanted: bool,
    pub(in crate::domain) status: Option<&'a ReportedStatus>,
}

fn known(state: &State, node: NodeId, resource: ResourceRef) -> Option<Known<'_>> {
    match resource {
        ResourceRef::Network(id) => state.network(id).map(|network| Known {
            generation: network.generation,
            is_wanted: network.deletion.is_none(),
            status: network.outcomes.get(&node),
        }),
        ResourceRef::Nic(id) => state.nics().get(id).map(|nic| Known {
            generation: nic.generation,
            is_wanted: nic.is_wanted_on(node),
            status: nic.outcomes.get(&node),
        }),
        ResourceRef::Vm(id) => state.vms.known_machine(id, node),
    }
}

fn compare(state: &State, node: NodeId, result: &ResourceOutcome) -> Comparison {
    let ResourceOutcome { resource, generation, outcome, warnings, machine } = result;
    // What a machine does, is reported of machines, and of nothing else.
    if machine.is_some() != matches!(resource, ResourceRef::Vm(_)) {
        return Comparison::Unknown;
    }
    let Some(Known { generation: current, is_wanted, status }) = known(state, node, *resource) else {
        return Comparison::Unknown;
    };
    let is_possible = match outcome {
        Outcome::Removed => !is_wanted && *generation == current,
        Outcome::Ready => is_wanted || *generation < current,
        Outcome::Pending(_) | Outcome::Failed(_) => true,
    };
    if !is_possible || *generation > current {
        return Comparison::Unknown;
    }
    let Some(status) = status else { return Comparison::Changed };
    let is_same = status.generation == *generation
        && status.outcome == *outcome
        && status.warnings == *warnings
        && status.machine == *machine;
    if *generation < status.generation || is_same {
        Comparison::Same
    } else if status.is_revoked_by(*generation, outcome) {
        Comparison::Revoked
    } else {
        Comparison::Changed
    }
}
