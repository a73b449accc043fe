//! `get`: one resource and its status.

use std::ops::ControlFlow;

use clap::ValueEnum;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::violations::Violations;

use super::args::{AtArgs, GetArgs};
use super::{NameOrId, Resource, watch};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::GetFormat;

/// Carries out `get`.
pub(crate) async fn run<R: Resource>(
    global: &GlobalArgs,
    args: GetArgs<impl ValueEnum + Into<GetFormat> + Send + Sync>,
    at: AtArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let GetArgs { reference, output, stale, watch } = args;
    let output = output.into();
    let mut violations = Violations::default();
    let at = at.parse(&mut violations);
    if !violations.is_empty() {
        return Err(violations.into());
    }
    let mut client = ControlPlaneClient::connect(global).await?.accept_stale(stale);
    client.look_at(at);
    let found = NameOrId::new(&reference).look_up(&mut client).await;
    let view: R = found.map_err(|failure| if at.is_some() { existed_hint::<R>(failure) } else { failure })?;
    if watch {
        return watched(view, output, &mut client, printer).await;
    }
    match output {
        GetFormat::Json => printer.data(&view),
        GetFormat::Yaml => printer.text(&view.manifest().unwrap_or_default()),
        GetFormat::Text => printer.text(&view.details()),
    }
}

fn existed_hint<R: Resource>(failure: Failure) -> Failure {
    if failure.body.error.code == ErrorCode::NotFound {
        failure.hint(format!("it did not exist then: `otherix {} list --at WHEN` shows what did", R::COMMAND))
    } else {
        failure
    }
}

/// Prints the resource whenever its output changes, until it does not exist any more.
async fn watched<R: Resource>(
    first: R,
    output: GetFormat,
    client: &mut ControlPlaneClient,
    printer: &mut Printer,
) -> Result<(), Failure> {
    // By id: the name may become that of another one.
    let id = NameOrId::Id(first.id());
    let mut shown = String::new();
    let show = |view: R, printer: &mut Printer| {
        let text = match output {
            // Serialisation fails only for maps with keys that are not strings, of which there are none.
            GetFormat::Json => serde_json::to_string(&view).unwrap_or_default() + "\n",
            GetFormat::Yaml => format!("---\n{}", view.manifest().unwrap_or_default()),
            GetFormat::Text => view.details(),
        };
        if text == shown {
            return Ok(ControlFlow::Continue(()));
        }
        let separator = if shown.is_empty() || output != GetFormat::Text { "" } else { "\n" };
        let printed = printer.stream(&format!("{separator}{text}"));
        shown = text;
        printed
    };
    watch::run(client, printer, async |client| id.look_up::<R>(client).await, show).await
}
