//! The benches of otherix, run manually (`make bench`). Wiring only.
//!
//! Parts that need a network namespace run in a separate thread. Nothing is left behind, not even after SIGINT and
//! SIGTERM.

mod bridges;
mod floors;
mod lab;
mod mesh;
mod names;
mod nat;
mod processor;
mod read_models;
mod ready;
mod report;
mod rounds;
mod thread;
mod tlog;
mod vms;
mod writes;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

type BenchError = Box<dyn std::error::Error + Send + Sync>;

/// Benches of otherix. Without a flag that selects one: --ready, --etcd, --queries, --networks, --start,
/// --read-models and --tlog, which takes about fifteen minutes. Needs release builds of all programs; --ready,
/// --bridges, --nat, --vms, --names, --mesh and --mesh-peers need root.
#[derive(Debug, Parser)]
#[command(name = "otherix-bench", version)]
struct BenchArgs {
    #[command(flatten)]
    select: Select,
    /// With --ready: networks to create one at a time, and as many again (rounded down to tens) in rows of ten
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rounds: u32,
    /// With --ready: nodes of the lab
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=200))]
    nodes: u32,
    /// With --ready and --vms: the lab's name; an existing lab of this name is removed
    #[arg(long, default_value = "bench")]
    lab: String,
    /// With --start, --read-models, --past, --tlog and --audit: events in the journal
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    events: u32,
    /// With --mesh: seconds of each run
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// With --audit: a folder that keeps the journal and its export; what it has is not created again
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Folder of otherix's programs; that of the bench when absent
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// The part to run, instead of those of `make bench`.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Select {
    /// From `network create` to `ready` on every node of a lab, compared with the machine's floors
    #[arg(long)]
    ready: bool,
    /// Commands per second, compared with etcd
    #[arg(long)]
    etcd: bool,
    /// Time that a query takes while commands are written
    #[arg(long)]
    queries: bool,
    /// Commands per second with 10, 1,000 and 100,000 networks
    #[arg(long)]
    networks: bool,
    /// Time to start with a long journal
    #[arg(long)]
    start: bool,
    /// Rate at which read models are rebuilt from events
    #[arg(long)]
    read_models: bool,
    /// Time that queries about the past take
    #[arg(long)]
    past: bool,
    /// Rate at which the transparency log is built, and the time that its checkpoints and proofs take
    #[arg(long)]
    tlog: bool,
    /// What checkpoints of the transparency log cost commands per second
    #[arg(long)]
    checkpoints: bool,
    /// Rates at which events are exported, verified and replayed, and the memory that each takes
    #[arg(long)]
    audit: bool,
    /// The agent's reconciliation with this many bridges
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(20..=10_000))]
    bridges: Option<u32>,
    /// The agent's reconciliation with this many networks with NAT
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(20..=10_000))]
    nat: Option<u32>,
    /// One node with this many VMs
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=5_000))]
    vms: Option<u32>,
    /// Questions about names that a node answers in a second, and the time that its answers of DHCP take
    #[arg(long)]
    names: bool,
    /// The mesh device, compared with other installed userspace WireGuards
    #[arg(long)]
    mesh: bool,
    /// What the mesh costs an idle node that has this many peers
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    mesh_peers: Option<u16>,
}

fn main() -> ExitCode {
    match run(&BenchArgs::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::report_progress(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &BenchArgs) -> Result<(), BenchError> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        // From now on these signals end the bench by dropping its guards.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => Err("stopped by SIGTERM".into()),
            _ = interrupt.recv() => Err("stopped by SIGINT".into()),
            result = measure(args) => result,
        }
    })
}

/// Runs the selected parts, and prints each result as soon as it is available.
async fn measure(args: &BenchArgs) -> Result<(), BenchError> {
    let own = std::env::current_exe()?;
    let bin_dir = args.bin_dir.as_deref().or(own.parent()).ok_or("this program is in no folder")?;
    if let Some(measured) = measure_alone(args, bin_dir).await {
        return print(measured);
    }
    let Select { ready, etcd, queries, networks, start, read_models, past, tlog, audit, .. } = args.select;
    let all = !(ready || etcd || queries || networks || start || read_models || past || tlog || audit);
    if all || ready {
        print(ready::run(bin_dir, &args.lab, args.nodes, args.rounds).await)?;
    }
    if all || etcd {
        print(writes::beside_etcd(bin_dir).await)?;
    }
    if all || queries {
        print(writes::queries_under_load(bin_dir).await)?;
    }
    if all || networks {
        print(writes::many_networks(bin_dir).await)?;
    }
    if all || start {
        print(writes::start_with_many_events(bin_dir, args.events).await)?;
    }
    if all || read_models {
        print(read_models::run(args.events).await)?;
    }
    if past {
        print(read_models::past::run(args.events).await)?;
    }
    if audit {
        print(writes::audited(bin_dir, args.events, args.keep.as_deref()).await)?;
    }
    if all || tlog {
        print(tlog::run(args.events))?;
    }
    Ok(())
}

/// Runs the first selected part of those that run alone.
async fn measure_alone(args: &BenchArgs, bin_dir: &Path) -> Option<Result<String, BenchError>> {
    let Select { checkpoints, bridges, nat, vms, names, mesh, mesh_peers, .. } = args.select;
    Some(if let Some(count) = bridges {
        bridges::run(count).await
    } else if let Some(count) = nat {
        nat::run(count).await
    } else if let Some(count) = vms {
        vms::run(bin_dir, &args.lab, count).await
    } else if names {
        names::run().await
    } else if let Some(count) = mesh_peers {
        mesh::idle::run(bin_dir, count).await
    } else if mesh {
        mesh::run(bin_dir, args.seconds).await
    } else if checkpoints {
        writes::checkpoint_cost(bin_dir).await
    } else {
        return None;
    })
}

fn print(text: Result<String, BenchError>) -> Result<(), BenchError> {
    Ok(report::print(&text?)?)
}
