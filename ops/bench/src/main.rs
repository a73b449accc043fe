//! How long it takes from the request for a network until it is `ready` on every node of a lab, beside what the machine
//! cannot do faster. Wiring only.
//!
//! The lab's client and the floors have a thread each, for each needs a network namespace of its own; they take turns, so
//! that whatever else the machine does falls on both alike. Nothing is left behind, on SIGINT and SIGTERM too.

mod bridges;
mod floors;
mod lab;
mod mesh;
mod nat;
mod part;
mod report;
mod rounds;
mod vms;

use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Parser;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::floors::{Bench, Floors};
use crate::lab::Lab;
use crate::part::Part;
use crate::rounds::{Client, Round};

/// So many networks, and so many of each floor, make a row.
const ROW: u32 = 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Time from `network create` to `ready`, beside its measured floors. Needs root, and release builds of all programs.
#[derive(Debug, Parser)]
#[command(name = "otherix-bench", version)]
struct Args {
    /// How many networks to create when the machine is idle, and as many again (but for less than ten) in rows of ten
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rounds: u32,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=200))]
    nodes: u32,
    /// The lab to make for it; one of this name that is there is removed
    #[arg(long, default_value = "bench")]
    lab: String,
    /// Measure the agent's reconciliation alone instead, with so many bridges
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(20..=10_000))]
    bridges: Option<u32>,
    /// Measure the mesh device instead, beside other userspace WireGuards that are installed
    #[arg(long, conflicts_with_all = ["bridges", "nat", "vms"])]
    mesh: bool,
    /// Seconds of each run of the mesh bench
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Measure the agent's way out alone instead, with so many networks with NAT egress
    #[arg(long, value_name = "COUNT", conflicts_with = "bridges", value_parser = clap::value_parser!(u32).range(20..=10_000))]
    nat: Option<u32>,
    /// Measure one node with so many VMs instead
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["bridges", "nat"], value_parser = clap::value_parser!(u32).range(1..=5_000))]
    vms: Option<u32>,
    /// Where the programs of otherix are; beside this one when absent
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// What was measured, creations and floors alike.
#[derive(Default)]
struct Measured {
    /// One at a time: the machine was idle before, but for the removal of bridges.
    idle: Taken,
    /// One after the other: processor and disk are not just waking up.
    warm: Taken,
}

/// What was measured under the same conditions.
#[derive(Default)]
struct Taken {
    rounds: Vec<Round>,
    floors: Vec<Floors>,
}

/// Asks for so many measurements of each floor.
type Ask = (u32, oneshot::Sender<Vec<Floors>>);

/// Where the floors' journal is to be, and the event that it is to hold.
type Material = (PathBuf, Bytes);

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let nodes = usize::try_from(args.nodes)?;
    let text = Builder::new_current_thread().enable_all().build()?.block_on(async {
        // From here on these signals end the bench by way of its guards.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let bench = async {
            match (args.bridges, args.nat, args.vms) {
                (Some(count), _, _) => bridges::run(count).await,
                (None, Some(count), _) => nat::run(count).await,
                (None, None, Some(count)) => vms::run(&bin_dir(args)?, &args.lab, count).await,
                (None, None, None) if args.mesh => mesh::run(&bin_dir(args)?, args.seconds).await,
                (None, None, None) => Ok(report::render(nodes, &measure(args, nodes).await?)),
            }
        };
        tokio::select! {
            _ = terminate.recv() => Err("stopped by SIGTERM".into()),
            _ = interrupt.recv() => Err("stopped by SIGINT".into()),
            text = bench => text,
        }
    })?;
    Ok(report::print(&text)?)
}

/// Where the programs are that are measured.
fn bin_dir(args: &Args) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let folder = args.bin_dir.as_deref().or(own.parent()).ok_or("this program is in no folder")?;
    Ok(folder.to_owned())
}

/// Makes the lab, and measures in it.
async fn measure(args: &Args, nodes: usize) -> Result<Measured, Failure> {
    let bin_dir = bin_dir(args)?;
    let lab; // dropped last: the floors' journal is in the lab's folder
    let (asks, asked) = mpsc::channel(1);
    let (material, given) = oneshot::channel();
    // Before there is a lab: without a server this ends the process at once.
    let mut floors = Part::start("floors", move || {
        netns::enter_new();
        let server = NatsServer::start();
        Ok(async move { serve_floors(&server, given, asked).await })
    })?;
    report::say(&format!("bench: making a lab of {nodes} nodes"));
    lab = Lab::up(&bin_dir, &args.lab, nodes).await?;
    let (access, rounds) = (lab.access(), args.rounds);
    report::say(&format!(
        "bench: {rounds} rounds and as many in rows, of which removing the bridges takes most of the time"
    ));
    let mut client = Part::start("client", move || {
        access.enter()?;
        Ok(async move {
            let mut client = Client::new(&access.endpoint()?, nodes).await?;
            let event = client.warm_up().await?;
            material.send((access.folder().to_owned(), event)).map_err(|_| "nobody measures the floors")?;
            take_turns(&mut client, rounds, asks).await
        })
    })?;
    let measured = client.result().await;
    // What went wrong with the floors says more than that they do not answer.
    match floors.result().await {
        Err(error) if measured.is_ok() || !error.is::<oneshot::error::RecvError>() => Err(error),
        Ok(()) | Err(_) => measured,
    }
}

/// Measures the floors and creates a network, over and over.
async fn take_turns(client: &mut Client, count: u32, floors: mpsc::Sender<Ask>) -> Result<Measured, Failure> {
    let mut measured = Measured::default();
    let Measured { idle, warm } = &mut measured;
    for round in 0..count {
        idle.floors.extend(ask(&floors, 1).await?);
        idle.rounds.push(client.round().await?);
        // Interleaved, so that whatever else the machine does falls on all alike.
        if round % ROW == ROW - 1 {
            warm.floors.extend(ask(&floors, ROW).await?);
            warm.rounds.extend(client.row(ROW).await?);
        }
    }
    Ok(measured)
}

async fn ask(floors: &mpsc::Sender<Ask>, times: u32) -> Result<Vec<Floors>, Failure> {
    let (ask, answer) = oneshot::channel();
    floors.send((times, ask)).await.map_err(|_| "nobody measures the floors")?;
    Ok(answer.await?)
}

/// Measures the floors each time that it is asked, until nobody asks any more.
async fn serve_floors(
    server: &NatsServer,
    material: oneshot::Receiver<Material>,
    mut asked: mpsc::Receiver<Ask>,
) -> Result<(), Failure> {
    let (folder, event) = material.await?;
    let mut bench = Bench::new(server, &folder, event).await?;
    while let Some((times, answer)) = asked.recv().await {
        let _nobody_waits = answer.send(bench.measure(times).await?);
    }
    bench.close().await;
    Ok(())
}
