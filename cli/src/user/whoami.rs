//! `otherix user whoami`.

use clap::Args;
use otherix_schemas::user::{CallerView, Myself, WhoAmI};

use super::fields::expiry;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::table;

#[derive(Debug, Args)]
pub(crate) struct WhoAmIArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const HELP: &str = "\
Shows the user as the control plane sees it, with the permissions of its role.

Examples:
  otherix user whoami
  otherix user whoami -o json";

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: WhoAmIArgs, printer: &mut Printer) -> Result<(), Failure> {
    let WhoAmIArgs { output: _ } = args;
    let mut client = ControlPlaneClient::connect(global).await?;
    let caller = client.call::<WhoAmI>(&Myself {}).await?.data;
    if printer.is_json() {
        return printer.data(&caller);
    }
    let CallerView { id, name, role, key, expires_at, permissions, permissions_for_own } = caller;
    let mut lines = vec![
        ("name", name),
        ("id", id.to_string()),
        ("role", role.to_string()),
        ("key", key.to_string()),
        ("expires", expiry(expires_at.as_ref())),
        ("permissions", permissions.join(" ")),
    ];
    if !permissions_for_own.is_empty() {
        lines.push(("for its own", permissions_for_own.join(" ")));
    }
    printer.text(&table::fields(&lines))
}
