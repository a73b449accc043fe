//! Description and labels of VMs, which have no effect on nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{VmCommand, VmEvent, VmView};
use crate::change::Applied;
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::event::{Event, EventProvenance, StreamId, same_shape};
use crate::id::VmId;
use crate::permission::Permission;
use crate::position::Position;
use crate::request::{Request, RequestKind, RequestType, parse_body};
use crate::value::{Description, Labels, MetadataChanges};

/// The requests that label VMs.
pub(crate) const LABEL_COMMANDS: &[Request] = &[Request::of::<ChangeVm>()];

/// What people say about a VM was changed: this is all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmLabelled {
    pub vm_id: VmId,
    pub description: Option<Description>,
    pub labels: Labels,
}

/// What people say about a VM was changed: this is all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmLabelledV1 {
    pub vm_id: VmId,
    pub description: Option<Description>,
    pub labels: Labels,
}

same_shape!(
    VmLabelled,
    VmLabelledV1 { vm_id, description, labels },
    |event| StreamId::Vm(event.vm_id),
    |event| Event::Vm(VmEvent::Labelled(event)),
    Decision,
    "dev.otherix.vm.labelled.v1",
    "A VM was described or labelled",
    EventProvenance {
        when: "The description or the labels of a VM are changed, or a VM is created with some.",
        requests: &["vm.change", "vm.apply", "vm.create"],
        causes: &["vm.created"]
    }
);

/// A change of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmChangeRequest {
    pub id: VmId,
    /// It is refused if the VM is of another generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_generation: Option<Position>,
    #[schemars(with = "MetadataChanges")]
    pub changes: Map<String, Value>,
}

/// `vm.change`
#[derive(Clone, Copy, Debug)]
pub struct ChangeVm;

impl RequestType for ChangeVm {
    const NAME: &'static str = "vm.change";
    const PERMISSION: Permission = Permission::VmLifecycle;
    const KIND: RequestKind = RequestKind::Command(change);
    const SUMMARY: &'static str = "Change the description and the labels of a VM";
    const DESCRIPTION: &'static str = "Nothing is recorded if they are so already. What else a VM is cannot be \
        changed: all fields that are refused are in `details.fields`. `conflict` if the VM is of another generation \
        than `if_generation`, `permission_denied` if it belongs to another user, and the role is limited to its own.";
    type Body = VmChangeRequest;
    type Answer = Applied<VmView>;
}

fn change(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let VmChangeRequest { id, if_generation, changes } = parse_body(body)?;
    let scope = inputs.caller.scope(ChangeVm::PERMISSION);
    Ok(Command::Vm(VmCommand::Change { vm_id: id, if_generation, changes, scope }))
}
