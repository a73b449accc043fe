//! What the asker is told of a decision.

use otherix_schemas::cloudevent::Recorded;
use otherix_schemas::command::Command;
use otherix_schemas::event::{Event, Family, NetworkCreated, NetworkDeleted};
use otherix_schemas::outcome::ReportReceipt;
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Joined, Meta};
use otherix_schemas::view::{Lifetime, NetworkStatus, NetworkView};
use serde::Serialize;

use super::{Decision, State};
use crate::config::Identity;

/// What the asker is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// Of a network.
    Network(Box<NetworkView>),
    /// Of a node's joining.
    Joined(Joined),
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
    recorded: &[Recorded],
) -> Answer<Reply> {
    let joined = || {
        let Identity { cluster, epoch } = identity;
        Reply::Joined(Joined { cluster, epoch, decision_head: decision_head(before, recorded) })
    };
    let data = match command {
        Command::CreateNetwork { .. } | Command::DeleteNetwork { .. } | Command::JoinNode { .. } => {
            let view = recorded.iter().find_map(|event| network_view(before, event));
            view.map_or_else(joined, |view| Reply::Network(Box::new(view)))
        }
        Command::RecordPresence { .. } => Reply::Nothing,
        Command::RecordReport(_) => Reply::Receipt(ReportReceipt { unknown: decision.unknown.clone() }),
    };
    let position = recorded.last().map_or(before.position(), |last| last.header.position);
    Answer { data, meta: Meta::at(position) }
}

fn decision_head(before: &State, recorded: &[Recorded]) -> Position {
    let mut decisions = recorded.iter().filter(|event| event.event.family() == Family::Decision);
    decisions.next_back().map_or(before.decision_head(), |last| last.header.position)
}

/// The network that the event decides about, as it is after it.
fn network_view(before: &State, recorded: &Recorded) -> Option<NetworkView> {
    let Recorded { header, event } = recorded;
    let expected = u64::try_from(before.nodes().len()).unwrap_or(u64::MAX);
    let status = NetworkStatus { nodes: Some(Vec::new()), expected, ..NetworkStatus::default() };
    let view = match event {
        Event::NetworkCreated(NetworkCreated { network_id, name, spec }) => {
            let life = Lifetime { created_at: header.time, deleted_at: None };
            NetworkView::new(*network_id, name.clone(), spec, header.position, life)
        }
        Event::NetworkDeleted(NetworkDeleted { network_id, name }) => {
            let network = before.live_network(*network_id)?;
            let life = Lifetime { created_at: network.created_at, deleted_at: Some(header.time) };
            NetworkView::new(*network_id, name.clone(), &network.spec, header.position, life)
        }
        Event::NodeJoined(_)
        | Event::NodeUnreachable(_)
        | Event::NodeReachable(_)
        | Event::NodeReconciled(_)
        | Event::ClusterRestored(_) => return None,
    };
    Some(view.with_status(status))
}
