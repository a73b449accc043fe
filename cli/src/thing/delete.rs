//! `delete`: ask the person if there is one, ask the control plane, and wait for the nodes if asked to.

use std::io::{self, BufRead, IsTerminal};

use otherix_schemas::error::ErrorCode;
use uuid::Uuid;

use super::wait::{self, Waiting};
use super::{Deletable, Made, Reference, not_found_hint};
use crate::args::{DeleteAndWaitArgs, DeleteArgs, Global};
use crate::client::Client;
use crate::exit::{Exit, blockers};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::text::clean;

/// Carries out `delete` of what need not be waited for.
pub(crate) async fn at_once<T: Deletable>(
    global: &Global,
    args: DeleteArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut client = Client::connect(global).await?;
    let goal = resolve::<T>(&mut client, args, printer).await?;
    let deleted = delete::<T>(&mut client, goal, printer).await?;
    if printer.is_json() { printer.data(&deleted) } else { Ok(()) }
}

/// Carries out `delete`, and waits for the nodes if asked to.
pub(crate) async fn run<T: Made>(
    global: &Global,
    args: DeleteAndWaitArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let DeleteAndWaitArgs { delete: args, wait } = args;
    let mut client = Client::connect(global).await?;
    let goal = resolve::<T>(&mut client, args, printer).await?;
    let waiting = if wait.wait { Some(Waiting::new(&mut client).await?) } else { None };
    let deleted = delete::<T>(&mut client, goal, printer).await?;
    let Some(waiting) = waiting else {
        return if printer.is_json() { printer.data(&deleted) } else { Ok(()) };
    };
    let (last, result) = wait::until_gone(client, waiting, deleted, (wait.wait_timeout, printer)).await;
    if printer.is_json() {
        printer.data(&last)?;
    }
    result
}

/// What to delete, and what it is called.
type Goal = (Uuid, String);

/// Has it deleted, and says so to people.
async fn delete<T: Deletable>(
    client: &mut Client,
    (id, called): Goal,
    printer: &mut Printer,
) -> Result<T::Deleted, Failure> {
    let answer = client.call::<T::Delete>(&T::by_id(id)).await;
    let deleted = answer.map_err(|failure| explained(not_found_hint::<T>(failure), T::WHAT, &called))?.data;
    if !printer.is_json() {
        printer.text(&format!("{} {} deleted\n", T::WHAT, clean(T::name_of(&deleted))))?;
    }
    Ok(deleted)
}

/// What to delete, agreed with the person if there is one. A UUID is looked up only to ask with the name.
async fn resolve<T: Deletable>(client: &mut Client, args: DeleteArgs, printer: &mut Printer) -> Result<Goal, Failure> {
    let DeleteArgs { thing, force, output: _ } = args;
    let asks = !force && io::stdin().is_terminal();
    let reference = Reference::new(&thing);
    if let (Reference::Id(id), false) = (&reference, asks) {
        return Ok((*id, thing));
    }
    let view: T = reference.look_up(client).await?;
    // One that is deleted already is for the control plane to refuse.
    if asks && !view.is_deleted() {
        confirm(&format!("{} {}", T::WHAT, view.name()), printer).await?;
        client.renew();
    }
    Ok((view.id(), view.name().to_owned()))
}

/// Asks. The connection is kept alive meanwhile, so the answer is read on a thread of its own.
async fn confirm(what: &str, printer: &mut Printer) -> Result<(), Failure> {
    printer.ask(&format!("delete {what}? [y/N]"));
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
    let message = format!("{what} was not deleted");
    Err(Failure::new(Exit::Unexpected, ErrorCode::ValidationFailed, message).hint("answer `y`, or pass --force"))
}

/// A deletion's failure, saying what stands in the way if something does.
fn explained(failure: Failure, what: &str, name: &str) -> Failure {
    let Some(blockers) = blockers(&failure.body.error) else { return failure };
    failure
        .said(format!("cannot delete {what} {name}: blocked by {blockers}"))
        .hint(format!("`otherix vm list` shows which VMs are on the {what}; `otherix vm delete` frees it of them"))
}
