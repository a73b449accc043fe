//! Administration of the control plane: `otherix admin …`.

mod projection;

use clap::Subcommand;

use self::projection::ProjectionSubcommand;
use crate::client::GlobalArgs;
use crate::failure::Failure;
use crate::output::Printer;

/// Administrate the control plane
#[derive(Debug, Subcommand)]
#[command(after_help = projection::HELP)]
pub(crate) enum AdminSubcommand {
    #[command(subcommand)]
    Projection(ProjectionSubcommand),
}

/// Carries out a command.
pub(crate) async fn run(global: &GlobalArgs, command: AdminSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        AdminSubcommand::Projection(command) => projection::run(global, command, printer).await,
    }
}
