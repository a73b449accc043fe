//! The command line.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::name::LabName;
use crate::target::{GuestName, LabNamespace, LabService, NodeNumber};

/// Several otherix nodes on one machine, each in a network namespace. Needs root.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct LabArgs {
    /// The lab's name: up to 20 of `a-z 0-9 -`
    #[arg(long, global = true, env = "OTHERIX_LAB", default_value = "lab")]
    pub(crate) lab: LabName,
    #[command(subcommand)]
    pub(crate) command: LabCommand,
}

const EXAMPLES: &str = "\
Examples:
  otherix-lab up --nodes 2
  eval \"$(otherix-lab env)\"
  otherix network create net-dev --bridge-name br-dev --managed --wait
  otherix-lab exec node-1 -- ip -d link show br-dev
  otherix-lab guest web --ip 10.20.0.5/24 && otherix-lab exec vm:web -- ping -c 1 203.0.113.1
  otherix-lab kill otherixd && otherix-lab start otherixd
  otherix-lab partition node-2 && otherix-lab status && otherix-lab heal node-2
  otherix-lab down";

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Start the lab, or its missing parts; returns when every node has joined
    #[command(after_help = "\
Examples:
  otherix-lab up                       # three nodes
  otherix-lab up --nodes 5             # adds nodes to the running lab
  otherix-lab --lab other up           # a second lab
  OTHERIX_BIN_DIR=target/release otherix-lab up")]
    Up(UpOptions),
    /// Print the shell exports that point `otherix` at the lab
    #[command(after_help = "\
Examples:
  eval \"$(otherix-lab env)\"")]
    Env,
    /// Run a command in a namespace of the lab, and exit with its exit code
    #[command(after_help = "\
