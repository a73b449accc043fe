//! Commands on VMs.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Instruction, NewVm, VmById, VmDraft, VmView};
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::id::{NodeId, VmId};
use crate::nic::GeneratedNic;
use crate::permission::Permission;
use crate::position::Position;
use crate::request::{Request, RequestKind, RequestType, parse_body};
use crate::user::RowScope;
use crate::value::UserId;

/// The requests that change VMs.
pub(crate) const COMMANDS: &[Request] = &[Request::of::<CreateVm>(), Request::of::<DeleteVm>()];

/// A command on a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmCommand {
    /// Create a VM and, if it names a network, its NIC.
    Create {
        /// Generated for the request.
        vm_id: VmId,
        /// For the NIC, if there is to be one.
        nic: GeneratedNic,
        vm: Box<NewVm>,
        /// Who owns it then.
        owner: UserId,
    },
    /// Create a VM as [`VmCommand::Create`] does, unless it is so already.
    Apply {
        /// Generated for the request.
        vm_id: VmId,
        nic: GeneratedNic,
        vm: Box<NewVm>,
        owner: UserId,
        /// The VMs that the caller may change.
        scope: RowScope,
    },
    /// Change what people say about a VM.
    Change {
        vm_id: VmId,
        /// It is refused if the VM is of another generation.
        if_generation: Option<Position>,
        changes: Map<String, Value>,
        /// The VMs that the caller may change.
        scope: RowScope,
    },
    /// Delete a VM and its NIC.
    Delete {
        vm_id: VmId,
        /// The VMs that the caller may delete.
        scope: RowScope,
    },
    /// Start a VM, stop it, or another of these.
    Instruct {
        vm_id: VmId,
        instruction: Instruction,
        /// How long the guest may take to shut down, for instructions that shut down.
        timeout_s: Option<u32>,
        /// The VMs that the caller may instruct.
        scope: RowScope,
    },
    /// Move a VM to another node.
    Move {
        vm_id: VmId,
        /// Where to; chosen if it is not given.
        node_id: Option<NodeId>,
        /// How long the guest may take to shut down, in seconds.
        timeout_s: u32,
        /// The VMs that the caller may move.
        scope: RowScope,
    },
    /// Let a VM that moves stay on its node.
    CancelMove {
        vm_id: VmId,
        /// The VMs that the caller may move.
        scope: RowScope,
    },
    /// Record that the caller begins to type at the console of a VM.
    OpenConsole {
        vm_id: VmId,
        session: Uuid,
        /// The VMs whose console the caller may use.
        scope: RowScope,
    },
}

/// `vm.create`
#[derive(Clone, Copy, Debug)]
pub struct CreateVm;

impl RequestType for CreateVm {
    const NAME: &'static str = "vm.create";
    const PERMISSION: Permission = Permission::VmCreate;
    const KIND: RequestKind = RequestKind::Command(create);
    const SUMMARY: &'static str = "Create a VM";
    const DESCRIPTION: &'static str = "Places the VM on a node and attaches its NIC, if it names a network. The node \
        creates the NIC's tap and runs `machine` afterwards; `status` of `vm.get` shows whether it has. On a network \
        with DHCP the NIC gets an address: `ip`, or the lowest that is free. `not_found` if the network or the node \
        does not exist, `conflict` if the name or the address is in use, all addresses are (`details.addresses`, \
        `details.used`), or no node is reachable and able to serve the network.";
    type Body = VmDraft;
    type Answer = VmView;
}

fn create(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let (draft, violations) = VmDraft::from_json(parse_body(body)?);
    let vm = violations.combine(draft.check())?;
    let CommandInputs { generated, caller, .. } = inputs;
    let (vm_id, nic, owner) = (VmId::new(generated.resource), generated.nic, caller.id.clone());
    Ok(Command::Vm(VmCommand::Create { vm_id, nic, vm: Box::new(vm), owner }))
}

/// `vm.delete`
#[derive(Clone, Copy, Debug)]
pub struct DeleteVm;

impl RequestType for DeleteVm {
    const NAME: &'static str = "vm.delete";
    const PERMISSION: Permission = Permission::VmDelete;
    const KIND: RequestKind = RequestKind::Command(delete);
    const SUMMARY: &'static str = "Delete a VM and its NIC";
    const DESCRIPTION: &'static str = "The VM's node removes the NIC's tap afterwards; the VM can be queried until it \
        has. `permission_denied` if it belongs to another user, and the role is limited to its own.";
    type Body = VmById;
    type Answer = VmView;
}

fn delete(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let VmById { id } = parse_body(body)?;
    let scope = inputs.caller.scope(DeleteVm::PERMISSION);
    Ok(Command::Vm(VmCommand::Delete { vm_id: id, scope }))
}
