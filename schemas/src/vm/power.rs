//! Commands that start and stop VMs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Instruction, VmById, VmCommand, VmView};
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::id::VmId;
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType, parse_body};
use crate::violations::Violations;

/// The requests that start and stop VMs.
pub(crate) const POWER_COMMANDS: &[Request] = &[
    Request::of::<StartVm>(),
    Request::of::<StopVm>(),
    Request::of::<RebootVm>(),
    Request::of::<ResetVm>(),
    Request::of::<PauseVm>(),
    Request::of::<ResumeVm>(),
];

/// How long a guest may take to shut down, in seconds, if the request does not say it.
pub const SHUTDOWN_S: u32 = 60;

/// The longest that a request may say: an hour.
const SHUTDOWN_MAX_S: u32 = 3_600;

/// Selects a VM that is to shut down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    pub id: VmId,
    /// How long the guest may take, in seconds, before its machine is turned off: 0 (at once) to 3,600 (default 60).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
}

macro_rules! instruction {
    ($type:ident, $name:literal, $instruct:ident, $body:ident, $summary:literal, $description:expr) => {
        #[doc = concat!("`", $name, "`")]
        #[derive(Clone, Copy, Debug)]
        pub struct $type;

        impl RequestType for $type {
            const NAME: &'static str = $name;
            const PERMISSION: Permission = Permission::VmLifecycle;
            const KIND: RequestKind = RequestKind::Command($instruct);
            const SUMMARY: &'static str = $summary;
            const DESCRIPTION: &'static str = $description;
            type Body = $body;
            type Answer = VmView;
        }
    };
}

instruction!(
    StartVm,
    "vm.start",
    start,
    VmById,
    "Start a VM",
    "The node makes the VM's disk, if it has none yet, and runs the VM; `status` of `vm.get` shows whether it has. A \
     VM that has failed is tried again. `conflict` if the VM is to run already, or has no machine; `permission_denied` \
     if it belongs to another user, and the role is limited to its own."
);
instruction!(
    StopVm,
    "vm.stop",
    stop,
    Shutdown,
    "Shut down a VM",
    "The guest is told to shut down by ACPI; its machine is turned off when it has, or after `timeout_s`. Its disk and \
     its addresses are kept. While it shuts down, the request may be repeated with a shorter time. `conflict` if the \
     VM is stopped, or has no machine."
);
instruction!(
    RebootVm,
    "vm.reboot",
    reboot,
    Shutdown,
    "Shut down a VM and start it again",
    "As `vm.stop`, and then `vm.start`. `conflict` unless the VM is to run."
);
instruction!(
    ResetVm,
    "vm.reset",
    reset,
    VmById,
    "Reset a VM",
    "As by the reset button: the guest is not asked. `conflict` unless the VM is to run."
);
instruction!(
    PauseVm,
    "vm.pause",
    pause,
    VmById,
    "Pause a VM",
    "Its processors stop; its memory is kept, as long as its node runs. `conflict` unless the VM is to run."
);
instruction!(ResumeVm, "vm.resume", resume, VmById, "Let a paused VM go on", "`conflict` unless the VM is paused.");

fn start(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    plain(body, inputs, Instruction::Start)
}

fn stop(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    shutdown(body, inputs, Instruction::Stop)
}

fn reboot(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    shutdown(body, inputs, Instruction::Reboot)
}

fn reset(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    plain(body, inputs, Instruction::Reset)
}

fn pause(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    plain(body, inputs, Instruction::Pause)
}

fn resume(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    plain(body, inputs, Instruction::Resume)
}

fn plain(body: &[u8], inputs: CommandInputs<'_>, instruction: Instruction) -> Result<Command, ErrorBody> {
    let VmById { id } = parse_body(body)?;
    Ok(instruct(id, instruction, None, inputs))
}

fn shutdown(body: &[u8], inputs: CommandInputs<'_>, instruction: Instruction) -> Result<Command, ErrorBody> {
    let Shutdown { id, timeout_s } = parse_body(body)?;
    let timeout_s = check_timeout(timeout_s.unwrap_or(SHUTDOWN_S))?;
    Ok(instruct(id, instruction, Some(timeout_s), inputs))
}

/// Checks how long a guest may take to shut down, in seconds.
pub(super) fn check_timeout(timeout_s: u32) -> Result<u32, ErrorBody> {
    if timeout_s > SHUTDOWN_MAX_S {
        let rule = format_args!("must be 0 to {SHUTDOWN_MAX_S}, not {timeout_s}");
        return Err(Violations::one("timeout_s", rule).into());
    }
    Ok(timeout_s)
}

fn instruct(vm_id: VmId, instruction: Instruction, timeout_s: Option<u32>, inputs: CommandInputs<'_>) -> Command {
    let scope = inputs.caller.scope(Permission::VmLifecycle);
    Command::Vm(VmCommand::Instruct { vm_id, instruction, timeout_s, scope })
}
