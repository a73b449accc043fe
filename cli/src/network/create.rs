//! `otherix network create`: refuse what breaks rules, ask, show what came of it, and wait for the nodes if asked to.

use otherix_schemas::network::NetworkDraft;
use otherix_schemas::rules;
use otherix_schemas::subject::Request;
use otherix_schemas::value::Ipv4Subnet;
use otherix_schemas::view::NetworkView;
use otherix_schemas::violations::Violations;

use super::wait::{self, Waiting};
use crate::args::{CreateArgs, Global};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::number;
use crate::output::{self, Printer};

pub(super) async fn run(global: &Global, args: CreateArgs, printer: &mut Printer) -> Result<(), Failure> {
    let wait = args.wait;
    let draft = draft(args).map_err(rules_hint)?;
    let mut client = Client::connect(global).await?;
    // Before the request, or a quick node's outcome would come before the ears.
    let waiting = if wait.wait { Some(Waiting::new(&mut client).await?) } else { None };
    let created: NetworkView = client.call(Request::NetworkCreate, &draft).await.map_err(rules_hint)?.data;
    if !printer.is_json() {
        printer.text(&output::network::created(&created))?;
    }
    let Some(waiting) = waiting else {
        return if printer.is_json() { printer.data(&created) } else { Ok(()) };
    };
    let (last, result) = wait::until_ready(client, waiting, created, (wait.wait_timeout, printer)).await;
    if printer.is_json() {
        printer.data(&last)?;
    }
    result
}

/// What is asked for, if it obeys the rules. Only the control plane knows the mesh's supernet. A request that would break that
/// rule alone is for it to judge; one that breaks others too is told of all of them, as far as the usual supernet goes.
fn draft(args: CreateArgs) -> Result<NetworkDraft, Failure> {
    let CreateArgs { name, kind, bridge_name, managed, egress, subnet, gateway, mtu, vlan, output: _, wait: _ } = args;
    let managed = managed.then_some(true);
    let mut violations = Violations::default();
    let mtu = number::read("mtu", mtu.as_deref(), &mut violations);
    let vlan = number::read("vlan", vlan.as_deref(), &mut violations);
    let draft = NetworkDraft { name, kind, bridge_name, managed, egress, subnet, gateway, mtu, vlan };
    if violations.is_empty() && rules::check(&draft, None).is_ok() {
        return Ok(draft);
    }
    if let Err(broken) = rules::check(&draft, Some(Ipv4Subnet::DEFAULT_MESH)) {
        for (field, rule) in broken.iter() {
            violations.add(field, rule);
        }
    }
    Err(violations.into())
}

fn rules_hint(failure: Failure) -> Failure {
    if failure.exit == Exit::Usage {
        failure.hint("`otherix network create --help` says what each flag may be")
    } else {
        failure
    }
}
