//! `otherix network get`: one network, and how it fares.

use super::Reference;
use crate::args::{GetArgs, GetFormat, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Printer};

pub(super) async fn run(global: &Global, args: GetArgs, printer: &mut Printer) -> Result<(), Failure> {
    let mut client = Client::connect(global).await?.content_with_stale(args.stale);
    let view = Reference::new(&args.network).look_up(&mut client).await?;
    match args.output {
        GetFormat::Json => printer.data(&view),
        GetFormat::Yaml => printer.text(&output::yaml::manifest(&view)),
        GetFormat::Text => printer.text(&output::network::details(&view)),
    }
}