Examples:
  otherix-lab exec node-1 -- ip -d link show br-dev
  otherix-lab exec node-1 -- ip link delete br-dev     # the agent recreates it
  otherix-lab exec vm:web -- ip address                # in a guest, see `otherix-lab guest --help`
  otherix-lab exec outside -- ping -c 1 10.99.0.11     # from the host outside, 203.0.113.1
  otherix-lab exec underlay -- ip neighbour
  otherix-lab exec node-2 -- bash                      # a shell on the node")]
    Exec {
        /// `node-N`; `vm:NAME`, a guest; `outside`, the host behind the nodes' default route; `underlay`, where the
        /// control plane runs
        target: LabNamespace,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Kill a process with SIGKILL; otherixd restarts `nats`
    #[command(after_help = "\
Examples:
  otherix-lab kill otherixd            # its nats-server ends with it
  otherix-lab kill nats
  otherix-lab kill node-1              # the agent of node-1; its devices stay")]
    Kill {
        /// `node-N`, `otherixd` or `nats`
        target: LabService,
    },
    /// Stop a process with SIGTERM; it stays stopped until `start`
    #[command(after_help = "\
Examples:
  otherix-lab stop node-2
  otherix-lab stop nats                # otherixd does not restart it")]
    Stop {
        /// `node-N`, `otherixd` or `nats`
        target: LabService,
    },
    /// Start a stopped process; returns when it is operational
    #[command(after_help = "\
Examples:
  otherix-lab start node-2
  otherix-lab start nats")]
    Start {
        /// `node-N`, `otherixd` or `nats`
        target: LabService,
    },
    /// Cut nodes off from the underlay: packets are dropped in both directions, links stay up
    #[command(after_help = "\
The agent keeps running and keeps its devices; the control plane receives nothing from the node. The partition
lasts until `heal`, across stops and starts. To cut off the control plane, cut off every node.

Examples:
  otherix-lab partition node-2
  otherix-lab partition node-1 node-3")]
    Partition {
        /// `node-N`
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<NodeNumber>,
    },
    /// End a partition: the node reaches the underlay again
    #[command(after_help = "\
Examples:
  otherix-lab heal node-2")]
    Heal {
        /// `node-N`
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<NodeNumber>,
    },
    /// Power-cycle a node; returns when its agent is operational
    #[command(after_help = "\
Every process on the node is killed, and its network namespace is replaced by a new one that has only the link to
the underlay, still cut off if it was. The agent's state is kept. Guests are kept but unplugged: plug them in again.

Examples:
  otherix-lab reboot node-2
  otherix-lab guest web --ip 10.20.0.5/24                  # a guest that was on the node
  otherix-lab stop nats && otherix-lab reboot node-2       # it starts from its ledger")]
    Reboot {
        /// `node-N`
        node: NodeNumber,
    },
    /// Plug a guest (a network namespace) into a VM's tap, in place of a virtual machine
    #[command(after_help = "\
The guest's eth0 has the MAC of the VM's NIC and the network's MTU. Frames pass through the tap's file descriptor;
if the tap is recreated, the guest is attached to the new one. Plugging in again changes the address.

Examples:
  otherix vm create web --network net-app --image-url https://example.org/debian.qcow2 --arch amd64 --wait
  otherix-lab guest web --ip 10.20.0.5/24
  otherix-lab exec vm:web -- ping -c 1 203.0.113.1
  otherix-lab guest web --remove")]
    Guest {
        /// Name of the VM
        #[arg(value_parser = GuestName::of_vm)]
        name: GuestName,
        #[command(flatten)]
        action: GuestAction,
    },
    /// Show the processes of the lab
    #[command(after_help = "\
States: `joined` (a node whose agent runs and has joined), `running`, `stopped`, `held` (nats, stopped until
`start nats`). Links of nodes: `up`, `partitioned`, `missing` (`otherix-lab up` restores it).

Examples:
  otherix-lab status
  otherix-lab status -o json | jq '.processes[] | select(.link == \"partitioned\") | .name'")]
    Status {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
        output: OutputFormat,
    },
    /// Stop and remove everything, in whatever state the lab is
    #[command(after_help = "\
Examples:
  otherix-lab down
  otherix-lab --lab other down")]
    Down,
    /// Forward connections from the listening socket on standard input into a namespace
    #[command(hide = true)]
    Forward { namespace: String },
    /// Relay frames between a VM's tap and its guest
    #[command(hide = true)]
    Relay(RelayEnds),
    /// Join as a node, unless that was done, and become its agent
    #[command(hide = true)]
    Node { node: u32 },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct GuestAction {
    /// Address of the guest, for example 10.20.0.5/24
    #[arg(long, value_name = "CIDR", required_unless_present = "remove")]
    pub(crate) ip: Option<Cidr>,
    /// Next hop of its default route; the network's gateway when absent
    #[arg(long, value_name = "IP", requires = "ip")]
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Unplug it and kill its processes
    #[arg(long, conflicts_with = "ip")]
    pub(crate) remove: bool,
}

/// The two ends of a relay.
#[derive(Clone, Debug, Args)]
pub(crate) struct RelayEnds {
    /// Namespace of the node
    pub(crate) node: String,
    /// The VM's tap in that namespace
    pub(crate) tap: String,
    /// Namespace of the guest
    pub(crate) guest: String,
}

/// An IPv4 address with a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: Ipv4Addr,
    prefix: u8,
}

impl FromStr for Cidr {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts =
            text.split_once('/').and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
        let parsed = parts.map(|(address, prefix)| Self { address, prefix });
        parsed.filter(|cidr| cidr.prefix <= 32).ok_or("must be an IPv4 address with a prefix, like 10.20.0.5/24")
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct UpOptions {
    /// Number of nodes, 1 to 200; a running lab is never reduced
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) nodes: u32,
    /// Folder of `otherixd`, `otherix-agent` and `otherix`; that of `otherix-lab` when absent
    #[arg(long, env = "OTHERIX_BIN_DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// The `nats-server` to run; the one on PATH when absent
    #[arg(long, env = "OTHERIX_NATS_SERVER")]
    pub(crate) nats_server: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    Text,
    /// For programs
    Json,
}
