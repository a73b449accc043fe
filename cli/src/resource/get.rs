//! `get`: one resource and its status.

use clap::ValueEnum;

use super::args::GetArgs;
use super::{NameOrId, Resource};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::GetFormat;

/// Carries out `get`.
pub(crate) async fn run<R: Resource>(
    global: &GlobalArgs,
    args: GetArgs<impl ValueEnum + Into<GetFormat> + Send + Sync>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let GetArgs { reference, output, stale } = args;
    let mut client = ControlPlaneClient::connect(global).await?.accept_stale(stale);
    let view: R = NameOrId::new(&reference).look_up(&mut client).await?;
    match output.into() {
        GetFormat::Json => printer.data(&view),
        GetFormat::Yaml => printer.text(&view.manifest().unwrap_or_default()),
        GetFormat::Text => printer.text(&view.details()),
    }
}
