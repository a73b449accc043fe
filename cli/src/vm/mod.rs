//! VMs: `otherix vm …` and manifests of kind `VM`.

mod console;
mod create;
pub(crate) mod definition;
mod fields;
mod harmless;
mod logs;
pub(crate) mod machine_definition;
pub(crate) mod moving;
mod power;
mod reader;
mod set;
mod terminal;
mod wait_state;

use clap::Subcommand;
use otherix_schemas::id::VmId;
use otherix_schemas::vm::{CreateVm, DeleteVm, FindVm, GetVm, ListVms, VmById, VmView};
use serde_json::{Value, json};
use uuid::Uuid;

use self::power::{Plain, PowerArgs, ShutdownArgs};
use crate::client::GlobalArgs;
use crate::failure::Failure;
use crate::manifest;
use crate::output::Printer;
use crate::output::format::{GetFormat, ListFormat};
use crate::resource::args::{DeleteAndWaitArgs, GetAtArgs, ListAtArgs};
use crate::resource::wait_state::WaitState;
use crate::resource::{self, Deletable, Provisioned, Resource};

/// Create, show, change and delete VMs
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum VmSubcommand {
    /// Create a VM
    #[command(after_help = create::HELP)]
    Create(Box<create::CreateVmArgs>),
    /// List VMs in the order of their creation
    #[command(after_help = LIST_HELP)]
    List(ListAtArgs<ListFormat>),
    /// Show a VM and the status of its NIC
    #[command(after_help = GET_HELP)]
    Get(GetAtArgs<GetFormat>),
    /// Change the description and the labels of a VM
    #[command(after_help = set::HELP)]
    Set(set::SetVmArgs),
    /// Start a VM, or try one that has failed again
    #[command(after_help = START_HELP)]
    Start(PowerArgs),
    /// Shut down a VM
    #[command(after_help = STOP_HELP)]
    Stop(ShutdownArgs),
    /// Shut down a VM and start it again
    #[command(after_help = REBOOT_HELP)]
    Reboot(ShutdownArgs),
    /// Reset a VM, without asking its guest
    #[command(after_help = RESET_HELP)]
    Reset(PowerArgs),
    /// Stop the processors of a VM, and keep its memory
    #[command(after_help = PAUSE_HELP)]
    Pause(PowerArgs),
    /// Let a paused VM go on
    #[command(after_help = RESUME_HELP)]
    Resume(PowerArgs),
    /// Move a VM to another node
    #[command(after_help = moving::HELP)]
    Move(moving::MoveArgs),
    /// Use the console of a VM
    #[command(after_help = console::HELP)]
    Console(console::ConsoleArgs),
    /// Show what a VM has written to its console
    #[command(after_help = logs::HELP)]
    Logs(logs::LogsArgs),
    /// Delete a VM
    #[command(after_help = DELETE_HELP)]
    Delete(DeleteAndWaitArgs),
}

const EXAMPLES: &str = "\
A VM is placed on a node, which runs it from a disk image; with --network, it has a NIC there.

Examples:
  otherix vm create web-1 --image-url https://images.example/debian-12.qcow2 --arch amd64 --network net-dev --wait
  otherix vm list
  otherix vm get web-1
  otherix vm get web-1 --at 10m
  otherix vm stop web-1 --wait
  otherix vm start web-1 --wait
  otherix vm move web-1 --node node-2 --wait
  otherix vm console web-1
  otherix vm logs web-1 --tail 50
  otherix vm delete web-1";

const START_HELP: &str = "\
Examples:
  otherix vm start web-1
  otherix vm start web-1 --wait";

const STOP_HELP: &str = "\
The guest is told to shut down (ACPI); its machine is turned off when it has, or after --timeout. Disk and addresses \
are kept. A VM that is shutting down can be stopped again, with less time.

Examples:
  otherix vm stop web-1 --wait
  otherix vm stop web-1 --timeout 5m
  otherix vm stop web-1 --force";

const REBOOT_HELP: &str = "\
As `stop`, and then `start`.

Examples:
  otherix vm reboot web-1 --wait
  otherix vm reboot web-1 --force";

const RESET_HELP: &str = "\
Example:
  otherix vm reset web-1";

const PAUSE_HELP: &str = "\
A paused VM keeps its memory as long as its node runs.

Example:
  otherix vm pause web-1 --wait";

const RESUME_HELP: &str = "\
Example:
  otherix vm resume web-1 --wait";

