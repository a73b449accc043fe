//! The command line: every command has a variant of [`CliCommand`] and an arm in [`CliCommand::run`]. A resource has
//! one of each; its subcommands are in its folder. Values are only parsed here: the rules of `otherix_schemas` validate
//! them.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueHint};
use otherix_schemas::network::NetworkView;
use otherix_schemas::vm::VmView;
use serde_json::json;

use crate::client::GlobalArgs;
use crate::completion::{self, Shell};
use crate::failure::Failure;
use crate::manifest::{self, ApplyArgs, KindEntry, ManifestAction, ManifestArgs};
use crate::output::Printer;
use crate::output::format::Format;
use crate::{admin, audit, context, events, image, man, network, node, schema, status, user, vm};

/// The kinds of manifests, in the order in which resources are created.
pub(crate) const KINDS: &[KindEntry] = &[KindEntry::of::<NetworkView>(), KindEntry::of::<VmView>()];

/// Manage the networks of the VMs on a cluster of hypervisors
#[derive(Debug, Parser)]
#[command(name = "otherix", version, after_help = EXIT_CODES, arg_required_else_help = true)]
#[command(infer_long_args = false, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    #[command(subcommand)]
    Network(Box<network::NetworkSubcommand>),
    #[command(subcommand)]
    Vm(Box<vm::VmSubcommand>),
    #[command(subcommand)]
    Image(image::ImageSubcommand),
    #[command(subcommand)]
    Node(Box<node::NodeSubcommand>),
    #[command(subcommand)]
    Context(Box<context::ContextSubcommand>),
    #[command(subcommand)]
    User(Box<user::UserSubcommand>),
    #[command(subcommand)]
    Events(events::EventsSubcommand),
    #[command(subcommand)]
    Explain(events::explain::ExplainSubcommand),
    Status(status::StatusArgs),
    Schema(schema::SchemaArgs),
    /// Show what manifests would change, or what has changed between two moments, and by whom
    #[command(after_help = events::diff::HELP)]
    Diff(events::diff::DiffArgs),
    #[command(subcommand)]
    Bisect(events::bisect::BisectSubcommand),
    #[command(subcommand)]
    Audit(audit::AuditSubcommand),
    #[command(subcommand)]
    Admin(admin::AdminSubcommand),
    /// Create the resources defined in manifests
    #[command(after_help = manifest::CREATE_EXAMPLES, after_long_help = manifest_help(manifest::CREATE_EXAMPLES))]
    Create(ManifestArgs),
    /// Create or change resources to what manifests define
    #[command(after_help = manifest::APPLY_EXAMPLES, after_long_help = manifest_help(manifest::APPLY_EXAMPLES))]
    Apply(ApplyArgs),
    #[command(subcommand)]
    Edit(manifest::edit::EditSubcommand),
    /// Delete the resources defined in manifests
    #[command(after_help = manifest::DELETE_EXAMPLES, after_long_help = manifest_help(manifest::DELETE_EXAMPLES))]
    Delete(ManifestArgs),
    /// Print a shell script that completes commands, flags and values
    #[command(after_help = completion::EXAMPLES)]
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write man pages, one for each command
    #[command(after_help = man::HELP)]
    Man {
        /// The directory to write to
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
    /// Show the version of this client
    #[command(after_help = VERSION_EXAMPLES)]
    Version {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
}

const EXIT_CODES: &str = "\
Exit codes:
  0    success
  1    unexpected error
  2    invalid command line or request
  3    not found
  4    conflict with existing resources
  5    blocked by dependent resources
  6    not authenticated, or permission denied
  7    NATS or the control plane is unreachable or temporarily unavailable
  8    a node reported a failure (with --wait), or something is wrong (status)
  9    unexpected error of `diff -f`, whose exit code 1 says that there is a difference
  124  --wait-timeout expired

Data is written to stdout, everything else to stderr. With `-o json`, an error is one JSON object on stderr:
  {\"error\":{\"code\":…,\"message\":…,\"details\":{…}}}

Examples:
  otherix network create net-dev --bridge-name br-dev --managed --wait
  otherix network list
  otherix --server nats://10.0.0.5:4222 network get net-dev -o json";

const VERSION_EXAMPLES: &str = "\
Examples:
  otherix version
  otherix version -o json";

fn manifest_help(examples: &str) -> String {
    format!("{}\n\n{examples}", manifest::help(KINDS))
}

impl CliCommand {
    /// Carries out the command.
    pub(crate) async fn run(self, global: &GlobalArgs, printer: &mut Printer) -> Result<(), Failure> {
        match self {
            Self::Network(command) => network::run(global, *command, printer).await,
            Self::Vm(command) => vm::run(global, *command, printer).await,
            Self::Image(command) => image::run(global, command, printer).await,
            Self::Node(command) => node::run(global, *command, printer).await,
            Self::Context(command) => context::run(global, *command, printer),
            Self::User(command) => user::run(global, *command, printer).await,
            Self::Events(command) => events::run(global, command, printer).await,
            Self::Explain(command) => events::explain::run(global, command, printer).await,
            Self::Status(args) => status::run(global, args, printer).await,
            Self::Schema(args) => schema::run(global, args, printer).await,
            Self::Diff(args) => events::diff::run(global, args, printer).await,
            Self::Admin(command) => admin::run(global, command, printer).await,
            Self::Bisect(command) => events::bisect::run(global, command, printer).await,
            Self::Audit(command) => audit::run(global, command, printer).await,
            Self::Create(args) => manifest::run(global, ManifestAction::Create, KINDS, args, printer).await,
            Self::Apply(args) => manifest::apply(global, KINDS, args, printer).await,
            Self::Edit(command) => manifest::edit::run(global, command, KINDS, printer).await,
            Self::Delete(args) => manifest::run(global, ManifestAction::Delete, KINDS, args, printer).await,
            Self::Completion { shell } => printer.text(&completion::script(shell, Cli::command())),
            Self::Man { directory } => man::write(&directory, Cli::command(), printer),
            Self::Version { output } => version(output, printer),
        }
    }
}

fn version(format: Format, printer: &mut Printer) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match format {
        Format::Text => printer.text(&format!("otherix {version}\n")),
        Format::Json => printer.data(&json!({ "version": version })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
