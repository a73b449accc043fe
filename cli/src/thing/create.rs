//! Creation, once it is known what is asked for: ask, show what came of it, and wait for the nodes if asked to.

use otherix_schemas::request::RequestType;

use super::wait::{self, Waiting};
use super::{Made, Thing};
use crate::args::WaitArgs;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::text::clean;

/// Creates what the request describes.
pub(crate) async fn run<T: Made>(
    mut client: Client,
    request: &<T::Create as RequestType>::Body,
    wait: WaitArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    // Before the request, or a quick node's outcome would come before the ears.
    let waiting = if wait.wait { Some(Waiting::new(&mut client).await?) } else { None };
    let created: T = ask::<T>(&mut client, request).await.map_err(rules_hint::<T>)?;
    if !printer.is_json() {
        printer.text(&format!("{} {} created\n{}", T::WHAT, clean(created.name()), created.fields()))?;
        if let Some(note) = T::NOTE {
            printer.note(note);
        }
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

/// Asks for it. What is missing, if anything is, is something that the request names.
pub(crate) async fn ask<T: Made>(
    client: &mut Client,
    request: &<T::Create as RequestType>::Body,
) -> Result<T, Failure> {
    match client.call::<T::Create>(request).await {
        Ok(answer) => Ok(answer.data),
        Err(failure) if failure.exit == Exit::NotFound => {
            Err(failure.hint("`otherix network list` and `otherix node list` show what there is"))
        }
        Err(failure) => Err(failure),
    }
}

/// The failure of a creation, with where to read about the rules if it is about them.
pub(crate) fn rules_hint<T: Thing>(failure: Failure) -> Failure {
    if failure.exit == Exit::Usage {
        failure.hint(format!("`otherix {} create --help` says what each flag may be", T::COMMAND))
    } else {
        failure
    }
}
