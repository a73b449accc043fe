//! The command line: commands, flags, their help. Values are only read here; whether they obey the rules is for
//! [`otherix_schemas::rules`].

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::duration;

/// Where NATS listens when nobody says otherwise.
pub(crate) const DEFAULT_SERVER: &str = "nats://127.0.0.1:4222";

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    unexpected error
  2    usage: the command line or the request breaks rules
  3    not found
  4    conflict with what exists
  5    blocked by what depends on it
  6    no permission, or not authenticated
  7    NATS or the control plane cannot be reached, or cannot work now
  8    a node failed (with --wait)
  124  --wait-timeout has passed

Data goes to stdout, everything else to stderr. With `-o json` an error is one JSON object on stderr:
  {\"error\":{\"code\":…,\"message\":…,\"details\":{…}}}

Examples:
  otherix network create net-dev --bridge-name br-dev --managed --wait
  otherix network list
  otherix --server nats://10.0.0.5:4222 network get net-dev -o json";

const NETWORK_EXAMPLES: &str = "\
Examples:
  otherix network create net-dev --bridge-name br-dev --managed
  otherix net list --type bridge
  otherix net get net-dev
  otherix net delete net-dev";

const CREATE_EXAMPLES: &str = "\
A bridge with --managed belongs to the control plane, which makes, repairs and removes it on every node. Without --managed \
the bridge is somebody else's and is only checked for. Egress `nat` needs --managed and --subnet. An overlay needs --subnet \
and takes none of --bridge-name, --managed, --egress, --gateway, --mtu, --vlan.

Examples:
  otherix network create net-dev --bridge-name br-dev --managed --wait
  otherix network create net-app --bridge-name br-app --managed --egress nat --subnet 10.20.0.0/24
  otherix network create net-trunk --bridge-name br0 --vlan 120
  otherix network create net-east --type overlay --subnet 10.30.0.0/24 -o json";

const LIST_EXAMPLES: &str = "\
READY counts the nodes that are ready, of those that are expected to be. When there are more networks than fit, the last line \
on stderr is `next cursor: …` (in JSON: meta.next_cursor); pass it with --cursor for the next page.

Examples:
  otherix network list
  otherix network list --type overlay --show-ids
  otherix network list --limit 50 --cursor CURSOR -o json
  otherix network list -o name";

const GET_EXAMPLES: &str = "\
A deleted network can be shown by its UUID until every node has confirmed its removal.

Examples:
  otherix network get net-dev
  otherix network get 0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11 -o json";

const DELETE_EXAMPLES: &str = "\
Asks first when stdin is a terminal. A network that a VM's NIC uses is not deleted (exit code 5); --force does not change that.

Examples:
  otherix network delete net-dev
  otherix network delete net-dev --force --wait --wait-timeout 2m";

const VERSION_EXAMPLES: &str = "\
Examples:
  otherix version
  otherix version -o json";

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
    #[command(visible_alias = "net", after_help = NETWORK_EXAMPLES, arg_required_else_help = true)]
    Network {
        #[command(subcommand)]
        command: Box<NetworkCommand>,
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
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// List networks, in the order of their creation
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show one network, and how it fares on each node
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Delete a network
    #[command(after_help = DELETE_EXAMPLES)]
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

/// The forms of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// For people
    Table,
    /// For programs
    Json,
    /// One name on a line
    Name,
}

/// Whether to wait for the nodes, and for how long.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitArgs {
    /// Wait for the nodes: until each is ready, or has confirmed the removal
    #[arg(long)]
    pub(crate) wait: bool,

    /// How long to wait, with a unit: ms, s, m or h; at most 24h
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse, requires = "wait")]
    pub(crate) wait_timeout: Duration,
}

/// `network create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
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
    pub(crate) mtu: Option<i64>,

    /// The VLAN id, 1 to 4094 [default: untagged]
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    pub(crate) vlan: Option<i64>,

    /// Output format; with json and --wait the network is printed when the wait has ended
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `network list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this kind: bridge or overlay [default: both]
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,

    /// At most so many networks, 1 to 200 [default: 20]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) limit: Option<i64>,

    /// Where the page before ended
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub(crate) output: ListFormat,

    /// Put a column ID in front of the table
    #[arg(long)]
    pub(crate) show_ids: bool,
}

/// `network get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The network's name, whatever the case, or its UUID
    #[arg(value_name = "NAME|UUID")]
    pub(crate) network: String,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `network delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The network's name, whatever the case, or its UUID
    #[arg(value_name = "NAME|UUID")]
    pub(crate) network: String,

    /// Do not ask
    #[arg(long)]
    pub(crate) force: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

impl Command {
    /// Whether errors are to be JSON.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Version { output } => *output == Format::Json,
            Self::Network { command } => match command.as_ref() {
                NetworkCommand::Create(args) => args.output == Format::Json,
                NetworkCommand::List(args) => args.output == ListFormat::Json,
                NetworkCommand::Get(args) => args.output == Format::Json,
                NetworkCommand::Delete(args) => args.output == Format::Json,
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
