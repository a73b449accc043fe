//! `otherix network create`.

use clap::Args;
use otherix_schemas::network::NetworkView;

use super::fields::NetworkFlags;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::resource::args::WaitArgs;
use crate::resource::create;

#[derive(Debug, Args)]
pub(crate) struct CreateNetworkArgs {
    /// The name, unique and not case-sensitive: 1 to 255 characters without `/`, not in the form of a UUID
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    fields: NetworkFlags,

    /// Output format; with json and --wait, the network is printed after the wait
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) const HELP: &str = "\
With --managed, otherix creates, repairs and removes the bridge on every node. Without it, otherix never changes the \
bridge, and only checks that it exists. Egress nat requires --subnet, and --managed unless it is an overlay: each node \
lets its own VMs out. An overlay requires --subnet and accepts none of --bridge-name, --managed, --mtu and --vlan.

With --dhcp, which requires --subnet, and --managed unless it is an overlay, each NIC gets an address of the subnet \
when its VM is created. An address is free again when the node has removed the tap of its NIC. Guests can use no other \
addresses, unless --allow-spoofing permits it: then they can use all but the gateway's.

With --dns, the default with --dhcp, each node resolves names for its guests, at their gateway: \
<vm>.<network>.otherix.internal for the VMs of their own network, wherever they run, and the names of their addresses. \
Other names are resolved with the resolvers of the node if the network has egress, and refused if it has none.

Examples:
  otherix network create net-dev --bridge-name br-dev --managed --wait
  otherix network create net-app --bridge-name br-app --managed --egress nat --subnet 10.20.0.0/24
  otherix network create net-web --bridge-name br-web --managed --subnet 10.21.0.0/24 --dhcp --no-dns
  otherix network create net-trunk --bridge-name br0 --vlan 120
  otherix network create net-east --type overlay --subnet 10.30.0.0/24 --egress nat --dhcp -o json";

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: CreateNetworkArgs, printer: &mut Printer) -> Result<(), Failure> {
    let CreateNetworkArgs { name, fields, output: _, wait } = args;
    let draft = fields.into_draft(name).map_err(create::invalid::<NetworkView>)?;
    create::run::<NetworkView>(ControlPlaneClient::connect(global).await?, &draft, wait, printer).await
}
