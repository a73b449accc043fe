//! The floors of this machine: a durable append, a round trip over NATS, the creation of a bridge. Each is measured
//! separately with the project's own code, in its own network namespace.
//!
//! It shares no server, journal or namespace with the lab, only the file system.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use otherix_agent::device::bridge::action::CreateBridge;
use otherix_agent::engine::Step;
use otherix_agent::engine::execute;
use otherix_agent::engine::remove::RemoveLink;
use otherix_agent::kernel::Kernel;
use otherix_agent::model::desired::DesiredBridge;
use otherix_agent::model::observed::Parts;
use otherix_commands::store::{Batch, Digest, Entry, EventStore, SqliteStore};
use otherix_runtime::SystemRuntime;
use otherix_schemas::id::{ClusterId, EventId, NetworkId};
use otherix_schemas::position::Position;
use otherix_testkit::nats::NatsServer;
use uuid::Uuid;

use crate::BenchError;

const SUBJECT: &str = "bench.echo";
const BRIDGE: &str = "br-floor";
const MTU: u32 = 1500;

/// One measurement of each floor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floors {
    pub(crate) append: Duration,
    pub(crate) round_trip: Duration,
    pub(crate) bridge: Duration,
}

/// The connections and devices used for the measurements.
pub(crate) struct FloorBench {
    journal: SqliteStore,
    position: Position,
    digest: Digest,
    body: Bytes,
    requester: Client,
    responder: Client,
    requests: Subscriber,
    kernel: Kernel,
    cluster: ClusterId,
}

impl FloorBench {
    /// Must be called in a separate namespace with `lo` up. `body` is the event that is appended each time.
    pub(crate) async fn new(server: &NatsServer, folder: &Path, body: Bytes) -> Result<Self, BenchError> {
        let cluster = ClusterId::new(Uuid::now_v7());
        let journal = SqliteStore::open(&folder.join("floor.db"), cluster).await?;
        let (requester, responder) =
            (async_nats::connect(server.url()).await?, async_nats::connect(server.url()).await?);
        let requests = responder.subscribe(SUBJECT).await?;
        responder.flush().await?;
        let (position, digest) = (Position::ZERO, Digest::GENESIS);
        Ok(Self { journal, position, digest, body, requester, responder, requests, kernel: Kernel::open()?, cluster })
    }

    /// Measures each floor in the order of a creation, `times` times.
    pub(crate) async fn measure(&mut self, times: u32) -> Result<Vec<Floors>, BenchError> {
        let mut floors = Vec::new();
        for number in 0..times {
            let (append, round_trip) = (self.append().await?, self.round_trip().await?);
            floors.push(Floors { append, round_trip, bridge: self.bridge(number)? });
        }
        self.remove_bridges(floors.len())?;
        Ok(floors)
    }

    /// Measures a durable append.
    async fn append(&mut self) -> Result<Duration, BenchError> {
        let position = self.position.next();
        let digest = self.digest.chain(&self.body);
        let entry = Entry {
            position,
            stream_id: format!("network/{}", Uuid::now_v7()),
            stream_version: 1,
            event_id: EventId::new(Uuid::now_v7()),
            type_name: "dev.otherix.network.created.v2".to_owned(),
            body: self.body.clone(),
            recorded_at: SystemRuntime::shared().now()?,
            digest,
        };
        let batch = Batch { entries: vec![entry], ..Batch::default() };
        let begin = Instant::now();
        self.journal.append(self.position, &batch).await?;
        let elapsed = begin.elapsed();
        (self.position, self.digest) = (position, digest);
        Ok(elapsed)
    }

    /// Measures a request and its reply between two connections, with payloads of the event's size.
    async fn round_trip(&mut self) -> Result<Duration, BenchError> {
        let begin = Instant::now();
        let request = self.requester.request(SUBJECT, self.body.clone());
        let answer = async {
            let message = self.requests.next().await.ok_or("the connection to NATS is closed")?;
            let reply = message.reply.ok_or("the request names no reply")?;
            self.responder.publish(reply, message.payload).await?;
            Ok::<(), BenchError>(())
        };
        let (answer, answered) = tokio::join!(request, answer);
        answered?;
        answer?;
        Ok(begin.elapsed())
    }

    /// Measures the creation of a managed bridge by the agent.
    fn bridge(&mut self, number: u32) -> Result<Duration, BenchError> {
        let bridge = DesiredBridge {
            name: format!("{BRIDGE}{number}"),
            mtu: MTU,
            mac: None,
            vlan: None,
            nat: None,
            allow_spoofing: false,
            dns: false,
        };
        let create = Step::new(CreateBridge { network: NetworkId::new(Uuid::now_v7()), bridge });
        let begin = Instant::now();
        self.execute(create)?;
        Ok(begin.elapsed())
    }

    /// Removes the bridges, and checks their number.
    fn remove_bridges(&mut self, count: usize) -> Result<(), BenchError> {
        let observed = self.kernel.read(Parts { links: true, ..Parts::default() })?;
        let created: Vec<_> =
            observed.links.into_iter().flatten().filter(|link| link.name.starts_with(BRIDGE)).collect();
        if created.len() != count {
            return Err(format!("{count} bridges were created, and {} exist", created.len()).into());
        }
        created.into_iter().try_for_each(|link| {
            let (index, name, link_kind) = (link.index, link.name, link.kind);
            self.execute(Step::new(RemoveLink { index, name, kind: "bridge", link_kind }))
        })
    }

    fn execute(&mut self, step: Step) -> Result<(), BenchError> {
        let results: Result<(), _> = execute(&mut self.kernel, &[step], self.cluster).into_iter().collect();
        Ok(results?)
    }

    /// Closes the journal.
    pub(crate) async fn close(self) {
        self.journal.close().await;
    }
}
