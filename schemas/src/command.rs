//! A command: a validated request, made by a user with the permission for it, that is to be decided.

use uuid::Uuid;

use crate::enrollment::EnrollmentCommand;
use crate::network::NetworkCommand;
use crate::nic::GeneratedNic;
use crate::node::NodeCommand;
use crate::user::{Caller, UserCommand};
use crate::value::Ipv4Subnet;
use crate::vm::VmCommand;

/// A command on one of the resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Network(NetworkCommand),
    Vm(VmCommand),
    Node(NodeCommand),
    User(UserCommand),
    Enrollment(EnrollmentCommand),
}

/// The inputs besides the body from which a request is parsed into a command.
#[derive(Clone, Copy, Debug)]
pub struct CommandInputs<'a> {
    /// Who makes the request.
    pub caller: &'a Caller,
    /// The mesh supernet, which no NAT subnet may lie in.
    pub mesh: Ipv4Subnet,
    pub generated: GeneratedIds,
}

/// Random values for one request, generated whether or not it uses them.
#[derive(Clone, Copy, Debug)]
pub struct GeneratedIds {
    /// The id of a new resource. Of version 7, so that every index orders resources by their creation.
    pub resource: Uuid,
    /// For the NIC of a new VM.
    pub nic: GeneratedNic,
}
