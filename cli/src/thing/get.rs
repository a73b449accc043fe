//! `get`: one thing, and how it fares.

use clap::ValueEnum;

use super::{Reference, Thing};
use crate::args::{GetArgs, GetFormat, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Printer;

/// Carries out `get`.
pub(crate) async fn run<T: Thing>(
    global: &Global,
    args: GetArgs<impl ValueEnum + Into<GetFormat> + Send + Sync>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let GetArgs { thing, output, stale } = args;
    let mut client = Client::connect(global).await?.content_with_stale(stale);
    let view: T = Reference::new(&thing).look_up(&mut client).await?;
    match output.into() {
        GetFormat::Json => printer.data(&view),
        GetFormat::Yaml => printer.text(&view.manifest().unwrap_or_default()),
        GetFormat::Text => printer.text(&view.details()),
    }
}
