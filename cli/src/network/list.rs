//! `otherix network list`: one page, maybe of one kind only.

use otherix_schemas::network::{NetworkKind, NetworkPageRequest, NetworkView};
use otherix_schemas::request::PageRequest;
use otherix_schemas::violations::Violations;

use crate::args::{Global, ListNetworksArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::thing::list;

pub(super) async fn run(global: &Global, args: ListNetworksArgs, printer: &mut Printer) -> Result<(), Failure> {
    let ListNetworksArgs { kind, list } = args;
    let mut violations = Violations::default();
    if let Some(kind) = &kind {
        violations.check("type", kind.parse::<NetworkKind>());
    }
    let (PageRequest { limit, cursor }, form) = list::read(list, &mut violations);
    if !violations.is_empty() {
        return Err(violations.into());
    }
    list::show::<NetworkView>(global, &NetworkPageRequest { kind, limit, cursor }, form, printer).await
}
