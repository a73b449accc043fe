//! Events: `otherix events …`.

pub(crate) mod bisect;
mod create;
pub(crate) mod diff;
pub(crate) mod explain;
mod fields;
mod line;
mod list;
mod manage;
mod names;
mod read;
mod select;

use clap::Subcommand;

pub(crate) use self::select::{Page, next_page};

use crate::client::GlobalArgs;
use crate::failure::Failure;
use crate::output::Printer;

/// List and follow events, and manage the durable consumers with which programs read them
#[derive(Debug, Subcommand)]
#[command(after_help = EVENTS_EXAMPLES)]
pub(crate) enum EventsSubcommand {
    /// List events
    #[command(after_help = list::LIST_HELP)]
    List(Box<list::ListEventsArgs>),
    /// Print events as they are recorded
    #[command(after_help = list::TAIL_HELP)]
    Tail(Box<list::TailEventsArgs>),
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

const EVENTS_EXAMPLES: &str = "\
Examples:
  otherix events list --since 1h
  otherix events tail --network net-dev
  otherix events consumer create billing --type vm.created --type vm.deleted";

const EXAMPLES: &str = "\
Examples:
  otherix events consumer create billing --type vm.created --type vm.deleted
  otherix events consumer list
  otherix events consumer delete billing";

/// Carries out a command.
pub(crate) async fn run(global: &GlobalArgs, command: EventsSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    use ConsumerSubcommand::{Create, Delete, List};
    match command {
        EventsSubcommand::List(args) => list::list(global, *args, printer).await,
        EventsSubcommand::Tail(args) => list::tail(global, *args, printer).await,
        EventsSubcommand::Consumer(Create(args)) => create::run(global, *args, printer).await,
        EventsSubcommand::Consumer(List(args)) => manage::list(global, args, printer).await,
        EventsSubcommand::Consumer(Delete(args)) => manage::delete(global, args, printer).await,
    }
}
