//! `otherix network list`.

use otherix_schemas::network::{NetworkKind, NetworkPageRequest, NetworkView};
use otherix_schemas::request::PageRequest;
use otherix_schemas::violations::Violations;

use super::fields::TYPES;
use crate::client::GlobalArgs;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::ListFormat;
use crate::resource::args::{self, completes_to};
use crate::resource::list;

#[derive(Debug, clap::Args)]
pub(crate) struct ListNetworksArgs {
    /// Only networks of this type: bridge or overlay
    #[arg(long = "type", value_name = "TYPE", value_parser = completes_to(&TYPES), hide_possible_values = true)]
    kind: Option<String>,

    #[command(flatten)]
    list: args::ListAtArgs<ListFormat>,
}

pub(super) const HELP: &str = "\
READY counts the nodes on which the network is ready, of those that are expected to report; it is `deleting` for a \
deleted network that nodes have yet to remove, which is not in the formats name and yaml. The table has one page. If \
there are more networks, the last line on stderr is `next cursor: …`: pass it with --cursor for the next page. The \
other formats list all networks, unless --limit or --cursor asks for a page (in JSON, meta.next_cursor is the next \
cursor).

Examples:
  otherix network list
  otherix network list --type overlay --show-ids
  otherix network list --limit 50 --cursor CURSOR -o json
  otherix network list --at 1h
  otherix network list -o name";

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: ListNetworksArgs, printer: &mut Printer) -> Result<(), Failure> {
    let ListNetworksArgs { kind, list: args::ListAtArgs { list, at } } = args;
    let mut violations = Violations::default();
    if let Some(kind) = &kind {
        violations.check("type", kind.parse::<NetworkKind>());
    }
    let (page, style) = list::parse(list, at, &mut violations);
    if !violations.is_empty() {
        return Err(violations.into());
    }
    let request = |PageRequest { limit, cursor }| NetworkPageRequest { kind: kind.clone(), limit, cursor };
    list::show::<NetworkView>(global, page, request, style, printer).await
}
