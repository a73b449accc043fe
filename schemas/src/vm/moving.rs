//! Moving a VM to another node (docs/adr/0051): its requests, and its events.
//!
//! A VM is on one node at every position: on its old one until `vm.moved`, on its new one from then on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Arch, Machine, Power, SHUTDOWN_S, VmById, VmCommand, VmEvent, VmView};
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::event::{Event, EventProvenance, StreamId, same_shape};
use crate::id::{NodeId, VmId};
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType, parse_body};
use crate::timestamp::Timestamp;
use crate::value::{ImageUrl, NodeName, VmName};

use super::power::check_timeout;

/// The requests that move VMs.
pub(crate) const MOVE_COMMANDS: &[Request] = &[Request::of::<MoveVm>(), Request::of::<CancelVmMove>()];

/// A VM begins to move: its node shuts it down and gives its disk to the other node. It stays on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmMoveStarted {
    pub vm_id: VmId,
    /// With the fields below what the creation said: the other node has not kept it.
    pub name: VmName,
    pub image_url: ImageUrl,
    pub arch: Arch,
    pub machine: Machine,
    /// The node that it is on.
    pub from_node_id: NodeId,
    /// The node that it moves to.
    pub node_id: NodeId,
    /// Whether it is to run afterwards, wherever it is then.
    pub power: Power,
    /// How long the guest may take to shut down, in seconds.
    pub timeout_s: u32,
}

/// A VM is on another node from now on, which has its whole disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmMoved {
    pub vm_id: VmId,
    /// The node that it was on.
    pub from_node_id: NodeId,
    /// The node that it is on.
    pub node_id: NodeId,
}

/// A VM stays on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmMoveCancelled {
    pub vm_id: VmId,
    /// The node that it does not move to.
    pub node_id: NodeId,
    /// Why it cannot be moved; `None` if it was cancelled by a request.
    pub reason: Option<String>,
}

/// A VM begins to move: its node shuts it down and gives its disk to the other node. It stays on its node until
/// `vm.moved`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmMoveStartedV1 {
    pub vm_id: VmId,
    /// This and the next three fields repeat the creation: the other node has not kept it.
    pub name: VmName,
    pub image_url: ImageUrl,
    pub arch: Arch,
    pub machine: Machine,
    /// The node that it is on.
    pub from_node_id: NodeId,
    /// The node that it moves to.
    pub node_id: NodeId,
    /// Whether it is to run afterwards, wherever it is then: as before, but `stopped` if its guest has shut down by
    /// itself.
    pub power: Power,
    /// How long the guest may take to shut down, in seconds, before its machine is turned off: 0 to 3,600.
    pub timeout_s: u32,
}

/// A VM is on another node from now on, which has its whole disk. The old node removes what it has of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmMovedV1 {
    pub vm_id: VmId,
    /// The node that it was on.
    pub from_node_id: NodeId,
    /// The node that it is on.
    pub node_id: NodeId,
}

/// A VM stays on its node. The other node removes what it has of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmMoveCancelledV1 {
    pub vm_id: VmId,
    /// The node that it does not move to.
    pub node_id: NodeId,
    /// Why it cannot be moved, as a node reported it; null if it was cancelled by a request.
    pub reason: Option<String>,
}

same_shape!(
    VmMoveStarted,
    VmMoveStartedV1 { vm_id, name, image_url, arch, machine, from_node_id, node_id, power, timeout_s },
    |event| StreamId::Vm(event.vm_id),
    |event| Event::Vm(VmEvent::MoveStarted(event)),
    Decision,
    "dev.otherix.vm.move-started.v1",
    "A VM begins to move to another node",
    EventProvenance { when: "A VM is to be moved to another node.", requests: &["vm.move"], causes: &[] }
);

