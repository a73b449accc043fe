//! A command: a validated request, made by a user with the permission for it, that is to be decided.

use crate::network::NetworkCommand;
use crate::node::NodeCommand;
use crate::vm::VmCommand;

/// A command on one of the resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Network(NetworkCommand),
    Vm(VmCommand),
    Node(NodeCommand),
}
