//! The reply to a command.

use otherix_schemas::change::Applied;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::command::Command;
use otherix_schemas::enrollment::{JoinTokenView, NodeKeyView};
use otherix_schemas::network::NetworkView;
use otherix_schemas::node::{
    CapacityReceipt, CordonView, JoinAnswer, LabelledNodeView, RemovedNodeView, ReportReceipt,
};
use otherix_schemas::outcome::ResourceRef;
use otherix_schemas::request::{Answer, Meta};
use otherix_schemas::user::UserView;
use otherix_schemas::vm::VmView;
use serde::Serialize;

use super::{State, enrollment, network, node, user, vm};
use crate::config::StoreIdentity;

/// The data of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    Network(Box<NetworkView>),
    AppliedNetwork(Box<Applied<NetworkView>>),
    Vm(Box<VmView>),
    AppliedVm(Box<Applied<VmView>>),
    User(Box<UserView>),
    JoinToken(Box<JoinTokenView>),
    NodeKey(Box<NodeKeyView>),
    Joined(JoinAnswer),
    Removed(RemovedNodeView),
    Cordoned(CordonView),
    AppliedNode(Box<Applied<LabelledNodeView>>),
    Capacity(CapacityReceipt),
    Receipt(ReportReceipt),
    Nothing,
}

/// Returns the answer to `command`, which was decided on the state `before`, with the events as they were recorded and
/// the resources that the decision did not know.
pub fn answer(
    before: &State,
    identity: StoreIdentity,
    command: &Command,
    unknown: Vec<ResourceRef>,
    envelopes: &[EventEnvelope],
) -> Answer<Reply> {
    let data = match command {
        Command::Network(command) => network::reply(before, command, envelopes),
        Command::Vm(command) => vm::reply(before, Some(command), envelopes),
        Command::User(command) => user::reply(before, command, envelopes),
        Command::Enrollment(command) => enrollment::reply(before, command, envelopes),
        Command::Node(command) => node::reply(before, identity, command, unknown, envelopes),
    };
    let position = envelopes.last().map_or(before.position(), |last| last.header.position);
    Answer { data, meta: Meta::at(position) }
}
