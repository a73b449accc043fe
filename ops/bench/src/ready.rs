//! The time from the request for a network until it is `ready` on every node of a lab, compared with the machine's
//! floors: a durable append, a round trip over NATS, the creation of a bridge.
//!
//! The lab's client and the floors have a thread each, because they need different network namespaces. They alternate,
//! so that other load on the machine affects both equally.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns;
use tokio::sync::{mpsc, oneshot};

use crate::BenchError;
use crate::floors::{FloorBench, Floors};
use crate::lab::BenchLab;
use crate::report::{self, report_progress};
use crate::rounds::{LabClient, Round};
use crate::thread::BenchThread;

/// Networks created in a row, and measurements of each floor between rows.
const ROW: u32 = 10;

/// All measurements, of creations and floors.
#[derive(Default)]
pub(crate) struct ReadyMeasurements {
    /// One at a time; the machine was idle before, except for the removal of bridges.
    pub(crate) idle: ReadySample,
    /// One after the other, when processor and disk are not in a power-saving state.
    pub(crate) warm: ReadySample,
}

/// Measurements taken under the same conditions.
#[derive(Default)]
pub(crate) struct ReadySample {
    pub(crate) rounds: Vec<Round>,
    pub(crate) floors: Vec<Floors>,
}

/// A request for a number of measurements of each floor.
type FloorsRequest = (u32, oneshot::Sender<Vec<Floors>>);

/// The folder for the floors' journal, and the event to append to it.
type JournalSample = (PathBuf, Bytes);

/// Creates a lab, measures in it, and returns a table.
pub(crate) async fn run(bin_dir: &Path, name: &str, nodes: u32, rounds: u32) -> Result<String, BenchError> {
    let nodes = usize::try_from(nodes)?;
    Ok(report::render(nodes, &measure(bin_dir, name, nodes, rounds).await?))
}

async fn measure(bin_dir: &Path, name: &str, nodes: usize, rounds: u32) -> Result<ReadyMeasurements, BenchError> {
    let lab; // dropped last: the floors' journal is in the lab's folder
    let (requests, requested) = mpsc::channel(1);
    let (sample, sampled) = oneshot::channel();
    // Before the lab: without a nats-server, this ends the process at once.
    let mut floors = BenchThread::start("floors", move || {
        netns::enter_new();
        let server = NatsServer::start();
        Ok(async move { serve_floors(&server, sampled, requested).await })
    })?;
    report_progress(&format!("bench: creating a lab of {nodes} nodes"));
    lab = BenchLab::up(bin_dir, name, nodes).await?;
    let access = lab.access();
    report_progress(&format!(
        "bench: {rounds} rounds and as many in rows; most of the time is spent removing the bridges"
    ));
    let mut client = BenchThread::start("client", move || {
        access.enter()?;
        Ok(async move {
            let mut client = LabClient::new(&access.endpoint()?, nodes).await?;
            let event = client.warm_up().await?;
            sample.send((access.folder().to_owned(), event)).map_err(|_| FLOORS_ENDED)?;
            take_turns(&mut client, rounds, requests).await
        })
    })?;
    let measured = client.result().await;
    // An error of the floors explains more than the client's error that they no longer answer.
    match floors.result().await {
        Err(error) if measured.is_ok() || !error.is::<oneshot::error::RecvError>() => Err(error),
        Ok(()) | Err(_) => measured,
    }
}

const FLOORS_ENDED: &str = "the measurement of the floors has ended";

/// Alternates between the floors and the creation of networks.
async fn take_turns(
    client: &mut LabClient,
    count: u32,
    floors: mpsc::Sender<FloorsRequest>,
) -> Result<ReadyMeasurements, BenchError> {
    let mut measured = ReadyMeasurements::default();
    let ReadyMeasurements { idle, warm } = &mut measured;
    for round in 0..count {
        idle.floors.extend(request(&floors, 1).await?);
        idle.rounds.push(client.round().await?);
        if round % ROW == ROW - 1 {
            warm.floors.extend(request(&floors, ROW).await?);
            warm.rounds.extend(client.row(ROW).await?);
        }
    }
    Ok(measured)
}

async fn request(floors: &mpsc::Sender<FloorsRequest>, times: u32) -> Result<Vec<Floors>, BenchError> {
    let (request, answer) = oneshot::channel();
    floors.send((times, request)).await.map_err(|_| FLOORS_ENDED)?;
    Ok(answer.await?)
}

/// Measures the floors on request, until the client has finished.
async fn serve_floors(
    server: &NatsServer,
    sample: oneshot::Receiver<JournalSample>,
    mut requests: mpsc::Receiver<FloorsRequest>,
) -> Result<(), BenchError> {
    let (folder, event) = sample.await?;
    let mut bench = FloorBench::new(server, &folder, event).await?;
    while let Some((times, answer)) = requests.recv().await {
        let _client_has_ended = answer.send(bench.measure(times).await?);
    }
    bench.close().await;
    Ok(())
}
