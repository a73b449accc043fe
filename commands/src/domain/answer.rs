//! What the asker is told of a decision.

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::cluster::ClusterEvent;
use otherix_schemas::command::Command;
use otherix_schemas::event::{Event, Family};
use otherix_schemas::id::{NetworkId, NicId, NodeId};
use otherix_schemas::network::{
    Lifetime, NetworkCommand, NetworkCreated, NetworkDeleted, NetworkEvent, NetworkStatus, NetworkView,
};
use otherix_schemas::nic::{NicAttached, NicBound, NicDetached, NicEvent, NicView, tap_name};
use otherix_schemas::node::{JoinAnswer, NodeCommand, NodeEvent, NodeRemoved, RemovedNodeView, ReportReceipt};
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Meta};
use otherix_schemas::value::MacAddress;
use otherix_schemas::vm::{VmCommand, VmCreated, VmDeleted, VmEvent, VmView, waiting_for_node};
use serde::Serialize;

use super::{Decision, State};
use crate::config::Identity;

/// What the asker is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// Of a network.
    Network(Box<NetworkView>),
    /// Of a VM.
    Vm(Box<VmView>),
    /// Of a node's joining.
    Joined(JoinAnswer),
    /// Of a node's removal.
    Removed(RemovedNodeView),
    /// Of a report.
    Receipt(ReportReceipt),
    /// There is nothing to tell.
    Nothing,
}

/// The answer to `command`, decided on `before`, with the events as they were recorded.
pub fn answer(
    before: &State,
    identity: Identity,
    command: &Command,
    decision: &Decision,
    envelope: &[EventEnvelope],
) -> Answer<Reply> {
    let joined = || {
        let Identity { cluster, epoch } = identity;
        Reply::Joined(JoinAnswer { cluster, epoch, decision_head: decision_head(before, envelope) })
    };
    let data = match command {
        Command::Network(NetworkCommand::Create { .. }) | Command::Network(NetworkCommand::Delete { .. }) => {
            let view = envelope.iter().find_map(|event| network_view(before, event));
            view.map_or(Reply::Nothing, |view| Reply::Network(Box::new(view)))
        }
        Command::Vm(VmCommand::Create { .. }) | Command::Vm(VmCommand::Delete { .. }) => {
            vm_view(before, envelope).map_or(Reply::Nothing, |view| Reply::Vm(Box::new(view)))
        }
        Command::Node(NodeCommand::Join { .. }) => joined(),
        Command::Node(NodeCommand::Remove { .. }) => {
            envelope.iter().find_map(removed).map_or(Reply::Nothing, Reply::Removed)
        }
        Command::Node(NodeCommand::RecordPresence { .. }) => Reply::Nothing,
        Command::Node(NodeCommand::RecordReport(_)) => {
            Reply::Receipt(ReportReceipt { unknown: decision.unknown.clone() })
        }
    };
    let position = envelope.last().map_or(before.position(), |last| last.header.position);
    Answer { data, meta: Meta::at(position) }
}

fn decision_head(before: &State, envelope: &[EventEnvelope]) -> Position {
    let mut decisions = envelope.iter().filter(|event| event.event.family() == Family::Decision);
    decisions.next_back().map_or(before.decision_head(), |last| last.header.position)
}

/// The node that the event removes.
fn removed(EventEnvelope { header, event }: &EventEnvelope) -> Option<RemovedNodeView> {
    if let Event::Node(NodeEvent::Removed(NodeRemoved { node_id, name })) = event {
        return Some(RemovedNodeView { id: *node_id, name: name.clone(), deleted_at: header.time });
    }
    None
}

/// The network that the event decides about, as it is after it.
fn network_view(before: &State, envelope: &EventEnvelope) -> Option<NetworkView> {
    let EventEnvelope { header, event } = envelope;
    let expected = u64::try_from(before.nodes().len()).unwrap_or(u64::MAX);
    let status = NetworkStatus { nodes: Some(Vec::new()), expected, ..NetworkStatus::default() };
    let view = match event {
        Event::Network(NetworkEvent::Created(NetworkCreated { network_id, name, spec })) => {
            let life = Lifetime { created_at: header.time, deleted_at: None };
            NetworkView::new(*network_id, name.clone(), spec, header.position, life)
        }
        Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id, name })) => {
            let network = before.live_network(*network_id)?;
            let life = Lifetime { created_at: network.created_at, deleted_at: Some(header.time) };
            NetworkView::new(*network_id, name.clone(), &network.spec, header.position, life)
        }
        Event::Vm(VmEvent::Created(_))
        | Event::Vm(VmEvent::Deleted(_))
        | Event::Nic(NicEvent::Attached(_))
        | Event::Nic(NicEvent::Bound(_))
        | Event::Nic(NicEvent::Detached(_))
        | Event::Node(NodeEvent::Joined(_))
        | Event::Node(NodeEvent::Changed(_))
        | Event::Node(NodeEvent::Unreachable(_))
        | Event::Node(NodeEvent::Reachable(_))
        | Event::Node(NodeEvent::Removed(_))
        | Event::Node(NodeEvent::Reconciled(_))
        | Event::Cluster(ClusterEvent::Restored(_)) => return None,
    };
    Some(view.with_status(status))
}

