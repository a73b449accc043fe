//! `otherix vm set`.

use clap::Args;
use otherix_schemas::id::VmId;
use otherix_schemas::position::Position;
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::{ChangeVm, VmChangeRequest, VmView};
use serde_json::Value;

use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::resource::NameOrId;
use crate::resource::change::{self, ChangeArgs, MetadataArgs};

#[derive(Debug, Args)]
pub(crate) struct SetVmArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    #[command(flatten)]
    metadata: MetadataArgs,

    // What cannot be changed, so that the control plane says what to do instead.
    #[arg(long, hide = true, allow_negative_numbers = true)]
    vcpus: Option<i64>,
    #[arg(long, hide = true, allow_negative_numbers = true)]
    memory_mb: Option<i64>,
    #[arg(long, hide = true, allow_negative_numbers = true)]
    disk_gib: Option<i64>,

    #[command(flatten)]
    change: ChangeArgs,
}

pub(super) const HELP: &str = "\
Changes what people say about a VM. Its machine, its image and its NIC cannot be changed: delete the VM, and create it \
again. With --if-generation, the change is refused (exit code 4) if something else was decided about the VM meanwhile.

Examples:
  otherix vm set web-1 --label env=prod --description \"the shop\"
  otherix vm set web-1 --label env- --dry-run";

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: SetVmArgs, printer: &mut Printer) -> Result<(), Failure> {
    let SetVmArgs { reference, metadata, vcpus, memory_mb, disk_gib, change } = args;
    let mut violations = Violations::default();
    let mut changes = metadata.into_changes(&mut violations);
    for (field, number) in [("vcpus", vcpus), ("memory_mb", memory_mb), ("disk_gib", disk_gib)] {
        changes.extend(number.map(|number| (field.to_owned(), Value::from(number))));
    }
    change::require_some(&changes, &mut violations);
    if !violations.is_empty() {
        return Err(violations.into());
    }
    let mut client = ControlPlaneClient::connect(global).await?;
    let id = VmId::new(NameOrId::new(&reference).resolve::<VmView>(&mut client).await?);
    let request = VmChangeRequest { id, if_generation: change.if_generation.map(Position::new), changes };
    change::run::<VmView, ChangeVm>(client, &request, change, printer).await
}
