//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::lab::LabName;
use crate::target::{Node, Place, Target};

/// Several otherix nodes on one machine, each in a network namespace. Needs root.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Which lab, where there are several: up to 20 of `a-z 0-9 -`
    #[arg(long, global = true, env = "OTHERIX_LAB", default_value = "lab")]
    pub(crate) lab: LabName,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  otherix-lab up --nodes 2
  eval \"$(otherix-lab env)\"
  otherix network create net-dev --bridge-name br-dev --managed --wait
  otherix-lab exec node-1 -- ip -d link show br-dev
  otherix-lab kill otherixd && otherix-lab start otherixd
  otherix-lab partition node-2 && otherix-lab status && otherix-lab heal node-2
  otherix-lab down";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the lab, or what is missing of it; returns when every node has joined
    #[command(after_help = "\
Examples:
  otherix-lab up                       # three nodes
  otherix-lab up --nodes 5             # two more
  otherix-lab --lab other up           # another lab beside it
  OTHERIX_BIN_DIR=target/release otherix-lab up")]
    Up(UpOptions),
    /// Print the shell exports that make `otherix` talk to the lab
    #[command(after_help = "\
Examples:
  eval \"$(otherix-lab env)\"")]
    Env,
    /// Run a command in a namespace of the lab; its exit code is the command's
    #[command(after_help = "\
Examples:
  otherix-lab exec node-1 -- ip -d link show br-dev
  otherix-lab exec node-1 -- ip link delete br-dev     # the agent makes it again
  otherix-lab exec underlay -- ip neighbour
  otherix-lab exec node-2 -- bash                      # look around")]
    Exec {
        /// `node-N`, or `underlay`, where the control plane runs
        target: Place,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Kill with SIGKILL; `nats` is started again by otherixd
    #[command(after_help = "\
Examples:
  otherix-lab kill otherixd            # its nats-server dies with it
  otherix-lab kill nats
  otherix-lab kill node-1              # the agent of node-1; what it made stays")]
    Kill {
        /// `node-N`, `otherixd` or `nats`
        target: Target,
    },
    /// Stop in an orderly way; it stays stopped until `start`
    #[command(after_help = "\
Examples:
  otherix-lab stop node-2
  otherix-lab stop nats                # otherixd does not start it again")]
    Stop {
        /// `node-N`, `otherixd` or `nats`
        target: Target,
    },
    /// Start again, and return when it works
    #[command(after_help = "\
Examples:
  otherix-lab start node-2
  otherix-lab start nats")]
    Start {
        /// `node-N`, `otherixd` or `nats`
        target: Target,
    },
    /// Cut nodes off from the underlay: packets are dropped both ways, and nobody is told
    #[command(after_help = "\
The agent goes on, and keeps what it has made; the control plane hears nothing of the node. It stays cut
off, whatever is stopped and started, until `heal`. To cut off the control plane, cut off every node.

Examples:
  otherix-lab partition node-2
  otherix-lab partition node-1 node-3")]
    Partition {
        /// `node-N`
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<Node>,
    },
    /// End a partition: the node reaches the underlay again
    #[command(after_help = "\
Examples:
  otherix-lab heal node-2")]
    Heal {
        /// `node-N`
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<Node>,
    },
    /// Say what runs
    #[command(after_help = "\
States: `joined` (a node whose agent runs and has joined), `running`, `stopped`, `held` (a nats that stays
stopped until `start nats`). Links of nodes: `up`, `partitioned`, `missing` (`up` mends that).

Examples:
  otherix-lab status
  otherix-lab status -o json | jq '.processes[] | select(.link == \"partitioned\") | .name'")]
    Status {
        /// How
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Stop and remove everything, whatever happened before
    #[command(after_help = "\
Examples:
  otherix-lab down
  otherix-lab --lab other down")]
    Down,
    /// Carry connections from the listening socket on standard input into a namespace
    #[command(hide = true)]
    Forward {
        /// The namespace
        namespace: String,
    },
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct UpOptions {
    /// How many nodes, 1 to 200; a running lab is only ever extended
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) nodes: u32,
    /// Where `otherixd`, `otherix-agent` and `otherix` are; beside `otherix-lab` when absent
    #[arg(long, env = "OTHERIX_BIN_DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// The `nats-server` to run; the one on PATH when absent
    #[arg(long, env = "OTHERIX_NATS_SERVER")]
    pub(crate) nats_server: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}
