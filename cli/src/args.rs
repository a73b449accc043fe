//! The command line: commands, flags, their help. Values are only read here; whether they obey the rules is for
//! [`otherix_schemas::rules`].

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

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

/// A manifest, and what may be in it.
const MANIFEST_HELP: &str = "\
A manifest is YAML (or JSON), in several documents if there is `---` between them:

  apiVersion: otherix/v1
  kind: Network
  metadata: {name: net-app}
  spec:
    type: bridge              # or overlay, which takes only a subnet
    bridgeName: br-app
    managed: true
    egress: nat               # or none
    subnet: 10.20.0.0/24
    gateway: 10.20.0.1
    mtu: 1500
    vlan: 12

All files are checked before anything is sent: every problem is reported with its file, line and field, and then nothing is \
done (exit code 2). After that each document is tried whatever became of the others; the exit code is that of the first that \
failed. --dry-run checks too, and asks the control plane which networks exist, but changes nothing.";

const APPLY_EXAMPLES: &str = "\
Examples:
  otherix create -f networks.yaml
  otherix create -f networks.yaml --dry-run
  otherix network get net-app -o yaml | otherix create -f -";

const UNAPPLY_EXAMPLES: &str = "\
Networks are found by name; what else a manifest says of them does not matter. Nobody is asked. A network that a VM's NIC \
uses is reported and left (exit code 5), one that does not exist is reported (exit code 3).

Examples:
  otherix delete -f networks.yaml
  otherix delete -f networks.yaml -f more.yaml --dry-run
  otherix network list -o yaml | otherix delete -f -";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  otherix completion bash > /etc/bash_completion.d/otherix
  otherix completion zsh > \"${fpath[1]}/_otherix\"
  otherix completion fish > ~/.config/fish/completions/otherix.fish";

const MAN_EXAMPLES: &str = "\
Makes the folder if it is not there, and replaces pages that are; prints the files it wrote.

Examples:
  otherix man /usr/local/share/man/man1
  otherix man . && man ./otherix-network-create.1";

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

/// The forms of one network.
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

/// The forms of a list.
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

/// `network list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this kind: bridge or overlay [default: both]
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,

    /// At most so many networks, 1 to 200 [default: 20]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) limit: Option<String>,

    /// Where the page before ended
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub(crate) output: ListFormat,

    /// Put a column ID in front of the table
    #[arg(long)]
    pub(crate) show_ids: bool,

    /// Answer at once with what is known, even if it is behind what was just changed
    #[arg(long)]
    pub(crate) stale: bool,
}

/// `network get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The network's name, whatever the case, or its UUID
    #[arg(value_name = "NAME|UUID")]
    pub(crate) network: String,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = GetFormat::Text)]
    pub(crate) output: GetFormat,

    /// Answer at once with what is known, even if it is behind what was just changed
    #[arg(long)]
    pub(crate) stale: bool,
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
            Self::Completion { .. } | Self::Man { .. } => false,
            Self::Create(args) | Self::Delete(args) => args.output == Format::Json,
            Self::Network { command } => match command.as_ref() {
                NetworkCommand::Create(args) => args.output == Format::Json,
                NetworkCommand::List(args) => args.output == ListFormat::Json,
                NetworkCommand::Get(args) => args.output == GetFormat::Json,
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
