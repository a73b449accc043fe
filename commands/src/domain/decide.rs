//! From a command to events.

use otherix_schemas::command::Command;
use otherix_schemas::event::Event;
use otherix_schemas::network::NetworkCommand;
use otherix_schemas::node::NodeCommand;
use otherix_schemas::outcome::ResourceRef;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::vm::VmCommand;

use super::{Rejection, State, networks, nodes, presence, vms};
use crate::config::ClusterConfig;

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What happens; nothing when all is as asked already.
    pub events: Vec<Event>,
    /// What nothing was recorded for of a report, because it is not known, or not of
    /// the generation or in the condition that the report has it in.
    pub unknown: Vec<ResourceRef>,
}

impl From<Event> for Decision {
    fn from(event: Event) -> Self {
        vec![event].into()
    }
}

impl From<Vec<Event>> for Decision {
    fn from(events: Vec<Event>) -> Self {
        Self { events, unknown: Vec::new() }
    }
}

/// Decides a command on a state. `at` limits how often a node may change its mind, and nothing else.
///
/// # Errors
/// When the command does not go with the state.
pub fn decide(state: &State, config: &ClusterConfig, at: Timestamp, command: &Command) -> Result<Decision, Rejection> {
    match command {
        Command::Network(NetworkCommand::Create { network_id, network }) => {
            networks::create(state, config, *network_id, network)
        }
        Command::Network(NetworkCommand::Delete { network_id }) => networks::delete(state, *network_id),
        Command::Vm(VmCommand::Create { vm_id, nic, vm }) => vms::create(state, *vm_id, *nic, vm),
        Command::Vm(VmCommand::Delete { vm_id }) => vms::delete(state, *vm_id),
        Command::Node(NodeCommand::Join { node_id, name, mesh }) => nodes::join(state, config, *node_id, name, *mesh),
        Command::Node(NodeCommand::Remove { node_id }) => nodes::remove(state, *node_id),
        Command::Node(NodeCommand::RecordReport(report)) => nodes::record(state, at, report),
        Command::Node(NodeCommand::RecordPresence { unreachable: silent, reachable: heard }) => {
            presence::record(state, silent, heard)
        }
    }
}
