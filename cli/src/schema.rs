//! JSON Schemas: `otherix schema`.

use clap::Args;
use otherix_schemas::schema::{GetSchema, ListSchemas, NoBody, SchemaByName, SchemaSummary};

use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::table::table;

/// Print a JSON Schema of an event, a request or an answer; without NAME, list them
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct SchemaArgs {
    /// The name, such as network.created.v1, or the `dataschema` of an event
    name: Option<String>,

    /// Output format; a schema itself is always JSON
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

const HELP: &str = "\
The schemas are those of the control plane, which may have another version than this client. Schemas of stored events \
never change.

Examples:
  otherix schema
  otherix schema network.created.v1 > network.created.v1.json
  otherix schema network.create.request";

/// Carries out the command.
pub(crate) async fn run(global: &GlobalArgs, args: SchemaArgs, printer: &mut Printer) -> Result<(), Failure> {
    let SchemaArgs { name, output: _ } = args;
    let mut client = ControlPlaneClient::connect(global).await?;
    let Some(name) = name else {
        let schemas = client.call::<ListSchemas>(&NoBody {}).await?.data;
        if printer.is_json() {
            return printer.data(&schemas);
        }
        let row = |SchemaSummary { name, description }: SchemaSummary| vec![name, first_sentence(&description)];
        let rows: Vec<_> = schemas.into_iter().map(row).collect();
        return printer.text(&table(&["NAME", "DESCRIPTION"], &rows));
    };
    let view = client.call::<GetSchema>(&SchemaByName { name }).await?.data;
    printer.data(&view.schema)
}

/// Up to the first full stop or colon.
fn first_sentence(text: &str) -> String {
    let end = [". ", ": "].iter().filter_map(|mark| text.find(mark)).min();
    text.get(..end.unwrap_or(text.len())).unwrap_or(text).trim_end_matches('.').to_owned()
}
