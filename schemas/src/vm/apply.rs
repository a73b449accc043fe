//! Applying the definition of a VM: it is created, or is so already.

use super::{ChangeVm, NewVm, VmCommand, VmDraft, VmView};
use crate::change::Applied;
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::id::VmId;
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType, parse_body};

/// The requests that apply definitions of VMs.
pub(crate) const APPLY_COMMANDS: &[Request] = &[Request::of::<ApplyVm>()];

/// `vm.apply`
#[derive(Clone, Copy, Debug)]
pub struct ApplyVm;

impl RequestType for ApplyVm {
    const NAME: &'static str = "vm.apply";
    const PERMISSION: Permission = Permission::VmCreate;
    const KIND: RequestKind = RequestKind::Command(apply);
    const SUMMARY: &'static str = "Create the VM of this name, or change its description and labels";
    const DESCRIPTION: &'static str = "Refused as `vm.create` is. Nothing is recorded if the VM is so already. What \
        else a VM is cannot be changed: all fields that differ are in `details.fields`. `ip` and `node_id` are \
        compared only if they are given.";
    type Body = VmDraft;
    type Answer = Applied<VmView>;
}

fn apply(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let (draft, violations) = VmDraft::from_json(parse_body(body)?);
    let vm: NewVm = violations.combine(draft.check())?;
    let CommandInputs { generated, caller, .. } = inputs;
    let (vm_id, nic, owner) = (VmId::new(generated.resource), generated.nic, caller.id.clone());
    let scope = caller.scope(ChangeVm::PERMISSION);
    Ok(Command::Vm(VmCommand::Apply { vm_id, nic, vm: Box::new(vm), owner, scope }))
}
