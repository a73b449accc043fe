//! `delete`: asks for confirmation on a terminal, sends the request, and waits for the nodes if requested.

use std::io::{self, BufRead, IsTerminal};

use otherix_schemas::error::ErrorCode;
use uuid::Uuid;

use super::args::{DeleteAndWaitArgs, DeleteArgs};
use super::wait;
use super::{Deletable, NameOrId, Provisioned, not_found_hint};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::{Exit, blockers};
use crate::failure::Failure;
use crate::live::LiveFeed;
use crate::output::Printer;
use crate::output::text::clean;

/// Carries out `delete` of a resource that no node has to remove.
pub(crate) async fn run<R: Deletable>(
    global: &GlobalArgs,
    args: DeleteArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut client = ControlPlaneClient::connect(global).await?;
    let target = confirm::<R>(&mut client, args, printer).await?;
    let deleted = delete::<R>(&mut client, target, printer).await?;
    if printer.is_json() { printer.data(&deleted) } else { Ok(()) }
}

/// Carries out `delete`, and waits for the nodes if requested.
pub(crate) async fn run_and_wait<R: Provisioned>(
    global: &GlobalArgs,
    args: DeleteAndWaitArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let DeleteAndWaitArgs { delete: args, wait } = args;
    let mut client = ControlPlaneClient::connect(global).await?;
    let target = confirm::<R>(&mut client, args, printer).await?;
    let outcomes = if wait.wait { Some(LiveFeed::outcomes(&mut client).await?) } else { None };
    let deleted = delete::<R>(&mut client, target, printer).await?;
    let Some(outcomes) = outcomes else {
        return if printer.is_json() { printer.data(&deleted) } else { Ok(()) };
    };
    let (last, result) = wait::until_removed(client, outcomes, deleted, wait.wait_timeout, printer).await;
    if printer.is_json() {
        printer.data(&last)?;
    }
    result
}

/// Describes a deletion that dependents prevent; other failures are unchanged.
pub(crate) fn blocked(failure: Failure, noun: &str, name: &str) -> Failure {
    let Some(blockers) = blockers(&failure.body.error) else { return failure };
    failure
        .with_message(format!("cannot delete {noun} `{name}`: in use by {blockers}"))
        .hint(format!("run `otherix vm list` to see the VMs on the {noun}, and delete them first"))
}

/// The resource to delete.
struct DeletionTarget {
    id: Uuid,
    /// As the user specified it, or the name.
    name: String,
}

async fn delete<R: Deletable>(
    client: &mut ControlPlaneClient,
    DeletionTarget { id, name }: DeletionTarget,
    printer: &mut Printer,
) -> Result<R::Deleted, Failure> {
    let answer = client.call::<R::Delete>(&R::by_id(id)).await;
    let deleted = answer.map_err(|failure| blocked(not_found_hint::<R>(failure), R::NOUN, &name))?.data;
    if !printer.is_json() {
        printer.text(&format!("{} {} deleted\n", R::NOUN, clean(R::deleted_name(&deleted))))?;
    }
    Ok(deleted)
}

/// Determines the resource, and asks for confirmation on a terminal. A UUID is looked up only to show the name.
async fn confirm<R: Deletable>(
    client: &mut ControlPlaneClient,
    args: DeleteArgs,
    printer: &mut Printer,
) -> Result<DeletionTarget, Failure> {
    let DeleteArgs { reference, force, output: _ } = args;
    let interactive = !force && io::stdin().is_terminal();
    let parsed = NameOrId::new(&reference);
    if let (NameOrId::Id(id), false) = (&parsed, interactive) {
        return Ok(DeletionTarget { id: *id, name: reference });
    }
    let view: R = match parsed {
        NameOrId::Name(_) => parsed.look_up_live(client).await?,
        NameOrId::Id(_) => parsed.look_up(client).await?,
    };
    // If it is deleted already, the control plane refuses the request.
    if interactive && !view.is_deleted() {
        ask(R::NOUN, view.name(), printer).await?;
        client.renew();
    }
    Ok(DeletionTarget { id: view.id(), name: view.name().to_owned() })
}

/// Asks for confirmation.
async fn ask(noun: &str, name: &str, printer: &mut Printer) -> Result<(), Failure> {
    if is_confirmed(&format!("delete {noun} {name}? [y/N]"), printer).await {
        return Ok(());
    }
    let message = format!("{noun} `{name}` was not deleted");
    Err(Failure::new(Exit::Unexpected, ErrorCode::ValidationFailed, message).hint("answer `y` or pass `--force`"))
}

/// Asks a question. The answer is read by a separate thread, so that the connection is kept alive meanwhile.
pub(crate) async fn is_confirmed(question: &str, printer: &mut Printer) -> bool {
    printer.ask(question);
    let read = tokio::task::spawn_blocking(|| {
        let mut answer = Vec::new();
        io::stdin().lock().read_until(b'\n', &mut answer).map(|_| answer)
    });
    let answer = read.await.map(Result::unwrap_or_default).unwrap_or_default();
    if !answer.ends_with(b"\n") {
        printer.end_line();
    }
    let answer = String::from_utf8_lossy(&answer);
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
