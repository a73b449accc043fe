//! `otherix network set`.

use clap::Args;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{ChangeNetwork, NetworkChangeRequest, NetworkView};
use otherix_schemas::position::Position;
use otherix_schemas::violations::Violations;
use serde_json::{Map, Value};

use super::fields::TYPES;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::number;
use crate::output::Printer;
use crate::resource::NameOrId;
use crate::resource::args::completes_to;
use crate::resource::change::{self, ChangeArgs, MetadataArgs};

#[derive(Debug, Args)]
pub(crate) struct SetNetworkArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    #[command(flatten)]
    metadata: MetadataArgs,

    #[command(flatten)]
    fields: ChangedFields,

    #[command(flatten)]
    change: ChangeArgs,
}

/// The fields of a network's spec.
#[derive(Debug, Args)]
struct ChangedFields {
    /// Egress of the guests: none or nat
    #[arg(long, value_name = "EGRESS", value_parser = completes_to(&["none", "nat"]), hide_possible_values = true)]
    egress: Option<String>,

    /// The IPv4 subnet, /8 to /30; it must hold all addresses that VMs have
    #[arg(long, value_name = "CIDR")]
    subnet: Option<String>,

    /// The node's IPv4 address in the subnet; `default` for the subnet's first host
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<String>,

    /// Assign addresses to the guests: true or false. Only while no VM is attached
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(hide_possible_values = true)]
    dhcp: Option<bool>,

    /// Resolve names at the gateway: true or false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(hide_possible_values = true)]
    dns: Option<bool>,

    /// The same as --dns=false
    #[arg(long, conflicts_with = "dns")]
    no_dns: bool,

    /// Let guests send from addresses that their NICs do not have: true or false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(hide_possible_values = true)]
    allow_spoofing: Option<bool>,

    /// The MTU in bytes, 68 to 9216; `default` for 1500
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    mtu: Option<String>,

    /// The VLAN id, 1 to 4094; `none` for untagged
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    vlan: Option<String>,

    // What cannot be changed, so that the control plane says what to do instead.
    #[arg(long = "type", value_name = "TYPE", value_parser = completes_to(&TYPES), hide = true)]
    kind: Option<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    bridge_name: Option<String>,
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(hide = true)]
    managed: Option<bool>,
}

pub(super) const HELP: &str = "\
Only what is given is changed, in place: bridges, taps and connections of networks that are not concerned stay as they \
are. Type, bridge and `managed` cannot be changed; the subnet must hold all addresses that VMs have, and DHCP can be \
turned on and off only while no VM is attached. What belongs to something that is turned off goes with it, such as the \
subnet of a bridge with --egress none and without DHCP. Guests learn another gateway or MTU with their next DHCP lease.

With --if-generation, the change is refused (exit code 4) if somebody else has changed the network meanwhile; both \
states are shown as a diff.

Examples:
  otherix network set net-app --mtu 1400 --wait
  otherix network set net-app --label env=prod --label team=web --description \"the shop\"
  otherix network set net-app --label env- --vlan none
  otherix network set net-app --subnet 10.20.0.0/23 --if-generation 1042 --dry-run";

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: SetNetworkArgs, printer: &mut Printer) -> Result<(), Failure> {
    let SetNetworkArgs { reference, metadata, fields, change } = args;
    let mut violations = Violations::default();
    let mut changes = metadata.into_changes(&mut violations);
    fields.add_to(&mut changes, &mut violations);
    change::require_some(&changes, &mut violations);
    if !violations.is_empty() {
        return Err(violations.into());
    }
    let mut client = ControlPlaneClient::connect(global).await?;
    let id = NetworkId::new(NameOrId::new(&reference).resolve::<NetworkView>(&mut client).await?);
    let if_generation = change.if_generation.map(Position::new);
    let request = NetworkChangeRequest { id, if_generation, changes };
    change::run::<NetworkView, ChangeNetwork>(client, &request, change, printer).await
}

impl ChangedFields {
    fn add_to(self, changes: &mut Map<String, Value>, violations: &mut Violations) {
        let Self { egress, subnet, gateway, dhcp, dns, no_dns, allow_spoofing, mtu, vlan, .. } = self;
        let Self { kind, bridge_name, managed, .. } = self;
        let mut add = |field: &str, value: Option<Value>| {
            changes.extend(value.map(|value| (field.to_owned(), value)));
        };
        for (field, text) in [("egress", egress), ("subnet", subnet), ("type", kind), ("bridge_name", bridge_name)] {
            add(field, text.map(Value::from));
        }
        let flags = [("dhcp", dhcp), ("allow_spoofing", allow_spoofing), ("managed", managed)];
        for (field, flag) in flags.into_iter().chain([("dns", dns.or(no_dns.then_some(false)))]) {
            add(field, flag.map(Value::from));
        }
        let is_default = |text: &String| matches!(text.as_str(), "default" | "none");
        add("gateway", gateway.map(|text| if is_default(&text) { Value::Null } else { text.into() }));
        for (field, text) in [("mtu", mtu), ("vlan", vlan)] {
            let number = match text {
                Some(text) if is_default(&text) => Some(Value::Null),
                text => number::parse(field, text.as_deref(), violations).map(Value::from),
            };
            add(field, number);
        }
    }
}
