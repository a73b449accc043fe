//! The command line: commands, flags, their help. Values are only read here; whether they obey the rules is for
//! [`otherix_schemas::rules`].

mod help;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::duration;
use help::{
    APPLY_EXAMPLES, COMPLETION_EXAMPLES, EXIT_CODES, MAN_EXAMPLES, MANIFEST_HELP, UNAPPLY_EXAMPLES, VERSION_EXAMPLES,
    network, node, vm,
};

/// Where NATS listens when nobody says otherwise.
pub(crate) const DEFAULT_SERVER: &str = "nats://127.0.0.1:4222";

/// Networks for the VMs of a cluster of hypervisors.
#[derive(Debug, Parser)]
#[command(name = "otherix", version, after_help = EXIT_CODES, arg_required_else_help = true)]
#[command(infer_long_args = false, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The NATS server to talk to
    #[arg(long, global = true, value_name = "URL", env = "OTHERIX_NATS_URL", hide_env_values = true)]
    #[arg(default_value = DEFAULT_SERVER, help_heading = "Global options")]
    pub(crate) server: String,

    /// The credentials file [default: ~/.config/otherix/credentials.json]
    #[arg(long, global = true, value_name = "FILE", env = "OTHERIX_CREDENTIALS", hide_env_values = true)]
    #[arg(help_heading = "Global options")]
    pub(crate) credentials: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, show and delete networks
    #[command(visible_alias = "net", after_help = network::EXAMPLES, arg_required_else_help = true)]
    Network {
        #[command(subcommand)]
        command: Box<NetworkCommand>,
    },
    /// Create, show and delete VMs
    #[command(after_help = vm::EXAMPLES, arg_required_else_help = true)]
    Vm {
        #[command(subcommand)]
        command: Box<VmCommand>,
    },
    /// Show and remove the nodes of the cluster
    #[command(after_help = node::EXAMPLES, arg_required_else_help = true)]
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Create what manifests describe
    #[command(after_help = APPLY_EXAMPLES, after_long_help = format!("{MANIFEST_HELP}\n\n{APPLY_EXAMPLES}"))]
    Create(ManifestArgs),
    /// Delete what manifests describe
    #[command(after_help = UNAPPLY_EXAMPLES, after_long_help = format!("{MANIFEST_HELP}\n\n{UNAPPLY_EXAMPLES}"))]
    Delete(ManifestArgs),
    /// Print a script that completes commands, flags and their values
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completion {
        /// The shell that is to run the script
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the man pages, one for each command
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// The folder to write them into
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
    /// Show the version of this client
    #[command(after_help = VERSION_EXAMPLES)]
    Version {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
}

/// The commands on networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Create a network
    #[command(after_help = network::CREATE)]
    Create(CreateNetworkArgs),
    /// List networks, in the order of their creation
    #[command(after_help = network::LIST)]
    List(ListNetworksArgs),
    /// Show one network, and how it fares on each node
    #[command(after_help = network::GET)]
    Get(GetArgs<GetFormat>),
    /// Delete a network
    #[command(after_help = network::DELETE)]
    Delete(DeleteAndWaitArgs),
}

/// The commands on VMs.
#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// Create a VM
    #[command(after_help = vm::CREATE)]
    Create(CreateVmArgs),
    /// List VMs, in the order of their creation
    #[command(after_help = vm::LIST)]
    List(ListArgs<ListFormat>),
    /// Show one VM, and how its NIC fares on its node
    #[command(after_help = vm::GET)]
    Get(GetArgs<GetFormat>),
    /// Delete a VM
    #[command(after_help = vm::DELETE)]
    Delete(DeleteAndWaitArgs),
}

/// The commands on nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes, in the order of their joining
    #[command(after_help = node::LIST)]
    List(ListArgs<PlainListFormat>),
    /// Show one node, and how each network fares on it
    #[command(after_help = node::GET)]
    Get(GetArgs<Format>),
    /// Remove a node from the cluster, for good
    #[command(after_help = node::DELETE)]
    Delete(DeleteArgs),
}

/// Text or JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// The forms of one thing that manifests describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetFormat {
    /// For people
    Text,
    /// For programs
    Json,
    /// A manifest for `otherix create -f`
    Yaml,
}

/// The shells that completions are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU bash
    Bash,
    /// The Z shell
    Zsh,
    /// The friendly interactive shell
    Fish,
}

/// The forms of a list of what manifests describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// For people
    Table,
    /// For programs
    Json,
    /// Manifests for `otherix create -f`
    Yaml,
    /// One name on a line
    Name,
}

/// The forms of a list of what no manifest describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlainListFormat {
    /// For people
    Table,
    /// For programs
    Json,
    /// One name on a line
    Name,
}

impl From<Format> for GetFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Json => Self::Json,
        }
    }
}

impl From<PlainListFormat> for ListFormat {
    fn from(format: PlainListFormat) -> Self {
        match format {
            PlainListFormat::Table => Self::Table,
            PlainListFormat::Json => Self::Json,
            PlainListFormat::Name => Self::Name,
        }
    }
}

