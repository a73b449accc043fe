//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::lab::LabName;
use crate::target::{Place, Target};

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
  otherix-lab down";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the lab, or what is missing of it; returns when every node has joined
    Up(UpOptions),
    /// Print the shell exports that make `otherix` talk to the lab
    Env,
    /// Run a command in a namespace of the lab
    Exec {
        /// `node-N`, or `underlay`, where the control plane runs
        target: Place,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Kill with SIGKILL; `nats` is started again by otherixd
    Kill {
        /// `node-N`, `otherixd` or `nats`
        target: Target,
    },
    /// Stop in an orderly way; it stays stopped until `start`
    Stop {
        /// `node-N`, `otherixd` or `nats`
        target: Target,
    },
    /// Start again, and return when it works
    Start {
        /// `node-N`, `otherixd` or `nats`
        target: Target,
    },
    /// Say what runs
    Status {
        /// How
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Stop and remove everything, whatever happened before
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
