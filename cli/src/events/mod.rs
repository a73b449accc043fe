//! Events: `otherix events …`.

mod create;
mod fields;
mod manage;
mod read;

use clap::Subcommand;

use crate::client::GlobalArgs;
use crate::failure::Failure;
use crate::output::Printer;

/// Manage the durable consumers with which programs read the events
#[derive(Debug, Subcommand)]
pub(crate) enum EventsSubcommand {
    #[command(subcommand)]
    Consumer(ConsumerSubcommand),
}

/// Manage your durable consumers of the stream of events
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum ConsumerSubcommand {
    /// Create a durable consumer
    #[command(after_help = create::HELP)]
    Create(Box<create::CreateConsumerArgs>),
    /// List your durable consumers
    #[command(after_help = manage::LIST_HELP)]
    List(manage::ListConsumersArgs),
    /// Delete a durable consumer
    #[command(after_help = manage::DELETE_HELP)]
    Delete(manage::DeleteConsumerArgs),
}

const EXAMPLES: &str = "\
Examples:
  otherix events consumer create billing --type vm.created --type vm.deleted
  otherix events consumer list
  otherix events consumer delete billing";

/// Carries out a command.
pub(crate) async fn run(global: &GlobalArgs, command: EventsSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    let EventsSubcommand::Consumer(command) = command;
    match command {
        ConsumerSubcommand::Create(args) => create::run(global, *args, printer).await,
        ConsumerSubcommand::List(args) => manage::list(global, args, printer).await,
        ConsumerSubcommand::Delete(args) => manage::delete(global, args, printer).await,
    }
}
