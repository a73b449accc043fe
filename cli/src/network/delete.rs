//! `otherix network delete`: ask the person if there is one, ask the control plane, and wait for the nodes if asked to.

use std::io::{self, BufRead, IsTerminal};

use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::NetworkId;
use otherix_schemas::request::NetworkById;
use otherix_schemas::subject::Request;
use otherix_schemas::view::NetworkView;

use super::wait::{self, Waiting};
use super::{Reference, not_found_hint};
use crate::args::{DeleteArgs, Global};
use crate::client::Client;
use crate::exit::{BLOCKERS, Exit};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::text::clean;

pub(super) async fn run(global: &Global, args: DeleteArgs, printer: &mut Printer) -> Result<(), Failure> {
    let DeleteArgs { network, force, output: _, wait } = args;
    let mut client = Client::connect(global).await?;
    let (id, called) = resolve(&mut client, &network, force, printer).await?;
    let waiting = if wait.wait { Some(Waiting::new(&mut client).await?) } else { None };
    let answer = client.call::<_, NetworkView>(Request::NetworkDelete, &NetworkById { id }).await;
    let deleted = answer.map_err(|failure| blocked(not_found_hint(failure), &called))?.data;
    if !printer.is_json() {
        printer.text(&format!("network {} deleted\n", clean(deleted.name.as_str())))?;
    }
    let Some(waiting) = waiting else {
        return if printer.is_json() { printer.data(&deleted) } else { Ok(()) };
    };
    let (last, result) = wait::until_gone(client, waiting, deleted, (wait.wait_timeout, printer)).await;
    if printer.is_json() {
        printer.data(&last)?;
    }
    result
}

/// Which network to delete, and what it is called, agreed with the person if there is one. A UUID is looked up only to ask
/// with the name.
async fn resolve(
    client: &mut Client,
    network: &str,
    force: bool,
    printer: &mut Printer,
) -> Result<(NetworkId, String), Failure> {
    let asks = !force && io::stdin().is_terminal();
    let reference = Reference::new(network);
    if let (Reference::Id(id), false) = (&reference, asks) {
        return Ok((*id, network.to_owned()));
    }
    let view = reference.look_up(client).await?;
    // One that is deleted already is for the control plane to refuse.
    if asks && view.deleted_at.is_none() {
        confirm(view.name.as_str(), printer).await?;
        client.renew();
    }
    Ok((view.id, view.name.to_string()))
}

/// Asks. The connection is kept alive meanwhile, so the answer is read on a thread of its own.
async fn confirm(name: &str, printer: &mut Printer) -> Result<(), Failure> {
    printer.ask(&format!("delete network {name}? [y/N]"));
    let read = tokio::task::spawn_blocking(|| {
        let mut answer = Vec::new();
        io::stdin().lock().read_until(b'\n', &mut answer).map(|_| answer)
    });
    let answer = read.await.map(Result::unwrap_or_default).unwrap_or_default();
    if !answer.ends_with(b"\n") {
        printer.end_line();
    }
    let answer = String::from_utf8_lossy(&answer);
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    let message = format!("network {name} was not deleted");
    Err(Failure::new(Exit::Unexpected, ErrorCode::ValidationFailed, message).hint("answer `y`, or pass --force"))
}

/// Says what stands in the way of a deletion.
fn blocked(failure: Failure, network: &str) -> Failure {
    if failure.exit != Exit::Blocked {
        return failure;
    }
    let blockers = failure.body.error.details.get(BLOCKERS).map(ToString::to_string).unwrap_or_default();
    failure
        .said(format!("cannot delete network {network}: blocked by {blockers} {BLOCKERS}"))
        .hint("delete the VMs that use the network first, then delete it again")
}
