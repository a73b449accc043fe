//! `otherix node set`.

use clap::Args;
use otherix_schemas::change::{Applied, ChangeResult};
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{ChangeNode, NodeChangeRequest, NodeView};
use otherix_schemas::violations::Violations;

use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::manifest::change_text;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;
use crate::resource::change::{self, MetadataArgs};
use crate::resource::{NameOrId, not_found_hint};

#[derive(Debug, Args)]
pub(crate) struct SetNodeArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    #[command(flatten)]
    metadata: MetadataArgs,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const HELP: &str = "\
Changes what people say about a node; what else it is, it tells itself.

Examples:
  otherix node set node-1 --label rack=7 --description \"to be replaced in May\"
  otherix node set node-1 --label rack-";

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: SetNodeArgs, printer: &mut Printer) -> Result<(), Failure> {
    let SetNodeArgs { reference, metadata, output: _ } = args;
    let mut violations = Violations::default();
    let changes = metadata.into_changes(&mut violations);
    change::require_some(&changes, &mut violations);
    if !violations.is_empty() {
        return Err(violations.into());
    }
    let mut client = ControlPlaneClient::connect(global).await?;
    let id = NodeId::new(NameOrId::new(&reference).resolve::<NodeView>(&mut client).await?);
    let answer = client.call::<ChangeNode>(&NodeChangeRequest { id, changes }).await;
    let applied = answer.map_err(not_found_hint::<NodeView>)?.data;
    if printer.is_json() {
        return printer.data(&applied);
    }
    let Applied { result, changes, resource } = applied;
    let result = if result == ChangeResult::Unchanged { "unchanged" } else { "changed" };
    let changes: String = changes.iter().map(|change| format!("  {}\n", change_text(change))).collect();
    printer.text(&format!("node {} {result}\n{changes}", clean(resource.name.as_str())))
}
