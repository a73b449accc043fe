//! From a command to events.

use otherix_schemas::command::Command;
use otherix_schemas::event::Event;
use otherix_schemas::outcome::ResourceRef;
use otherix_schemas::timestamp::Timestamp;

use super::{Rejection, State, enrollment, network, node, user, vm};
use crate::config::ClusterConfig;

/// The result of a command that is not rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Empty if the state is as the command requests already.
    pub events: Vec<Event>,
    /// The resources of a report for which nothing was recorded, because they are unknown, or cannot have the reported
    /// generation or status.
    pub unknown: Vec<ResourceRef>,
}

impl From<Vec<Event>> for Decision {
    fn from(events: Vec<Event>) -> Self {
        Self { events, unknown: Vec::new() }
    }
}

impl Decision {
    /// Returns a decision of one event.
    pub(super) fn one(event: impl Into<Event>) -> Self {
        vec![event.into()].into()
    }
}

/// Decides a command on a state. `now` is used for the flap limit and the expiry of credentials only.
///
/// # Errors
/// If the state does not allow the command.
pub fn decide(state: &State, config: &ClusterConfig, now: Timestamp, command: &Command) -> Result<Decision, Rejection> {
    match command {
        Command::Network(command) => network::decide(state, config, command),
        Command::Vm(command) => vm::decide(state, command),
        Command::Node(command) => node::decide(state, config, now, command),
        Command::User(command) => user::decide(state, now, command),
        Command::Enrollment(command) => enrollment::decide(state, now, command),
    }
}
