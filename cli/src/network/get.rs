//! `otherix network get`: one network, and how it fares.

use super::Reference;
use crate::args::{Format, GetArgs, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Printer};

pub(super) async fn run(global: &Global, args: GetArgs, printer: &mut Printer) -> Result<(), Failure> {
    let mut client = Client::connect(global).await?;
    let view = Reference::new(&args.network).look_up(&mut client).await?;
    match args.output {
        Format::Json => printer.data(&view),
        Format::Text => printer.text(&output::network::details(&view)),
    }
}
