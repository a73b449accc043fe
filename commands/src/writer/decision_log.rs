//! The log of what is decided and of what nodes report as failed: a line each, once it is durable.

use otherix_schemas::cloudevent::Actor;
use otherix_schemas::event::Event;
use otherix_schemas::id::{NetworkId, NicId, NodeId, VmId};
use otherix_schemas::node::{NodeEvent, NodeReconciled};
use otherix_schemas::outcome::{Outcome, OutcomeStatus, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use serde::Deserialize;
use tokio::time::Instant;

use crate::domain::State;
use crate::store::Entry;

/// The target of these lines, by which `OTHERIX_LOG` selects them.
const TARGET: &str = "otherix::decisions";

/// Lines that are logged when what they tell is durable.
#[derive(Debug, Default)]
pub(super) struct DecisionLog(Vec<Line>);

#[derive(Debug)]
enum Line {
    Event {
        kind: String,
        on: Names,
        by: String,
        position: Position,
        begun: Instant,
    },
    /// A node reports a failure; or that what had failed is no longer so.
    Outcome {
        on: Names,
        status: OutcomeStatus,
        error: Option<String>,
        position: Position,
    },
}

/// What something is about, by name; by id what has no name any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    network: Option<String>,
    vm: Option<String>,
    node: Option<String>,
    /// Of a user, for example.
    name: Option<String>,
}

/// The part of a stored event that says what it is about.
#[derive(Deserialize)]
struct Stored {
    data: Subject,
}

#[derive(Default, Deserialize)]
struct Subject {
    network_id: Option<NetworkId>,
    vm_id: Option<VmId>,
    nic_id: Option<NicId>,
    node_id: Option<NodeId>,
    name: Option<String>,
}

impl DecisionLog {
    /// Adds the events of a command, which the state does not have yet. They are told by what is stored of them, so
    /// that a new type of event needs nothing here.
    pub(super) fn add(&mut self, state: &State, (event, entry): (&Event, &Entry), (actor, begun): (&Actor, Instant)) {
        if let Event::Node(NodeEvent::Reconciled(NodeReconciled { node_id, results, .. })) = event {
            self.0.extend(results.iter().filter_map(|result| changed(state, *node_id, result, entry.position)));
            return;
        }
        if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return;
        }
        let subject = serde_json::from_slice::<Stored>(&entry.body).map(|stored| stored.data).unwrap_or_default();
        let kind = event.type_name().trim_start_matches("dev.otherix.").to_owned();
        let on = Names::of(state, subject, &kind);
        let by = actor.name.clone().unwrap_or_else(|| actor.id.to_string());
        self.0.push(Line::Event { kind, on, by, position: entry.position, begun });
    }

    /// Logs all lines.
    pub(super) fn write(self) {
        for line in self.0 {
            line.write();
        }
    }
}

/// The line of an outcome that is a failure, or the end of one.
fn changed(state: &State, node: NodeId, result: &ResourceOutcome, position: Position) -> Option<Line> {
    let ResourceOutcome { resource, outcome, .. } = result;
    let mut subject = Subject { node_id: Some(node), ..Subject::default() };
    let before = match *resource {
        ResourceRef::Network(id) => {
            subject.network_id = Some(id);
            state.network(id).and_then(|network| network.outcomes.get(&node))
        }
        ResourceRef::Nic(id) => {
            subject.nic_id = Some(id);
            state.nics().get(id).and_then(|nic| nic.outcomes.get(&node))
        }
        ResourceRef::Vm(id) => {
            subject.vm_id = Some(id);
            state.vms().get(&id).and_then(|vm| vm.machine.as_ref()?.status.as_ref())
        }
    };
    let before = before.map(|status| &status.outcome);
    let (is_failed, was_failed) = (matches!(outcome, Outcome::Failed(_)), matches!(before, Some(Outcome::Failed(_))));
    if !(is_failed || was_failed) || before == Some(outcome) {
        return None;
    }
    let (status, error) = (outcome.status(), outcome.error().map(str::to_owned));
    Some(Line::Outcome { on: Names::of(state, subject, ""), status, error, position })
}

impl Names {
    /// `kind` is the type of the event, which begins with what a name in it belongs to.
    fn of(state: &State, subject: Subject, kind: &str) -> Self {
        let Subject { network_id, vm_id, nic_id, node_id, name } = subject;
        let nic = nic_id.and_then(|id| state.nics().get(id));
        let (vm_id, network_id) = (vm_id.or(nic.map(|nic| nic.vm_id)), network_id.or(nic.map(|nic| nic.network_id)));
        let noun = kind.split('.').next().unwrap_or_default();
        let own = |of: &str| name.clone().filter(|_| noun == of);
        let network = network_id.map(|id| {
            let known = || state.network(id).map(|network| network.name.to_string());
            own("network").or_else(known).unwrap_or_else(|| id.to_string())
        });
        let vm = vm_id.map(|id| {
            let known = || state.vms().get(&id).map(|vm| vm.name.to_string());
            own("vm").or_else(known).unwrap_or_else(|| id.to_string())
        });
        let node = node_id.map(|id| {
            let known = || state.nodes().get(&id).map(|node| node.name.to_string());
            own("node").or_else(known).unwrap_or_else(|| id.to_string())
        });
        let name = name.filter(|_| !matches!(noun, "network" | "vm" | "node"));
        Self { network, vm, node, name }
    }
}

impl Line {
    fn write(self) {
        match self {
            Self::Event { kind, on: Names { network, vm, node, name }, by, position, begun } => {
                let us = begun.elapsed().as_micros();
                tracing::info!(target: TARGET, network, vm, node, name, by, %position, us, "{kind}");
            }
            Self::Outcome { on, status, error, position } => {
                let Names { network, vm, node, name: _ } = on;
                match (status, error) {
                    (OutcomeStatus::Failed, Some(error)) => {
                        tracing::warn!(target: TARGET, network, vm, node, %position, error, "failed");
                    }
                    (status, waiting) => {
                        let status = status.as_str();
                        tracing::info!(
                            target: TARGET, network, vm, node, %position, status, waiting, "no longer failed"
                        );
                    }
                }
            }
        }
    }
}
