//! Commands on VMs.

use super::{NewVm, VmById, VmDraft, VmView};
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::id::VmId;
use crate::nic::GeneratedNic;
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType, parse_body};

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
        vm: NewVm,
    },
    /// Delete a VM and its NIC.
    Delete { vm_id: VmId },
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
        creates the NIC's tap afterwards; `status` of `vm.get` shows whether it has. `not_found` if the network or the \
        node does not exist, `conflict` if the name is in use, or no node is reachable and able to serve the \
        network.";
    type Body = VmDraft;
    type Answer = VmView;
}

fn create(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let (draft, violations) = VmDraft::from_json(parse_body(body)?);
    let vm = violations.combine(draft.check())?;
    let CommandInputs { generated, .. } = inputs;
    Ok(Command::Vm(VmCommand::Create { vm_id: VmId::new(generated.resource), nic: generated.nic, vm }))
}

/// `vm.delete`
#[derive(Clone, Copy, Debug)]
pub struct DeleteVm;

impl RequestType for DeleteVm {
    const NAME: &'static str = "vm.delete";
    const PERMISSION: Permission = Permission::VmDelete;
    const KIND: RequestKind = RequestKind::Command(delete);
    const SUMMARY: &'static str = "Delete a VM and its NIC";
    const DESCRIPTION: &'static str =
        "The VM's node removes the NIC's tap afterwards; the VM can be queried until it has.";
    type Body = VmById;
    type Answer = VmView;
}

fn delete(body: &[u8], _: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let VmById { id } = parse_body(body)?;
    Ok(Command::Vm(VmCommand::Delete { vm_id: id }))
}