same_shape!(
    VmMoved,
    VmMovedV1 { vm_id, from_node_id, node_id },
    |event| StreamId::Vm(event.vm_id),
    |event| Event::Vm(VmEvent::Moved(event)),
    Decision,
    "dev.otherix.vm.moved.v1",
    "A VM is on another node",
    EventProvenance {
        when: "The node that a VM moves to reports that it has the whole disk.",
        requests: &["node.report"],
        causes: &["node.reachable", "node.reconciled"]
    }
);

same_shape!(
    VmMoveCancelled,
    VmMoveCancelledV1 { vm_id, node_id, reason },
    |event| StreamId::Vm(event.vm_id),
    |event| Event::Vm(VmEvent::MoveCancelled(event)),
    Decision,
    "dev.otherix.vm.move-cancelled.v1",
    "A VM stays on its node",
    EventProvenance {
        when: "The move of a VM is cancelled, or one of its nodes reports that it cannot be moved.",
        requests: &["vm.cancel-move", "node.report"],
        causes: &["node.reachable", "node.reconciled"]
    }
);

/// Selects a VM that is to move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmMove {
    pub id: VmId,
    /// Where to; without it, a node is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// How long the guest may take to shut down, in seconds, before its machine is turned off: 0 (at once) to 3,600
    /// (default 60).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
}

/// Where a VM moves to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmMoveView {
    pub node_id: NodeId,
    pub node_name: NodeName,
    /// How far that node is, as it has reported it; null before it has.
    pub progress: Option<String>,
    pub since: Timestamp,
}

/// The status of a VM that moves: what its nodes have reported last.
pub fn moving_to(node: &NodeName, progress: Option<&str>) -> String {
    format!("moving to node `{node}`: {}", progress.unwrap_or("shutting down"))
}

/// The warning of a VM of which a node still has files.
pub fn copy_on(node: &NodeName) -> String {
    format!("node `{node}`, which it is not on, has not removed what it had of it yet")
}

/// `vm.move`
#[derive(Clone, Copy, Debug)]
pub struct MoveVm;

impl RequestType for MoveVm {
    const NAME: &'static str = "vm.move";
    const PERMISSION: Permission = Permission::VmMove;
    const KIND: RequestKind = RequestKind::Command(start);
    const SUMMARY: &'static str = "Move a VM to another node";
    const DESCRIPTION: &'static str = "The VM is shut down as by `vm.stop`, its disk is copied to the other node \
        through the mesh, and it is started there, if it was to run; it keeps its addresses. Until the copy is \
        complete it is on its node, and is started there again if it cannot be moved; `moving` of `vm.get` shows how \
        far it is. \
        `conflict` if it moves already, is paused, or has no machine; if its node is unreachable, or one of the two is \
        not part of the mesh; if the other node is unreachable or cordoned, has no room, is of another architecture, \
        or the network has failed on it; or if a node has yet to remove an earlier copy.";
    type Body = VmMove;
    type Answer = VmView;
}

fn start(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let VmMove { id, node_id, timeout_s } = parse_body(body)?;
    let timeout_s = check_timeout(timeout_s.unwrap_or(SHUTDOWN_S))?;
    let scope = inputs.caller.scope(MoveVm::PERMISSION);
    Ok(Command::Vm(VmCommand::Move { vm_id: id, node_id, timeout_s, scope }))
}

/// `vm.cancel-move`
#[derive(Clone, Copy, Debug)]
pub struct CancelVmMove;

impl RequestType for CancelVmMove {
    const NAME: &'static str = "vm.cancel-move";
    const PERMISSION: Permission = Permission::VmMove;
    const KIND: RequestKind = RequestKind::Command(cancel);
    const SUMMARY: &'static str = "Let a VM that moves stay on its node";
    const DESCRIPTION: &'static str = "It is started there again, if it was to run, and the other node removes what it \
        has of it. `conflict` if it does not move, or has moved already.";
    type Body = VmById;
    type Answer = VmView;
}

fn cancel(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let VmById { id } = parse_body(body)?;
    let scope = inputs.caller.scope(CancelVmMove::PERMISSION);
    Ok(Command::Vm(VmCommand::CancelMove { vm_id: id, scope }))
}
