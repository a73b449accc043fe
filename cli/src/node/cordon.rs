//! `otherix node cordon` and `uncordon`.

use clap::Args;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{CordonView, NodeById, NodeView};
use otherix_schemas::request::RequestType;

use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;
use crate::resource::{NameOrId, not_found_hint};

#[derive(Debug, Args)]
pub(crate) struct CordonArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Carries out one of them.
pub(super) async fn run<R: RequestType<Body = NodeById, Answer = CordonView>>(
    global: &GlobalArgs,
    CordonArgs { reference, output: _ }: CordonArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut client = ControlPlaneClient::connect(global).await?;
    let id = NodeId::new(NameOrId::new(&reference).resolve::<NodeView>(&mut client).await?);
    let view = client.call::<R>(&NodeById { id }).await.map_err(not_found_hint::<NodeView>)?.data;
    if printer.is_json() {
        return printer.data(&view);
    }
    printer.text(&text(&view))
}

fn text(CordonView { name, cordoned, vms, .. }: &CordonView) -> String {
    let name = clean(name.as_str());
    match (cordoned, vms) {
        (false, _) => format!("node {name} uncordoned\n"),
        (true, 0) => format!("node {name} cordoned: no VM is on it\n"),
        (true, 1) => format!("node {name} cordoned: 1 VM stays on it\n"),
        (true, vms) => format!("node {name} cordoned: {vms} VMs stay on it\n"),
    }
}
