//! `otherix network create`: what is asked for, if it obeys the rules.

use otherix_schemas::network::{NetworkDraft, NetworkView};
use otherix_schemas::value::Ipv4Subnet;
use otherix_schemas::violations::Violations;

use crate::args::{CreateNetworkArgs, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::number;
use crate::output::Printer;
use crate::thing::create;

pub(super) async fn run(global: &Global, args: CreateNetworkArgs, printer: &mut Printer) -> Result<(), Failure> {
    let wait = args.wait;
    let draft = draft(args).map_err(create::rules_hint::<NetworkView>)?;
    create::run::<NetworkView>(Client::connect(global).await?, &draft, wait, printer).await
}

/// What is asked for, if it obeys the rules. Only the control plane knows the mesh's supernet. A request that would break that
/// rule alone is for it to judge; one that breaks others too is told of all of them, as far as the usual supernet goes.
fn draft(args: CreateNetworkArgs) -> Result<NetworkDraft, Failure> {
    let CreateNetworkArgs { name, kind, bridge_name, managed, egress, subnet, gateway, mtu, vlan, output: _, wait: _ } =
        args;
    let managed = managed.then_some(true);
    let mut violations = Violations::default();
    let mtu = number::read("mtu", mtu.as_deref(), &mut violations);
    let vlan = number::read("vlan", vlan.as_deref(), &mut violations);
    let draft = NetworkDraft { name, kind, bridge_name, managed, egress, subnet, gateway, mtu, vlan };
    if violations.is_empty() && draft.check(None).is_ok() {
        return Ok(draft);
    }
    if let Err(broken) = draft.check(Some(Ipv4Subnet::DEFAULT_MESH)) {
        for (field, rule) in broken.iter() {
            violations.add(field, rule);
        }
    }
    Err(violations.into())
}
