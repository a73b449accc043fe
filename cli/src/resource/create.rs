//! `create`, once the request is known: sends it, prints the resource, and waits for the nodes if requested.

use otherix_schemas::request::RequestType;
use otherix_schemas::violations::Violations;

use super::args::WaitArgs;
use super::wait;
use super::{Provisioned, Resource};
use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::LiveFeed;
use crate::output::Printer;
use crate::output::text::clean;

/// Carries out `create`.
pub(crate) async fn run<R: Provisioned>(
    mut client: ControlPlaneClient,
    request: &<R::Create as RequestType>::Body,
    wait: WaitArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    // Subscribed before the request, or the outcome of a fast node would be missed.
    let outcomes = if wait.wait { Some(LiveFeed::outcomes(&mut client).await?) } else { None };
    let created: R = send::<R>(&mut client, request).await.map_err(usage_hint::<R>)?;
    if !printer.is_json() {
        printer.text(&format!("{} {} created\n{}", R::NOUN, clean(created.name()), created.summary()))?;
        if let Some(note) = R::NOTE {
            printer.note(note);
        }
    }
    let Some(outcomes) = outcomes else {
        return if printer.is_json() { printer.data(&created) } else { Ok(()) };
    };
    let (last, result) = wait::until_ready(client, outcomes, created, wait.wait_timeout, printer).await;
    if printer.is_json() {
        printer.data(&last)?;
    }
    result
}

/// Sends the request. If something is not found, it is a resource that the request refers to.
pub(crate) async fn send<R: Provisioned>(
    client: &mut ControlPlaneClient,
    request: &<R::Create as RequestType>::Body,
) -> Result<R, Failure> {
    client.call::<R::Create>(request).await.map(|answer| answer.data).map_err(reference_hint::<R>)
}

/// Asks whether a creation would succeed. Fails as it would.
pub(crate) async fn try_out<R: Provisioned>(
    client: &mut ControlPlaneClient,
    request: &<R::Create as RequestType>::Body,
) -> Result<(), Failure> {
    client.try_out::<R::Create>(request).await.map(|_| ()).map_err(reference_hint::<R>)
}

pub(crate) fn reference_hint<R: Provisioned>(failure: Failure) -> Failure {
    if failure.exit != Exit::NotFound || R::REFERENCES.is_empty() {
        return failure;
    }
    let lists = R::REFERENCES.iter().map(|command| format!("`otherix {command} list`"));
    failure.hint(format!("run {} to see what exists", lists.collect::<Vec<_>>().join(" and ")))
}

/// The failure for a request that violates the rules.
pub(crate) fn invalid<R: Resource>(violations: Violations) -> Failure {
    usage_hint::<R>(violations.into())
}

fn usage_hint<R: Resource>(failure: Failure) -> Failure {
    if failure.exit == Exit::Usage {
        failure.hint(format!("see `otherix {} create --help` for the values that each flag accepts", R::COMMAND))
    } else {
        failure
    }
}