/// The VM that the events decide about, as it is after them.
fn vm_view(before: &State, envelope: &[EventEnvelope]) -> Option<VmView> {
    let nic = nic_view(before, envelope);
    let status = if nic.is_some() { OutcomeStatus::Pending } else { OutcomeStatus::Ready };
    let of = |node_id: &NodeId| {
        let node_name = before.nodes().get(node_id)?.name.clone();
        Some((node_name, before.roster().members.get(node_id).copied().unwrap_or_default()))
    };
    let mut view = envelope.iter().find_map(|EventEnvelope { header, event }| match event {
        Event::Vm(VmEvent::Created(VmCreated { vm_id, name, image_url, arch, node_id })) => {
            let (node_name, node_reachable) = of(node_id)?;
            Some(VmView {
                id: *vm_id,
                name: name.clone(),
                image_url: image_url.clone(),
                arch: *arch,
                node_id: *node_id,
                node_name,
                node_reachable,
                nic: nic.clone(),
                status,
                error: None,
                warnings: Vec::new(),
                generation: header.position,
                created_at: header.time,
                updated_at: header.time,
                deleted_at: None,
            })
        }
        Event::Vm(VmEvent::Deleted(VmDeleted { vm_id, name })) => {
            let vm = before.vms().get(vm_id)?;
            let (node_name, node_reachable) = of(&vm.node_id)?;
            Some(VmView {
                id: *vm_id,
                name: name.clone(),
                image_url: vm.image_url.clone(),
                arch: vm.arch,
                node_id: vm.node_id,
                node_name,
                node_reachable,
                status: if nic.is_some() { status } else { OutcomeStatus::Removed },
                nic: nic.clone(),
                error: None,
                warnings: Vec::new(),
                generation: header.position,
                created_at: vm.created_at,
                updated_at: header.time,
                deleted_at: Some(header.time),
            })
        }
        Event::Network(NetworkEvent::Created(_))
        | Event::Network(NetworkEvent::Deleted(_))
        | Event::Nic(NicEvent::Attached(_))
        | Event::Nic(NicEvent::Bound(_))
        | Event::Nic(NicEvent::Detached(_))
        | Event::Node(NodeEvent::Joined(_))
        | Event::Node(NodeEvent::Changed(_))
        | Event::Node(NodeEvent::Unreachable(_))
        | Event::Node(NodeEvent::Reachable(_))
        | Event::Node(NodeEvent::Removed(_))
        | Event::Node(NodeEvent::Reconciled(_))
        | Event::Cluster(ClusterEvent::Restored(_)) => None,
    })?;
    view.error = nic.map(|nic| waiting_for_node(&view, &nic.tap));
    Some(view)
}

/// The NIC that the events decide about.
fn nic_view(before: &State, envelope: &[EventEnvelope]) -> Option<NicView> {
    let mut view: Option<NicView> = None;
    for EventEnvelope { header, event } in envelope {
        match event {
            Event::Nic(NicEvent::Attached(NicAttached { nic_id, network_id, mac, .. })) => {
                view = new_nic_view(before, *nic_id, *network_id, *mac);
            }
            Event::Nic(NicEvent::Detached(NicDetached { nic_id, network_id, .. })) => {
                view = new_nic_view(before, *nic_id, *network_id, before.nics().get(*nic_id)?.mac);
            }
            Event::Nic(NicEvent::Bound(NicBound { .. }))
            | Event::Network(NetworkEvent::Created(_))
            | Event::Network(NetworkEvent::Deleted(_))
            | Event::Vm(VmEvent::Created(_))
            | Event::Vm(VmEvent::Deleted(_))
            | Event::Node(NodeEvent::Joined(_))
            | Event::Node(NodeEvent::Changed(_))
            | Event::Node(NodeEvent::Unreachable(_))
            | Event::Node(NodeEvent::Reachable(_))
            | Event::Node(NodeEvent::Removed(_))
            | Event::Node(NodeEvent::Reconciled(_))
            | Event::Cluster(ClusterEvent::Restored(_)) => {}
        }
        if let (Some(view), "nic") = (&mut view, event.stream_id().aggregate()) {
            view.generation = header.position;
        }
    }
    view
}

fn new_nic_view(before: &State, id: NicId, network_id: NetworkId, mac: MacAddress) -> Option<NicView> {
    let network = before.live_network(network_id)?;
    Some(NicView {
        id,
        network_id,
        network_name: network.name.clone(),
        bridge_name: network.spec.bridge_name(),
        mac,
        tap: tap_name(id),
        generation: Position::ZERO,
        observed_generation: None,
        reconciled_at: None,
    })
}