/// Whether to wait for the nodes, and for how long.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitArgs {
    /// Wait for the nodes: until they are ready, or have confirmed the removal
    #[arg(long)]
    pub(crate) wait: bool,

    /// How long to wait, with a unit: ms, s, m or h; at most 24h
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse, requires = "wait")]
    pub(crate) wait_timeout: Duration,
}

/// `create -f` and `delete -f`.
#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    /// A file of manifests, or `-` for standard input; may be given again
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,

    /// Change nothing: check, and say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `network create`.
#[derive(Debug, Args)]
pub(crate) struct CreateNetworkArgs {
    /// The name: 1 to 255 characters without `/`, unique whatever the case, not shaped like a UUID
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// The kind: bridge or overlay [default: bridge]
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,

    /// The bridge on each node, required for a bridge: 1 to 15 of `A-Z a-z 0-9 _ -`, beginning with a letter
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) bridge_name: Option<String>,

    /// The control plane makes, repairs and removes the bridge
    #[arg(long)]
    pub(crate) managed: bool,

    /// The way out: none, or nat behind the node's address [default: none]
    #[arg(long, value_name = "EGRESS")]
    pub(crate) egress: Option<String>,

    /// The IPv4 subnet, /8 to /30, such as 10.20.0.0/24: for egress nat and for overlays
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet: Option<String>,

    /// The node's IPv4 address in the subnet [default: the subnet's first host]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Option<String>,

    /// The MTU in bytes, 68 to 9216 [default: 1500; an overlay's follows from the underlay]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub(crate) mtu: Option<String>,

    /// The VLAN id, 1 to 4094 [default: untagged]
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    pub(crate) vlan: Option<String>,

    /// Output format; with json and --wait the network is printed when the wait has ended
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `vm create`.
#[derive(Debug, Args)]
pub(crate) struct CreateVmArgs {
    /// The name: 1 to 255 characters without `/`, unique whatever the case, not shaped like a UUID
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Where the image of its disk is, required: http:// or https://
    #[arg(long, value_name = "URL")]
    pub(crate) image_url: Option<String>,

    /// The architecture, required: amd64 or arm64
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<String>,

    /// The network of its NIC [default: the VM has no NIC]
    #[arg(long, value_name = "NAME|UUID")]
    pub(crate) network: Option<String>,

    /// The node that it is to be on [default: the one with the fewest NICs, of those that are reachable and where the network has not failed]
    #[arg(long, value_name = "NAME|UUID")]
    pub(crate) node: Option<String>,

    /// Output format; with json and --wait the VM is printed when the wait has ended
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `network list`.
#[derive(Debug, Args)]
pub(crate) struct ListNetworksArgs {
    /// Only this kind: bridge or overlay [default: both]
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,

    #[command(flatten)]
    pub(crate) list: ListArgs<ListFormat>,
}

/// `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs<F: ValueEnum + Clone + Send + Sync + 'static> {
    /// At most so many, 1 to 200 [default: 20]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) limit: Option<String>,

    /// Where the page before ended
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: F,

    /// Put a column ID in front of the table
    #[arg(long)]
    pub(crate) show_ids: bool,

    /// Answer at once with what is known, even if it is behind what was just changed
    #[arg(long)]
    pub(crate) stale: bool,
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs<F: ValueEnum + Clone + Send + Sync + 'static> {
    /// Its name, whatever the case, or its UUID
    #[arg(value_name = "NAME|UUID")]
    pub(crate) thing: String,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: F,

    /// Answer at once with what is known, even if it is behind what was just changed
    #[arg(long)]
    pub(crate) stale: bool,
}

/// `delete` of what is waited for.
#[derive(Debug, Args)]
pub(crate) struct DeleteAndWaitArgs {
    #[command(flatten)]
    pub(crate) delete: DeleteArgs,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Its name, whatever the case, or its UUID
    #[arg(value_name = "NAME|UUID")]
    pub(crate) thing: String,

    /// Do not ask
    #[arg(long)]
    pub(crate) force: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

impl Command {
    /// Whether errors are to be JSON.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Version { output } => *output == Format::Json,
            Self::Completion { .. } | Self::Man { .. } => false,
            Self::Create(args) | Self::Delete(args) => args.output == Format::Json,
            Self::Network { command } => match command.as_ref() {
                NetworkCommand::Create(args) => args.output == Format::Json,
                NetworkCommand::List(args) => args.list.output == ListFormat::Json,
                NetworkCommand::Get(args) => args.output == GetFormat::Json,
                NetworkCommand::Delete(args) => args.delete.output == Format::Json,
            },
            Self::Vm { command } => match command.as_ref() {
                VmCommand::Create(args) => args.output == Format::Json,
                VmCommand::List(args) => args.output == ListFormat::Json,
                VmCommand::Get(args) => args.output == GetFormat::Json,
                VmCommand::Delete(args) => args.delete.output == Format::Json,
            },
            Self::Node { command } => match command {
                NodeCommand::List(args) => args.output == PlainListFormat::Json,
                NodeCommand::Get(args) => args.output == Format::Json,
                NodeCommand::Delete(args) => args.output == Format::Json,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
