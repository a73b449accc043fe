//! `otherix vm create`.

use clap::Args;
use otherix_schemas::vm::VmView;

use super::definition::VmDefinition;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::resource::args::WaitArgs;
use crate::resource::create;

#[derive(Debug, Args)]
pub(crate) struct CreateVmArgs {
    #[command(flatten)]
    definition: VmDefinition,

    /// Output format; with json and --wait, the VM is printed after the wait
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) const HELP: &str = "\
The NIC gets a MAC address and, on the VM's node, a tap that is a port of the network's bridge; on a network with \
DHCP, also an address. --wait waits until the NIC is ready; a VM without a NIC is ready at once. If the network or \
node does not exist, nothing is created (exit code 3).

otherix does not fetch images or boot VMs yet.

Examples:
  otherix vm create web-1 --image-url https://images.example/debian-12.qcow2 --arch amd64 --network net-dev --wait
  otherix vm create db-1 --image-url https://images.example/debian-12.qcow2 --arch amd64 --network net-app \
--ip 10.20.0.9
  otherix vm create web-2 --image-url https://images.example/debian-12.qcow2 --arch arm64 --node node-2
  otherix vm create batch-1 --image-url https://images.example/debian-12.qcow2 --arch amd64 -o json";

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: CreateVmArgs, printer: &mut Printer) -> Result<(), Failure> {
    let CreateVmArgs { definition, output: _, wait } = args;
    let violations = definition.violations();
    if !violations.is_empty() {
        return Err(create::invalid::<VmView>(violations));
    }
    let mut client = ControlPlaneClient::connect(global).await?;
    let draft = definition.resolve(&mut client).await?;
    create::run::<VmView>(client, &draft, wait, printer).await
}
