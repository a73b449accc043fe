//! `otherix network create`.

use clap::Args;
use otherix_schemas::network::{NetworkDraft, NetworkView};
use otherix_schemas::value::Ipv4Subnet;
use otherix_schemas::violations::Violations;

use super::list::TYPES;
use crate::client::{Client, GlobalArgs};
use crate::failure::Failure;
use crate::number;
use crate::output::Printer;
use crate::output::format::Format;
use crate::resource::args::{WaitArgs, completes_to};
use crate::resource::create;

#[derive(Debug, Args)]
pub(crate) struct CreateNetworkArgs {
    /// The name, unique and not case-sensitive: 1 to 255 characters without `/`, not in the form of a UUID
    #[arg(value_name = "NAME")]
    name: String,

    /// The type: bridge or overlay [default: bridge]
    #[arg(long = "type", value_name = "TYPE", value_parser = completes_to(&TYPES), hide_possible_values = true)]
    kind: Option<String>,

    /// The bridge on each node, required for type bridge: 1 to 15 of `A-Z a-z 0-9 _ -`, beginning with a letter
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    bridge_name: Option<String>,

    /// Create, repair and remove the bridge on every node, instead of only checking that it exists
    #[arg(long)]
    managed: bool,

    /// Egress of the guests: none, or nat (source NAT to the node's address) [default: none]
    #[arg(long, value_name = "EGRESS", value_parser = completes_to(&["none", "nat"]), hide_possible_values = true)]
    egress: Option<String>,

    /// The IPv4 subnet, /8 to /30, such as 10.20.0.0/24: for egress nat and for type overlay
    #[arg(long, value_name = "CIDR")]
    subnet: Option<String>,

    /// The node's IPv4 address in the subnet [default: the subnet's first host]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<String>,

    /// The MTU in bytes, 68 to 9216 [default: 1500; for an overlay, derived from the underlay]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    mtu: Option<String>,

    /// The VLAN id, 1 to 4094 [default: untagged]
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    vlan: Option<String>,

    /// Output format; with json and --wait, the network is printed after the wait
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) const HELP: &str = "\
With --managed, otherix creates, repairs and removes the bridge on every node. Without it, otherix never changes the \
bridge, and only checks that it exists. Egress nat requires --managed and --subnet. An overlay requires --subnet and \
accepts none of --bridge-name, --managed, --egress, --gateway, --mtu and --vlan.

Examples:
  otherix network create net-dev --bridge-name br-dev --managed --wait
  otherix network create net-app --bridge-name br-app --managed --egress nat --subnet 10.20.0.0/24
  otherix network create net-trunk --bridge-name br0 --vlan 120
  otherix network create net-east --type overlay --subnet 10.30.0.0/24 -o json";

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: CreateNetworkArgs, printer: &mut Printer) -> Result<(), Failure> {
    let wait = args.wait;
    let draft = draft(args).map_err(create::invalid::<NetworkView>)?;
    create::run::<NetworkView>(Client::connect(global).await?, &draft, wait, printer).await
}

fn draft(args: CreateNetworkArgs) -> Result<NetworkDraft, Violations> {
    let CreateNetworkArgs { name, kind, bridge_name, managed, egress, subnet, gateway, mtu, vlan, output: _, wait: _ } =
        args;
    let managed = managed.then_some(true);
    let mut violations = Violations::default();
    let mtu = number::parse("mtu", mtu.as_deref(), &mut violations);
    let vlan = number::parse("vlan", vlan.as_deref(), &mut violations);
    let draft = NetworkDraft { name, kind, bridge_name, managed, egress, subnet, gateway, mtu, vlan };
    let violations = check(&draft, violations);
    if violations.is_empty() { Ok(draft) } else { Err(violations) }
}

/// Adds the rules that a draft violates. Only the control plane knows the mesh supernet of the cluster, so a draft that
/// may violate just that rule is left to it. If there are other violations, the default supernet is assumed, so that
/// most likely all are reported together.
pub(super) fn check(draft: &NetworkDraft, mut violations: Violations) -> Violations {
    if violations.is_empty() && draft.check(None).is_ok() {
        return violations;
    }
    if let Err(violated) = draft.check(Some(Ipv4Subnet::DEFAULT_MESH)) {
        for (field, rule) in violated.iter() {
            violations.add(field, rule);
        }
    }
    violations
}
