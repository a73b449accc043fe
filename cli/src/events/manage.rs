//! `otherix events consumer list` and `otherix events consumer delete`.

use clap::Args;
use otherix_schemas::consumer::{ConsumerByName, ConsumerName, DeleteConsumer, ListConsumers, MyConsumers};
use otherix_schemas::violations::Violations;
use serde_json::json;

use super::fields;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::{Format, PlainListFormat};
use crate::output::table;
use crate::output::text::clean;

#[derive(Debug, Args)]
pub(crate) struct ListConsumersArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: PlainListFormat,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteConsumerArgs {
    /// The name
    #[arg(value_name = "NAME")]
    name: String,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const LIST_HELP: &str = "\
ACKNOWLEDGED is the position up to which everything is acknowledged, UNACKNOWLEDGED the number of events that are \
delivered and not acknowledged, PENDING that of events that are still to be delivered.

Examples:
  otherix events consumer list
  otherix events consumer list -o json";

pub(super) const DELETE_HELP: &str = "\
There is no confirmation prompt. A consumer of the same name that is created later begins anew.

Examples:
  otherix events consumer delete billing
  otherix events consumer delete billing -o json";

/// Carries out `list`.
pub(super) async fn list(global: &GlobalArgs, args: ListConsumersArgs, printer: &mut Printer) -> Result<(), Failure> {
    let ListConsumersArgs { output } = args;
    let mut client = ControlPlaneClient::connect(global).await?;
    let consumers = client.call::<ListConsumers>(&MyConsumers {}).await?.data;
    match output {
        PlainListFormat::Json => printer.data(&json!({ "data": consumers, "meta": { "next_cursor": null } })),
        PlainListFormat::Table => {
            printer.text(&table::table(&fields::COLUMNS, &consumers.iter().map(fields::row).collect::<Vec<_>>()))
        }
        PlainListFormat::Name => {
            let names: String = consumers.iter().map(|view| format!("{}\n", clean(view.name.as_str()))).collect();
            printer.text(&names)
        }
    }
}

/// Carries out `delete`.
pub(super) async fn delete(
    global: &GlobalArgs,
    args: DeleteConsumerArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let DeleteConsumerArgs { name, output: _ } = args;
    let name: ConsumerName = name.parse().map_err(|error| Violations::one("name", error))?;
    let mut client = ControlPlaneClient::connect(global).await?;
    let deleted = client.call::<DeleteConsumer>(&ConsumerByName { name }).await.map_err(|failure| {
        if failure.exit == Exit::NotFound {
            failure.hint("run `otherix events consumer list` to see your consumers")
        } else {
            failure
        }
    })?;
    if printer.is_json() {
        return printer.data(&deleted.data);
    }
    printer.text(&format!("consumer {} deleted\n", clean(deleted.data.name.as_str())))
}