const LIST_HELP: &str = "\
STATUS is what the VM does (running, stopped, …) if that and its NIC are as they should be, else `pending` or \
`failed`; `deleting` if the VM is deleted and its node has yet to remove it; such a VM is not in the formats name and \
yaml. The table has one page. If there are more VMs, the \
last line on stderr is `next cursor: …`: pass it with --cursor for the next page. The other formats list all VMs, \
unless --limit or --cursor asks for a page (in JSON, meta.next_cursor is the next cursor).

Examples:
  otherix vm list
  otherix vm list --show-ids
  otherix vm list --limit 50 --cursor CURSOR -o json
  otherix vm list -o name";

const GET_HELP: &str = "\
With `-o yaml`, the manifest names the network but neither the address nor the node, which are chosen again, and has \
no user data, network configuration and SSH keys. A \
deleted VM is shown, as `deleting`, until its node has confirmed its removal; by its UUID only, if another VM has the \
name.

Examples:
  otherix vm get web-1
  otherix vm get 0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11 -o json";

const DELETE_HELP: &str = "\
Asks for confirmation if stdin is a terminal. The VM's NIC is deleted with it, and no longer prevents the deletion of \
its network.

Examples:
  otherix vm delete web-1
  otherix vm delete web-1 --force --wait --wait-timeout 2m";

/// Carries out a command.
pub(crate) async fn run(global: &GlobalArgs, command: VmSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        VmSubcommand::Create(args) => create::run(global, *args, printer).await,
        VmSubcommand::List(ListAtArgs { list, at }) => resource::list::run::<VmView>(global, list, at, printer).await,
        VmSubcommand::Get(GetAtArgs { get, at }) => resource::get::run::<VmView>(global, get, at, printer).await,
        VmSubcommand::Set(args) => set::run(global, args, printer).await,
        VmSubcommand::Start(args) => power::plain(global, Plain::Start, args, printer).await,
        VmSubcommand::Stop(args) => power::stop(global, args, printer).await,
        VmSubcommand::Reboot(args) => power::reboot(global, args, printer).await,
        VmSubcommand::Reset(args) => power::plain(global, Plain::Reset, args, printer).await,
        VmSubcommand::Pause(args) => power::plain(global, Plain::Pause, args, printer).await,
        VmSubcommand::Resume(args) => power::plain(global, Plain::Resume, args, printer).await,
        VmSubcommand::Move(args) => moving::run(global, args, printer).await,
        VmSubcommand::Console(args) => console::run(global, args, printer).await,
        VmSubcommand::Logs(args) => logs::run(global, args, printer).await,
        VmSubcommand::Delete(args) => resource::delete::run_and_wait::<VmView>(global, args, printer).await,
    }
}

impl Resource for VmView {
    const NOUN: &'static str = "VM";
    const COMMAND: &'static str = "vm";
    type Get = GetVm;
    type Find = FindVm;
    type List = ListVms;
    const COLUMNS: &'static [&'static str] = &fields::COLUMNS;
    type ById = VmById;

    fn by_id(id: Uuid) -> VmById {
        VmById { id: VmId::new(id) }
    }

    fn id(&self) -> Uuid {
        self.id.uuid()
    }

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn row(&self) -> Vec<String> {
        fields::row(self)
    }

    fn details(&self) -> String {
        fields::details(self)
    }

    fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    fn manifest(&self) -> Option<String> {
        Some(manifest::write(self))
    }
}

impl Deletable for VmView {
    type Delete = DeleteVm;
    type Deleted = Self;

    fn deleted_name(deleted: &Self) -> &str {
        deleted.name.as_str()
    }
}

impl Provisioned for VmView {
    type Create = CreateVm;
    const REFERENCES: &'static [&'static str] = &["network", "node"];
    const NOTE: Option<&'static str> = None;
    const WHERE: &'static str = "";

    fn summary(&self) -> String {
        fields::summary(self)
    }

    fn readiness(&self) -> WaitState {
        wait_state::readiness(self)
    }

    fn removal(&self) -> WaitState {
        wait_state::removal(self)
    }

    fn pending(&self) -> String {
        wait_state::pending(self)
    }

    fn not_awaited(&self) -> Option<String> {
        None
    }

    fn status(&self) -> Value {
        let Self { node_name, node_reachable, status, error, .. } = self;
        json!({"node_name": node_name, "node_reachable": node_reachable, "status": status, "error": error})
    }
}
